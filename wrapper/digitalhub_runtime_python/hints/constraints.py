"""`Annotated[T, …]`: the constraints hold, or the value is refused for the one that cannot be checked."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from digitalhub_runtime_python.hints import foreign
from digitalhub_runtime_python.hints.scalars import Converter, Misfit

Check = Callable[[Any], bool]


def constrained(
    hint: Any, bound: Mapping[Any, Any], compile_: Callable[[Any, Mapping[Any, Any]], Converter]
) -> Converter:
    """The converter of an `Annotated[…]`."""
    inner, *metadata = typing.get_args(hint)
    if foreign.is_pydantics(inner) or any(foreign.replaces_conversion(m) for m in metadata):
        return foreign.pydantic_converter(hint)
    convert_inner = compile_(inner, bound)
    if any(_package(m) == "pydantic" for m in metadata):
        return _then(convert_inner, foreign.pydantic_check(hint))
    if inner in (int, float, str) and all(_kind(m) in ("Meta", "") for m in metadata):
        return _then(convert_inner, _msgspecs(inner, metadata))
    checks = list(_checks(metadata))
    if not checks:
        return convert_inner

    def convert(value: Any, lax: bool) -> Any:
        found = convert_inner(value, lax)
        if found is None:  # Annotated[Optional[int], Gt(0)]: the bound is on the number
            return found
        for text, holds in checks:
            try:
                fine = holds(found)
            except Misfit:
                raise
            except Exception as exc:
                raise Misfit(f"it must be {text}: {type(exc).__name__}: {exc}") from exc
            if not fine:
                raise Misfit(f"it must be {text}")
        return found

    return convert


def _then(convert_inner: Converter, check: Callable[[Any], Any]) -> Converter:
    return lambda value, lax: check(convert_inner(value, lax))


def _msgspecs(inner: Any, metadata: list[Any]) -> Callable[[Any], Any]:
    hint = inner
    for item in metadata:
        hint = typing.Annotated[hint, item]

    def check(value: Any) -> Any:
        if type(value) is not inner:  # a class derived from it stays what it is
            return value
        try:
            return msgspec.convert(value, hint)
        except msgspec.ValidationError as exc:
            raise Misfit(str(exc)) from None

    return check


def _package(item: Any) -> str:
    return str(type(item).__module__).partition(".")[0]


def _checks(metadata: list[Any]) -> Iterator[tuple[str, Check]]:
    """(what a value must be, whether it is) of each constraint; whatever else is annotated says nothing about values."""
    for item in metadata:
        kind = _kind(item)
        if kind == "Meta":
            yield from _of_meta(item)
        elif kind in _SILENT:
            continue
        elif kind == "Predicate":
            yield from _of_predicate(item)
        elif kind == "Timezone":
            yield f"in the time zone {item.tz!r}", _zoned(item.tz)
        elif kind in _TABLE:
            names, text, test = _TABLE[kind]
            values = [getattr(item, n) for n in names]
            yield text.format(*values), _with(test, values)
        elif kind == "a group":
            yield from _checks(list(item))
        elif kind:
            yield f"checked against {item!r}, and that cannot be done", _cannot(item)


def _kind(item: Any) -> str:
    """The name of the constraint that it is one of, by its class or one of its bases; empty for none."""
    bases = [cls.__name__ for cls in type(item).__mro__]
    for cls in type(item).__mro__:
        package = cls.__module__.partition(".")[0]
        if package == "msgspec" and cls.__name__ == "Meta":
            return "Meta"
        if package == "annotated_types":
            return "a group" if "GroupedMetadata" in bases else cls.__name__
    return ""


_SILENT = ("Unit", "DocInfo")
_TABLE: dict[str, tuple[tuple[str, ...], str, Callable[..., bool]]] = {
    "Gt": (("gt",), "> {}", lambda v, bound: v > bound),
    "Ge": (("ge",), ">= {}", lambda v, bound: v >= bound),
    "Lt": (("lt",), "< {}", lambda v, bound: v < bound),
    "Le": (("le",), "<= {}", lambda v, bound: v <= bound),
    "MultipleOf": (("multiple_of",), "a multiple of {}", lambda v, n: _is_multiple(v, n)),
    "MinLen": (("min_length",), "of length >= {}", lambda v, n: len(v) >= n),
    "MaxLen": (("max_length",), "of length <= {}", lambda v, n: len(v) <= n),
}


def _with(test: Callable[..., bool], values: list[Any]) -> Check:
    return lambda value: bool(test(value, *values))


def _is_multiple(value: Any, n: Any) -> bool:
    if isinstance(value, float) or isinstance(n, float):
        return math.isclose(value / n, round(value / n), rel_tol=1e-9, abs_tol=1e-9)
    return bool(value % n == 0)


def _of_meta(meta: Any) -> Iterator[tuple[str, Check]]:
    for kind, (names, text, test) in _TABLE.items():
        value = getattr(meta, names[0], None)
        if value is not None and kind:
            yield text.format(value), _with(test, [value])
    if meta.pattern is not None:
        pattern = re.compile(meta.pattern)
        yield f"text that matches {meta.pattern!r}", lambda v: pattern.search(v) is not None
    if meta.tz is not None:
        yield (
            "with a time zone" if meta.tz else "without a time zone",
            _zoned(... if meta.tz else None),
        )


def _of_predicate(item: Any) -> Iterator[tuple[str, Check]]:
    name = getattr(item.func, "__qualname__", None) or repr(item.func)
    yield f"something that {name} holds for", item.func


def _zoned(tz: Any) -> Check:
    def holds(value: Any) -> bool:
        if tz is None or tz is ...:
            return (value.tzinfo is None) == (tz is None)
        wanted = tz
        if isinstance(tz, str):
            import zoneinfo

            wanted = zoneinfo.ZoneInfo(tz)
        return (
            value.tzinfo is not None and value.utcoffset() == value.astimezone(wanted).utcoffset()
        )

    return holds


def _cannot(item: Any) -> Check:
    def holds(value: Any) -> bool:
        raise Misfit(f"its constraint {item!r} cannot be checked")

    return holds
