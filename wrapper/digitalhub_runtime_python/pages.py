"""The pages of the documentation, which are in the wheel: `dhpy help TOPIC`, and the names of the variables."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from digitalhub_runtime_python.errors import UsageFault

_PACKAGES = (
    "digitalhub_runtime_python",
    "digitalhub_python_builder",
    "digitalhub_python_control",
)
_VARIABLE = re.compile(r"DHPY_[A-Z0-9_]*[A-Z0-9]")


def topics() -> dict[str, Path]:
    """Topic (`guides/jobs`, `reference/errors`) -> its page."""
    installed = Path(__file__).with_name("pages")
    # In a clone they lie where they are written.
    root = installed if installed.is_dir() else Path(__file__).parents[2] / "docs"
    return {p.relative_to(root).with_suffix("").as_posix(): p for p in sorted(root.glob("*/*.md"))}


def find(topic: str) -> str:
    """The text of a topic: of a page by its name or path, or what errors.md says of a fault's code.

    Raises:
        UsageFault: usage/topic
    """
    known = topics()
    for name, page in known.items():
        if topic in (name, name.partition("/")[2]):
            return page.read_text("utf-8")
    if "reference/errors" in known:
        for line in known["reference/errors"].read_text("utf-8").splitlines():
            if line.startswith(f"| `{topic}` |"):
                code, status, when, advice = (cell.strip() for cell in line.strip("|").split(" | "))
                return f"{code}, exit status {status}\n\nWhen: {when}\n\nWhat to do: {advice}\n"
    short = [name.partition("/")[2] for name in known]
    close = difflib.get_close_matches(topic, [*known, *short], n=1)
    raise UsageFault(
        "usage/topic",
        f"There is no topic {topic!r}.",
        f"Did you mean {close[0]!r}?" if close else "`dhpy help` lists them.",
    )


def unknown_variables(names: Iterable[str]) -> list[str]:
    """A sentence for each variable `DHPY_…` that nothing reads, with the nearest that there is."""
    given = [n for n in names if n.startswith("DHPY_") and not n.startswith("DHPY_TEST_")]
    if not given:
        return []
    known = _named_in(topics().values())
    if set(given) - known:  # the pages are twenty files, the sources ten times as many
        known |= _named_in(
            file
            for package in _PACKAGES
            for spec in [importlib.util.find_spec(package)]
            for place in (spec.submodule_search_locations or () if spec else ())
            for file in Path(place).rglob("*.py")
        )
    sentences = []
    for name in sorted(set(given) - known):
        close = difflib.get_close_matches(name, sorted(known), n=1)
        nearest = f" Did you mean {close[0]}?" if close else ""
        sentences.append(f"There is no variable {name}; it does nothing.{nearest}")
    return sentences


def _named_in(files: Iterable[Path]) -> set[str]:
    return {name for file in files for name in _VARIABLE.findall(file.read_text("utf-8"))}
