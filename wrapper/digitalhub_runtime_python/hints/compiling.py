"""Type hints as converters: every hint has one, if only one that refuses. docs/reference/arguments.md is its table."""

from __future__ import annotations

import collections
import collections.abc
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from digitalhub_runtime_python.hints import constraints, foreign, records, scalars
from digitalhub_runtime_python.hints.naming import is_union, special_name, type_name
from digitalhub_runtime_python.hints.scalars import Converter, Misfit, expected, text_json

_NOTHING: Mapping[Any, Any] = types.MappingProxyType({})


def converter(hint: Any, bound: Mapping[Any, Any] = _NOTHING) -> Converter:
    """What makes a JSON value the hint's type, or raises Misfit.

    Args:
        hint: an annotation, evaluated.
        bound: type variable -> the hint that it stands for; `"Self"` -> the class it is used in.
    """
    if hint is Any or hint is object or hint is inspect.Parameter.empty:
        return _as_it_is
    if hint is None or hint is type(None):
        return _null
    inner = _unwrapped(hint, bound)
    if inner is not hint:
        return converter(inner, bound)
    if typing.get_origin(hint) is typing.Annotated:
        return constraints.constrained(hint, bound, converter)
    if is_union(hint):
        return _union(hint, bound)
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if special_name(origin) == "Literal":
        return scalars.choices(list(args), type_name(hint)[len("Literal") :])
    if not isinstance(origin, type):
        return _refused(hint)
    return (
        scalars.TABLE.get(origin)
        or _collection(hint, origin, args, bound)
        or foreign.converter(hint, origin)
        or _record(origin, args, bound)
        or scalars.of_class(origin)
        or _derived(origin, bound)
        or _protocol(origin)
        or _refused(hint)
    )


def _as_it_is(value: Any, lax: bool) -> Any:
    return text_json(value) if lax and isinstance(value, str) else value


def _null(value: Any, lax: bool) -> Any:
    if value is None or (lax and value == "null"):
        return None
    raise expected("null", value)


def _unwrapped(hint: Any, bound: Mapping[Any, Any]) -> Any:
    """What stands behind names for hints and marks on them; the hint itself where it is neither."""
    if hasattr(hint, "__supertype__"):  # NewType
        return hint.__supertype__
    if type(hint).__name__ == "TypeAliasType":  # type Names = list[str]
        return hint.__value__
    if type(typing.get_origin(hint)).__name__ == "TypeAliasType":  # Pair[int] of type Pair[T] = …
        alias = typing.get_origin(hint)
        return alias.__value__[typing.get_args(hint)]
    if isinstance(hint, typing.TypeVar):
        if hint in bound and bound[hint] is not hint:
            return bound[hint]
        many = hint.__constraints__
        return typing.Union[many] if many else hint.__bound__ or Any
    name = special_name(typing.get_origin(hint) or hint)
    args = typing.get_args(hint)
    if name in ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly"):
        return args[0] if args else Any
    if name == "Self":
        return bound.get("Self", Any)
    if name == "LiteralString":
        return str
    return Any if isinstance(hint, (str, typing.ForwardRef)) else hint  # counts as none


# --- unions --------------------------------------------------------------------------------------


def _union(hint: Any, bound: Mapping[Any, Any]) -> Converter:
    """The first type that takes the value; of several that take an object the one that names most of it."""
    members = typing.get_args(hint)
    converters = [(m, converter(m, bound)) for m in members if m is not type(None)]
    has_null = len(converters) < len(members)
    plain = [m for m in (int, float) if m in members]

    def convert(value: Any, lax: bool) -> Any:
        if value is None and has_null:
            return None
        if type(value) in plain:  # 5 is an int where there are both
            return value
        if lax and has_null and value == "null" and str not in members:
            return None
        problems, best, fewest = [], None, sys.maxsize
        for member, convert_it in converters:
            try:
                found = convert_it(value, lax)
            except Misfit as exc:
                problems.append(exc)
                continue
            unknown = records.unknown_keys(typing.get_origin(member) or member, value)
            if not unknown:
                return found
            if unknown < fewest:
                best, fewest = [found], unknown
        if best is not None:
            return best[0]
        if len(problems) == 1:
            raise problems[0]
        names = "|".join(type_name(m) for m in members)
        raise Misfit(f"Expected `{names}`: " + "; or ".join(map(str, problems)))

    return convert


# --- lists and objects ----------------------------------------------------------------------------


_abc = collections.abc
_LISTS: dict[Any, Callable[[list[Any]], Any]] = {
    **dict.fromkeys(
        (list, _abc.Sequence, _abc.MutableSequence, _abc.Collection, _abc.Iterable, _abc.Container,
         _abc.Reversible),
        list,
    ),
    **dict.fromkeys((set, _abc.Set, _abc.MutableSet), set),
    _abc.Iterator: iter,
    frozenset: frozenset,
    collections.deque: collections.deque,
}  # fmt: skip
_OBJECTS: dict[Any, Callable[[dict[Any, Any]], Any]] = {
    **dict.fromkeys((dict, _abc.Mapping, _abc.MutableMapping), dict),
    collections.OrderedDict: collections.OrderedDict,
    collections.ChainMap: collections.ChainMap,
    collections.Counter: collections.Counter,
    types.MappingProxyType: types.MappingProxyType,
}


def _collection(
    hint: Any, origin: Any, args: tuple[Any, ...], bound: Mapping[Any, Any]
) -> Converter | None:
    if _is_native(hint):
        return _native(hint, origin)
    if origin is tuple:
        return _tuple(args, bound, is_bare=not args and "[" not in str(hint))
    if origin in _LISTS:
        return _list(origin, converter(args[0] if args else Any, bound))
    if origin is collections.defaultdict:
        key, item = args or (Any, Any)
        made = typing.get_origin(item) or item
        factory = made if isinstance(made, type) and not inspect.isabstract(made) else None
        return _object(converter(key, bound), converter(item, bound), _defaulting(factory))
    if origin is collections.Counter:
        return _object(
            converter(args[0] if args else Any, bound), converter(int), collections.Counter
        )
    if origin in _OBJECTS:
        key, item = args or (Any, Any)
        return _object(converter(key, bound), converter(item, bound), _OBJECTS[origin])
    return None


def _defaulting(factory: Any) -> Callable[[dict[Any, Any]], Any]:
    return lambda items: collections.defaultdict(factory, items)


_NATIVE = (int, float, str, bool)
_BULK = (list, set, frozenset, tuple, dict)


def _is_native(hint: Any) -> bool:
    """Whether msgspec converts the whole as we would, in one go: a list of a million floats."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) not in _BULK or not args or args == ((),):
        return False
    if typing.get_origin(hint) is dict:
        if args[0] is not str:
            return False
        args = args[1:]
    return all(a in _NATIVE or a is ... or _is_native(a) for a in args)


def _native(hint: Any, origin: Any) -> Converter:
    by_parts: list[Converter] = []

    def convert(value: Any, lax: bool) -> Any:
        if lax and isinstance(value, str):
            value, lax = text_json(value), False
        if lax:  # texts in it
            by_parts[:] = by_parts or [_by_parts(hint, origin)]
            return by_parts[0](value, lax)
        try:
            return msgspec.convert(value, hint)
        except msgspec.ValidationError as exc:
            raise Misfit(str(exc)) from None

    return convert


def _by_parts(hint: Any, origin: Any) -> Converter:
    args = typing.get_args(hint)
    if origin is tuple:
        return _tuple(args, _NOTHING, is_bare=False)
    if origin is dict:
        return _object(converter(args[0]), converter(args[1]), dict)
    return _list(origin, converter(args[0]))


def _items(value: Any, lax: bool) -> tuple[Iterable[Any], bool]:
    """The items of a list, and whether they may be texts that stand for something else."""
    if lax and isinstance(value, str):
        value, lax = text_json(value), False
    if not isinstance(value, (list, tuple, _abc.Set, collections.deque)):
        raise expected("array", value)
    return value, lax


def _each(items: Iterable[Any], lax: bool, convert: Converter) -> list[Any]:
    found = []
    try:
        for item in items:
            found.append(convert(item, lax))
    except Misfit as exc:
        exc.path.append(f"[{len(found)}]")
        raise
    return found


def _list(origin: Any, convert_item: Converter) -> Converter:
    make = _LISTS[origin]

    def convert(value: Any, lax: bool) -> Any:
        items, lax = _items(value, lax)
        found = _each(items, lax, convert_item)
        try:
            return make(found)
        except TypeError as exc:  # a list in a set
            raise Misfit(str(exc)) from None

    return convert


def _tuple(args: tuple[Any, ...], bound: Mapping[Any, Any], *, is_bare: bool) -> Converter:
    if is_bare or (len(args) == 2 and args[1] is ...):
        each = converter(Any if is_bare else args[0], bound)
        return lambda value, lax: tuple(_each(*_items(value, lax), each))
    parts = [converter(a, bound) for a in args if a != ()]

    def convert(value: Any, lax: bool) -> Any:
        items, lax = _items(value, lax)
        given = list(items)
        if len(given) != len(parts):
            raise Misfit(f"Expected `array` of length {len(parts)}, got {len(given)}")
        return tuple(_at(i, part, given[i], lax) for i, part in enumerate(parts))

    return convert


def _at(index: int, convert: Converter, item: Any, lax: bool) -> Any:
    try:
        return convert(item, lax)
    except Misfit as exc:
        exc.path.append(f"[{index}]")
        raise


def _object(key: Converter, item: Converter, make: Callable[[dict[Any, Any]], Any]) -> Converter:
    def convert(value: Any, lax: bool) -> Any:
        value = text_json(value) if lax and isinstance(value, str) else value
        if not isinstance(value, Mapping):
            raise expected("object", value)
        found = {}
        for name, part in value.items():
            try:
                # A JSON object has no other keys than texts, and dict[int, float] is a fine hint.
                made = name if key is _as_it_is else key(name, True)
                found[made] = item(part, False)
            except Misfit as exc:
                exc.path.append(f"[{name!r}]")
                raise
            except TypeError as exc:  # a key that cannot be one
                raise Misfit(str(exc)) from None
        return make(found)

    return convert


# --- classes -------------------------------------------------------------------------------------


def _record(cls: Any, args: tuple[Any, ...], bound: Mapping[Any, Any]) -> Converter | None:
    if records.is_typed_dict(cls):
        return records.typed_dict(cls, args, bound, converter)
    return records.record(cls, args, bound, converter) if records.is_record(cls) else None


def _derived(cls: Any, bound: Mapping[Any, Any]) -> Converter | None:
    """A class derived from what JSON has: `class Celsius(float)`, `class Names(List[str])`."""
    base = next((b for b in _BASES if issubclass(cls, b)), None)
    if base is None or cls.__module__ == "builtins":
        return None
    generic = [g for g in getattr(cls, "__orig_bases__", ()) if typing.get_origin(g) is base]
    inner = converter(generic[0] if generic else base, bound)

    def convert(value: Any, lax: bool) -> Any:
        if isinstance(value, cls):
            return value
        plain = inner(value, lax)
        try:
            return cls(plain)
        except (ValueError, TypeError) as exc:
            raise Misfit(f"{cls.__name__} refuses it: {exc}") from exc

    return convert


_BASES = (str, int, float, bytes, list, dict, set, frozenset, tuple, collections.deque)


def _protocol(cls: Any) -> Converter | None:
    """A Protocol is not a data type: nothing to convert to, and mostly nothing to compare with."""
    if all(base.__name__ != "Protocol" for base in cls.__bases__):
        return None

    def convert(value: Any, lax: bool) -> Any:
        try:
            fits = isinstance(value, cls)
        except TypeError:
            return value
        if not fits:
            raise expected(cls.__name__, value)
        return value

    return convert


def _refused(hint: Any) -> Converter:
    """A hint that JSON has nothing for: only what already is one passes, as a run in the caller's process gives it."""
    cls = typing.get_origin(hint) or hint
    name = getattr(cls, "__name__", None) or type_name(hint)

    def convert(value: Any, lax: bool) -> Any:
        try:
            if isinstance(value, cls):
                return value
        except TypeError:
            pass
        if str(getattr(cls, "__module__", "")).startswith("digitalhub.entities"):
            raise Misfit("an entity is passed by its key in inputs, not in parameters")
        raise Misfit(f"a JSON value cannot become a {name}")

    return convert
