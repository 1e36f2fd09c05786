"""Arguments: what the cases do not show, and that nothing but an ArgumentFault comes of JSON."""

# ruff: noqa: UP006, UP035 - users write hints in both spellings
from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import enum
import functools
import logging
import sys
import typing
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple, Union

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitalhub_runtime_python import arguments
from digitalhub_runtime_python.arguments import Arguments, Resolved, compose, read_signature
from digitalhub_runtime_python.convert import convert
from digitalhub_runtime_python.errors import ArgumentFault

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Options(typing.TypedDict):
    depth: int


class Plain:
    pass


class Shape(typing.Protocol):
    def area(self) -> float: ...


HINTS: list[Any] = [
    int, float, str, bool, None, bytes, list, dict, set, tuple, object, Any, complex, type, range,
    List[int], Dict[str, float], Dict[int, int], Set[int], Tuple[int, str], Tuple[int, ...],
    Optional[int], Union[int, str], Union[Point, Options], Union[Point, Plain], Sequence[float],
    Mapping[str, Any], Iterable[int], Callable[[int], int], Callable, deque, typing.Deque[int],
    Point, List[Point], Colour, Pair, Options, Plain, Shape, Path, List[Path], Optional[Path],
    datetime.datetime, datetime.date, datetime.timedelta, decimal.Decimal, uuid.UUID,
    typing.TypeVar("T"), typing.NewType("Name", str),
]  # fmt: skip


def call(function: Callable[..., Any], *sources: Mapping[str, Any], **injected: Any) -> Any:
    """Compose and call, as the walk does."""
    makers = {name: (lambda v=value: v) for name, value in injected.items()}
    args, kwargs = compose(read_signature(function), *sources, injected=makers)
    return function(*args, **kwargs)


# --- properties ------------------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "event", "x y", ""]), JSON), JSON, JSON)
def test_composing_json_raises_nothing_but_an_argument_fault(
    given: dict[str, Any], more: Any, default: Any
) -> None:
    def function(a, b: int = 3, *, c: List[Point] = default, event=None):
        return a, b, c, event

    try:
        composed = compose(
            read_signature(function), given, {"b": more}, injected={"event": lambda: "event"}
        )
    except ArgumentFault as fault:
        assert fault.code == "arguments/mismatch"
        assert "It takes (a, b: int = 3, c: " in fault.hint
    else:
        assert composed.kwargs["event"] == "event"
        assert set(composed.kwargs) <= {"a", "b", "c", "event"}


@pytest.mark.parametrize("hint", HINTS, ids=str)
@given(value=JSON)
def test_converting_json_gives_a_value_or_says_why_not(hint: Any, value: Any) -> None:
    for lax in (False, True):
        try:
            convert(value, hint, lax=lax)
        except ValueError as exc:
            assert str(exc).startswith(("expects ", "a JSON value "))


@given(st.text(max_size=20))
def test_a_command_lines_text_is_a_value_or_says_why_not(text: str) -> None:
    assert convert(text, str, lax=True) == text
    for hint in (int, float, bool, List[int], Point, Optional[int], Any):
        with contextlib.suppress(ValueError):
            convert(text, hint, lax=True)


# --- hints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, hint, expected",
    [
        (5, float, 5.0),
        ([1], Iterable[int], [1]),
        ([1, 2], typing.Deque[int], deque([1, 2])),
        ({"1": 2}, Dict[int, int], {1: 2}),
        ("x", Union[int, Path], Path("x")),
        ({"x": 1}, Union[Point, Plain], Point(1)),
        ({"depth": 1}, Union[Point, Options], {"depth": 1}),
        ([1], Pair, Pair(1)),
        ("aGk=", bytes, b"hi"),
        (None, None, None),
        ({"a": 1}, Shape, {"a": 1}),
        ("1.10", decimal.Decimal, decimal.Decimal("1.10")),
        (2**70, int, 2**70),
    ],
    ids=str,
)
def test_a_value_becomes_what_the_hint_says(value: Any, hint: Any, expected: Any) -> None:
    found = convert(value, hint)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value, hint, said",
    [
        (True, int, "expects int, got bool (True)"),
        (True, float, "expects float, got bool"),
        (1, bool, "expects bool, got int (1)"),
        ("5", int, "expects int, got str ('5')"),
        (5.5, int, "expects int, got float (5.5)"),
        (None, int, "expects int, got None (None)"),
        ({"x": "1"}, Point, "at `$.x`"),
        ([{"x": 1}, {}], List[Point], "missing required field `x` - at `$[1]`"),
        ("x", Plain, "a JSON value cannot become a Plain"),
        ("x", Callable[[int], int], "a JSON value cannot become a Callable"),
        ("x" * 200, int, "xxx…"),
        ("z", typing.Literal["x", "y"], "expects Literal['x', 'y']"),
        ("x", Optional[int], "expects Optional[int], got str"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_described(value: Any, hint: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        convert(value, hint)
    assert said in str(caught.value)


def test_values_of_numpy_and_pandas_are_made_from_json() -> None:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    assert convert([1, 2], np.ndarray).tolist() == [1, 2]
    assert convert([1, 2], npt.NDArray[np.float32]).dtype == np.float32
    assert convert([[1]], List[np.ndarray])[0].shape == (1,)
    assert convert([1], Optional[np.ndarray]).shape == (1,)
    assert convert([1, 2], npt.ArrayLike) == [1, 2]
    assert convert(1.5, np.float32) == np.float32(1.5)
    assert convert([{"a": 1}], pd.DataFrame).to_dict("list") == {"a": [1]}
    assert convert([1, 2], pd.Series).tolist() == [1, 2]
    assert convert("2026-01-31", pd.Timestamp) == pd.Timestamp(2026, 1, 31)
    assert convert(None, Optional[pd.DataFrame]) is None
    for value, hint in (("x", pd.Timestamp), (300, np.int8), ("x", np.float64)):
        with pytest.raises(ValueError, match=hint.__name__):
            convert(value, hint)


def test_pydantic_models_are_validated_by_pydantic() -> None:
    import pydantic

    class Model(pydantic.BaseModel):
        n: int = pydantic.Field(gt=0)

    assert convert({"n": "3"}, Model) == Model(n=3)
    assert convert([{"n": 1}], List[Model]) == [Model(n=1)]
    assert convert(None, Optional[Model]) is None
    assert convert({"n": 1}, Union[Plain, Model]) == Model(n=1), (
        "beside a class that pydantic cannot take"
    )
    with pytest.raises(ValueError, match="greater than 0"):
        convert({"n": 0}, Model)


def test_hints_that_cannot_be_resolved_count_as_none_and_the_others_hold() -> None:
    def function(a: Missing, b: int, c: List[Missing], d: Point):  # noqa: F821
        return a, b, c, d

    assert call(function, {"a": 1, "b": 2, "c": 3, "d": {"x": 1}}) == (1, 2, 3, Point(1))
    with pytest.raises(ArgumentFault, match="'b' expects int"):
        call(function, {"a": 1, "b": "2", "c": 3, "d": {"x": 1}})


def test_hints_are_read_through_decorators_partials_objects_and_classes() -> None:
    def function(n: int, m: int = 1):
        return n, m

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    class Callable_:
        def __call__(self, n: int):
            return n

        def method(self, n: int):
            return n

    class Made:
        def __init__(self, n: int):
            self.n = n

    for target in (
        function,
        wrapper,
        functools.partial(function, m=2),
        functools.partial(wrapper, m=2),
        Callable_(),
        Callable_().method,
        Made,
        functools.lru_cache(function),
    ):
        with pytest.raises(ArgumentFault, match="'n' expects int, got str"):
            call(target, {"n": "1"})


def test_a_callable_that_does_not_say_what_it_takes_gets_what_is_given() -> None:
    assert read_signature(dict.update).takes_any or read_signature(dict.update).parameters
    assert call(dict, {"a": 1}) == {"a": 1}


def test_an_entity_in_parameters_says_where_it_belongs() -> None:
    entity = type("Dataitem", (), {"__module__": "digitalhub.entities.dataitem"})
    with pytest.raises(ValueError, match="passed by its key in inputs, not in parameters"):
        convert({"key": "store://…"}, entity)


# --- composing -------------------------------------------------------------------------------------


def test_later_sources_win_over_earlier_ones_and_over_defaults() -> None:
    def function(a=0, b=0, c=0):
        return a, b, c

    assert call(function, {"a": 1, "b": 1}, {"b": 2}) == (1, 2, 0)


def test_resolved_values_pass_as_they_are_and_later_sources_are_converted_again() -> None:
    def function(a: int):
        return a

    assert call(function, Resolved(a="an entity")) == "an entity"
    assert call(function, {"a": 1}, Resolved(a="an entity")) == "an entity"
    with pytest.raises(ArgumentFault):
        call(function, Resolved(a="an entity"), {"a": "text"})


def test_nothing_is_injected_while_something_else_is_wrong() -> None:
    def function(n: int, run):
        return n

    def expensive() -> Any:
        pytest.fail("the SDK would have been imported")

    with pytest.raises(ArgumentFault):
        compose(read_signature(function), {}, injected={"run": expensive})


def test_nothing_is_made_for_a_name_that_the_signature_lacks() -> None:
    def function(n):
        return n

    def expensive() -> Any:
        pytest.fail("the SDK would have been imported")

    assert compose(read_signature(function), {"n": 1}, injected={"run": expensive}).kwargs == {
        "n": 1
    }


def test_a_reserved_name_is_injected_over_what_is_given_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def function(event: int, n):
        return event, n

    with caplog.at_level(logging.WARNING):
        assert call(function, {"event": "mine", "n": 1}, event="theirs") == ("theirs", 1)
    assert "argument 'event' is reserved; the given value is replaced" in caplog.text


def test_a_reserved_name_that_the_function_does_not_take_is_like_any_other() -> None:
    with pytest.raises(ArgumentFault, match="'run' is unknown"):
        call(lambda n: n, {"n": 1, "run": 2}, run="theirs")
    assert call(lambda **more: more, {"run": 2}, run="theirs") == {"run": 2}


def test_positional_only_arguments_are_passed_by_position() -> None:
    signature = read_signature(_positional)
    assert compose(signature, {"a": 1, "c": 3}, injected={}) == Arguments((1, 2), {"c": 3})


def test_unknown_names_can_be_ignored() -> None:
    signature = read_signature(lambda a: a)
    composed = compose(signature, {"a": 1, "b": 2}, injected={}, ignore_unknown=True)
    assert composed.kwargs == {"a": 1}


def test_a_default_whose_repr_raises_or_is_huge_spoils_no_message() -> None:
    class Awkward:
        def __repr__(self) -> str:
            raise RuntimeError

    def function(a, b=Awkward(), c="x" * 1000):  # noqa: B008
        return a

    with pytest.raises(ArgumentFault) as caught:
        call(function, {})
    assert "b=…" in caught.value.hint
    assert len(caught.value.hint) < 300


def test_all_that_is_wrong_is_said_at_once() -> None:
    def function(epochs: int, rate: float, seed: int):
        return epochs

    with pytest.raises(ArgumentFault) as caught:
        call(function, {"epoch": 1, "rate": "fast"})
    assert caught.value.message == (
        "The arguments do not fit the function: 'epoch' is unknown (did you mean 'epochs'?); "
        "'rate' expects float, got str ('fast'); "
        "'epochs' is missing; 'seed' is missing."
    )
    assert caught.value.hint == "It takes (epochs: int, rate: float, seed: int)."


@pytest.mark.parametrize(
    "hint, form",
    [
        (None, "entity"),
        (Any, "entity"),
        (str, "entity"),
        (Path, "path"),
        (Optional[Path], "path"),
        (List[Path], "path"),
        (Union[Path, None], "path"),
    ],
    ids=str,
)
def test_an_inputs_form_follows_the_hint(hint: Any, form: str) -> None:
    assert arguments.input_form(hint) == form


def test_frames_are_asked_for_by_their_classes() -> None:
    import os

    import pandas
    import polars

    assert arguments.input_form(pandas.DataFrame) == "frame"
    assert arguments.input_form(Optional[pandas.DataFrame]) == "frame"
    assert arguments.input_form(List[polars.DataFrame]) == "polars"
    assert arguments.input_form(os.PathLike) == "path"


@pytest.mark.skipif(sys.version_info < (3, 10), reason="X | Y is a type from 3.10 on")
def test_unions_may_be_written_with_a_bar() -> None:
    hint = eval("Point | Plain", globals())
    assert convert({"x": 1}, hint) == Point(1)
    with pytest.raises(ValueError, match="; or "):
        convert([1], hint)


def test_msgspecs_own_structs_and_constraints_hold() -> None:
    class Config(msgspec.Struct):
        n: int

    assert convert({"n": 1}, Config) == Config(1)
    positive = typing.Annotated[int, msgspec.Meta(gt=0)]
    assert convert(1, positive) == 1
    with pytest.raises(ValueError, match="Expected `int` >= 1"):
        convert(0, positive)


def _positional(a, b=2, /, c=0):
    return a, b, c
