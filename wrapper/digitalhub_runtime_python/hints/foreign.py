"""Hints of other people's packages, by the name of their class: whoever has such a hint has imported the package."""

from __future__ import annotations

import functools
import importlib
import sys
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from digitalhub_runtime_python.hints.scalars import Converter, Misfit, expected, text_json


def converter(hint: Any, cls: type) -> Converter | None:
    """The converter of a class of pydantic, numpy, pandas, polars or pyarrow, or one made for them."""
    if is_pydantics(cls):
        return pydantic_converter(hint)
    package = cls.__module__.partition(".")[0]
    if package == "numpy":
        return _numpy(hint, cls)
    if package in _BY_CALLING:
        return _by_calling(cls, _BY_CALLING[package].get(cls.__name__))
    return None


# --- pydantic ------------------------------------------------------------------------------------


def is_pydantics(hint: Any) -> bool:
    """Whether a class, or one that a hint is made of, is pydantic's to convert."""
    cls = typing.get_origin(hint) or hint
    if isinstance(cls, type):
        package = cls.__module__.partition(".")[0]
        if package in ("pydantic", "pydantic_core") or any(
            n in vars(c) for c in cls.__mro__ for n in _MARKS
        ):
            return "pydantic" in sys.modules
    return any(is_pydantics(a) for a in typing.get_args(hint) if a is not hint)


_MARKS = (
    "__get_pydantic_core_schema__", "__pydantic_validator__",  # 2
    "__get_validators__", "__pydantic_model__",  # 1
)  # fmt: skip


def replaces_conversion(item: Any) -> bool:
    """Whether what is annotated converts by itself, before or instead of the type."""
    name = type(item).__name__
    return type(item).__module__.partition(".")[0] == "pydantic" and name in (
        "BeforeValidator", "PlainValidator", "WrapValidator", "Discriminator", "GetPydanticSchema",
        "EncodedBytes", "EncodedStr", "_PydanticGeneralMetadata", "ImportString", "Strict",
    )  # fmt: skip


def pydantic_converter(hint: Any) -> Converter:
    """What pydantic makes of a value; texts are read as it reads them."""
    validate = functools.lru_cache(maxsize=1)(lambda: _validator(hint))

    def convert(value: Any, lax: bool) -> Any:
        try:
            return validate()(value)
        except Misfit:
            if lax and isinstance(value, str) and (parsed := text_json(value)) is not value:
                return validate()(parsed)
            raise

    return convert


def pydantic_check(hint: Any) -> Callable[[Any], Any]:
    """What holds a value that has the right type against the constraints that are annotated."""
    validate = functools.lru_cache(maxsize=1)(lambda: _validator(hint))
    return lambda value: validate()(value)


def _validator(hint: Any) -> Callable[[Any], Any]:
    pydantic: Any = sys.modules["pydantic"]
    if _is_of_pydantic_1(hint):
        return _validator_1(pydantic, hint)
    try:
        adapter = _adapter(pydantic, hint)
    except pydantic.PydanticUserError as exc:
        raise Misfit(f"pydantic cannot take this hint: {exc.message.splitlines()[0]}") from exc

    def validate(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as exc:
            problem = exc
        try:
            # Strict models take JSON's own forms, a list for a tuple, in JSON only.
            return adapter.validate_json(msgspec.json.encode(value))
        except (TypeError, ValueError, pydantic.ValidationError):
            raise Misfit(_told(problem.errors(include_url=False, include_context=False))) from None

    return validate


def _adapter(pydantic: Any, hint: Any) -> Any:
    try:
        return pydantic.TypeAdapter(hint)
    except pydantic.PydanticSchemaGenerationError:
        config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        return pydantic.TypeAdapter(hint, config=config)


def _told(errors: list[dict[str, Any]]) -> str:
    """pydantic's errors without the values, which may be secret."""
    lines = [
        f"{'.'.join(map(str, e['loc']))}: {e['msg']}" if e["loc"] else str(e["msg"])
        for e in errors[:5]
    ]
    return "; ".join(lines) + (f"; and {len(errors) - 5} more" if len(errors) > 5 else "")


def _is_of_pydantic_1(hint: Any) -> bool:
    if sys.modules["pydantic"].VERSION.startswith("1."):
        return True
    cls = typing.get_origin(hint) or hint
    if isinstance(cls, type) and any(c.__module__.startswith("pydantic.v1") for c in cls.__mro__):
        return True
    return any(_is_of_pydantic_1(a) for a in typing.get_args(hint))


def _validator_1(pydantic: Any, hint: Any) -> Callable[[Any], Any]:
    old = pydantic if pydantic.VERSION.startswith("1.") else importlib.import_module("pydantic.v1")

    def validate(value: Any) -> Any:
        try:
            return old.parse_obj_as(hint, value)
        except old.ValidationError as exc:
            errors = [{**e, "loc": e["loc"][1:]} for e in exc.errors()]  # the first is "__root__"
            raise Misfit(_told(errors)) from None

    return validate


# --- arrays --------------------------------------------------------------------------------------


def _numpy(hint: Any, cls: Any) -> Converter | None:
    numpy: Any = sys.modules["numpy"]
    if issubclass(cls, numpy.ndarray):
        return _array(numpy, cls, _element_type(hint))
    if issubclass(cls, numpy.generic):
        return _number(numpy, cls)
    if issubclass(cls, numpy.dtype):
        return _by_calling(numpy.dtype, (str, list))
    return None


def _element_type(hint: Any) -> Any:
    """`float64` of `NDArray[float64]`, None where the hint names none."""
    dtype = (*typing.get_args(hint), None, None)[1]
    return next((t for t in typing.get_args(dtype) if isinstance(t, type)), None)


# Kind of an array's elements -> kinds of what JSON gave that can become it without loss.
_WIDENS = {
    "f": "fiub",
    "i": "iu",
    "u": "iu",
    "b": "b",
    "c": "fiuc",
    "U": "U",
    "S": "US",
    "M": "UM",
    "m": "Um",
}


def _array(numpy: Any, cls: Any, element: Any) -> Converter:
    def convert(value: Any, lax: bool) -> Any:
        if isinstance(value, cls):
            return value
        value = text_json(value) if lax and isinstance(value, str) else value
        if isinstance(value, bool) or not isinstance(
            value, (list, tuple, int, float, numpy.ndarray)
        ):
            raise expected("array", value)
        try:
            given = numpy.asarray(value)
            return given if element is None else _cast(numpy, given, element)
        except (ValueError, TypeError, OverflowError) as exc:
            raise Misfit(f"ndarray refuses it: {exc}") from exc

    return convert


def _cast(numpy: Any, given: Any, element: Any) -> Any:
    if given.size == 0 or numpy.dtype(object) == _dtype(numpy, element):
        return given.astype(_dtype(numpy, element))
    if given.dtype.kind == "O" and all(v is None or _is_number(v) for v in given.flat):
        given = numpy.asarray(
            given.tolist(), dtype=float
        )  # null is not a number, as in JSON of a frame
    target = _dtype(numpy, element)
    allowed = _WIDENS.get(target.kind, "")
    if given.dtype.kind not in allowed or (given.dtype.kind == "b" and target.kind != "b"):
        raise ValueError(f"elements of {given.dtype} are no {target}")
    found = given.astype(target)
    if target.kind in "iu" and not numpy.array_equal(found, given):
        raise ValueError(f"an element is out of the range of {target}")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_ABSTRACT = {
    "floating": "float64",
    "integer": "int64",
    "signedinteger": "int64",
    "unsignedinteger": "uint64",
}
_ABSTRACT.update({"number": "float64", "inexact": "float64", "complexfloating": "complex128"})


def _dtype(numpy: Any, element: Any) -> Any:
    """The dtype of a scalar class; of `floating` and its like the widest that is usual."""
    if element is numpy.generic:
        return numpy.dtype(object)
    return numpy.dtype(_ABSTRACT.get(element.__name__, element))


def _number(numpy: Any, cls: Any) -> Converter:
    """A scalar: made of what is of its own kind, so that 5.7 is not an int8, nor "x" a true bool_."""
    name = cls.__name__

    def convert(value: Any, lax: bool) -> Any:
        if isinstance(value, cls):
            return value
        if lax and isinstance(value, str) and cls is not numpy.str_:
            value = text_json(value)
        if not isinstance(value, (str, int, float, complex, numpy.generic)):
            raise expected(name, value)
        try:
            given = numpy.asarray(value)
            if name == "number" or name == "generic":
                return (
                    given[()] if name == "generic" or given.dtype.kind in "iuf" else _nothing(name)
                )
            return _cast(numpy, given, cls)[()]
        except (ValueError, TypeError, OverflowError) as exc:
            raise Misfit(f"{name} refuses it: {exc}") from exc

    return convert


def _nothing(name: str) -> Any:
    raise ValueError(f"it is no {name}")


# --- frames, and what is made by calling its class ------------------------------------------------


_ROWS_OR_COLUMNS = (list, dict, tuple)
_BY_CALLING: dict[str, dict[str, Any]] = {
    "pandas": {
        "DataFrame": _ROWS_OR_COLUMNS, "Series": _ROWS_OR_COLUMNS, "Index": (list, tuple),
        "DatetimeIndex": (list, tuple), "Categorical": (list, tuple), "Timestamp": (str, int, float),
        "Timedelta": (str, int, float), "Period": (str,),
    },
    "polars": {"DataFrame": _ROWS_OR_COLUMNS, "LazyFrame": _ROWS_OR_COLUMNS, "Series": (list, tuple)},
    "pyarrow": {"Table": _ROWS_OR_COLUMNS},
}  # fmt: skip


def _by_calling(cls: Any, takes: Any) -> Converter | None:
    if takes is None:
        return None

    def convert(value: Any, lax: bool) -> Any:
        if isinstance(value, cls):
            return value
        if lax and isinstance(value, str) and str not in takes:
            value = text_json(value)
        if isinstance(value, bool) or not isinstance(value, takes):
            raise expected(cls.__name__, value)
        try:
            if cls.__module__.startswith("pyarrow"):
                return cls.from_pylist(value) if isinstance(value, list) else cls.from_pydict(value)
            return cls(value)
        except Exception as exc:
            raise Misfit(f"{cls.__name__} refuses it: {exc}") from exc

    return convert
