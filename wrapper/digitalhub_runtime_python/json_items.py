"""What JSON has of values within values: one rule for the results of jobs and for what services answer."""

from __future__ import annotations

import sys
from typing import Any


def plain(value: Any) -> Any:
    """The JSON value of an item that msgspec does not know; it is msgspec's hook.

    Raises:
        TypeError: it has none.
    """
    # Classes derived from str, int and float; not str(value), which is the class's own affair.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return float.__float__(value) if isinstance(value, float) else int.__int__(value)
    if hasattr(value, "model_dump") and "pydantic" in sys.modules:
        return value.model_dump(mode="json")
    if root(value) == "numpy":
        return from_numpy(value)
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if hasattr(value, "isoformat"):  # pandas' timestamps, pendulum's
        return value.isoformat()
    if isinstance(value, (range, set, frozenset)) or type(value).__name__ in _VIEWS:
        return list(value)
    raise TypeError(f"{type(value).__qualname__} in it")


_VIEWS = ("dict_keys", "dict_values", "dict_items", "deque", "map", "filter", "zip")


def from_numpy(value: Any) -> Any:
    """An array or scalar of numpy; times are text, since those with nanoseconds would become bare integers."""
    is_time = getattr(value.dtype, "kind", "") in "mM"
    return (value.astype(str) if is_time else value).tolist()


def root(value: Any) -> str:
    """The package that a value's class is of."""
    return str(type(value).__module__).partition(".")[0]
