"""Numbers that processes share: each worker writes its slot, the management port reads them all.

A page of memory that all processes inherit. A slot has one writer, so nothing is locked, and a
worker that is killed leaves what it counted.
"""

from __future__ import annotations

import mmap
import time
from bisect import bisect_left

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds; upper bounds of the histogram of durations."""

STARTING, READY, DRAINING = 0, 1, 2

# Index of each number in a slot. Of the worker's life, written by the supervisor:
PID, STATE, STARTS = 0, 1, 2
# of this moment, written by the front now and then; BEAT on the monotonic clock, which all processes share:
BEAT, RSS, CONNECTIONS, IN_FLIGHT, WAITING = 3, 4, 5, 6, 7
# and counted with each request.
DURATION, STATUS, BUCKET = 8, 10, 510
_SLOT = BUCKET + len(BUCKETS) + 1
"""STATUS + n - 100 counts the responses of status n; BUCKET + i those of duration bucket i."""


QUIET = 2.0
"""Seconds without a sign of life after which a worker counts as one that takes no requests."""


class Slot:
    """One worker's numbers."""

    __slots__ = ("values",)

    def __init__(self, values: memoryview[float]) -> None:
        self.values = values

    def takes_requests(self) -> bool:
        values = self.values
        return values[STATE] == READY and time.monotonic() - values[BEAT] < QUIET

    def forget(self) -> None:
        """Its worker has ended: nothing of this moment is true any more."""
        self.values[BEAT : WAITING + 1] = memoryview(bytes(8 * (WAITING + 1 - BEAT))).cast("d")

    def count(self, status: int, seconds: float) -> None:
        values = self.values
        values[STATUS + status - 100] += 1.0
        values[DURATION] += seconds
        values[BUCKET + bisect_left(BUCKETS, seconds)] += 1.0


class Board:
    """The service's state and the slots of its workers; made before the first fork."""

    def __init__(self, workers: int) -> None:
        self._memory = mmap.mmap(-1, 8 * (2 + workers * _SLOT))
        self._values = memoryview(self._memory).cast("d")
        self.slots = [
            Slot(self._values[2 + i * _SLOT : 2 + (i + 1) * _SLOT]) for i in range(workers)
        ]

    @property
    def state(self) -> int:
        return int(self._values[0])

    @state.setter
    def state(self, value: int) -> None:
        self._values[0] = float(value)

    @property
    def beat(self) -> float:
        """When the management process last gave a sign of life, on the monotonic clock."""
        return self._values[1]

    @beat.setter
    def beat(self, value: float) -> None:
        self._values[1] = value
