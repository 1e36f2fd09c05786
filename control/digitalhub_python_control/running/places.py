"""Places for runs: so many at once, the others in the order of their creation."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Hashable
from typing import Callable, Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Places(Generic[K]):
    """A number of places.

    Args:
        limit: how many there are.
        tell: is called with a key that has waited and now has a place.
    """

    def __init__(self, limit: int, tell: Callable[[K], None]) -> None:
        self._limit = limit
        self._tell = tell
        self._lock = threading.Lock()
        self._held: set[K] = set()
        self._waiting: dict[K, int] = {}
        self._order: list[tuple[int, K]] = []

    def take(self, key: K, order: int) -> bool:
        """Whether the key has a place; if not it waits, and is told when it has one."""
        with self._lock:
            if key in self._held:
                return True
            if key not in self._waiting:
                self._waiting[key] = order
                heapq.heappush(self._order, (order, key))
            told = self._fill()
        for one in told:
            if one != key:
                self._tell(one)
        return key in told

    def hold(self, key: K) -> None:
        """Give a key a place that it has already, also above the limit: a run that goes on."""
        with self._lock:
            self._waiting.pop(key, None)
            self._held.add(key)

    def release(self, key: K) -> None:
        """The key needs no place, nor waits for one."""
        with self._lock:
            self._waiting.pop(key, None)
            self._held.discard(key)
            told = self._fill()
        for one in told:
            self._tell(one)

    def is_waiting(self, key: K) -> bool:
        """Whether the key waits and will be told."""
        return key in self._waiting

    def _fill(self) -> list[K]:
        told: list[K] = []
        while self._order and len(self._held) < self._limit:
            order, key = heapq.heappop(self._order)
            if self._waiting.get(key) == order:
                del self._waiting[key]
                self._held.add(key)
                told.append(key)
        return told
