import collections
import datetime
import decimal
import enum
import uuid
from dataclasses import dataclass, field
from typing import List, NamedTuple

from digitalhub_runtime_python import handler


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Report:
    score: float
    tags: List[str] = field(default_factory=list)


class Pair(NamedTuple):
    left: int
    right: str


def nothing():
    pass


def text():
    return "text"


def number():
    return 2**70


def flag():
    return True


def no_number():
    return float("nan"), float("inf"), -float("inf")


def scalars():
    return (
        decimal.Decimal("1.10"),
        datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc),
        datetime.date(2026, 1, 31),
        uuid.UUID(int=7),
        Colour.RED,
    )


def numpy_scalars():
    import numpy as np

    return np.int64(3), np.float32(1.5), np.bool_(True), np.str_("s"), np.array(4)


def containers():
    return {"a": [1, {"b": None}], "nan": float("nan"), 1: (1, 2)}, [1, 2], collections.Counter("aab")


def classes():
    return Report(0.5, ["t"]), [Report(1.0)]


def pydantic_model():
    from pydantic import BaseModel

    class Answer(BaseModel):
        text: str
        when: datetime.date

    return Answer(text="yes", when="2026-01-31")


def a_list():
    return [1, 2, 3]


@handler(outputs=["first", "second", "third"])
def named_list():
    return [1, 2, 3]


@handler(outputs=["only"])
def one_name_for_a_list():
    return [1]


@handler(outputs=["first", "second"])
def list_of_another_length():
    return [1, 2, 3]


@handler(outputs=["first"])
def fewer_names():
    return 1, 2, 3


@handler(outputs=["first", "second", "third"])
def more_names():
    return 1, 2


@handler(outputs=["output_1"])
def clashing_name():
    return 1, 2


@handler(outputs=["nothing"])
def named_nothing():
    return None


def named_tuple():
    return Pair(1, "x")


@handler(outputs=["a", "b"])
def renamed_tuple():
    return Pair(1, "x")


def empty_tuple():
    return ()


@handler(outputs=[{"name": "kept", "kind": "artifact"}, "plain"])
def forced_kind():
    return {"a": 1}, {"a": 1}


@handler(outputs=[{"name": "rows", "kind": "table"}])
def rows_as_table():
    return [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


@handler(outputs=[{"name": "odd", "kind": "teapot"}, "fine"])
def unknown_kind():
    return 1, 2


def large():
    return {"rows": ["x" * 1000] * 300}


def just_fits():
    return ["x" * 1000] * 200
