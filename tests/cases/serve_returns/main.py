"""What a handler may return; the path says which."""
import collections
import dataclasses
import datetime
import decimal
import enum
import uuid


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Colour(enum.Enum):
    RED = "red"


Pair = collections.namedtuple("Pair", "status body")


class Thing:
    def __str__(self):
        return "a thing"


VALUES = {
    "str": "text",
    "str-unicode": "später",
    "str-empty": "",
    "bytes": b"\x00\xff raw",
    "bytearray": bytearray(b"raw"),
    "memoryview": memoryview(b"raw"),
    "none": None,
    "int": 5,
    "float": 2.5,
    "true": True,
    "big": 2**70,
    "dict": {"a": 1, "b": [True, None], "ü": "é"},
    "dict-nan": {"nan": float("nan"), "inf": float("inf"), "minus": [-float("inf")], "none": None},
    "dict-dates": {
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "day": datetime.date(2026, 1, 2),
        "id": uuid.UUID(int=1),
        "price": decimal.Decimal("1.10"),
        "colour": Colour.RED,
        "raw": b"raw",
        "point": Point(1, 2.5),
        "set": {7},
        "range": range(3),
    },
    "dict-int-keys": {1: "one"},
    "dict-tuple-keys": {(1, 2): 3},
    "dict-object": {"thing": Thing()},
    "list": [1, "two", {"three": 3}],
    "list-empty": [],
    "tuple-status-str": (201, "made"),
    "tuple-status-dict": (202, {"a": 1}),
    "tuple-status-list": (200, [1, 2]),
    "tuple-status-none": (200, None),
    "tuple-status-bytes": (200, b"raw"),
    "tuple-status-number": (200, 5),
    "tuple-204": (204, "nobody sees this"),
    "tuple-404": (404, "not here"),
    "tuple-text": ("a", "b"),
    "tuple-small": (1, 2),
    "tuple-bool": (True, "x"),
    "tuple-three": (200, "a", "b"),
    "tuple-one": (200,),
    "tuple-empty": (),
    "tuple-named": Pair(200, "x"),
    "dataclass": Point(1, 2.5),
    "enum": Colour.RED,
    "datetime": datetime.datetime(2026, 1, 2, 3, 4, 5),
    "set": {7},
    "object": Thing(),
    "surrogate": "\ud800",
}
cycle = {}
cycle["self"] = cycle
VALUES["cycle"] = cycle


def handler(context, event):
    return VALUES[event.path.strip("/")]
