"""Removes what no run needs any more, one after another, until it is gone; nobody waits for that."""

from __future__ import annotations

import logging
import threading
from typing import Callable

from digitalhub_python_control.running.kubernetes.client import Refused, Unreachable
from digitalhub_python_control.running.queue import Queue

logger = logging.getLogger(__name__)

WORKERS = 2


class Garbage:
    """A queue of names.

    Args:
        delete: removes what has that name; succeeds on what is gone.
    """

    def __init__(self, delete: Callable[[str], None]) -> None:
        self._delete = delete
        self._queue: Queue[str] = Queue()

    def add(self, name: str) -> None:
        self._queue.add(name)

    def start(self) -> None:
        for number in range(WORKERS):
            threading.Thread(target=self._work, name=f"garbage {number}", daemon=True).start()

    def close(self) -> None:
        self._queue.close()

    def _work(self) -> None:
        while (name := self._queue.get()) is not None:
            try:
                self._delete(name)
                self._queue.forget(name)
            except Unreachable:
                self._queue.again(name)
            except Refused as exc:
                logger.warning("%s cannot be removed from the cluster: %s", name, exc)
            finally:
                self._queue.done(name)
