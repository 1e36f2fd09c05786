"""Tells from the names of what is installed whether requirements are met, without pip.

pip takes half a second of CPU to find that nothing has to be done: five seconds of waiting in a pod
of 0.1 CPU, at each start. Where names are not enough to tell, the answer is no, and pip has its way.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_LINE = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?\s*(?:==\s*([A-Za-z0-9.+!-]+))?\s*(?:#.*)?"
)
_OF_EXTRA = re.compile(r"""([^;]+?)\s*;\s*extra\s*==\s*["']([^"']+)["']""")
_NEEDED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*([<>=!~][^\[\]()]*)?")
_RANGE = re.compile(r"(<=|>=|==|!=|<|>)\s*(\d+(?:\.\d+)*)")
_QUIET = ("--user", "--no-index", "--disable-pip-version-check", "-q", "--quiet")


def main(argv: list[str]) -> int:
    """What pip's `install` would be given; 0: there is nothing to do."""
    files = _files(argv)
    lines = [line for file in files for line in _lines(file)]
    if not files or unmet(lines, sys.path):
        return 1
    for line in lines:
        sys.stdout.write(f"Requirement already satisfied: {line}\n")
    return 0


def wanted(argv: list[str]) -> list[str]:
    """The lines of the requirements files among pip's arguments."""
    places = [i + 1 for i, word in enumerate(argv) if word in ("-r", "--requirement")]
    return [line for i in places if i < len(argv) for line in _lines(Path(argv[i]))]


def unmet(lines: list[str], path: list[str]) -> list[str]:
    """The requirements that are not met for sure, each with what is missing where that is known."""
    there = _installed(path)
    found = []
    for line in lines:
        missing = _missing(line, there)
        if missing is not None:
            found.append(f"{line} ({', '.join(missing)})" if missing else line)
    return found


def _missing(line: str, there: dict[str, tuple[str, Path]]) -> list[str] | None:
    """What a requirement lacks; empty where that is pip's to judge, None where it is met."""
    match = _LINE.fullmatch(line)
    if match is None:  # a range, a marker, a URL or an option
        return []
    name, extras, pinned = _normal(match[1]), match[2], match[3]
    if name not in there:
        return [f"{name} is not installed"]
    version, info = there[name]
    if pinned not in (None, version):
        return [f"{name} {version} is installed"]
    if not extras:
        return None
    wanted_extras = {_normal(extra.strip()) for extra in extras.split(",")}
    needed = _needed(info, wanted_extras)
    if needed is None:
        return []
    lacking = [one for one, bounds in needed if not _is_met(one, bounds, there)]
    return [f"{one} is not installed" if one not in there else f"{one} {there[one][0]} is installed" for one in lacking] or None  # fmt: skip


def _needed(info: Path, extras: set[str]) -> list[tuple[str, str]] | None:
    """(name, range) of what a package needs for some of its extras; None where that is pip's to judge."""
    try:
        head = (info / "METADATA").read_text("utf-8").partition("\n\n")[0]
    except (OSError, UnicodeDecodeError):
        return None
    provided = {_normal(x) for x in re.findall(r"^Provides-Extra: *(\S+)", head, re.MULTILINE)}
    if not extras <= provided:
        return None
    found = []
    for text in re.findall(r"^Requires-Dist: *(.+?) *$", head, re.MULTILINE):
        if "extra" not in text.partition(";")[2]:
            continue  # of the package itself: it was installed with that
        match = _OF_EXTRA.fullmatch(text)
        if match is not None and _normal(match[2]) not in extras:
            continue
        needed = _NEEDED.fullmatch(match[1].replace("(", "").replace(")", "")) if match else None
        if needed is None:
            return None
        found.append((_normal(needed[1]), needed[2] or ""))
    return found


def _is_met(name: str, bounds: str, there: dict[str, tuple[str, Path]]) -> bool:
    """Whether what is installed lies within a range; no, where versions are more than numbers."""
    version = there[name][0] if name in there else ""
    if not bounds:
        return bool(version)
    parts = [part.strip() for part in bounds.split(",") if part.strip()]
    matches = [_RANGE.fullmatch(part) for part in parts]
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        return False
    return all(m is not None and _holds(_numbers(version), m[1], _numbers(m[2])) for m in matches)


def _holds(version: list[int], operator: str, bound: list[int]) -> bool:
    size = max(len(version), len(bound))
    left, right = (number + [0] * (size - len(number)) for number in (version, bound))
    return {
        "<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right,
        "==": left == right, "!=": left != right,
    }[operator]  # fmt: skip


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _files(argv: list[str]) -> list[Path]:
    files, words = [], iter(argv)
    for word in words:
        if word in ("-r", "--requirement"):
            files.append(Path(next(words, "")))
        elif word in ("--find-links", "-f"):
            next(words, "")
        elif word not in _QUIET:
            return []
    return files


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ["?"]
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _installed(path: list[str]) -> dict[str, tuple[str, Path]]:
    """Normalised name -> (version, its .dist-info), of what is on the path."""
    found: dict[str, tuple[str, Path]] = {}
    for folder in path:
        try:
            entries = list(Path(folder or ".").iterdir())
        except OSError:
            continue
        for entry in entries:
            if entry.name.endswith(".dist-info"):
                project, _, version = entry.name[: -len(".dist-info")].partition("-")
                found.setdefault(_normal(project), (version, entry))
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
