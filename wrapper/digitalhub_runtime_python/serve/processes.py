"""The processes of a service: the places of its workers, and how they end whatever they do."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from dataclasses import dataclass, field
from typing import Any

from digitalhub_runtime_python.serve import board

ABANDONED = 2.0
"""Seconds of grace for a worker whose supervisor has died."""


@dataclass
class Worker:
    """One place of a worker, and the process that is in it now."""

    index: int
    slot: board.Slot
    pid: int = 0
    control: socket.socket | None = None
    started: float = 0.0
    ready: bool = False
    failures: int = 0
    hung: bool = False
    """It gave no sign of life and was killed."""
    start_at: float | None = 0.0
    failure: dict[str, Any] = field(default_factory=dict)
    """What a worker sent before it gave up at its start."""


class Tether:
    """A pipe whose last writing end takes every process with it that is fastened to it.

    The supervisor and the management process hold that end. The kernel sends the signal, so a handler
    that keeps the interpreter's lock, or a process that is stopped, ends as well. A parent-death
    signal would be sent at once; here the management process holds on for as long as requests in
    flight have. It also costs no import of ctypes at each start.
    """

    def __init__(self) -> None:
        self._end, self._hold = os.pipe()

    def fasten(self) -> None:
        """In a worker: be killed when nobody holds the other end any more."""
        os.close(self._hold)
        number = getattr(fcntl, "F_SETSIG", None)
        if number is None:  # not Linux: the worker's front sees that its supervisor has gone
            os.close(self._end)
            return
        # Opened anew, as owner and signal belong to the open file and not to the descriptor.
        end = os.open(f"/proc/self/fd/{self._end}", os.O_RDONLY | os.O_NONBLOCK)
        os.close(self._end)
        fcntl.fcntl(end, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(end, number, signal.SIGKILL)
        fcntl.fcntl(end, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        with contextlib.suppress(BlockingIOError):  # nothing to read: somebody holds it
            os.read(end, 1)
            os._exit(128 + signal.SIGKILL)  # it was let go before the kernel knew of us

    def close(self) -> None:
        os.close(self._end)
        os.close(self._hold)


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_group(pid: int) -> None:
    """Kill a worker and what it has started; a group that is gone is not an error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    # Between its fork and its setpgid a worker is not in its own group yet.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == os.getpgrp():
            os.kill(pid, signal.SIGKILL)


def ending(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"ended with {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def ask_to_end(place: Worker) -> None:
    """Have a worker finish what is in flight, and end."""
    if place.ready and place.control is not None:
        with contextlib.suppress(OSError):
            place.control.send(b"D")
    else:
        send(place.pid, signal.SIGTERM)  # it has not begun: there is nothing to finish
