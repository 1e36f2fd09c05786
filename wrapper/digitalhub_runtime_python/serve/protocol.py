"""uvicorn's HTTP protocol with the limits that it lacks: size and time of heads, stalled clients, hanging up politely."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from digitalhub_runtime_python.calls import problems

if TYPE_CHECKING:
    from digitalhub_runtime_python.serve.board import Slot
    from digitalhub_runtime_python.serve.handover import Job
    from digitalhub_runtime_python.settings import ServeSettings

# One line per malformed request would let a client fill the disk; /metrics counts them.
logging.getLogger("uvicorn.error").setLevel(logging.ERROR)

LINGER = 5.0
"""Seconds for which a connection that was refused is still read, so that its client reads the answer."""


PIPELINE = 256
"""Requests that a client may send ahead; what follows them is not answered, and the connection ends."""

_COPIED = 64 * 1024
"""Bytes of a body that are copied behind its head, to write both at once."""


class FrontState(ServerState):
    """What all connections of a worker share."""

    connections: set[Any]

    def __init__(self, settings: ServeSettings, slot: Slot) -> None:
        super().__init__()
        self.settings = settings
        self.slot = slot
        self.date = b""
        """The line of the response's head, line break included."""
        self.draining = False
        self.gone: Callable[[Job], None] = _ignore
        """Called with the job of a connection that was lost."""


def _ignore(job: Job) -> None: ...


class Connection(HttpToolsProtocol):
    """One client's connection."""

    front: FrontState

    # HttpToolsProtocol's methods are called by its name: super() costs a tenth of a request in all.

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.front = self.server_state  # type: ignore[assignment]
        self.answering: Any = None
        """The cycle that the app answers, or answered last; in a pipeline an earlier one than `cycle`."""
        self.job: Job | None = None
        self.held = 0  # bytes of its body that are in memory
        self.received = 0  # bytes
        self.complete = 0  # how many of them the last whole head or body ended with, at least
        self.hung_up = False
        self._data = b""  # what is being parsed
        self._again = b""  # a head to parse once more, without its wish to upgrade
        self._resumed = 0  # how often its client has read what had piled up
        self._lingers = False
        self._wait: tuple[str, object] = ("", None)  # what is waited for, and how far it has come
        self._wait_since = 0.0

    # --- asyncio's callbacks ---

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.hung_up = True
        if self.answering is not None:
            self.answering.disconnected = True
        if self.job is not None:
            self.front.gone(self.job)

    def data_received(self, data: bytes) -> None:
        if self.hung_up:
            return
        self.received += len(data)
        self._data = data
        HttpToolsProtocol.data_received(self, data)
        if self.received - self.complete > self.front.settings.header_limit and self._in_head():
            self._refuse_head()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._resumed += 1

    # --- the parser's callbacks ---

    def on_headers_complete(self) -> None:
        if self.hung_up:
            return
        if self.received - self.complete > self.front.settings.header_limit:
            size = len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers)
            if size > self.front.settings.header_limit:
                self._refuse_head()
                return
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._again = self._head_without_upgrade()
            return
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            self._reject(400, "The request is not HTTP/1.1.")
            return
        if len(self.pipeline) >= PIPELINE:
            self.hung_up = True
            self.pipeline[0][0].keep_alive = False
            return
        self.complete = self.received
        self.scope["dhpy"] = self  # type: ignore[typeddict-unknown-key]
        HttpToolsProtocol.on_headers_complete(self)
        self.headers = _TRAILERS
        if not self.pipeline:
            self.answering = self.cycle
        if self.front.draining or not self.parser.should_keep_alive():
            self.cycle.keep_alive = False  # uvicorn 0.39 looks for that as late as in `send`

    def on_response_complete(self) -> None:
        if self.pipeline:
            self.answering = self.pipeline[-1][0]
            HttpToolsProtocol.on_response_complete(self)
        else:
            # Without uvicorn's timer for an idle connection, which is set and cancelled for each
            # request: `check` looks at the clock for all of them.
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        if not self.hung_up:
            HttpToolsProtocol.on_body(self, body)

    def on_message_complete(self) -> None:
        if not self.hung_up and not self._again:
            self.complete = self.received
            HttpToolsProtocol.on_message_complete(self)

    def _unsupported_upgrade_warning(self) -> None:
        """uvicorn calls this when the parser has stopped at an upgrade, and drops the request's body.

        Java's client, for one, offers to upgrade with every request; whoever does not accept that
        answers it as it is. So the parser gets the head again, without the offer.
        """
        error, data = sys.exc_info()[1], self._data
        while self._again and not self.hung_up and isinstance(error, httptools.HttpParserUpgrade):
            data = self._again + data[error.args[0] :]
            self._again, error = b"", None
            self.parser = httptools.HttpRequestParser(self)
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as another:  # the next request of a pipeline
                error = another
            except httptools.HttpParserError:
                self.send_400_response("")

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                close = b"close" in value.lower()
                value = b"close" if close else b"keep-alive"
            if name not in (b"upgrade", b"http2-settings"):
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    # --- what the app and the front do with a connection ---

    def idle(self) -> bool:
        """Whether no request is being read or answered."""
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def refuse(self, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        """Answer the app's request without the function, and hang up."""
        cycle = self.answering
        if cycle.disconnected or cycle.response_complete:
            return
        # The app finds the client gone, and says nothing; nor does uvicorn ask it to go on.
        cycle.waiting_for_100_continue = False
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        self._say(status, detail, *headers)

    def _reject(self, status: int, detail: str) -> None:
        """Take nothing more from a client that breaks the rules, and say why.

        Where earlier requests of a pipeline still wait for their answers, these are the last it gets.
        """
        if self.hung_up:
            return
        self.hung_up = True
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._say(status, detail)
        elif cycle is self.answering and cycle.more_body:
            self.refuse(status, detail)
        else:
            self.front.slot.count(status, 0.0)
            if cycle.more_body:  # it would wait for its turn, and then for the rest of its body
                self.pipeline.popleft()
            last = self.pipeline[0][0] if self.pipeline else self.answering
            last.keep_alive = False

    def _say(self, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        self.front.slot.count(status, 0.0)
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

    def whole_body(self) -> bytes | None:
        """The request's body, where it came with the head, as most do; else None."""
        cycle = self.answering
        if cycle.more_body or cycle.disconnected or cycle.response_complete:
            return None
        if cycle.waiting_for_100_continue:
            return None
        self.flow.resume_reading()
        return bytes(cycle.body)

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write a whole response at once, in a third of the time of uvicorn's `send`.

        Returns:
            Whether it was written; where not, the client reads slowly, and `send` waits for it.
        """
        cycle = self.answering
        if self.transport.is_closing():
            cycle.disconnected = True  # asyncio says so in the loop's next round
        if cycle.disconnected:
            return True
        if self.flow.write_paused:
            return False
        lines = [STATUS_LINE[status], self.front.date]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        if cycle.scope["method"] == "HEAD":
            body = b""
        if len(body) <= _COPIED:
            lines.append(body)
            self.transport.write(b"".join(lines))
        else:
            self.transport.write(b"".join(lines))
            self.transport.write(body)
        self._complete(cycle)
        return True

    def end(self) -> None:
        """End a streamed response whose head and chunks were sent."""
        cycle = self.answering
        if cycle.disconnected:
            return
        if cycle.expected_content_length:
            self.cut()  # it is shorter than it said
            return
        if cycle.chunked_encoding and cycle.scope["method"] != "HEAD":
            self.transport.write(b"0\r\n\r\n")
        self._complete(cycle)

    def _complete(self, cycle: Any) -> None:
        cycle.waiting_for_100_continue = False
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if cycle.keep_alive:
            cycle.on_response()
        elif self.hung_up or self.flow.read_paused:
            self._linger()
        else:
            self.transport.close()

    def cut(self) -> None:
        """End the connection in the middle of a response."""
        self.hung_up = True
        self.answering.disconnected = True
        self.transport.abort()

    def send_unframed(self) -> None:
        """Let the end of the connection end the response: HTTP/1.0 has no chunks, uvicorn sends them."""
        self.answering.chunked_encoding = False
        self.answering.expected_content_length = 1 << 62
        self.answering.keep_alive = False

    def end_unframed(self) -> None:
        self.answering.disconnected = True
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what its parser does not understand."""
        self._reject(400, "The request is not well-formed HTTP.")

    def check(self, now: float) -> None:
        """Hang up on a client that has kept us waiting for too long; called every now and then."""
        settings = self.front.settings
        wait = self._waiting_for()
        if wait != self._wait:
            self._wait, self._wait_since = wait, now
            return
        limit = {
            "head": settings.header_timeout,
            "body": settings.stall_timeout,
            "first": settings.keep_alive,  # a client's spare connection
            "answer": settings.stall_timeout,
            "end": LINGER,
            "next": settings.keep_alive,
        }.get(wait[0])
        if limit is None or now - self._wait_since <= limit:
            return
        if wait[0] in ("answer", "end"):
            self.hung_up = True
            self.transport.abort()
        elif wait[0] == "next":
            self.transport.close()
        else:
            self._reject(408, f"The request's {wait[0]} took longer than {limit:g} s.")

    def _waiting_for(self) -> tuple[str, object]:
        """What the client is to send or take next; and what changes when it makes progress with it."""
        if unread := self.transport.get_write_buffer_size():
            return "answer", (unread, self._resumed, _unread_by(self.transport))
        if self.hung_up:
            return ("end", None) if self._lingers else ("", None)
        if not self.received:
            return "first", None
        if self.flow.read_paused:  # its turn has not come: it is we who keep the client waiting
            return "", None
        if self._in_head():
            return "head", self.complete  # a head has its time as a whole: drops do not prolong it
        if self.idle():
            return ("head" if self.received > self.complete else "next"), self.complete
        if not self.cycle.more_body:
            return "", None
        return "body", self.received

    def _in_head(self) -> bool:
        return self.scope is None or "method" not in self.scope

    def _refuse_head(self) -> None:
        limit = self.front.settings.header_limit
        self._reject(431, f"The request's head is longer than {limit} bytes.")

    def _linger(self) -> None:
        """Close the way out and read on for a while.

        Closing a socket with unread bytes resets it, and the reset may overtake the answer.
        """
        self.hung_up = self._lingers = True
        self.pipeline.clear()
        self.flow.resume_reading()
        try:
            self.transport.write_eof()
        except (OSError, RuntimeError):  # the client has reset it meanwhile
            self.transport.abort()


def _unread_by(transport: Any) -> int:
    """Bytes that the kernel still has for the client; 0 where it does not say.

    It takes megabytes ahead: a client may read for a minute before it asks this process for more.
    """
    import fcntl  # only where somebody is waited for
    import termios

    try:
        pending = fcntl.ioctl(
            transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4)
        )
    except (AttributeError, OSError):  # not on every system
        return 0
    return int.from_bytes(pending, sys.byteorder)


class _Dropped(list):  # type: ignore[type-arg]
    def append(self, item: object) -> None:
        """A trailer: as a header it would get past a gateway that looks at headers, and it has no limit."""


_TRAILERS = _Dropped()
