"""Reads a function's requirements: a list, or the path of a file that the builder can read.

They are passed on as they are: which versions fit is decided for the function's Python, not the caller's.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from digitalhub_runtime_python.errors import UsageFault

log = logging.getLogger(__name__)

_URL = re.compile(r"(git\+)?[a-z]+://\S+")


def read_requirements(requirements: Any) -> list[str] | None:
    """The requirements as a list of strings, each checked.

    Raises:
        UsageFault: usage/requirements
        EnvironmentFault: environment/requirement
    """
    if requirements is None:
        return None
    if isinstance(requirements, (str, os.PathLike)):
        return _read_file(Path(requirements))
    if isinstance(requirements, (list, tuple)):
        return _read_list(requirements)
    raise _fault(
        f"requirements is a {type(requirements).__name__}.",
        "Pass a list, or the path of a file.",
    )


def unmet(requirements: Iterable[str]) -> list[str]:
    """Those that this environment does not meet, each with what is installed instead."""
    lines = list(requirements)
    packaging = _packaging() if lines else None
    if packaging is None:
        return []
    import importlib.metadata

    problems = []
    for line in lines:
        text = line.partition(" --hash")[0].strip()
        if not text or text.startswith(("-", "#")) or _URL.fullmatch(text):
            continue
        wanted = packaging.Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{line} (not installed)")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            problems.append(f"{line} (installed: {version})")
    return problems


def _packaging() -> Any:
    """packaging.requirements; None in a run's environment, which has the SDK and not this."""
    try:
        return importlib.import_module("packaging.requirements")
    except ModuleNotFoundError:
        return None


def _builder() -> Any:
    """The builder's parser, the one for all forms; None in a run's environment, which has no builder."""
    # Not at module level: the builder stands above the runtime, and a run's environment has neither.
    try:
        return importlib.import_module("digitalhub_python_builder.requirement_files")
    except ModuleNotFoundError:
        return None


def _read_file(path: Path) -> list[str]:
    if not path.is_file():
        raise _fault(
            f"There is no requirements file {path}.",
            "Pass a list of requirements, or the path of a requirements.txt, pyproject.toml or lock file.",
        )
    builder = _builder()
    if builder is None:
        raise _fault(
            f"{path} cannot be read here: this environment has no image builder.",
            "Pass a list of requirements.",
        )
    wanted = builder.read(path)
    for note in wanted.notes:
        log.warning("%s", note.removeprefix("warning: "))
    return list(builder.to_lines(wanted))


def _read_list(lines: Iterable[Any]) -> list[str]:
    checked = [_text(line) for line in lines]
    builder = _builder()
    if builder is not None:
        # What is stored is what was written; what is wrong with it is said here and not in a run.
        builder.read_lines(checked)
    return checked


def _text(line: Any) -> str:
    if not isinstance(line, str):
        raise _fault(
            f"The requirement {line!r} is a {type(line).__name__}.", "Write it as a string."
        )
    return line.strip()


def _fault(message: str, hint: str) -> UsageFault:
    return UsageFault("usage/requirements", message, hint)
