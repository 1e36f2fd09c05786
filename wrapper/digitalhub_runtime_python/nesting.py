"""JSON and YAML that come from elsewhere, and are no deeper than everything that walks them can go.

How deep Python's own readers and writers go differs by version, and by how deep the stack is where they are
called: what one of them takes, the next one may not. So there is one limit, far below all of theirs.
"""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 200
"""Levels of lists and objects within each other."""
ENTITY = 100
"""The same of what a platform stores: it is read within lists and other entities."""
RESULT = 50
"""The same of a result, which is read within a run; what is deeper becomes an artifact."""
MOST_NODES = 100_000
"""Values that the aliases of a YAML document may make of it; what is written out may be as long as it likes."""


def read_json(text: str | bytes, deepest: int = DEEPEST) -> Any:
    """A value from JSON.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep(deepest) from None
    if may_be_deep(text, deepest):
        check_depth(value, deepest)
    return value


def may_be_deep(text: str | bytes, deepest: int = DEEPEST) -> bool:
    """Whether JSON is worth a look at its depth; counting brackets costs next to nothing, and few texts have as many."""
    if isinstance(text, str):
        return text.count("[") + text.count("{") > deepest
    return text.count(b"[") + text.count(b"{") > deepest


def check_depth(value: Any, deepest: int = DEEPEST) -> None:
    """Refuse a value of lists and dicts that is nested too deeply.

    Raises:
        ValueError: it is.
    """
    if is_deep(value, deepest):
        raise _too_deep(deepest)


def is_deep(value: Any, deepest: int = DEEPEST) -> bool:
    """Whether lists and dicts lie deeper within each other than so many levels."""
    level = [value] if type(value) in (dict, list) else []
    for _ in range(deepest):
        inside = (one.values() if type(one) is dict else one for one in level)
        level = [one for many in inside for one in many if type(one) in (dict, list)]
        if not level:
            return False
    return True


def read_yaml(text: str) -> list[Any]:
    """The documents of a YAML text.

    Raises:
        ImportError: PyYAML is not installed.
        ValueError: it is not YAML, nested too deeply, or its aliases make it too large.
    """
    import yaml

    sizes: dict[int, int] = {}

    class Loader(yaml.SafeLoader):
        depth = -1
        written = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.depth == DEEPEST:
                raise _too_deep()
            self.depth += 1
            self.written += 1
            node: Any = super().compose_node(parent, index)
            self.depth -= 1
            if id(node) in sizes:  # an alias of what is complete
                return node
            parts = node.value if not isinstance(node.value, str) else ()
            if isinstance(node, yaml.MappingNode):
                parts = [one for pair in parts for one in pair]
            sizes[id(node)] = 1 + sum(sizes.get(id(one), MOST_NODES) for one in parts)
            if sizes[id(node)] > max(MOST_NODES, self.written):
                raise yaml.YAMLError("its aliases make it too large")
            return node

    try:
        found = list(yaml.load_all(text, Loader))
    except yaml.YAMLError as exc:
        raise ValueError(" ".join(str(exc).split())) from exc
    for document in found:
        check_depth(document)
    return found


def _too_deep(deepest: int = DEEPEST) -> ValueError:
    return ValueError(f"it is nested too deeply, more than {deepest} levels")
