"""HTTP/1.1 on a connection: bytes to requests, answers to bytes, and the limits that keep a client from holding us up.

A `Connection` parses, keeps the order of a pipeline and frames answers. What is done with a request
is its endpoint's: it is called when a request's turn has come (`begin`), while its body grows
(`grow`), when it is whole (`respond`), and when its client has left (`lost`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import httptools

from digitalhub_runtime_python.calls import problems
from digitalhub_runtime_python.serve.exchange import Endpoint, Exchange, Shared
from digitalhub_runtime_python.serve.messages import (
    STATUS_LINES,
    BadMessage,
    check_coding,
    is_host,
    quoted,
    read_length,
)
from digitalhub_runtime_python.serve.patience import Patience

logger = logging.getLogger(__name__)

PIPELINE = 256
"""Requests that a client may send ahead; what follows them is not answered, and the connection ends."""

_MALFORMED = "The request is not well-formed HTTP."


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, shared: Shared, endpoint: Endpoint) -> None:
        self.shared = shared
        self.endpoint = endpoint
        self.transport: Any = None
        self.current: Exchange | None = None
        """What is being answered, or read for it."""
        self.received = 0  # bytes
        self.complete = 0  # how many of them the last whole head or body ended with, at least
        self.hung_up = False
        """Nothing more is taken from the client."""
        self.lost = False
        self.write_paused = False
        self.read_paused = False
        self.reading: Exchange | None = None  # its head has come, its body not yet
        self._queue: deque[Exchange] = deque()
        self._advancing = False
        self._begun = False  # a head has begun, and is not complete
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._host = b""  # the last one that was found to be one
        self._again = b""  # a head to parse once more, without its wish to upgrade
        self._line_open = True  # a request line may come with the next bytes, or go on
        self._raw_line = b""  # what of it had to be encoded
        self.resumed = 0  # how often its client has read what had piled up
        self._broken = False  # its client has broken a rule
        self.lingers = False
        self.patience = Patience()
        # Of the lane, see there:
        self.lane: Any = None
        self.plain, self.needed = 0, 2
        """Plain requests in a row, and how many it takes to be moved."""
        self.seen = 0
        self.read_off = False
        self._parser: Any = httptools.HttpRequestParser(self)

    # --- asyncio's callbacks ---

    def connection_made(self, transport: Any) -> None:
        before, self.transport = self.transport, transport
        self.shared.connections.add(self)
        if before is not None:  # it comes back from the lane
            before.pass_on(transport)
            if self.read_paused:
                transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.connections.discard(self)
        self.hung_up = self.lost = True
        self._queue.clear()
        exchange, self.current = self.current, None
        if exchange is not None and not exchange.answered:
            exchange.answered = exchange.gone = True
            self.endpoint.lost(exchange)
        # The parser's callbacks are bound to this object: without a word they would keep each other.
        self._parser = self.reading = None

    def data_received(self, data: bytes) -> None:
        if self.hung_up:
            return
        self.received += len(data)
        if data.isascii():
            self._feed(data)
        else:
            self._feed_lines(data)
        reading = self.reading
        if reading is None:
            if (self._begun or self.received != self.complete) and not self.hung_up:
                self._line_open = self._line_open and b"\n" not in data
                if self.received - self.complete > self.shared.limits.header_limit:
                    self._refuse_head()
        elif reading.expects:
            self._invite_body()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        self.resumed += 1
        if self.current is not None:
            self.endpoint.writable(self.current)
        elif self._queue and not self._advancing:
            self._advance()

    # --- parsing ---

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # Java's client, for one, offers to upgrade with every request; whoever does not
                # accept that answers it as it is. So a new parser gets the head without the offer.
                if self.hung_up:
                    return
                data, self._again = self._again + data[upgrade.args[0] :], b""
                self._parser = httptools.HttpRequestParser(self)
                continue
            except httptools.HttpParserCallbackError as exc:
                logger.critical("a connection has failed", exc_info=exc.__context__ or exc)
                self.cut()
            except httptools.HttpParserError:
                self.reject(400, _MALFORMED)
            return

    def _feed_lines(self, data: bytes) -> None:
        """Feed what is not all ASCII: request lines may have raw UTF-8, which the parser does not take."""
        while data and self._line_open and self.reading is None and not self.hung_up:
            head, end, rest = data.partition(b"\r\n\r\n")
            line, line_end, fields = head.partition(b"\r\n")
            if not line.isascii():
                self._raw_line += line
                head = quoted(line) + line_end + fields
            self._line_open = not (end or line_end)
            self._feed(head + end)
            data = rest
        if data and not self.hung_up:
            self._feed(data)

    def on_message_begin(self) -> None:
        self._begun = True

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer is dropped: as a header it would get past a gateway that looks at headers, and it
        # has no limit.
        if self.reading is None:
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.hung_up:
            return
        parser, target, headers = self._parser, self._target, self._headers
        self._begun, self._target, self._headers = False, b"", []
        limit = self.shared.limits.header_limit
        if self.received - self.complete > limit and _size(target, headers) > limit:
            self._refuse_head()
            return
        method = parser.get_method().decode()
        version = parser.get_http_version()
        exchange = Exchange(self, method, target, headers, version, parser.should_keep_alive())
        try:
            self._read_head(exchange)
        except BadMessage as exc:
            self.reject(exc.status, str(exc))
            return
        if parser.should_upgrade():
            self._again = _without_upgrade(exchange)
            return
        if len(self._queue) >= PIPELINE:
            self.hung_up = self._broken = True
            self._queue[-1].keep_alive = False
            return
        self.complete = self.received
        self.reading = exchange
        if self.current is None and not self.write_paused:
            self.current = exchange
            self.endpoint.begin(exchange)
        else:
            # A client that lets its answers lie gets no more of them: they would pile up here.
            self._queue.append(exchange)
            self.pause_reading()

    def _read_head(self, exchange: Exchange) -> None:
        """Take from the headers what serving needs of them.

        Raises:
            BadMessage: they do not go together.
        """
        hosts, codings = 0, None
        if self._raw_line:
            line, self._raw_line = self._raw_line, b""
            try:
                line.decode()
            except UnicodeDecodeError:
                raise BadMessage(400, "The request's target is not UTF-8.") from None
        for name, value in exchange.headers:
            if name == b"host":
                hosts += 1
                if value != self._host:
                    if not is_host(value):
                        raise BadMessage(400, "The request's Host is not a name or an address.")
                    self._host = value
            elif name == b"content-length":
                exchange.length = read_length(value)
            elif name == b"content-type":
                exchange.content_type = value.decode("latin-1")
            elif name == b"transfer-encoding":
                codings = [*(codings or ()), value]
            elif name == b"connection" and exchange.version == "1.0":
                exchange.keep_alive &= b"close" not in value.lower()
            elif name == b"expect":
                exchange.expects = value.lower() == b"100-continue" and exchange.version == "1.1"
        if hosts != 1 and (hosts or exchange.version == "1.1"):
            raise BadMessage(400, "The request has several Host headers." if hosts else "The request has no Host.")  # fmt: skip
        if codings is not None:
            check_coding(codings, exchange.version)
            exchange.chunked = True
        if exchange.version not in ("1.1", "1.0"):
            raise BadMessage(400, "The request is not HTTP/1.1.")
        if exchange.method == "CONNECT":
            raise BadMessage(400, "This is not a proxy: there is no CONNECT.")

    def on_body(self, body: bytes) -> None:
        exchange = self.reading
        if exchange is None or self.hung_up:
            return
        exchange.size += len(body)
        exchange.parts.append(body)
        if exchange is self.current and (exchange.chunked or self.endpoint.streams):
            self.endpoint.grow(exchange)

    def on_message_complete(self) -> None:
        exchange = self.reading
        if exchange is None or self._again:
            return
        self.reading = None
        self.complete = self.received
        self._line_open = True
        exchange.whole = True
        if not exchange.keep_alive:
            self.hung_up = True  # what follows is not asked for
        if exchange is self.current:
            self.endpoint.respond(exchange)

    # --- the order of answers ---

    def idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self.current is None and not self._queue

    def at_rest(self) -> bool:
        """Whether the next byte, if there is one, begins a request."""
        return self.current is None and not self.in_head() and not self.hung_up and not self._queue

    def in_head(self) -> bool:
        """Whether a head has begun, or line breaks have come before one."""
        return self.reading is None and (self._begun or self.received > self.complete)

    def go_on(self, exchange: Exchange) -> None:
        """Go on after an answer that was written to its end."""
        exchange.answering = exchange.answered = True
        self.current = None
        if not exchange.keep_alive:
            self._queue.clear()
            if self._broken or self.read_paused or not exchange.whole:
                self._linger()
            else:
                self.hung_up = True
                self.transport.close()
        elif not self._advancing:
            self._advance()

    def _advance(self) -> None:
        # A loop, and no call from `go_on`: where answers are made at once that would be as deep
        # as the pipeline is long.
        self._advancing = True
        while self._queue and self.current is None and not self.lost and not self.write_paused:
            exchange = self.current = self._queue.popleft()
            self.endpoint.begin(exchange)
            if (
                self.current is exchange
                and exchange.parts
                and (exchange.chunked or self.endpoint.streams)
            ):
                self.endpoint.grow(exchange)
            if self.current is exchange and exchange.whole:
                self.endpoint.respond(exchange)
        self._advancing = False
        if not self._queue and not self.lost:
            self.resume_reading()
            self._invite_body()

    def _invite_body(self) -> None:
        reading = self.reading
        if reading is not None and reading.expects and reading is self.current and not self.endpoint.streams:  # fmt: skip
            self.invite(reading)

    def invite(self, exchange: Exchange) -> None:
        """Have the client send its body, where it waits to be asked."""
        if exchange.expects and not exchange.parts and not self.hung_up and not exchange.answering:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.expects = False

    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def refuse(self, exchange: Exchange, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:  # fmt: skip
        """Answer a request without its endpoint, and hang up."""
        if self.lost or exchange.answered:
            return
        self.current = None
        exchange.answered = exchange.gone = True
        self.endpoint.lost(exchange)
        if exchange.answering:  # too late to say anything
            self.cut()
        else:
            self._say(status, detail, *headers)

    def reject(self, status: int, detail: str) -> None:
        """Take nothing more from a client that breaks the rules, and say why.

        Where earlier requests still wait for their answers, these are the last it gets.
        """
        if self.hung_up:
            return
        self.hung_up = self._broken = True
        current, reading = self.current, self.reading
        if reading is not None and reading is current:
            self.refuse(reading, status, detail)
            return
        if reading is not None:  # it would wait for its turn, and then for the rest of its body
            self._queue.pop()
        last = self._queue[-1] if self._queue else current
        if last is None:
            self._say(status, detail)
        else:
            self.shared.count(status, 0.0)
            last.keep_alive = False

    def _refuse_head(self) -> None:
        limit = self.shared.limits.header_limit
        self.reject(431, f"The request's head is longer than {limit} bytes.")

    def _say(self, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        self.shared.count(status, 0.0)
        body = problems.problem(status, detail)
        given = [(b"content-type", problems.CONTENT_TYPE), (b"content-length", b"%d" % len(body)), *headers]  # fmt: skip
        lines = [STATUS_LINES[status], self.shared.date]
        lines += [b"%s: %s\r\n" % header for header in given]
        self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", body]))
        self._linger()

    def cut(self) -> None:
        """End the connection in the middle of an answer, so that a part is not taken for the whole."""
        self.hung_up = True
        if self.current is not None:
            self.current.answered = True
            self.current = None
        self.transport.abort()

    def close(self, exchange: Exchange) -> None:
        """End the connection, and so an answer whose end is not seen otherwise."""
        self.current = None
        exchange.answered = self.hung_up = True
        self.transport.close()

    def _linger(self) -> None:
        """Close the way out and read on for a while.

        Closing a socket with unread bytes resets it, and the reset may overtake the answer.
        """
        self.hung_up = self.lingers = True
        self._queue.clear()
        self.resume_reading()
        try:
            self.transport.write_eof()
        except (OSError, RuntimeError):  # the client has reset it meanwhile
            self.transport.abort()


def _size(target: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


def _without_upgrade(exchange: Exchange) -> bytes:
    lines = [b"%b %b HTTP/%b" % (exchange.method.encode(), exchange.target, exchange.version.encode())]  # fmt: skip
    for name, value in exchange.headers:
        if name == b"connection":
            value = b"close" if b"close" in value.lower() else b"keep-alive"
        if name not in (b"upgrade", b"http2-settings"):
            lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])
