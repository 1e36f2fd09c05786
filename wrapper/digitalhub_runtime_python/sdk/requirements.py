"""Reads a function's requirements: a list, or the path of a requirements.txt or pyproject.toml.

They are passed on as they are: which versions fit is decided for the function's Python, not the caller's.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from digitalhub_runtime_python.errors import EnvironmentFault, UsageFault

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
        lines: Iterable[Any] = _read_file(Path(requirements))
    elif isinstance(requirements, (list, tuple)):
        lines = requirements
    else:
        raise _fault(
            f"requirements is a {type(requirements).__name__}.",
            "Pass a list, or the path of a file.",
        )
    return [_checked(line) for line in lines]


def unmet(requirements: Iterable[str]) -> list[str]:
    """Those that this environment does not meet, each with what is installed instead."""
    lines = list(requirements)
    packaging = _packaging() if lines else None
    if packaging is None:
        return []
    import importlib.metadata

    problems = []
    for line in lines:
        if _URL.fullmatch(line):
            continue
        wanted = packaging.Requirement(line)
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


def _checked(line: Any) -> str:
    if not isinstance(line, str):
        raise _fault(
            f"The requirement {line!r} is a {type(line).__name__}.", "Write it as a string."
        )
    text = line.strip()
    if _URL.fullmatch(text):
        return text
    packaging = _packaging()
    if packaging is None:
        return text
    try:
        packaging.Requirement(text)
    except packaging.InvalidRequirement as exc:
        raise EnvironmentFault(
            "environment/requirement",
            f"The requirement {line!r} is not well formed: {str(exc).splitlines()[0]}.",
            "Write it as pip does: 'pandas>=2,<3'.",
        ) from exc
    return text


def _read_file(path: Path) -> list[str]:
    if not path.is_file():
        raise _fault(
            f"There is no requirements file {path}.",
            "Pass a list of requirements, or the path of a requirements.txt or pyproject.toml.",
        )
    if path.suffix == ".toml":
        return _read_pyproject(path)
    if path.suffix == ".txt":
        return _read_txt(path)
    raise _fault(f"{path} is no requirements file.", "Pass a .txt file or a pyproject.toml.")


def _read_txt(path: Path) -> list[str]:
    lines = []
    for line in path.read_text("utf-8").replace("\\\n", "").splitlines():
        text = re.sub(r"(^|\s)#.*$", "", line).strip()
        if text.startswith("-"):
            raise _fault(
                f"{path} has the option {text.split()[0]!r}.",
                "Only requirements are passed on; list them.",
            )
        if text:
            lines.append(text)
    return lines


def _read_pyproject(path: Path) -> list[str]:
    reader = next((m for m in ("tomllib", "tomli") if importlib.util.find_spec(m)), None)
    if reader is None:
        raise _fault(
            f"{path} cannot be read: this Python has no tomllib.", "Install tomli, or pass a list."
        )
    toml: Any = importlib.import_module(reader)
    try:
        project = toml.loads(path.read_text("utf-8")).get("project", {})
    except toml.TOMLDecodeError as exc:
        raise _fault(f"{path} is no valid TOML: {exc}.", "Correct it.") from exc
    return list(project.get("dependencies", []))


def _fault(message: str, hint: str) -> UsageFault:
    return UsageFault("usage/requirements", message, hint)
