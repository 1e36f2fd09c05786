"""Makes JSON values what a type hint asks for; a value that does not fit is a ValueError that says why."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from pathlib import Path
from typing import Any


def convert(value: Any, hint: Any, *, lax: bool = False) -> Any:
    """A JSON value as the annotated type.

    Raises:
        ValueError: it does not fit; the text reads after the argument's name.
    """
    if hint is Any or hint is inspect.Parameter.empty or hint is object:
        return _from_text(value) if lax else value
    if _is_instance(value, hint):
        return value
    if _mentions_pydantic(hint):
        return _convert_pydantic(value, hint)
    import msgspec

    try:
        # str_keys: a JSON object has no other keys, and dict[int, float] is a fine hint.
        return msgspec.convert(value, hint, strict=not lax, dec_hook=_decode, str_keys=True)
    except msgspec.ValidationError as exc:
        if lax and isinstance(value, str) and (parsed := _from_text(value)) is not value:
            return convert(parsed, hint)
        # Of a value deep inside, or out of a range, msgspec says more than the two types.
        more = "" if re.fullmatch(r"Expected `[^`]*`, got `[^`]*`", str(exc)) else f": {exc}"
        got = f"{type_name(type(value))} ({clip(repr(value))})"
        raise ValueError(f"expects {type_name(hint)}, got {got}{more}") from exc
    except (TypeError, NotImplementedError):
        # A hint that msgspec cannot take: a union of classes, or no data type at all.
        return _convert_union(value, hint, lax=lax) if _is_union(hint) else value


def type_name(hint: Any) -> str:
    """A type as a reader would write it."""
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else _text(hint)


def _text(hint: Any) -> str:
    return str(hint).replace("typing.", "")


def _is_union(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return origin is typing.Union or getattr(origin, "__name__", "") == "UnionType"


def _convert_union(value: Any, hint: Any, *, lax: bool) -> Any:
    """The first of a union's types that takes the value."""
    problems = []
    for member in typing.get_args(hint):
        try:
            return convert(value, member, lax=lax)
        except ValueError as exc:
            problems.append(str(exc))
    raise ValueError("; or ".join(problems))


def _is_instance(value: Any, hint: Any) -> bool:
    if not isinstance(hint, type) or typing.get_origin(hint) is not None:
        return False
    try:
        # bool is an int to Python, but an int argument given True is a mistake.
        return isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)
    except TypeError:
        return False


def _decode(hint: Any, value: Any) -> Any:
    """msgspec's hook for types that it does not know."""
    cls = typing.get_origin(hint) or hint
    try:
        if isinstance(value, cls):
            return value
    except TypeError:
        return value  # a Protocol, say: nothing to convert to, and nothing to compare with
    if isinstance(cls, type) and issubclass(cls, Path) and isinstance(value, str):
        return cls(value)
    name = getattr(cls, "__name__", _text(cls))
    package = cls.__module__.partition(".")[0]
    if package in _FROM_JSON and not inspect.isabstract(cls):
        try:
            if name == "ndarray":
                return sys.modules["numpy"].asarray(value, dtype=_element_type(hint))
            return cls(value)
        except Exception as exc:
            raise ValueError(f"{name} refuses it: {exc}") from exc
    if cls.__module__.startswith("digitalhub.entities"):
        raise ValueError("an entity is passed by its key in inputs, not in parameters")
    raise ValueError(f"a JSON value cannot become a {name}")


# Packages whose classes are made from plain values by calling them: float32(1.5), DataFrame([…]), deque([…]).
_FROM_JSON = ("numpy", "pandas", "polars", "collections")


def _element_type(hint: Any) -> Any:
    """`float64` of `NDArray[float64]`, None where the hint names none."""
    dtype = (*typing.get_args(hint), None, None)[1]
    return next((t for t in typing.get_args(dtype) if isinstance(t, type)), None)


def _mentions_pydantic(hint: Any) -> bool:
    if "pydantic" not in sys.modules:
        return False
    if hasattr(hint, "model_validate") or hasattr(hint, "__pydantic_fields__"):
        return True
    return any(_mentions_pydantic(arg) for arg in typing.get_args(hint))


def _convert_pydantic(value: Any, hint: Any) -> Any:
    pydantic: Any = sys.modules["pydantic"]
    try:
        return pydantic.TypeAdapter(hint).validate_python(value)
    except pydantic.PydanticUserError:
        return value  # a hint that pydantic cannot take: a model beside a class that is none
    except pydantic.ValidationError as exc:
        raise ValueError(f"expects {type_name(hint)}, got {type_name(type(value))}: {exc}") from exc


def _from_text(value: Any) -> Any:
    """A command line's text as JSON where it is JSON, else as it is."""
    if not isinstance(value, str):
        return value
    import json

    try:
        return json.loads(value)
    except ValueError:
        return value


def clip(text: str) -> str:
    """At most 80 characters of a text that goes into a message."""
    return text if len(text) <= 80 else text[:80] + "…"
