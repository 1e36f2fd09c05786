"""`python -m digitalhub_runtime_python.nuclio.installed -r FILE`: 0 when all that it asks for is there.

pip takes half a second of CPU to find that nothing has to be done: five seconds of waiting in a pod
of 0.1 CPU, at each start. This looks at the names of what is installed; where that is not enough to
tell, the answer is 1, and pip has its way.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:==\s*([A-Za-z0-9.+!-]+))?\s*(?:#.*)?")
_ADDED = {"digitalhub[full]": "digitalhub"}
"""What Core adds by itself for every image that is not its own -> what has to be there for it: of the
extra it needs nothing, and a function that does can name it."""
_QUIET = ("--user", "--no-index", "--disable-pip-version-check", "-q", "--quiet")


def main(argv: list[str]) -> int:
    """What pip's `install` would be given; 0: there is nothing to do."""
    files = _files(argv)
    if not files:
        return 1
    lines = [line for file in files for line in _lines(file)]
    there = _installed(sys.path)
    for line in lines:
        match = _NAME.fullmatch(_ADDED.get(line, line))
        version = there.get(_normal(match.group(1))) if match else None
        # An extra, a range or a marker is pip's to judge.
        if match is None or version is None or match.group(2) not in (None, version):
            return 1
    for line in lines:
        sys.stdout.write(f"Requirement already satisfied: {line}\n")
    return 0


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


def _installed(path: list[str]) -> dict[str, str]:
    """Normalised name -> version, of what is on the path."""
    found: dict[str, str] = {}
    for folder in path:
        try:
            names = [entry.name for entry in Path(folder or ".").iterdir()]
        except OSError:
            continue
        for name in names:
            if name.endswith(".dist-info"):
                project, _, version = name[: -len(".dist-info")].partition("-")
                found.setdefault(_normal(project), version)
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
