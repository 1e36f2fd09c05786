"""A server on one event loop: accepts connections, watches their clocks, makes room where they are too many, drains."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from digitalhub_runtime_python.serve.exchange import Endpoint, Shared
from digitalhub_runtime_python.serve.protocol import Connection

logger = logging.getLogger(__name__)

LINGER = 0.3
"""Seconds for which idle connections stay open when a server ends: their client may just be sending."""

YOUNG = 1.0
"""Seconds that a connection is idle before it may have to give way to a new one."""

_AT_ONCE = 64
"""Connections that are accepted, or that give way, before others have their turn."""


class Server:
    """Serves an endpoint's connections.

    Args:
        loop: what it is called on, all of it.
        listener: a listening socket that does not block.
        hold: whether new connections had better be another process's; asked before one is accepted.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        shared: Shared,
        endpoint: Endpoint,
        *,
        hold: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._shared = shared
        self._endpoint = endpoint
        self._hold = hold
        self._most = min(shared.limits.connections, _descriptors())
        self._accepting = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._second = -1
        self.drain_by: float | None = None
        """When it ends at the latest; None while it goes on."""
        self._drain_from = 0.0

    # --- connections ---

    def accept_more(self) -> None:
        if not self._accepting and self.drain_by is None:
            self._accepting = True
            self._loop.add_reader(self._listener, self._on_connection)

    def stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._listener)

    def _on_connection(self) -> None:
        if pause := self._hold():
            self.stop_accepting()
            self._loop.call_later(pause, self._accept_late)
            return
        self._accept(_AT_ONCE)

    def _accept_late(self) -> None:
        self._accept(_AT_ONCE // 4)
        self.accept_more()

    def _accept(self, at_most: int) -> None:
        for _ in range(at_most):
            if len(self._shared.connections) + len(self._tasks) >= self._most:
                self._make_room()
                return
            try:
                client, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    logger.warning("no more connections can be opened: %s", exc.strerror)
                    self._make_room()
                    return
                continue  # the client was gone before it was accepted
            client.setblocking(False)
            with contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._welcome(client)

    def _welcome(self, client: socket.socket) -> None:
        self.adopt(client, Connection(self._shared, self._endpoint))

    def adopt(self, client: socket.socket, connection: Connection) -> None:
        """Serve a connection on this loop from now on."""
        task = self._loop.create_task(self._connect(client, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: socket.socket, connection: Connection) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, client)
        except OSError as exc:  # gone already
            client.close()
            connection.connection_lost(exc)

    def _make_room(self) -> None:
        """Let connections go that have been idle for longest, and accept again a moment later."""
        self.stop_accepting()
        self._loop.call_later(0.1, self.accept_more)
        before = self._loop.time() - YOUNG
        idle = [
            (since, id(connection), connection)
            for connection in list(self._shared.connections)
            if (since := connection.patience.idle_since(connection)) is not None and since < before
        ]
        for _, _, connection in sorted(idle)[:_AT_ONCE]:
            connection.transport.close()

    # --- the clock ---

    def tick(self) -> bool:
        """Look at the clock, several times a second; whether another second has begun."""
        now = self._loop.time()
        for connection in list(self._shared.connections):
            connection.patience.check(connection, now)
        if int(now) == self._second:
            return False
        self._second = int(now)
        self._shared.date = b"date: " + formatdate(time.time(), usegmt=True).encode() + b"\r\n"
        return True

    # --- the end ---

    def drain(self, grace: float) -> None:
        """Take no more connections, finish what is in flight, and end within `grace` seconds."""
        if self.drain_by is not None:
            return
        self._accept(1 << 16)  # who is in the kernel's queue has been promised an answer
        self.stop_accepting()
        self._drain_from = self._loop.time()
        self.drain_by = self._drain_from + grace
        self._shared.draining = True

    def drained(self) -> bool:
        """Whether it has ended: nothing is in flight any more, or its time is over."""
        if self.drain_by is None:
            return False
        now = self._loop.time()
        if now > self.drain_by:
            return True
        if now - self._drain_from > LINGER:
            for connection in list(self._shared.connections):
                if connection.at_rest():
                    connection.transport.close()
        return not self._shared.connections and not self._tasks and now - self._drain_from > 0.05


def _descriptors() -> int:
    """Connections that the process may have open and still open files of its own."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 30 if most == resource.RLIM_INFINITY else max(16, most - 128)
