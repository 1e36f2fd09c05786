"""Hints that hypothesis makes: a value that fits arrives as the hinted type, one that does not is refused by the argument's name.

A hint is made with the JSON of a value that fits, what has to arrive, and JSON that cannot fit. The classes are
real ones; no two members of a union take the same JSON, so there is one right answer.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import typing
import uuid
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from digitalhub_runtime_python.arguments import compose, read_signature
from digitalhub_runtime_python.errors import ArgumentFault

pydantic = pytest.importorskip("pydantic")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Sample(NamedTuple):
    """A hint with a value that fits it and values that do not."""

    hint: Any
    given: Any
    """JSON that fits."""
    arrives: Any
    others: list[Any]
    """JSON that does not."""
    shape: str
    """The kind of JSON that it takes; two of one kind are never in one union."""


def _same(hint: Any, shape: str, values: st.SearchStrategy[Any], others: list[Any]) -> Any:
    """A hint whose values are JSON themselves."""
    return values.map(lambda value: Sample(hint, value, value, others, shape))


def _text(
    hint: Any, values: st.SearchStrategy[Any], write: Callable[[Any], str], others: list[Any]
) -> Any:
    """A hint whose values are text in JSON."""
    return values.map(lambda value: Sample(hint, write(value), value, others, "text"))


NUMBERS = st.integers(-(2**40), 2**40)
SCALARS = st.one_of(
    _same(int, "number", NUMBERS, [True, "5", 5.5, None, [], {}]),
    _same(bool, "bool", st.booleans(), ["true", 1, None, []]),
    _same(str, "text", st.text("abc 1é", max_size=4), [5, None, True, []]),
    _same(float, "number", st.floats(allow_nan=False, allow_infinity=False), [True, "5", None, {}]),
    _same(dict, "object", st.just({"a": 1}), [[], 5, "x"]),
    _same(list, "array", st.just([1, "a"]), [{}, 5, "x"]),
    _text(Path, st.sampled_from(["a", "a/b", "."]).map(Path), str, [5, None, ["a"]]),
    _text(uuid.UUID, st.uuids(), str, ["x", 5, None]),
    # A Decimal takes numbers too, so it is in no union.
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda d: Sample(decimal.Decimal, str(d), d, ["x", True, None], "mixed")),
    _text(datetime.date, st.dates(), str, ["x", "2026-13-01", 5]),
    _text(datetime.datetime, st.datetimes(), datetime.datetime.isoformat, ["x", 5, None]),
    _text(datetime.time, st.times(), str, ["25:00", 5, "x"]),
    _text(Colour, st.sampled_from(Colour), lambda member: member.value, ["green", 1, None]),
    st.sampled_from(Level).map(lambda member: Sample(Level, int(member), member, [3, "x", None, True], "number")),
    st.sampled_from(["a", 1]).map(lambda v: Sample(typing.Literal["a", 1], v, v, ["b", 2, True, None], "mixed")),
    st.integers(1, 9).map(lambda n: Sample(pydantic.PositiveInt, n, n, [0, -1, "1", True], "number")),
)  # fmt: skip


def _optional(item: Sample) -> st.SearchStrategy[Sample]:
    others = [value for value in item.others if value is not None]
    hint = typing.Optional[item.hint]
    return st.sampled_from(
        [
            Sample(hint, item.given, item.arrives, others, "mixed"),
            Sample(hint, None, None, others, "mixed"),
        ]
    )


def _united(items: tuple[Sample, Sample]) -> st.SearchStrategy[Sample]:
    one, other = items
    if "mixed" in (one.shape, other.shape) or one.shape == other.shape:
        return st.just(one)
    hint = typing.Union[one.hint, other.hint]
    return st.sampled_from(
        [Sample(hint, item.given, item.arrives, [None], "mixed") for item in items]
    )


def _several(item: Sample) -> st.SearchStrategy[Sample]:
    """Containers of one item or two that are equal."""
    given, arrives, bad = item.given, item.arrives, [[other] for other in item.others[:2]]
    rows = [
        Sample(typing.List[item.hint], [given, given], [arrives, arrives], [*bad, "x", 5, {}], "array"),  # noqa: UP006
        Sample(typing.Sequence[item.hint], [given], [arrives], [*bad, "x", {}], "array"),
        Sample(typing.Iterable[item.hint], [given], [arrives], [*bad, {}], "array"),
        Sample(typing.Tuple[item.hint, ...], [given], (arrives,), [*bad, 5], "array"),  # noqa: UP006
        Sample(typing.Tuple[item.hint, bool], [given, True], (arrives, True), [[given], [given, 1]], "array"),  # noqa: UP006
        Sample(typing.Dict[str, item.hint], {"k": given}, {"k": arrives}, [{"k": b[0]} for b in bad] + [[]], "object"),  # noqa: UP006
        Sample(typing.Mapping[str, item.hint], {"k": given}, {"k": arrives}, [5, "x"], "object"),
    ]  # fmt: skip
    return st.sampled_from(rows)


NAMES = ("first", "second")


def _classes(items: list[Sample]) -> st.SearchStrategy[Sample]:
    """A class of each kind with these fields."""
    fields = dict(zip(NAMES, items))
    hints = {name: item.hint for name, item in fields.items()}
    given = {name: item.given for name, item in fields.items()}
    values = {name: item.arrives for name, item in fields.items()}
    others: list[Any] = [{**given, name: bad} for name, f in fields.items() for bad in f.others[:2]]
    others += [{}, 5, "x"]
    data = dataclasses.make_dataclass("Data", list(hints.items()))
    record = typing.NamedTuple("Record", list(hints.items()))  # type: ignore[misc]
    keys = typing.TypedDict("Keys", hints)  # type: ignore[misc]
    return st.sampled_from(
        [
            Sample(data, given, data(**values), others, "object"),
            Sample(record, given, record(**values), others, "mixed"),
            Sample(record, list(given.values()), record(**values), others, "mixed"),
            Sample(keys, given, values, others, "object"),
        ]
    )


def _models(item: Sample) -> Sample:
    """A pydantic model, which has rules of its own for what is in it: only what is plain."""
    model = pydantic.create_model("Model", first=(item.hint, ...))
    return Sample(model, {"first": item.given}, model(first=item.arrives), [{}, 5, "x"], "object")


PLAIN = SCALARS.filter(lambda item: item.hint in (int, bool, str, Colour, uuid.UUID, datetime.date))
SAMPLES = st.recursive(
    SCALARS | PLAIN.map(_models),
    lambda inner: st.one_of(
        inner.flatmap(_optional),
        st.tuples(inner, inner).flatmap(_united),
        inner.flatmap(_several),
        st.lists(inner, min_size=1, max_size=2).flatmap(_classes),
    ),
    max_leaves=5,
)


def _call(hint: Any, value: Any, *, text: bool = False) -> Any:
    """What a function gets whose argument `amount` has the hint."""

    def function(amount: Any) -> Any:
        return amount

    function.__annotations__["amount"] = hint
    given = json.dumps(value) if text else json.loads(json.dumps(value))
    arguments = compose(read_signature(function), {"amount": given}, injected={}, lax=text)
    return function(*arguments.args, **arguments.kwargs)


def _types(value: Any) -> Any:
    """The classes of a value and of what is in it, for 1 == True == 1.0."""
    if isinstance(value, dict):
        return [type(value), *[_types(item) for item in value.values()]]
    if isinstance(value, (list, tuple)):
        return [type(value), *[_types(item) for item in value]]
    if dataclasses.is_dataclass(value):
        return [type(value), *[_types(getattr(value, f.name)) for f in dataclasses.fields(value)]]
    return type(value)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(SAMPLES)
def test_a_value_that_fits_arrives_as_the_hinted_type(sample: Sample) -> None:
    found = _call(sample.hint, sample.given)
    assert found == sample.arrives
    assert _types(found) == _types(sample.arrives)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(SAMPLES, st.data())
def test_a_value_that_does_not_fit_is_refused_with_the_arguments_name(
    sample: Sample, data: st.DataObject
) -> None:
    if not sample.others:
        return
    other = data.draw(st.sampled_from(sample.others))
    with pytest.raises(ArgumentFault, match=r"'amount' expects "):
        found = _call(sample.hint, other)
        pytest.fail(f"{sample.hint} took {other!r} as {found!r}")


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(
    SAMPLES.filter(lambda sample: sample.shape in ("array", "object"))
)  # in a union it may be meant as text
def test_a_list_or_object_given_as_text_arrives_as_if_it_were_json(sample: Sample) -> None:
    assert _call(sample.hint, sample.given, text=True) == sample.arrives
