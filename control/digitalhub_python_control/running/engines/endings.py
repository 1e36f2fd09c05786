"""Hears of the end of processes, children or not: one thread that waits for all of them at once."""

from __future__ import annotations

import os
import selectors
import threading
from typing import Callable

from digitalhub_python_control.running.engines.processes import Process, is_alive

_LOOKING = 0.1
"""Seconds between two looks at those processes that the system cannot tell of: there is no pidfd
(Linux alone has it), or no file descriptor is left."""


class Endings:
    """Tells of each process once, when it has ended.

    A process is named by a pidfd, so that another one with its pid is never taken for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._tells: dict[Process, Callable[[], None]] = {}
        self._looked_at: set[Process] = set()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="endings", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, process: Process, tell: Callable[[], None]) -> None:
        """Call `tell` when the process has ended, from another thread; once, however often it is added."""
        with self._lock:
            if self._closed or process in self._tells:
                return
            self._tells[process] = tell
            pidfd = _open(process)
            if pidfd is None:
                self._looked_at.add(process)
                os.write(self._wake_write, b"\0")
            else:
                self._selector.register(pidfd, selectors.EVENT_READ, process)

    def close(self) -> None:
        """Tell of nothing any more."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.write(self._wake_write, b"\0")
        if self._thread.is_alive():
            self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        os.close(self._wake_write)
        self._selector.close()

    def _work(self) -> None:
        while not self._closed:
            told = []
            for key, _ in self._selector.select(_LOOKING if self._looked_at else None):
                if key.data is None:
                    os.read(self._wake_read, 4096)
                    continue
                with self._lock:
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
                    told.append(self._tells.pop(key.data))
            with self._lock:
                gone = {one for one in self._looked_at if not is_alive(one)}
                self._looked_at -= gone
                told += [self._tells.pop(one) for one in gone]
            for tell in told:
                tell()


def _open(process: Process) -> int | None:
    """A pidfd of this very process; None where the system has none, or it has ended."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return None
    if is_alive(process):
        return pidfd
    os.close(pidfd)
    return None
