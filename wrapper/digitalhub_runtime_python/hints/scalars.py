"""Values that JSON has as text or numbers: one line of a table for each class of the standard library."""

from __future__ import annotations

import datetime
import decimal
import enum
import os
import re
import uuid
from pathlib import Path, PurePath
from typing import Any, Callable

import msgspec

from digitalhub_runtime_python.hints import dates
from digitalhub_runtime_python.nesting import read_json

Converter = Callable[[Any, bool], Any]
"""(a JSON value, whether texts are to be read as what they may stand for) -> the value."""


class Misfit(ValueError):
    """A value that does not fit; `path` leads to it, innermost step first."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.path: list[str] = []

    def __str__(self) -> str:
        where = "".join(reversed(self.path))
        return f"{self.args[0]} - at `${where}`" if where else str(self.args[0])


def expected(name: str, value: Any) -> Misfit:
    return Misfit(f"Expected `{name}`, got `{type(value).__name__}`")


def text_json(text: str) -> Any:
    """A text as JSON, or as it is."""
    try:
        return read_json(text)
    except ValueError:
        return text


def plain(cls: Any) -> Converter:
    """What JSON has itself; msgspec's rules: a whole number is a float, nothing else is bent."""

    def convert(value: Any, lax: bool) -> Any:
        lax = lax and isinstance(value, str)
        if lax and cls is bool and value.strip().lower() in _WORDS:
            return _WORDS[value.strip().lower()]
        if lax and cls in (int, float):
            value = value.strip()
            if cls is int and re.fullmatch(r"[+-]?\d+", value):
                return _checked(int, value)  # of any size
        try:
            return msgspec.convert(value, cls, strict=not lax)
        except msgspec.ValidationError as exc:
            raise Misfit(str(exc)) from None

    return convert


_WORDS = {"true": True, "on": True, "yes": True, "1": True}
_WORDS.update({"false": False, "off": False, "no": False, "0": False})  # what HTML forms send


def _checked(make: Callable[[Any], Any], value: Any) -> Any:
    """What the class makes of it; the exceptions that mean that it cannot are a Misfit."""
    try:
        return make(value)
    except (ValueError, TypeError, ArithmeticError, LookupError, re.error) as exc:
        raise Misfit(f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__) from exc


def from_text(cls: Any, make: Callable[[str], Any], name: str = "") -> Converter:
    """A class that is made from text."""

    def convert(value: Any, lax: bool) -> Any:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise expected(name or cls.__name__, value)
        return _checked(make, value)

    return convert


def from_number_or_text(cls: Any, make: Callable[[Any], Any]) -> Converter:
    """A class that is made from text or from a number."""

    def convert(value: Any, lax: bool) -> Any:
        if isinstance(value, cls):
            return value
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise expected(cls.__name__, value)
        return _checked(make, value)

    return convert


def _decimal(value: Any) -> decimal.Decimal:
    return decimal.Decimal(repr(value) if isinstance(value, float) else value)


def raw_bytes(cls: Any) -> Converter:
    """Base64, as msgspec has it."""

    def convert(value: Any, lax: bool) -> Any:
        if isinstance(value, cls):
            return value
        if isinstance(value, (bytes, bytearray, memoryview)):
            return cls(value)
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as exc:
            raise Misfit(str(exc)) from None

    return convert


def timestamp(cls: type[datetime.datetime]) -> Converter:
    """A datetime or a class derived from it."""

    def make(text: str) -> datetime.datetime:
        t = dates.moment_from(text)
        if cls is datetime.datetime:
            return t
        return cls(
            t.year, t.month, t.day, t.hour, t.minute, t.second, t.microsecond, tzinfo=t.tzinfo
        )

    return from_text(cls, make)


def day(cls: type[datetime.date]) -> Converter:
    read = from_text(cls, lambda text: cls.fromordinal(dates.date_from(text).toordinal()))

    def convert(value: Any, lax: bool) -> Any:
        if isinstance(value, datetime.datetime):  # a date to Python, but its time would go with it
            raise expected(cls.__name__, value)
        return read(value, lax)

    return convert


def number_kind(cls: Any) -> Converter:
    """`numbers.Real` and the like: JSON's own number where it is of that kind."""

    def convert(value: Any, lax: bool) -> Any:
        if lax and isinstance(value, str):
            value = text_json(value)
        if isinstance(value, bool) or not isinstance(value, cls):
            raise expected(cls.__name__, value)
        return value

    return convert


def choices(values: list[Any], name: str) -> Converter:
    """`Literal[…]`: one of the values, by value and type; a member of an enum by its value or name."""

    def convert(value: Any, lax: bool) -> Any:
        for choice in values:
            if same(choice, value, lax):
                return choice
        for choice in values:
            if isinstance(choice, enum.Enum) and (
                same(choice.value, value, lax) or value == choice.name
            ):
                return choice
        raise Misfit(f"it is not one of {name}")

    return convert


def same(choice: Any, value: Any, lax: bool) -> bool:
    """Whether a JSON value is this very one: 1 is not True, and a list stands for a tuple."""
    if lax and isinstance(value, str) and not isinstance(choice, str):
        value = text_json(value) if choice is not None or value == "null" else value
    if isinstance(value, list) and isinstance(choice, tuple):
        value = tuple(value)
    if isinstance(choice, float) and type(value) is int:
        value = float(value) if abs(value) < 2**53 else value
    return type(choice) is type(value) and bool(choice == value)


def enumeration(cls: Any) -> Converter:
    """A member by its value, else by its name; of a Flag also several names."""
    is_flag = issubclass(cls, enum.Flag)

    def convert(value: Any, lax: bool) -> Any:
        if isinstance(value, cls):
            return value
        for member in cls.__members__.values():
            if same(_json_value(member), value, lax):
                return member
        if isinstance(value, str) and value in cls.__members__:
            return cls[value]
        names = value.split("|") if isinstance(value, str) else value
        if is_flag and isinstance(names, (list, tuple)):
            total = cls(0)
            for name in names:
                total |= _named(cls, name)
            return total
        if lax and is_flag and isinstance(value, str) and value.isdecimal():
            value = int(value)
        if not isinstance(value, bool) and isinstance(value, (str, int)):
            try:
                return cls(value)  # combinations of flags, and what its own _missing_ takes
            except (ValueError, KeyError, TypeError):
                pass
        raise Misfit(f"it is not one of {_members(cls)}")

    return convert


def _named(cls: Any, name: Any) -> Any:
    if isinstance(name, str) and name.strip() in cls.__members__:
        return cls[name.strip()]
    raise Misfit(f"{name!r} is not one of {_members(cls)}")


def _json_value(member: Any) -> Any:
    """A member's value as JSON has it: a class derived from str or int is that."""
    value = member.value
    for base in (str, int, float):
        if isinstance(value, base) and not isinstance(value, (bool, enum.Enum)):
            return base(value)
    return value


def _members(cls: Any) -> str:
    shown = [repr(m.value) for m in cls.__members__.values()]
    return ", ".join(shown[:12]) + (", …" if len(shown) > 12 else "")


def path(cls: Any) -> Converter:
    return from_text(cls, lambda text: cls(_without_nul(text)), "path")


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a path has no NUL in it")
    return text


def _complex(value: Any) -> complex:
    return complex(value.replace(" ", "") if isinstance(value, str) else value)


TABLE: dict[Any, Converter] = {
    int: plain(int),
    float: plain(float),
    str: plain(str),
    bool: plain(bool),
    bytes: raw_bytes(bytes),
    bytearray: raw_bytes(bytearray),
    memoryview: raw_bytes(memoryview),
    complex: from_number_or_text(complex, _complex),
    datetime.datetime: timestamp(datetime.datetime),
    datetime.date: day(datetime.date),
    datetime.time: from_text(datetime.time, dates.time_from),
    datetime.timedelta: from_text(datetime.timedelta, dates.span_from),
    decimal.Decimal: from_number_or_text(decimal.Decimal, _decimal),
    uuid.UUID: from_text(uuid.UUID, uuid.UUID),
    re.Pattern: from_text(re.Pattern, re.compile),
    os.PathLike: path(Path),
}
"""Class -> its converter, where the hint is this very class."""


def of_class(cls: type) -> Converter | None:
    """The converter of a class that belongs to one of these families."""
    if issubclass(cls, enum.Enum):
        return enumeration(cls)
    if issubclass(cls, PurePath):
        return path(cls)
    if issubclass(cls, datetime.datetime):
        return timestamp(cls)
    if issubclass(cls, datetime.date):
        return day(cls)
    # By name: whoever has such a hint has imported it.
    make: Any = cls
    name = f"{cls.__module__}.{cls.__qualname__}"
    if cls.__module__ == "ipaddress":
        return from_text(cls, make)
    if cls.__module__ == "numbers":
        return number_kind(cls)
    if name == "fractions.Fraction":
        return from_number_or_text(cls, lambda v: make(repr(v) if isinstance(v, float) else v))
    if name == "zoneinfo.ZoneInfo":
        return from_text(cls, make)
    return None
