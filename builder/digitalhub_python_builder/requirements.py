"""Parses pip requirements before anything is done with them: PEP 508, no options, no surprises."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from digitalhub_runtime_python.errors import EnvironmentFault

URL_SCHEMES = frozenset({"https", "http", "file", "git+https", "git+http", "git+ssh", "git+file"})
"""What may stand after `name @`; git's other transports (`ext::`) run commands."""

VARIABLE = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)\}")
"""A reference to a variable of the environment, as pip's requirement files have it."""

_EGG = re.compile(
    r"(?:git\+)?[a-z]+://[^\s;]+[#&]egg=(?P<name>[A-Za-z0-9._-]+(?:\[[^\]]*\])?)[^\s;]*(?:\s+;.*)?"
)
_COMMENT = re.compile(r"(^|\s)#.*$")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|[0-9A-Fa-f:.]+")
_SENSITIVE = (
    r"(?:[A-Za-z0-9_-]*(?:token|key|secret|password|passwd|signature|credential)|sig|auth|pat)"
)
_QUERY_SECRET = re.compile(rf"(?<=[?&#])({_SENSITIVE}=)(?!\$\{{)[^&#\s;]+", re.I)
# Up to the last @ of what may be a user and password: those may contain @ and / themselves.
_LOGIN = re.compile(r"(?<=://)(?:[^\s/@]*:(?!\d+(?:[/\s]|$))\S*|[^\s/@]+)@(?!\S*@[^\s/@]*[.:/])")
_WITH_VARIABLES = re.compile(r"(?:\$\{[A-Z_][A-Z0-9_]*\}|[A-Za-z0-9._~-]*:\$\{[A-Z_][A-Z0-9_]*\})(?::\$\{[A-Z_][A-Z0-9_]*\}|:x-oauth-basic|:)?")  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """Requirements before they are locked."""

    lines: tuple[str, ...] = ()
    """PEP 508."""
    constraints: tuple[str, ...] = ()
    hashes: tuple[tuple[str, frozenset[str]], ...] = ()
    """Name -> the hashes that its file allows; only those are let through."""
    options: tuple[tuple[str, str], ...] = ()
    """pip's options that say where to look, by their long names: `("--extra-index-url", "https://…")`."""
    pythons: tuple[tuple[str, str], ...] = ()
    """(who asks, specifier) of each `requires-python`."""
    origins: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """(line, where it stands), for messages."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What a user should be told about how the file was read."""

    def __add__(self, other: Wanted) -> Wanted:
        return Wanted(
            self.lines + other.lines,
            self.constraints + other.constraints,
            self.hashes + other.hashes,
            self.options + tuple(one for one in other.options if one not in self.options),
            self.pythons + other.pythons,
            self.origins + other.origins,
            self.notes + other.notes,
        )

    @property
    def allowed(self) -> dict[str, frozenset[str]]:
        """Name -> hashes; of a name with several versions (by marker) those of all."""
        found: dict[str, frozenset[str]] = {}
        for name, hashes in self.hashes:
            found[name] = found.get(name, frozenset()) | hashes
        return found


def parse_requirements(values: Iterable[str]) -> tuple[Requirement, ...]:
    """Parse requirements as they stand in a function's `requirements` or in a requirements.txt.

    Empty entries and comments are left out; the order is kept.

    Raises:
        EnvironmentFault: an entry is not a PEP 508 requirement; the message names the entry.
    """
    if isinstance(values, (str, bytes)):
        raise fault(str(values), "requirements are a list of strings, not one string")
    parsed = (_parse(value) for value in values)
    return tuple(requirement for requirement in parsed if requirement is not None)


def normalise(values: Iterable[str]) -> tuple[str, ...]:
    """The same set of requirements in one spelling and order, without repetitions.

    Raises:
        EnvironmentFault: as `parse_requirements`.
    """
    return tuple(sorted({_spelled(requirement) for requirement in parse_requirements(values)}))


def redact(text: str) -> str:
    """`text` with the user names, passwords and tokens of its URLs replaced, for messages and logs."""
    return _QUERY_SECRET.sub(r"\1***", _LOGIN.sub("***@", text))


def check_url(text: str, url: str) -> None:
    """Refuse a URL that carries a credential, or that a tool could read as one of its options.

    Args:
        text: the requirement or option that it stands in, for the message.

    Raises:
        EnvironmentFault: it does.
    """
    scheme, colon, rest = url.partition("://")
    if not colon or scheme.lower() not in URL_SCHEMES:
        raise fault(text, f"its URL must begin with one of {', '.join(sorted(URL_SCHEMES))}")
    if re.search(r"\s|::", url):
        raise fault(text, "its URL contains a blank or ::")
    _check_credentials(text, url, scheme.lower())
    try:
        parts = urllib.parse.urlsplit(f"x://{rest}")
        host, _ = parts.hostname or "", parts.port
    except ValueError as exc:
        raise fault(text, f"its URL is not well formed: {exc}") from exc
    if scheme.lower().endswith("file"):
        if host not in ("", "localhost"):
            raise fault(
                text, "a file URL has an absolute path and no host: file:///folder/name.whl"
            )
    elif not _HOST.fullmatch(host):
        raise fault(text, "its URL has no host, or one that a program could take for an option")
    user = parts.username or ""
    ref = parts.path.rpartition("@")[2] if "@" in parts.path else ""
    fragment = urllib.parse.parse_qs(parts.fragment)
    folders = fragment.get("subdirectory", [])
    bad = any(part in ("..", "-") or part.startswith("-") for one in folders for part in one.split("/"))  # fmt: skip
    if user.startswith("-") or urllib.parse.unquote(ref).startswith("-") or bad:
        raise fault(text, "a part of its URL could be taken for an option of git")


def expand(text: str, variables: Mapping[str, str] | None, shown: str = "") -> str:
    """`text` with its `${VAR}` replaced.

    Raises:
        EnvironmentFault: a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        found = (variables or {}).get(match[1], "")
        if not found:
            raise EnvironmentFault(
                "environment/variable",
                f"The requirement {redact(shown or text)!r} refers to ${{{match[1]}}}, which is not set.",
                f"Set {match[1]}; in a build run, name it among the run's secrets.",
            )
        return found

    return VARIABLE.sub(value, text)


def check_python(wanted: Wanted, python: str) -> None:
    """Refuse requirements that are not for that Python.

    Raises:
        EnvironmentFault: `requires-python` of one of their files excludes it.
    """
    for who, specifier in wanted.pythons:
        try:
            # Any patch release: which one the image has is not known here.
            fits = any(SpecifierSet(specifier).contains(f"{python}.{patch}") for patch in range(40))
        except InvalidSpecifier as exc:
            raise EnvironmentFault(
                "environment/python",
                f"{who} requires Python {specifier!r}, which is not a version.",
                "Write it as '>=3.10'.",
            ) from exc
        if not fits:
            raise EnvironmentFault(
                "environment/python",
                f"{who} requires Python {specifier}; the function has {python}.",
                "Change the function's python_version, or requires-python in that file.",
            )


def _check_credentials(text: str, url: str, scheme: str) -> None:
    if _QUERY_SECRET.search(url):
        raise _credential(text, "a token")
    login = _LOGIN.search(url)
    given = login[0][:-1] if login else "git"
    by_key = scheme == "git+ssh" and ":" not in given
    if not (given == "git" or by_key or _WITH_VARIABLES.fullmatch(given)):
        raise _credential(text, "a user name or password")


def _credential(text: str, what: str) -> EnvironmentFault:
    return EnvironmentFault(
        "environment/credential",
        f"The URL in {redact(text)!r} contains {what}, which would be stored with the function.",
        "Write the name of a variable or of a secret of the project instead: "
        "https://${GIT_TOKEN}@host/…, or keep it in ~/.netrc or git's credential helper.",
    )


def _parse(value: object) -> Requirement | None:
    if not isinstance(value, str):
        raise fault(repr(value), f"it is {type(value).__name__}, not a string")
    # A line break would smuggle in a second line, which may be an option such as --index-url.
    if _CONTROL.search(value.strip("\r\n\t ")):
        raise fault(value, "it contains a line break or another control character")
    text = _COMMENT.sub("", value).strip()
    if not text:
        return None
    if text.startswith("-"):
        raise fault(text, "options cannot be given here")
    # pip's older form, in which the URL comes first and names the package.
    egg = _EGG.fullmatch(text)
    try:
        requirement = Requirement(f"{egg['name']} @ {text}" if egg else text)
    except InvalidRequirement as exc:
        raise fault(text, str(exc).splitlines()[0]) from exc
    except RecursionError:
        raise fault(text, "its marker is nested too deeply") from None
    if requirement.url:
        check_url(text, requirement.url)
    return requirement


def _spelled(requirement: Requirement) -> str:
    name = canonicalize_name(requirement.name)
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    # A space must stand before the marker of a URL, or it would be read as part of the URL.
    where = f" @ {requirement.url}" if requirement.url else str(requirement.specifier)
    marker = f" ; {requirement.marker}" if requirement.marker else ""
    return f"{name}{extras}{where}{marker}"


def fault(text: str, why: str) -> EnvironmentFault:
    """The fault for what is not a requirement."""
    shown = redact(text if len(text) <= 200 else f"{text[:200]}…")
    return EnvironmentFault(
        "environment/requirement",
        f"{shown!r} is not a requirement: {redact(why)}.",
        "Write it as pip does, for example 'pandas>=2,<3' or 'name @ https://host/name.whl'.",
    )
