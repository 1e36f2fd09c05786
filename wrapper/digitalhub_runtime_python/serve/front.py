"""A worker's front: the loop with the sockets, in a thread of its own. Deadlines, and the supervisor's word."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from typing import Any, Callable

from digitalhub_runtime_python.calls.replies import problem_reply
from digitalhub_runtime_python.serve import board
from digitalhub_runtime_python.serve.app import App, busy, late
from digitalhub_runtime_python.serve.exchange import Shared
from digitalhub_runtime_python.serve.handover import Runner, resolve
from digitalhub_runtime_python.serve.processes import ABANDONED
from digitalhub_runtime_python.serve.server import Server
from digitalhub_runtime_python.settings import ServeSettings

logger = logging.getLogger(__name__)

BUSY = 0.01
"""Seconds that a call must have taken for its worker to leave new connections to the others,"""

YIELD = 0.05
"""and seconds for which it does."""

STUCK = 75
"""Exit status of a worker whose handler nothing could stop; it is replaced at once."""


class Front:
    """Serves a worker's requests.

    Args:
        loop: the front's own, which nothing else runs.
        listener: the listening socket that all workers share.
        control: to the supervisor: it sends `D` to drain, and its end means that it has died.
        shared: there are other workers to leave connections to.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        runner: Runner,
        settings: ServeSettings,
        slot: board.Slot,
        listener: socket.socket,
        control: socket.socket,
        *,
        shared: bool,
        log_requests: bool,
    ) -> None:
        self._loop = loop
        self._runner = runner
        self._settings = settings
        self._slot = slot
        self._control = control
        self._stuck = False
        self._shared = Shared(settings, slot.count)
        self._app = App(runner, runner.submit, settings, slot.count, log_requests=log_requests)
        hold = self._hold if shared else _never
        self._server = Server(loop, listener, self._shared, self._app, hold=hold)

    def run(self, ready: Callable[[], Any]) -> None:
        """Serve until drained; `ready` is called when connections are accepted."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(ready))

    async def _serve(self, ready: Callable[[], Any]) -> None:
        self._tick()
        self._loop.add_reader(self._control, self._on_control)
        self._server.accept_more()
        ready()
        period = self._period()
        while not self._server.drained():
            await asyncio.sleep(0.02 if self._server.drain_by is not None else period)
            self._tick()
        self._loop.remove_reader(self._control)
        self._server.stop_accepting()
        self._slot.values[board.BEAT] = 0.0  # what ends the function may take its time
        if self._app.in_flight:
            logger.error("%d requests did not end within the grace time", self._app.in_flight)

    @property
    def unfinished(self) -> int:
        """Requests that were not answered when it ended."""
        return self._app.in_flight

    def _period(self) -> float:
        """Seconds between two looks at the clock: a part of the shortest time that is kept."""
        s = self._settings
        times = (s.wait, s.request_timeout or 1.0, s.header_timeout, s.stall_timeout, 1.0)
        return max(0.01, min(times) / 5)

    def _hold(self) -> float:
        """Seconds for which new connections are left to the other workers.

        Whoever waits here waits behind a call that takes long; another worker may be free.
        """
        return YIELD if self._runner.busy(BUSY) else 0.0

    # --- the clock ---

    def _tick(self) -> None:
        self._answer_late()
        if self._server.tick():
            self._runner.beat()
            self._slot.values[board.RSS] = float(_resident())
        self._show()

    def _answer_late(self) -> None:
        """503 for who waits too long, 504 for who is past the deadline."""
        now = time.monotonic()
        for job in self._runner.overdue(now - self._settings.wait):
            resolve((job, busy("No worker has become free in time.")))
        deadline = self._settings.request_timeout
        if self._stuck:
            return
        if deadline is None:
            if self._runner.wedged(self._settings.hang_timeout):
                self._give_up()
            return
        for job in self._runner.running():
            if not job.started or now - job.started <= deadline:
                continue
            if job.stream is not None and job.stream.held_up:
                continue  # the client's time, not the handler's
            if not job.gone:
                resolve((job, late(deadline)))
                self._runner.cancel(job)
                logger.error("event %s took longer than %g s", job.event.id, deadline)
            if self._runner.stuck(job, max(1.0, deadline)):
                self._give_up()

    def _give_up(self) -> None:
        """End a worker whose handler cannot be stopped; the supervisor starts another at once."""
        self._stuck = True
        self._server.stop_accepting()
        self._app.ending = "The worker is being replaced."
        logger.error("the handler cannot be stopped; this worker is replaced")
        for job in self._runner.overdue(float("inf")):
            resolve((job, busy("The worker is being replaced.")))
        for job in self._runner.running():
            if not job.gone:
                resolve((job, problem_reply(504, "The function hangs; its worker is replaced.")))
        # The answers that were just given are written in the loop's next rounds.
        self._loop.call_later(0.2, os._exit, STUCK)

    def _show(self) -> None:
        values = self._slot.values
        values[board.BEAT] = time.monotonic()
        values[board.CONNECTIONS] = float(len(self._shared.connections))
        values[board.IN_FLIGHT] = float(self._app.in_flight)
        values[board.WAITING] = float(self._runner.waiting())

    # --- the end ---

    def _on_control(self) -> None:
        try:
            message = self._control.recv(64)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message = b""
        if not message:
            self._loop.remove_reader(self._control)
            logger.error("the supervisor has gone; this worker ends")
            self.drain(min(ABANDONED, self._settings.grace))
        elif b"D" in message:
            self.drain(self._settings.grace)

    def drain(self, grace: float) -> None:
        """Take no more connections, finish what is in flight, and end; on the front's loop."""
        self._server.drain(grace)

    def drain_soon(self) -> None:
        """Drain; from any thread, or a signal's handler."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self.drain, self._settings.grace)


def _never() -> float:
    return 0.0


def _resident() -> int:
    """Resident memory of this process in bytes; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - every second, in every worker
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return 0


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
