"""One request and its answer; what is done with it; what all connections of a server share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from digitalhub_runtime_python.serve.messages import STATUS_LINES

if TYPE_CHECKING:
    from digitalhub_runtime_python.serve.protocol import Connection
    from digitalhub_runtime_python.settings import ServeSettings

_COPIED = 64 * 1024
"""Bytes of a body that are copied behind its head, to write both at once."""

Headers = Iterable[tuple[bytes, bytes]]


class Exchange:
    """One request, and how far its answer has come."""

    connection: Connection
    method: str
    target: bytes
    """As it was sent, but raw UTF-8 in percent-encoding."""
    headers: list[tuple[bytes, bytes]]
    """Names in lower case, values without the blanks around them."""
    version: str
    keep_alive: bool
    """The connection goes on after the answer, as far as is known."""
    length = 0
    """Bytes of the body that the head announces."""
    chunked = False
    content_type = ""
    expects = False
    """The client waits for `100 Continue` before it sends the body."""
    size = 0
    """Bytes of the body that have come."""
    whole = False
    answering = False
    """A part of the answer has been written."""
    answered = False
    status = 0
    """Of the answer, once it is known."""
    left = -1
    """Bytes that the answer's head has promised and that are still to come; -1 where none is promised."""
    framed = True
    """The answer's end can be seen; where not, the connection's end is its end."""
    chunks = False
    """The answer is written in chunks."""

    # Of the endpoint and of the runner:
    began = 0.0
    held = 0
    """Bytes of memory that are reserved for the body."""
    event: Any = None
    queued = 0.0
    started = 0.0
    """When the handler was called, or gave its last chunk; 0 while it waits."""
    gone = False
    """The client has left, or has been answered without the handler."""
    done = False
    """The handler's reply, or another in its place, has been taken."""
    stream: Any = None
    task: Any = None

    def __init__(self, connection: Connection, method: str, target: bytes, headers: Any, version: str, keep_alive: bool) -> None:  # fmt: skip
        self.connection = connection
        self.method = method
        self.target = target
        self.headers = headers
        self.version = version
        self.keep_alive = keep_alive
        self.parts: list[bytes] = []

    def body(self) -> bytes:
        """What has come of the body."""
        parts = self.parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def refuse(self, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        """Answer it without more of its body, and hang up."""
        self.connection.refuse(self, status, detail, *headers)

    # --- the answer ---

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Write a whole answer, whose headers have its length."""
        connection = self.connection
        transport = connection.transport
        if transport.is_closing():
            return  # asyncio says so in the loop's next round
        lines = self._head(status, headers)
        if self.method == "HEAD":
            body = b""
        if len(body) <= _COPIED:
            lines.append(body)
            transport.write(b"".join(lines))
        else:
            transport.write(b"".join(lines))
            transport.write(body)
        connection.go_on(self)

    def start(self, status: int, headers: Headers) -> None:
        """Write the head of an answer whose body comes in parts."""
        self.answering = True
        headers = list(headers)
        length = next((value for name, value in headers if name == b"content-length"), None)
        if self.method == "HEAD" or status in (204, 304):
            self.left = 0
        elif length is not None:
            self.left = int(length)
        elif self.version == "1.0":  # it has no chunks: the connection's end ends the answer
            self.framed = self.keep_alive = False
        else:
            self.chunks = True
            headers.append((b"transfer-encoding", b"chunked"))
        self.connection.transport.write(b"".join(self._head(status, headers)))

    def write(self, data: bytes) -> None:
        """Write a part of an answer's body; nothing goes beyond what its head has promised."""
        transport = self.connection.transport
        if self.chunks:
            if data:
                transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            return
        if self.left >= 0:
            data = data[: self.left]
            self.left -= len(data)
        if data:
            transport.write(data)

    def end(self) -> None:
        """End an answer whose head and parts were written."""
        connection = self.connection
        if self.left > 0:
            connection.cut()  # it is shorter than it said
        elif not self.framed:
            connection.close(self)
        else:
            if self.chunks:
                connection.transport.write(b"0\r\n\r\n")
            connection.go_on(self)

    def _head(self, status: int, headers: Headers) -> list[bytes]:
        shared = self.connection.shared
        lines = [STATUS_LINES[status], shared.date]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        if shared.draining or not self.whole:
            self.keep_alive = False
        if not self.keep_alive:
            lines.append(b"connection: close\r\n\r\n")
        elif self.version == "1.0":
            lines.append(b"connection: keep-alive\r\n\r\n")
        else:
            lines.append(b"\r\n")
        return lines


class Endpoint(Protocol):
    """What is done with requests."""

    streams: bool
    """Bodies are taken as they come: `grow` is called for each part, and unread parts hold up the client."""

    def begin(self, exchange: Exchange) -> None: ...
    def grow(self, exchange: Exchange) -> None: ...
    def respond(self, exchange: Exchange) -> None: ...
    def lost(self, exchange: Exchange) -> None: ...
    def writable(self, exchange: Exchange) -> None: ...
    def finish(self, exchange: Exchange, reply: Any) -> None: ...


class Shared:
    """What all connections of a server share.

    Args:
        limits: of heads, of waiting.
        count: called with the status and the seconds of what is answered without the endpoint.
    """

    def __init__(self, limits: ServeSettings, count: Callable[[int, float], None]) -> None:
        self.limits = limits
        self.count = count
        self.date = b""
        """The line of the answer's head, line break included."""
        self.draining = False
        self.connections: set[Connection] = set()
