"""uvicorn's HTTP protocol with the limits that it lacks: size and time of heads, stalled clients, hanging up politely."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Callable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from digitalhub_runtime_python.serve import problems

if TYPE_CHECKING:
    from digitalhub_runtime_python.serve.board import Slot
    from digitalhub_runtime_python.serve.handover import Job
    from digitalhub_runtime_python.settings import ServeSettings

# One line per malformed request would let a client fill the disk; /metrics counts them.
logging.getLogger("uvicorn.error").setLevel(logging.ERROR)

LINGER = 5.0
"""Seconds for which a connection that was refused is still read, so that its client reads the answer."""


class FrontState(ServerState):
    """What all connections of a worker share."""

    connections: set[Any]

    def __init__(self, settings: ServeSettings, slot: Slot) -> None:
        super().__init__()
        self.settings = settings
        self.slot = slot
        self.clock = 0.0
        """The loop's time, to a fraction of a second: reading it is free."""
        self.draining = False
        self.gone: Callable[[Job], None] = _ignore
        """Called with the job of a connection that was lost."""


def _ignore(job: Job) -> None: ...


class Connection(HttpToolsProtocol):
    """One client's connection."""

    front: FrontState

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.front = self.server_state  # type: ignore[assignment]
        self.job: Job | None = None
        self.unread = 0  # bytes since the last head or body was complete
        self.head_since: float | None = None
        self.body_since: float | None = None
        self.write_since: float | None = None
        self.hung_up = False

    # --- asyncio's callbacks ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_since = self.front.clock

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.hung_up = True
        if self.job is not None:
            self.front.gone(self.job)

    def data_received(self, data: bytes) -> None:
        if self.hung_up:
            return
        self.unread += len(data)
        super().data_received(data)
        self._check_head()

    def _check_head(self) -> None:
        if self.hung_up:
            return
        if self.head_since is not None:
            if self.unread > self.front.settings.header_limit:
                self._refuse_head()
        elif self.idle():
            # Not even the first byte of a head, only line breaks: the time runs all the same.
            self.head_since = self.front.clock

    def pause_writing(self) -> None:
        super().pause_writing()
        self.write_since = self.front.clock

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_since = None

    # --- the parser's callbacks ---

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.head_since = self.front.clock

    def on_headers_complete(self) -> None:
        if self.hung_up:
            return
        if self.unread > self.front.settings.header_limit:
            size = len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers)
            if size > self.front.settings.header_limit:
                self._refuse_head()
                return
        self.unread = 0
        self.head_since = None
        self.body_since = self.front.clock
        self.scope["dhpy"] = self  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        if self.front.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if not self.hung_up:
            self.body_since = self.front.clock
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.hung_up:
            self.unread = 0
            self.body_since = None
            super().on_message_complete()

    # --- what the app and the front do with a connection ---

    def idle(self) -> bool:
        """Whether no request is being read or answered."""
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def refuse(self, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        """Answer in place of the app and hang up.

        Where an earlier request of a pipeline still waits for its answer, that is the last one sent.
        """
        if self.hung_up:
            return
        self.hung_up = True
        self.front.slot.count(status, 0.0)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self.pipeline or cycle.response_started or not cycle.more_body:
                cycle.keep_alive = False
                return
            # The app finds the client gone, and says nothing.
            cycle.response_started = cycle.response_complete = True
            cycle.message_event.set()
        body = problems.problem(status, detail)
        lines = [
            STATUS_LINE[status][:-2],
            *(b"%s: %s" % header for header in self.front.default_headers),
            b"content-type: " + problems.CONTENT_TYPE,
            b"content-length: %d" % len(body),
            *(b"%s: %s" % header for header in headers),
            b"connection: close",
            b"",
            body,
        ]
        self.transport.write(b"\r\n".join(lines))
        self._linger()

    def cut(self) -> None:
        """End the connection in the middle of a response."""
        self.hung_up = True
        self.cycle.disconnected = True
        self.transport.abort()

    def send_unframed(self) -> None:
        """Let the end of the connection end the response: HTTP/1.0 has no chunks, uvicorn sends them."""
        self.cycle.chunked_encoding = False
        self.cycle.expected_content_length = 1 << 62
        self.cycle.keep_alive = False

    def end_unframed(self) -> None:
        self.cycle.disconnected = True
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what its parser does not understand."""
        self.refuse(400, "The request is not well-formed HTTP.")

    def check(self, now: float) -> None:
        """Hang up on a client that has kept us waiting for too long; called every now and then."""
        settings = self.front.settings
        if self.write_since is not None and now - self.write_since > settings.stall_timeout:
            self.hung_up = True
            self.transport.abort()
        elif self.head_since is not None:
            # A connection that has sent nothing is a client's spare one.
            limit = settings.header_timeout if self.unread else settings.keep_alive
            if now - self.head_since > limit:
                self.refuse(408, f"The request's head took longer than {limit:g} s.")
        elif self.body_since is not None and now - self.body_since > settings.stall_timeout:
            self.refuse(408, f"The request's body stalled for {settings.stall_timeout:g} s.")

    def _refuse_head(self) -> None:
        limit = self.front.settings.header_limit
        self.refuse(431, f"The request's head is longer than {limit} bytes.")

    def _linger(self) -> None:
        """Close the way out and read on for a while.

        Closing a socket with unread bytes resets it, and the reset may overtake the answer.
        """
        self.head_since = self.body_since = None
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.abort)
