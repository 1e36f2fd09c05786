"""A work queue of keys: coalesced, one worker per key, later ones by timers, back-off per key."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Hashable
from typing import Callable, Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Queue(Generic[K]):
    """Keys that somebody shall look at.

    A key that is added while it waits is there once; one that is added while it is worked on is given
    out again afterwards, so that no worker misses what happened under its hands.

    Args:
        longest: seconds, the longest pause of `again`.
        clock: monotonic seconds.
    """

    def __init__(self, longest: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest = longest
        self._clock = clock
        self._changed = threading.Condition()
        self._ready: deque[K] = deque()
        self._wanted: set[K] = set()  # in `ready`, or to be put there when its worker is done
        self._working: set[K] = set()
        self._timers: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}  # the timer of a key that counts; others of it are stale
        self._failures: dict[K, int] = {}
        self._number = itertools.count()
        self._closed = False

    def add(self, key: K) -> None:
        """Have the key worked on as soon as a worker is free."""
        with self._changed:
            self._add(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Have it worked on after that time, or sooner where an earlier timer or `add` says so."""
        due = self._clock() + seconds
        with self._changed:
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                heapq.heappush(self._timers, (due, next(self._number), key))
                self._changed.notify()

    def again(self, key: K) -> float:
        """Have a key worked on again that failed, after a pause that doubles; the pause in seconds."""
        with self._changed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(self._longest, 0.125 * 2.0 ** min(failures, 16))
        self.add_after(key, pause)
        return pause

    def forget(self, key: K) -> None:
        """The key succeeded: its next failure is a first one."""
        with self._changed:
            self._failures.pop(key, None)

    def get(self) -> K | None:
        """The next key, waited for; `done` must be called with it. None: the queue was closed."""
        with self._changed:
            while not self._closed:
                pause = self._fire()
                if self._ready:
                    key = self._ready.popleft()
                    self._wanted.discard(key)
                    self._working.add(key)
                    return key
                self._changed.wait(pause)
            return None

    def claim(self, key: K) -> bool:
        """Keep workers off a key until `done`; False where one has it."""
        with self._changed:
            if key in self._working:
                return False
            if key in self._wanted:
                self._ready.remove(key)
            self._working.add(key)
            return True

    def done(self, key: K) -> None:
        """The worker has finished with it."""
        with self._changed:
            self._working.discard(key)
            if key in self._wanted:
                self._ready.append(key)
                self._changed.notify()

    def close(self) -> None:
        """Give out no more keys."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _add(self, key: K) -> None:
        self._due.pop(key, None)
        if key in self._wanted:
            return
        self._wanted.add(key)
        if key not in self._working:
            self._ready.append(key)
            self._changed.notify()

    def _fire(self) -> float | None:
        """Add the keys whose time has come; seconds until the next timer."""
        now = self._clock()
        while self._timers:
            due, _, key = self._timers[0]
            if self._due.get(key) != due:
                heapq.heappop(self._timers)
            elif due <= now:
                heapq.heappop(self._timers)
                self._add(key)
            else:
                return due - now
        return None
