"""Places for runs: so many at once, the others in the order of their creation.

A run that waits for one that it has started keeps its place and does nothing with it; with all places held
so, nothing would ever go on. So each run lends its place: one of those that it has started needs none of
its own, at any depth. Then of every chain that waits the last one works, and all of them end.
"""

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
        tell: is called with a key that has waited and shall take again: it has a place now, or whose
            place would have done is gone.
    """

    def __init__(self, limit: int, tell: Callable[[K], None]) -> None:
        self._limit = limit
        self._tell = tell
        self._lock = threading.Lock()
        self._held: set[K] = set()
        self._waiting: dict[K, int] = {}
        self._order: list[tuple[int, K]] = []
        # Who uses another one's place -> whose it is; and the other way round.
        self._borrowed: dict[K, K] = {}
        self._lent: dict[K, K] = {}
        # Whose place it is -> who waits to borrow it; and who waits -> whose place is hoped for.
        self._heirs: dict[K, list[tuple[int, K]]] = {}
        self._hoping: dict[K, K] = {}

    def take(self, key: K, order: int, lender: K | None = None) -> bool:
        """Whether the key has a place; if not it waits, and is told when it has one.

        Args:
            lender: whose place will do as well, while nobody else uses it.
        """
        with self._lock:
            if self.has(key):
                return True
            if key not in self._waiting:
                self._waiting[key] = order
                heapq.heappush(self._order, (order, key))
            if lender is not None and self._hoping.get(key) != lender:
                self._hoping[key] = lender
                heapq.heappush(self._heirs.setdefault(lender, []), (order, key))
            told = self._fill()
            if lender is not None and key not in told:
                told += self._lend(lender)
        for one in told:
            if one != key:
                self._tell(one)
        return key in told

    def hold(self, key: K, lender: K | None = None) -> None:
        """Give a key a place that it has already, also above the limit: a run that goes on."""
        with self._lock:
            self._drop(key)
            if self.has(key):
                return
            if lender is None or lender in self._lent:
                self._held.add(key)
            else:
                self._borrowed[key], self._lent[lender] = lender, key

    def release(self, key: K) -> None:
        """The key needs no place, nor waits for one; who has borrowed its place keeps it."""
        with self._lock:
            self._drop(key)
            self._held.discard(key)
            # They are told, so that they come again with somebody else whose place will do.
            told = [heir for _, heir in self._heirs.pop(key, ()) if heir in self._waiting]
            if (borrower := self._lent.pop(key, None)) is not None:
                del self._borrowed[borrower]
                self._held.add(borrower)
            if (lender := self._borrowed.pop(key, None)) is not None:
                del self._lent[lender]
                told += self._lend(lender)
            told += self._fill()
        for one in told:
            self._tell(one)

    def has(self, key: K) -> bool:
        """Whether the key has a place, of its own or another one's."""
        return key in self._held or key in self._borrowed

    def is_waiting(self, key: K) -> bool:
        """Whether the key waits and will be told."""
        return key in self._waiting

    def count(self) -> dict[str, int]:
        """How many places are held and lent, and how many keys wait."""
        with self._lock:
            return {
                "held": len(self._held),
                "lent": len(self._borrowed),
                "waiting": len(self._waiting),
            }

    def _drop(self, key: K) -> None:
        self._waiting.pop(key, None)
        self._hoping.pop(key, None)

    def _fill(self) -> list[K]:
        told: list[K] = []
        while self._order and len(self._held) < self._limit:
            order, key = heapq.heappop(self._order)
            if self._waiting.get(key) == order:
                self._drop(key)
                self._held.add(key)
                told.append(key)
        return told

    def _lend(self, lender: K) -> list[K]:
        """Give a place that is not used to the first who waits to borrow it, if anybody does."""
        heirs = self._heirs.get(lender, [])
        while heirs and lender not in self._lent:
            order, key = heapq.heappop(heirs)
            if self._waiting.get(key) == order:
                self._drop(key)
                self._borrowed[key], self._lent[lender] = lender, key
                return [key]
        if not heirs:
            self._heirs.pop(lender, None)
        return []
