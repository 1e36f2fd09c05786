"""Objects as classes with named fields: dataclasses, attrs, TypedDict, named tuples, msgspec.Struct.

What a class takes is what its constructor's signature says: so an InitVar, a converter, an alias, a
default factory and an `__init__` of the user's own all count.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from digitalhub_runtime_python.hints import reading
from digitalhub_runtime_python.hints.naming import special_name
from digitalhub_runtime_python.hints.scalars import Converter, Misfit, expected, text_json

Compile = Callable[[Any, Mapping[Any, Any]], Converter]

_P = inspect.Parameter


class Field(NamedTuple):
    """One key of an object."""

    key: str
    convert: Converter
    required: bool
    takes_null: bool
    """Its default is None, so null is fine whatever the hint says."""
    argument: str = ""
    """The constructor's name for it."""
    positional: bool = False


def is_record(cls: Any) -> bool:
    """Whether an object can be made a class by its fields."""
    return isinstance(cls, type) and (
        dataclasses.is_dataclass(cls)
        or hasattr(cls, "__attrs_attrs__")
        or hasattr(cls, "__struct_fields__")
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    )


def is_typed_dict(cls: Any) -> bool:
    return isinstance(cls, type) and hasattr(cls, "__required_keys__") and hasattr(cls, "__total__")


def record(
    cls: Any, args: tuple[Any, ...], bound: Mapping[Any, Any], compile_: Compile
) -> Converter:
    """The converter of a class with named fields; `args` are what stands for its type variables."""
    ready: list[list[Field]] = []
    config = getattr(cls, "__struct_config__", None)
    from_list = issubclass(cls, tuple) or getattr(config, "array_like", False)

    def convert(value: Any, lax: bool) -> Any:
        if isinstance(value, cls):
            return value
        if not ready:  # now, not before: a class may contain itself
            ready.append(_fields(cls, _bindings(cls, args, bound), compile_))
        fields = ready[0]
        value = text_json(value) if lax and isinstance(value, str) else value
        if from_list and isinstance(value, (list, tuple)):
            value = _by_key(value, fields)
        if config is not None:
            value = _as_struct(value, config, fields)
        return _made(cls, fields, converted(fields, value))

    return convert


def typed_dict(
    cls: Any, args: tuple[Any, ...], bound: Mapping[Any, Any], compile_: Compile
) -> Converter:
    """The converter of a TypedDict: a dict, with whatever else is in it."""
    ready: list[list[Field]] = []

    def convert(value: Any, lax: bool) -> Any:
        if not ready:
            ready.append(_keys(cls, _bindings(cls, args, bound), compile_))
        value = text_json(value) if lax and isinstance(value, str) else value
        found = converted(ready[0], value)
        return {**value, **found}

    return convert


def converted(fields: list[Field], value: Any) -> dict[str, Any]:
    """The values of those fields that an object has."""
    if not isinstance(value, Mapping):
        raise expected("object", value)
    found: dict[str, Any] = {}
    for field in fields:
        key = field.key
        if key in value:
            item = value[key]
            try:
                found[key] = (
                    None if item is None and field.takes_null else field.convert(item, False)
                )
            except Misfit as exc:
                exc.path.append(f".{key}")
                raise
        elif field.required:
            raise Misfit(f"Object missing required field `{key}`")
    return found


def unknown_keys(cls: Any, value: Any) -> int:
    """How many keys of an object are not fields of the class: of two that take it, the closer one has fewer."""
    if not isinstance(value, Mapping) or not isinstance(cls, type):
        return 0
    names: Any = getattr(cls, "model_fields", None) or getattr(cls, "__fields__", None)
    if is_record(cls):
        names = _parameters(cls)
    elif is_typed_dict(cls):
        names = {*cls.__required_keys__, *cls.__optional_keys__}  # type: ignore[attr-defined]
    return len(value.keys() - set(names)) if names is not None else 0


def _parameters(cls: Any) -> dict[str, inspect.Parameter]:
    """Key in JSON -> parameter of the constructor; a Struct may have other names there."""
    names = dict(
        zip(getattr(cls, "__struct_fields__", ()), getattr(cls, "__struct_encode_fields__", ()))
    )
    parameters = reading.signature_of(cls).parameters.values()
    kinds = (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)
    return {names.get(p.name, p.name): p for p in parameters if p.kind not in kinds}


def _fields(cls: Any, bound: Mapping[Any, Any], compile_: Compile) -> list[Field]:
    parameters = _parameters(cls)
    hints = _hints(cls, parameters)
    return [
        Field(
            key,
            compile_(hints.get(p.name, Any), bound),
            p.default is _P.empty,
            p.default is None,
            p.name,
            p.kind is _P.POSITIONAL_ONLY,
        )
        for key, p in parameters.items()
    ]


def _hints(cls: Any, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Parameter -> hint: the class's, or those of an `__init__` that the user wrote."""
    found = reading.class_hints(cls)
    for attribute in getattr(cls, "__attrs_attrs__", ()):
        if attribute.init:  # `_x` is given as `x`; what a converter takes is its own affair
            found[attribute.alias] = (
                found.get(attribute.name, Any) if attribute.converter is None else Any
            )
    init = cls.__init__
    if hasattr(init, "__code__") and not init.__code__.co_filename.startswith("<"):
        found.update(reading.function_hints(init, {p.name: p for p in parameters.values()}))
    return {n: h.type if isinstance(h, dataclasses.InitVar) else h for n, h in found.items()}


def _keys(cls: Any, bound: Mapping[Any, Any], compile_: Compile) -> list[Field]:
    fields = []
    hints = reading.class_hints(cls)
    for name in {**hints, **dict.fromkeys(sorted(cls.__required_keys__))}:
        hint, required = hints.get(name, Any), name in cls.__required_keys__
        # `NotRequired[…]` in a postponed annotation: Python itself does not see it in the text.
        while (mark := special_name(typing.get_origin(hint))) in _MARKS:
            required = {"Required": True, "NotRequired": False}.get(mark, required)
            hint = typing.get_args(hint)[0]
        fields.append(Field(name, compile_(hint, bound), required, False))
    return fields


_MARKS = ("Required", "NotRequired", "ReadOnly")


def _bindings(cls: Any, args: tuple[Any, ...], bound: Mapping[Any, Any]) -> dict[Any, Any]:
    """Type variable -> what stands for it: in `Box[int]`, and in the bases of `class Ints(Box[int])`."""
    found: dict[Any, Any] = {"Self": cls}
    found.update(zip(getattr(cls, "__parameters__", ()), (_known(a, bound) for a in args)))
    for base in cls.__mro__:
        for generic in vars(base).get("__orig_bases__", ()):
            variables = getattr(typing.get_origin(generic), "__parameters__", ())
            for variable, argument in zip(variables, typing.get_args(generic)):
                if variable is not argument:
                    found.setdefault(variable, _known(argument, found))
    return found


def _known(argument: Any, bound: Mapping[Any, Any]) -> Any:
    return bound.get(argument, argument) if isinstance(argument, typing.TypeVar) else argument


def _by_key(values: Sequence[Any], fields: list[Field]) -> dict[str, Any]:
    if len(values) > len(fields):
        raise Misfit(f"Expected `array` of at most length {len(fields)}, got {len(values)}")
    return dict(zip([f.key for f in fields], values))


def _as_struct(value: Any, config: Any, fields: list[Field]) -> Any:
    """An object for a msgspec.Struct, as its own options have it."""
    if not isinstance(value, Mapping):
        return value
    rest = dict(value)
    if config.tag is not None:
        tag = rest.pop(config.tag_field, config.tag)
        if tag != config.tag:
            raise Misfit(f"Invalid value {tag!r} - at `$.{config.tag_field}`")
    unknown = rest.keys() - {f.key for f in fields}
    if config.forbid_unknown_fields and unknown:
        raise Misfit(f"Object contains unknown field `{min(unknown)}`")
    return rest


def _made(cls: Any, fields: list[Field], values: Mapping[str, Any]) -> Any:
    """The object, by its constructor; what that or a __post_init__ refuses is a Misfit."""
    given = [f for f in fields if f.key in values]
    args = [values[f.key] for f in given if f.positional]
    try:
        return cls(*args, **{f.argument: values[f.key] for f in given if not f.positional})
    except (ValueError, TypeError) as exc:
        raise Misfit(f"{cls.__name__} refuses it: {exc}") from exc
