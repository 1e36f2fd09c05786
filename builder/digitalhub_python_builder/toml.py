"""Reads TOML, with Python's own parser where it has one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from digitalhub_runtime_python.errors import EnvironmentFault
from digitalhub_runtime_python.nesting import check_depth


def load(file: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        EnvironmentFault: it is not TOML.
    """
    try:
        return loads(file.read_text("utf-8-sig"))
    except ValueError as exc:
        raise EnvironmentFault(
            "environment/requirements-file",
            f"The requirements in {file.name} cannot be used: it is not TOML: {exc}.",
            "Correct it.",
        ) from exc


def loads(text: str) -> dict[str, Any]:
    """The content of TOML text.

    Raises:
        ValueError: it is not TOML, or nested too deeply.
    """
    parser: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        found = dict(parser.loads(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_depth(found)
    return found
