"""The ASGI application: admission, the request's body, the hand-over to the handler, the response."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from digitalhub_runtime_python.calls.event import RequestEvent
from digitalhub_runtime_python.calls.replies import Reply, problem_reply
from digitalhub_runtime_python.serve.handover import Job, Runner
from digitalhub_runtime_python.serve.protocol import FrontState

logger = logging.getLogger(__name__)

HEALTH = "/__internal/health"
"""Answered without the handler; Nuclio's readiness probe."""

GONE = 499
"""Counted for requests whose client left before the answer."""

_CLOSE = (b"connection", b"close")


class App:
    """An ASGI application for one handler.

    Args:
        loop: the front's.
        runner: runs the handler.
        state: what the connections share; a request's connection is in its scope, as `dhpy`.
        log_requests: write a line for each.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        runner: Runner,
        state: FrontState,
        *,
        log_requests: bool = False,
    ) -> None:
        self._loop = loop
        self._log_requests = log_requests
        self._runner = runner
        self._settings = state.settings
        self._state = state
        self._slot = state.slot
        self._held = 0  # bytes of bodies in memory
        self.in_flight = 0
        state.gone = runner.cancel

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"a function is served over HTTP, not {scope['type']}")
        connection = scope["dhpy"]
        if scope["path"].startswith(HEALTH):
            await self._health(send)
            return
        began = time.perf_counter()
        self.in_flight += 1
        try:
            content_type, length = _about_body(scope["headers"])
            if not self._admits(connection, length):
                return
            body = connection.whole_body()
            if body is None:
                body = await self._read(connection, receive)
                if body is None:
                    return
            future: asyncio.Future[Reply | None] = self._loop.create_future()
            job = connection.job = Job(RequestEvent(scope, body, content_type), future)
            if len(body) > self._settings.body_limit:  # in chunks, which announce no length
                reply: Reply | None = _too_long(self._settings.body_limit)
            elif self._runner.waiting() >= self._settings.queue:
                reply = busy("The service has too many requests waiting.")
            else:
                self._runner.submit(job)
                reply = await future
            if reply is not None:
                await self._send(reply, job, connection, send)
            self._count(scope, reply.status if reply is not None else GONE, began)
        finally:
            self.in_flight -= 1
            self._held -= connection.held
            connection.held = 0
            # A handler may keep the event, and with it the scope: that must not keep the connection.
            connection.job = scope["dhpy"] = None

    def _count(self, scope: Any, status: int, began: float) -> None:
        seconds = time.perf_counter() - began
        self._slot.count(status, seconds)
        if self._log_requests:
            logger.info("%s %s %d %.1f ms", scope["method"], scope["path"], status, seconds * 1000)

    def _admits(self, connection: Any, length: int) -> bool:
        """Whether a request is taken on; one that is not has been answered before its body is read."""
        if length > self._settings.body_limit:
            limit = self._settings.body_limit
            connection.refuse(413, f"The body has {length} bytes; the limit is {limit}.")
        elif length < 0:
            connection.refuse(400, "The request is not well-formed HTTP.")
        else:
            return self._reserves(connection, length)
        return False

    def _reserves(self, connection: Any, size: int) -> bool:
        """Whether there is room for so many more bytes of a body; where not, it has been answered."""
        if self._held and self._held + size > self._settings.body_memory:
            connection.refuse(503, "The service holds too many request bodies.", _RETRY)
            return False
        self._held += size
        connection.held += size
        return True

    async def _read(self, connection: Any, receive: Any) -> bytes | None:
        """The whole body; None where there is nobody to answer any more."""
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body: bytes = message["body"]
        if not message["more_body"]:
            return bytes(body)
        parts, size = [body], len(body)
        while message["more_body"]:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message["body"])
            size += len(message["body"])
            if size > self._settings.body_limit:
                connection.refuse(413, _TOO_LONG.format(self._settings.body_limit))
                return None
            # What comes in chunks has announced no length.
            if size > connection.held and not self._reserves(connection, size - connection.held):
                return None
        return b"".join(parts)

    async def _send(self, reply: Reply, job: Job, connection: Any, send: Any) -> None:
        headers = reply.headers
        if job.stream is not None and reply.status in (204, 304):
            self._runner.cancel(job)  # these have no body, so nobody takes the stream
            headers = [h for h in headers if h[0] != b"content-type"]
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            connection.end()
            return
        if job.stream is None and connection.answer(reply.status, headers, reply.body):
            return
        if self._state.draining:
            headers = [*headers, _CLOSE]
        unframed = job.stream is not None and job.event._scope["http_version"] == "1.0"
        if unframed:
            connection.send_unframed()
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        if job.stream is None:
            await send({"type": "http.response.body", "body": reply.body})
            return
        await send({"type": "http.response.body", "body": reply.body, "more_body": True})
        while (data := await job.stream.take()) is not None:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        if job.stream.failed or job.stream.closed:
            # Without the last chunk: a client must not take the part for the whole.
            connection.cut()
        elif unframed:
            connection.end_unframed()
        else:
            connection.end()

    async def _health(self, send: Any) -> None:
        body = b"OK"
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
        if self._state.draining:
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


_RETRY = (b"retry-after", b"1")
_TOO_LONG = "The body is longer than the limit of {} bytes."


def _too_long(limit: int) -> Reply:
    return problem_reply(413, _TOO_LONG.format(limit))


def busy(detail: str) -> Reply:
    """503 with `Retry-After`."""
    reply = problem_reply(503, f"{detail} Try again in a second.")
    reply.headers.append(_RETRY)
    return reply


def late(seconds: float) -> Reply:
    """504."""
    return problem_reply(504, f"The function took longer than its deadline of {seconds:g} s.")


def _about_body(headers: list[tuple[bytes, bytes]]) -> tuple[str, int]:
    """The content type, and the length that is announced; 0 where none is, -1 where it is no number."""
    content_type, length = "", 0
    for name, value in headers:
        if name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == b"content-length":
            length = int(value) if value.isdigit() and len(value) < 20 else -1
    return content_type, length
