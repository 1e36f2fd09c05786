"""Arguments by name, from the run and from the body."""
import dataclasses
import datetime
from typing import List, Optional


@dataclasses.dataclass
class Item:
    name: str
    price: float = 1.0


def handler(
    n: int,
    factor: float = 2,
    names: Optional[List[str]] = None,
    item: Optional[Item] = None,
    day: Optional[datetime.date] = None,
    anything=None,
    fixed: int = 0,
):
    """Multiply a number.

    It has a second paragraph.

    Args:
        n: the number.
        factor: by which it is multiplied.
    """
    return {
        "n": n,
        "product": n * factor,
        "names": names,
        "item": item.price if item else None,
        "day": day.isoformat() if day else None,
        "anything": anything,
        "fixed": fixed,
    }
