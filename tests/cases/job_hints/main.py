from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, TypedDict, Union


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: float = 0.5
    tags: List[str] = field(default_factory=list)


class Options(TypedDict):
    depth: int


def simple(i: int, f: float, s: str, b: bool, n: None, a: Any, u):
    return [type(v).__name__ for v in (i, f, s, b, n, a, u)]


def containers(
    items: List[float], named: Dict[str, int], pair: Tuple[int, str], unique: set, seq: Sequence[float]
):
    return [items, named, list(pair), sorted(unique), list(seq)]


def classes(p: Point, ps: List[Point], o: Options, c: Colour):
    return [p.x, p.y, ps[1].tags, o["depth"], c.name]


def times(
    day: datetime.date, moment: datetime.datetime, price: decimal.Decimal, ident: uuid.UUID, where: Path
):
    return [day.year, moment.hour, str(price + 1), ident.int, where.name]


def choices(maybe: Optional[int], either: Union[int, str], point_or_text: Union[Point, str], default: int = 3):
    kinds = [type(v).__name__ for v in (maybe, either, point_or_text)]
    return [*kinds, default]


def later(x: "Point", unknown: "Missing" = 1):  # noqa: F821
    return [x.x, unknown]
