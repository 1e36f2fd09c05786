"""What user code may count on around it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import sys
import warnings
from dataclasses import dataclass
from typing import get_type_hints

logging.basicConfig(level=logging.INFO, format="USER %(message)s")


@dataclass
class Point:
    x: int

    def moved(self, by: int) -> Point:
        return Point(self.x + by)


def square(point: Point) -> int:
    return point.x**2


def spawned(n: int):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        return pool.map(square, [Point(i) for i in range(n)])


def forked(n: int):
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        return pool.map(square, [Point(i) for i in range(n)])


def pickles():
    return pickle.loads(pickle.dumps(Point(1))).moved(1).x


def hints():
    return get_type_hints(Point.moved)["return"].__name__


def warns():
    warnings.warn("an old way", DeprecationWarning, stacklevel=1)
    return "warned"


def logs():
    logging.getLogger(__name__).info("from the user's logger")
    print("from print")
    return "logged"


def environment():
    return os.environ["GREETING"]


def own_path():
    return [os.path.basename(__file__), __name__, os.path.dirname(os.path.abspath(__file__)) in sys.path]


def sees_main():
    return sys.modules["__main__"].__name__


def leaves_thread():
    import threading
    import time

    threading.Thread(target=time.sleep, args=(0.2,), name="late").start()
    return "returned"
