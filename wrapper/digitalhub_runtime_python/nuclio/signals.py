"""What the processor tells its worker by signals: drain, go on, end."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

LINGER = 0.5
"""Seconds without an event after which a worker that is told to end does so: the processor goes on
taking requests until it is gone itself, and each of them wants an answer."""
LINGER_LIMIT = 7.0
"""Seconds after which it ends anyway; the processor waits for 10."""

DRAIN, END, GO_ON = signal.SIGUSR2, signal.SIGUSR1, signal.SIGCONT


class Signals:
    """The state that the signals change. Handlers are installed at once: by default they would kill.

    Python runs them in the main thread, between two steps of it, also while it waits for an event.
    """

    def __init__(self) -> None:
        self.discarding = False
        """Whether events are answered without calling the handler."""
        self.ending = False
        """Whether the worker was told to end."""
        self._busy = False
        self._quiet_since = time.monotonic()
        self._drain_waits = False
        self._drain: Callable[[], Any] = lambda: None
        self._line: socket.socket | None = None
        signal.signal(DRAIN, self._on_drain)
        signal.signal(END, self._on_end)
        signal.signal(GO_ON, self._on_go_on)

    def attach(self, line: socket.socket, drain: Callable[[], Any]) -> None:
        """Say which line to close at the end, and what to call to drain."""
        self._line, self._drain = line, drain

    def work(self) -> None:
        """An event is there: no callback until `rest`."""
        self._busy = True

    def rest(self) -> None:
        """The event has been answered."""
        self._busy = False
        if self.ending:
            self._quiet_since = time.monotonic()
        if self._drain_waits:
            self._drain_waits = False
            self._drain()

    def _on_drain(self, number: int, frame: FrameType | None) -> None:
        if self.discarding:
            return
        self.discarding = True
        if self._busy:
            self._drain_waits = True
        else:
            self._drain()

    def _on_go_on(self, number: int, frame: FrameType | None) -> None:
        self.discarding = False

    def _on_end(self, number: int, frame: FrameType | None) -> None:
        if not self.ending:
            self.ending = True
            self._quiet_since = time.monotonic()
            threading.Thread(target=self._close_when_quiet, name="nuclio-end", daemon=True).start()

    def _close_when_quiet(self) -> None:
        give_up = time.monotonic() + LINGER_LIMIT
        while time.monotonic() < give_up and (
            self._line is None or self._busy or time.monotonic() - self._quiet_since < LINGER
        ):
            time.sleep(0.05)
        if self._line is not None:
            with contextlib.suppress(OSError):
                # What has arrived is still read and answered; then the main thread sees the end.
                self._line.shutdown(socket.SHUT_RD)
