"""A catalogue of spare parts, a page at a time: `?page=2&size=5`."""
import enum
from typing import Annotated

import msgspec

PARTS = ["drill", "bolt", "cable", "jack", "filter", "gasket", "hinge", "engine", "lamp", "knob"]


class Order(enum.Enum):
    UP = "up"
    DOWN = "down"


def catalogue(page: int = 1, size: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3, order: Order = Order.UP):
    parts = sorted(PARTS, reverse=order is Order.DOWN)
    pages = -(-len(parts) // size)
    start = (page - 1) * size
    return {"page": page, "pages": pages, "items": parts[start : start + size]}
