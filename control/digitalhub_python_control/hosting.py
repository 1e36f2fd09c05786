"""Hosts an ASGI application on serving's own protocol, and so with its limits of heads, of waiting and of connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from digitalhub_runtime_python.serve.exchange import Exchange, Shared
from digitalhub_runtime_python.serve.loops import new_loop
from digitalhub_runtime_python.serve.messages import BadMessage, split_target
from digitalhub_runtime_python.serve.server import Server
from digitalhub_runtime_python.settings import ServeSettings

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

LIMITS = ServeSettings(header_limit=64 * 1024, stall_timeout=60.0)
"""A head may hold a token, and the query of a signed URL; uploads may pause."""

_AHEAD = 256 * 1024
"""Bytes of a body that are read before the application has asked for them."""

_before_path = re.compile(rb"\A[A-Za-z][^/]*//[^/?#]*")  # where the target is a whole URL
_breaks_head = re.compile(rb"[\0\r\n]").search


class Host:
    """Serves an application until it is told to stop.

    Args:
        listener: a listening socket.
        grace: seconds that open requests have at the end.
        on_stop: called when the end begins, on the loop; ends what would go on for ever.
    """

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        *,
        grace: float,
        on_stop: Callable[[], Any] = lambda: None,
    ) -> None:
        listener.setblocking(False)
        self._grace = grace
        self._on_stop = on_stop
        self._loop = new_loop()
        self._endpoint = _Endpoint(app, self._loop)
        self._shared = Shared(LIMITS, lambda status, seconds: None)
        self._server = Server(self._loop, listener, self._shared, self._endpoint)

    def run(self, ready: Callable[[], Any] = lambda: None) -> None:
        """Serve; `ready` is called once connections are accepted."""
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve(ready))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def stop(self) -> None:
        """End within the grace time; from any thread, or a signal's handler."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self._on_stop()
        self._server.drain(self._grace)

    async def _serve(self, ready: Callable[[], Any]) -> None:
        server = self._server
        server.tick()
        server.accept_more()
        ready()
        while not server.drained():
            await asyncio.sleep(0.2 if server.drain_by is None else 0.02)
            server.tick()
        await self._endpoint.end()
        for connection in list(self._shared.connections):
            connection.transport.abort()
        while self._shared.connections:
            await asyncio.sleep(0)


class _Endpoint:
    """What the protocol calls: one task for each request."""

    streams = True

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop
        self._calls: dict[Exchange, _Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, exchange: Exchange) -> None:
        try:
            path, query = split_target(exchange.method, exchange.target)
        except BadMessage as exc:
            exchange.refuse(exc.status, str(exc))
            return
        call = self._calls[exchange] = _Call(exchange)
        task = self._loop.create_task(call.run(self._app, _scope(exchange, path, query)))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(exchange, task))

    def grow(self, exchange: Exchange) -> None:
        if call := self._calls.get(exchange):
            call.moved.set()
            if exchange.size - call.taken > _AHEAD:
                exchange.connection.pause_reading()

    def respond(self, exchange: Exchange) -> None:
        if call := self._calls.get(exchange):
            call.moved.set()

    writable = respond

    def lost(self, exchange: Exchange) -> None:
        if call := self._calls.get(exchange):
            call.over()

    def finish(self, exchange: Exchange, reply: Any) -> None:
        raise NotImplementedError  # for runners

    def _ended(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        del self._calls[exchange]
        self._tasks.discard(task)

    async def end(self) -> None:
        """Cancel what has not ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Call:
    """The application's call for one request."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.moved = asyncio.Event()
        """The client has sent or read something, or has left."""
        self.taken = 0
        """Bytes of the body that the application has asked for."""
        self._is_whole = False  # it has had the whole body
        self._is_over = False  # it has answered, or the client has left
        self._head: tuple[int, Headers] | None = None  # of the answer, until it is written

    async def run(self, app: App, scope: Message) -> None:
        exchange = self.exchange
        try:
            await app(scope, self.receive, self.send)
        except Exception:
            logger.exception("a request has failed: %s %s", scope["method"], scope["path"])
        if self._is_over:
            return
        if exchange.answering:
            exchange.connection.cut()
        else:
            exchange.refuse(500, "The request has failed; the server's log says why.")

    def over(self) -> None:
        self._is_over = True
        self.moved.set()

    async def receive(self) -> Message:
        """The next part of the body; once there is none, that the client leaves or has its answer."""
        exchange = self.exchange
        connection = exchange.connection
        while not self._is_over:
            if not self._is_whole:
                if exchange.parts or exchange.whole:
                    return self._next_part()
                connection.invite(exchange)
            await self._moves()
        return {"type": "http.disconnect"}

    def _next_part(self) -> Message:
        exchange = self.exchange
        body = exchange.body()
        exchange.parts.clear()
        self.taken = exchange.size
        self._is_whole = exchange.whole
        if not exchange.whole:
            exchange.connection.resume_reading()
        return {"type": "http.request", "body": body, "more_body": not exchange.whole}

    async def send(self, message: Message) -> None:
        """Write the head, or a part of the body; returns once the client reads fast enough."""
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self._head = message["status"], _checked(message.get("headers", ()))
            return
        self._write(message.get("body", b""), more=message.get("more_body", False))
        while self.exchange.connection.write_paused and not self._is_over:
            await self._moves()

    def _write(self, body: bytes, *, more: bool) -> None:
        exchange, head = self.exchange, self._head
        if not more:
            self.over()
        if head is not None:
            self._head = None
            status, headers = head
            size = b"%d" % len(body)
            declared = next((value for name, value in headers if name == b"content-length"), None)
            if not more and declared is None and status not in (204, 304):
                declared = size
                headers.append((b"content-length", size))
            if not more and declared == size:
                exchange.answer(status, headers, body)
                return
            exchange.start(status, headers)
        exchange.write(body)
        if not more:
            exchange.end()

    async def _moves(self) -> None:
        self.moved.clear()
        await self.moved.wait()


def _checked(headers: Any) -> Headers:
    """The headers of an answer.

    Raises:
        ValueError: one would end its line, and begin another header or answer.
    """
    given = [(bytes(name), bytes(value)) for name, value in headers]
    for name, value in given:
        if _breaks_head(name) or _breaks_head(value):
            raise ValueError(f"the header {name!r} of an answer has a line break in it")
    return given


def _scope(exchange: Exchange, path: str, query: bytes) -> Message:
    transport = exchange.connection.transport
    client = (transport.get_extra_info("peername") or ("", 0))[:2]
    scheme = "http"
    if client[0] in ("127.0.0.1", "::1"):  # a proxy on this machine says what its client used
        scheme = "https" if (b"x-forwarded-proto", b"https") in exchange.headers else "http"
    raw = _before_path.sub(b"", exchange.target)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": exchange.version,
        "method": exchange.method,
        "scheme": scheme,
        "path": path,
        "raw_path": re.split(rb"[?#]", raw)[0] or b"/",
        "query_string": query,
        "root_path": "",
        "headers": exchange.headers,
        "client": client,
        "server": (transport.get_extra_info("sockname") or (None,))[:2],
    }
