"""A worker's front: the loop with the sockets, in a thread of its own. Accepts, watches the clock, drains."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import time
from email.utils import formatdate
from typing import Any, Callable

import uvicorn

from digitalhub_runtime_python.serve import board
from digitalhub_runtime_python.serve.app import App, busy, late
from digitalhub_runtime_python.serve.handover import Runner, resolve
from digitalhub_runtime_python.serve.protocol import Connection, FrontState
from digitalhub_runtime_python.settings import ServeSettings

logger = logging.getLogger(__name__)

LINGER = 0.3
"""Seconds for which idle connections stay open when a worker ends: their client may just be sending."""

ABANDONED = 2.0
"""Seconds of grace for a worker whose supervisor has died."""

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
        self._listener = listener
        self._control = control
        self._shared = shared
        self._most = min(settings.connections, _descriptors())
        self._state = FrontState(settings, slot)
        self._app = App(loop, runner, self._state, log_requests=log_requests)
        self._accepting = False
        self._drain_by: float | None = None
        self._drain_from = 0.0
        self._stuck = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._config = uvicorn.Config(
            self._app,
            loop="none",
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=settings.keep_alive,  # type: ignore[arg-type]
        )

    def run(self, ready: Callable[[], Any]) -> None:
        """Serve until drained; `ready` is called when connections are accepted."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(ready))

    async def _serve(self, ready: Callable[[], Any]) -> None:
        self._config.load()
        self._tick(0)
        self._loop.add_reader(self._control, self._on_control)
        self._accept_more()
        ready()
        count = 0
        period = self._period()
        while not self._ended():
            await asyncio.sleep(0.02 if self._drain_by is not None else period)
            count += 1
            self._tick(count)
        self._loop.remove_reader(self._control)
        self._stop_accepting()

    @property
    def unfinished(self) -> int:
        """Requests that were not answered when it ended."""
        return self._app.in_flight

    def _period(self) -> float:
        """Seconds between two looks at the clock: a part of the shortest time that is kept."""
        s = self._settings
        times = (s.wait, s.request_timeout or 1.0, s.header_timeout, s.stall_timeout, 1.0)
        return max(0.01, min(times) / 5)

    # --- connections ---

    def _accept_more(self) -> None:
        if not self._accepting and self._drain_by is None:
            self._accepting = True
            self._loop.add_reader(self._listener, self._on_connection)

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._listener)

    def _on_connection(self) -> None:
        if self._shared and self._runner.busy(BUSY):
            # Whoever waits here waits behind this call; another worker may be free.
            self._stop_accepting()
            self._loop.call_later(YIELD, self._accept_late)
            return
        self._accept(64)

    def _accept_late(self) -> None:
        self._accept(16)
        self._accept_more()

    def _accept(self, at_most: int) -> None:
        for _ in range(at_most):
            if len(self._state.connections) + len(self._tasks) >= self._most:
                self._pause_accepting()
                return
            try:
                client, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    logger.warning("no more connections can be opened: %s", exc.strerror)
                    self._pause_accepting()
                    return
                continue  # the client was gone before it was accepted
            client.setblocking(False)
            with contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._connect(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _pause_accepting(self) -> None:
        self._stop_accepting()
        self._loop.call_later(0.1, self._accept_more)

    async def _connect(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_connection, client)
        except OSError:  # gone already
            client.close()

    def _make_connection(self) -> Connection:
        return Connection(
            config=self._config, server_state=self._state, app_state={}, _loop=self._loop
        )

    # --- the clock ---

    def _tick(self, count: int) -> None:
        now = self._loop.time()
        self._answer_late()
        self._show()
        second = int(now)
        if count == 0 or second != self._second:
            self._second = second
            date = formatdate(time.time(), usegmt=True).encode()
            self._state.default_headers = [(b"date", date)]
            self._state.date = b"date: " + date + b"\r\n"
            self._runner.beat()
            self._slot.values[board.RSS] = float(_resident())
        for connection in list(self._state.connections):
            connection.check(now)

    _second = 0

    def _answer_late(self) -> None:
        """503 for who waits too long, 504 for who is past the deadline."""
        now = time.monotonic()
        for job in self._runner.overdue(now - self._settings.wait):
            resolve((job, busy("No worker has become free in time.")))
        deadline = self._settings.request_timeout
        if deadline is None or self._stuck:
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
        self._stop_accepting()
        logger.error("the handler cannot be stopped; this worker is replaced")
        for job in self._runner.overdue(float("inf")):
            resolve((job, busy("The worker is being replaced.")))
        # The answers that were just given are written in the loop's next rounds.
        self._loop.call_later(0.2, os._exit, STUCK)

    def _show(self) -> None:
        values = self._slot.values
        values[board.BEAT] = time.time()
        values[board.CONNECTIONS] = float(len(self._state.connections))
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
        if self._drain_by is not None:
            return
        self._drain_from = self._loop.time()
        self._drain_by = self._drain_from + grace
        self._accept(1 << 16)  # who is in the kernel's queue has been promised an answer
        self._stop_accepting()
        self._state.draining = True
        for connection in list(self._state.connections):
            if not connection.idle():
                connection.cycle.keep_alive = False

    def drain_soon(self) -> None:
        """Drain; from any thread, or a signal's handler."""
        self._loop.call_soon_threadsafe(self.drain, self._settings.grace)

    def _ended(self) -> bool:
        if self._drain_by is None:
            return False
        now = self._loop.time()
        if now > self._drain_by:
            if self._app.in_flight:
                logger.error("%d requests did not end within the grace time", self._app.in_flight)
            return True
        if now - self._drain_from > LINGER:
            for connection in list(self._state.connections):
                if connection.idle() and connection.received == connection.complete:
                    connection.transport.close()
        return not self._state.connections and not self._tasks and now - self._drain_from > 0.05


def _descriptors() -> int:
    """Connections that the process may have open and still open files of its own."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 30 if most == resource.RLIM_INFINITY else max(16, most - 128)


def _resident() -> int:
    """Resident memory of this process in bytes; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - every second, in every worker
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return 0


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
