"""Hints as a reader would write them."""

from __future__ import annotations

import typing
from typing import Any


def type_name(hint: Any) -> str:
    """A type as a reader would write it."""
    if hint is type(None):
        return "None"
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    if hasattr(hint, "__supertype__"):
        return str(hint.__name__)
    return str(hint).replace("typing_extensions.", "").replace("typing.", "")


def is_union(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return origin is typing.Union or getattr(origin, "__name__", "") == "UnionType"


def special_name(form: Any) -> str:
    """`Literal`, `Final`, … of typing or typing_extensions; empty for a class."""
    return "" if form is None or isinstance(form, type) else str(form).rpartition(".")[2]
