"""Parses pip requirements before anything is done with them: PEP 508, no options, no surprises."""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from digitalhub_runtime_python.errors import EnvironmentFault

URL_SCHEMES = frozenset({"https", "http", "file", "git+https", "git+http", "git+ssh", "git+file"})
"""What may stand after `name @`; git's other transports (`ext::`) run commands."""

_COMMENT = re.compile(r"(^|\s)#.*$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PASSWORD = re.compile(r"(?<=://)[^/\s@]+(?=@)")


def parse_requirements(values: Iterable[str]) -> tuple[Requirement, ...]:
    """Parse requirements as they stand in a function's `requirements` or in a requirements.txt.

    Empty entries and comments are left out; the order is kept.

    Raises:
        EnvironmentFault: an entry is no PEP 508 requirement; the message names the entry.
    """
    if isinstance(values, (str, bytes)):
        raise _fault(str(values), "requirements are a list of strings, not one string")
    parsed = (_parse(value) for value in values)
    return tuple(requirement for requirement in parsed if requirement is not None)


def normalise(values: Iterable[str]) -> tuple[str, ...]:
    """The same set of requirements in one spelling and order, without repetitions.

    Raises:
        EnvironmentFault: as `parse_requirements`.
    """
    return tuple(sorted({_spelled(requirement) for requirement in parse_requirements(values)}))


def redact(text: str) -> str:
    """`text` with the user names and passwords of its URLs replaced, for messages and logs."""
    return _PASSWORD.sub("***", text)


def _parse(value: object) -> Requirement | None:
    if not isinstance(value, str):
        raise _fault(repr(value), f"it is {type(value).__name__}, not a string")
    # A line break would smuggle in a second line, which may be an option such as --index-url.
    if _CONTROL.search(value.strip("\r\n\t ")):
        raise _fault(value, "it contains a line break or another control character")
    text = _COMMENT.sub("", value).strip()
    if not text:
        return None
    if text.startswith("-"):
        raise _fault(text, "options cannot be given here")
    try:
        requirement = Requirement(text)
    except InvalidRequirement as exc:
        raise _fault(text, str(exc).splitlines()[0]) from exc
    if requirement.url:
        _check_url(text, requirement.url)
    return requirement


def _check_url(text: str, url: str) -> None:
    scheme, colon, _ = url.partition("://")
    if not colon or scheme.lower() not in URL_SCHEMES:
        raise _fault(text, f"its URL must begin with one of {', '.join(sorted(URL_SCHEMES))}")


def _spelled(requirement: Requirement) -> str:
    name = canonicalize_name(requirement.name)
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    # A space must stand before the marker of a URL, or it would be read as part of the URL.
    where = f" @ {requirement.url}" if requirement.url else str(requirement.specifier)
    marker = f" ; {requirement.marker}" if requirement.marker else ""
    return f"{name}{extras}{where}{marker}"


def _fault(text: str, why: str) -> EnvironmentFault:
    shown = redact(text if len(text) <= 200 else f"{text[:200]}…")
    return EnvironmentFault(
        "environment/requirement",
        f"{shown!r} is not a requirement: {redact(why)}.",
        "Write it as pip does, for example 'pandas>=2,<3' or 'name @ https://host/name.whl'.",
    )
