"""What JSON has of values within values: one rule for the results of jobs and for what services answer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
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
    if isinstance(value, Mapping):  # ChainMap, MappingProxyType, a frozen dict
        return dict(value)
    if hasattr(value, "isoformat"):  # pandas' timestamps, pendulum's
        return value.isoformat()
    if isinstance(value, (range, set, frozenset)) or type(value).__name__ in _VIEWS:
        return list(value)
    raise TypeError(f"{type(value).__qualname__} in it")


_VIEWS = ("dict_keys", "dict_values", "dict_items", "deque", "map", "filter", "zip")


def from_numpy(value: Any) -> Any:
    """An array or scalar of numpy; times are text, since those with nanoseconds would become bare integers."""
    kind = value.dtype.kind
    if kind == "m":
        value = value.astype(
            "timedelta64[us]"
        )  # what Python's own holds, which is ISO 8601 in JSON
    items = (value.astype(str) if kind == "M" else value).tolist()
    return _without_nat(items) if kind == "M" else items


def _without_nat(items: Any) -> Any:
    if isinstance(items, list):
        return [_without_nat(item) for item in items]
    return None if items == "NaT" else items


def root(value: Any) -> str:
    """The package that a value's class is of."""
    return str(type(value).__module__).partition(".")[0]
