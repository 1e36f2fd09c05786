from __future__ import annotations

from dataclasses import dataclass
from typing import get_type_hints

from helper import NAME

from .inner import deep


@dataclass
class Step:
    n: int
    name: str = NAME


def step(s: Step):
    return [s.n, s.name, deep.VALUE, sorted(get_type_hints(Step)), __name__]
