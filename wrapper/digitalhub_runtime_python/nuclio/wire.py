"""The two sockets between Nuclio's processor and its wrapper: framed events in, packets out."""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import Any

CHUNK = 1 << 18
MAX_EVENT = 1 << 30
"""Bytes; a longer frame means that the two sides no longer agree where a frame starts."""
CONNECT_TIMEOUT = 60.0
"""Seconds; the processor gives a wrapper two minutes to connect."""
LOG_DELAY = 0.1
"""Seconds that a log record may wait for others."""
LOG_HELD = 1 << 16
"""Bytes of log records that may wait."""


class Disconnected(Exception):
    """The processor has closed the line, or sends what is no frame."""


class Frames:
    """Cuts a stream of bytes into events: four bytes of length, big-endian, then so many bytes."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        if not data:
            raise Disconnected("the processor closed the connection")
        self._data += data

    def pop(self) -> bytes | None:
        """The next whole event, or None.

        Raises:
            Disconnected: the length is none that an event can have.
        """
        data = self._data
        if len(data) < 4:
            return None
        end = 4 + int.from_bytes(data[:4], "big", signed=True)
        if not 4 < end <= MAX_EVENT:
            raise Disconnected(f"a frame of {end - 4} bytes")
        if len(data) < end:
            return None
        frame = bytes(data[4:end])
        del data[:end]
        return frame


class LoopReader:
    """Feeds frames from a running event loop; asyncio's own sock_recv registers the socket anew each time."""

    def __init__(self, line: socket.socket, frames: Frames, loop: Any) -> None:
        self._line, self._frames, self._loop = line, frames, loop
        self._waiter: Any = None
        self._end: Exception | None = None
        loop.add_reader(line, self._read)

    async def more(self) -> None:
        """Wait until something has come.

        Raises:
            Disconnected: the processor has closed the line.
        """
        if self._end is not None:
            raise self._end
        self._waiter = self._loop.create_future()
        await self._waiter

    def _read(self) -> None:
        try:
            self._frames.feed(self._line.recv(CHUNK))
        except BlockingIOError:
            return
        except (OSError, Disconnected) as exc:
            self._end = exc
            self._loop.remove_reader(self._line)
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            if self._end is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(self._end)


def connect(path: str) -> socket.socket:
    """Connect to a unix socket, waiting for it to be there.

    Raises:
        Disconnected: it is not there in time.
    """
    give_up = time.monotonic() + CONNECT_TIMEOUT
    while True:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.connect(path)
            return line
        except OSError as exc:
            line.close()
            if time.monotonic() > give_up:
                raise Disconnected(f"no processor listens on {path}: {exc.strerror}") from exc
            time.sleep(0.05)


class Outbox:
    """Writes packets; log records wait a moment, so that an event's logs and answer are one write.

    Any thread may log. The first record after a quiet moment goes out at once, so what a handler
    says before it dies is not lost; the ones that follow within LOG_DELAY go with the answer.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._lock = threading.Lock()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._last_write = 0.0
        self._late: threading.Event | None = None

    def send(self, packet: bytes) -> None:
        """Write a packet, and before it what is held.

        Raises:
            OSError: the processor is gone.
        """
        with self._lock:
            if self._held:
                packet = b"".join((*self._held, packet))
                self._held.clear()
                self._held_bytes = 0
                self._last_write = time.monotonic()
            write_all(self._line, packet)

    def hold(self, packet: bytes, *, urgent: bool = False) -> None:
        """Take a log packet; it is written at once, or within LOG_DELAY, or with the next packet."""
        with self._lock:
            self._held.append(packet)
            self._held_bytes += len(packet)
            quiet = time.monotonic() - self._last_write > LOG_DELAY
            now = urgent or quiet or self._held_bytes > LOG_HELD
        if now:
            self.send(b"")
        else:
            self._write_later()

    def _write_later(self) -> None:
        if self._late is None:
            self._late = threading.Event()
            threading.Thread(target=self._write_held, name="nuclio-log", daemon=True).start()
        if not self._late.is_set():
            self._late.set()

    def _write_held(self) -> None:
        late = self._late
        while late is not None and late.wait():
            late.clear()
            time.sleep(LOG_DELAY)
            try:
                self.send(b"")
            except OSError:
                return  # the reader finds out too, and ends the process


def write_all(line: socket.socket, data: bytes) -> None:
    """sendall, also on a socket that does not block: the processor always reads."""
    view = memoryview(data)
    while view:
        try:
            view = view[line.send(view) :]
        except BlockingIOError:
            select.select([], [line], [])
