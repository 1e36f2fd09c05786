"""Makes JSON values what a type hint asks for; a value that does not fit is a ValueError that says why."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from digitalhub_runtime_python.hints.scalars import Converter

_PLAIN = (str, int, bool, float, dict, list)


def convert(value: Any, hint: Any, *, lax: bool = False) -> Any:
    """A JSON value as the annotated type.

    Args:
        value: what JSON gave, or a value that is of the hint's class already.
        hint: an annotation, evaluated.
        lax: the value is text of a command line: `"5"` fits an int, and what reads as JSON is that.

    Raises:
        ValueError: it does not fit; the text reads after the argument's name.
    """
    if hint is Any or hint is inspect.Parameter.empty or hint is object:
        if not lax or not isinstance(value, str):
            return value
    elif type(value) is hint and hint in _PLAIN:
        return value
    from digitalhub_runtime_python.hints.scalars import Misfit  # only for a hint that asks for more

    try:
        return _converter(hint)(value, lax)
    except Misfit as exc:
        raise ValueError(_told(exc, value, hint)) from exc
    except RecursionError:
        raise ValueError(f"expects {type_name(hint)}, got what is nested too deeply") from None


def type_name(hint: Any) -> str:
    """A type as a reader would write it."""
    from digitalhub_runtime_python.hints import naming

    return naming.type_name(hint)


def clip(text: str) -> str:
    """At most 80 characters of a text that goes into a message."""
    return text if len(text) <= 80 else text[:80] + "…"


def _converter(hint: Any) -> Converter:
    found = _converters.get(id(hint))
    if found is None:
        from digitalhub_runtime_python.hints import compiling

        if len(_converters) > 1000:  # hints that are made anew for each call
            _converters.clear()
        # By identity: Union[int, str] and Union[str, int] are equal. It is kept, so that no other has its id.
        found = _converters[id(hint)] = (compiling.converter(hint), hint)
    return found[0]


_converters: dict[int, tuple[Converter, Any]] = {}


def _told(exc: Exception, value: Any, hint: Any) -> str:
    name, text = type_name(hint), str(exc)
    got = type_name(type(value))
    if "Secret" not in name:  # pydantic's, and whoever names theirs so
        got += f" ({clip(repr(value))})"
    # Of a value deep inside, or out of a range, there is more to say than the two types.
    more = "" if re.fullmatch(r"Expected `[^`]*`, got `[^`]*`", text) else f": {text}"
    return f"expects {name}, got {got}{more}"
