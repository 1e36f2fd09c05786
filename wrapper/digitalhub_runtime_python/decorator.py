"""`@handler`: names the outputs of a function and leaves the function as it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable, TypeVar, Union, overload

F = TypeVar("F", bound=Callable[..., Any])

MARK = "__digitalhub_outputs__"
"""The attribute that `handler` sets. Only this mark decides; `__wrapped__` of other decorators does not."""

OutputDeclaration = Union[str, "dict[str, Any]"]


@overload
def handler(function: F) -> F: ...
@overload
def handler(
    *, outputs: OutputDeclaration | Iterable[OutputDeclaration] | None = None
) -> Callable[[F], F]: ...


def handler(
    function: F | None = None,
    *,
    outputs: OutputDeclaration | Iterable[OutputDeclaration] | None = None,
) -> F | Callable[[F], F]:
    """Name what a function returns.

    `@handler(outputs=["data", "score"])` names two returned values; an entry may also be a dict
    `{"name": …, "kind": …, "spec_kwargs": {…}}` that forces the kind of the stored entity. A single
    name or dict needs no list around it. The function itself is returned unchanged, so it can be
    called, tested and served as it is.

    Raises:
        TypeError: an entry is neither a name nor a dict with a name.
        ValueError: a name is declared twice.
    """
    declared = [outputs] if isinstance(outputs, (str, dict)) else list(outputs or [])
    names = [_name_of(entry) for entry in declared]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"@handler declares output {twice[0]!r} twice; each output needs its own name."
        )

    def mark(function: F) -> F:
        # A bound method or a builtin has no __dict__ of its own: setattr then says so by itself.
        setattr(function, MARK, declared)
        return function

    return mark if function is None else mark(function)


def declared_outputs(function: Callable[..., Any]) -> list[OutputDeclaration]:
    """The outputs that `@handler` recorded on this very function, `[]` where it recorded none."""
    # functools.wraps copies __dict__, and so the mark: that is right, the wrapper returns what the
    # marked function returns, and its author put @handler below on purpose.
    return list(getattr(function, MARK, []))


def _name_of(entry: OutputDeclaration) -> str:
    name = entry.get("name") if isinstance(entry, dict) else entry
    if not isinstance(name, str) or not name:
        raise TypeError(f"@handler outputs are names or dicts with a 'name'; got {entry!r}.")
    return name
