"""Names, ids and references: which there can be, and text that every database takes."""

from __future__ import annotations

import re

from digitalhub_runtime_python.errors import UsageFault

_SLUG = re.compile(r"[a-zA-Z0-9._+-]{1,256}")
# The documentation's own examples have a project my_project; DigitalHub Core itself takes no "_".
_PROJECT = re.compile(r"[a-z0-9_-]{2,38}")
_REFERENCE = re.compile(r"([a-zA-Z0-9._+-]+)://([a-z0-9_-]+)/([^/:]+)(?::([^/:]+))?")


def check_project_name(name: object) -> str:
    """The name of a project, if Core would take it.

    Raises:
        UsageFault: it would not.
    """
    if not isinstance(name, str) or not _PROJECT.fullmatch(name):
        raise UsageFault(
            "usage/name",
            f"A project cannot be named {str(name)[:80]!r}.",
            "Use 2 to 38 lower-case letters, digits, - and _.",
        )
    return name


def check_name(name: object, what: str) -> str:
    """A name or id, if Core would take it; `what` is for the message.

    Raises:
        UsageFault: it would not.
    """
    if not isinstance(name, str) or not _SLUG.fullmatch(name) or not name.strip("."):
        raise UsageFault(
            "usage/name",
            f"The {what} cannot be {str(name)[:80]!r}.",
            "Use letters, digits and . _ + - (up to 256, and not dots alone).",
        )
    return name


def parse_reference(value: object, what: str) -> tuple[str, str, str, str | None]:
    """`kind://project/name:id` as (kind, project, name, id); a task's has its id for a name.

    Raises:
        UsageFault: it is no such reference; the message names `what`.
    """
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise UsageFault(
            "usage/key",
            f"The {what} {str(value)[:120]!r} is not a reference.",
            "Write it like python://project/name:id.",
        )
    kind, project, name, identity = found.groups()
    return kind, project, name, identity


def check_same(sent: object, stored: str, what: str) -> None:
    """Refuse an entity that says it is another one than its address says.

    Raises:
        UsageFault: `sent` is given, and is not `stored`.
    """
    if sent not in (None, "", stored):
        raise UsageFault(
            "usage/address",
            f"The {what} in the body is {str(sent)[:80]!r}; in the address it is {stored!r}.",
            "Send it to its own address.",
        )


def plain(text: str) -> str:
    """The text without what no database takes: halves of surrogate pairs, and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")
