"""The two sockets between Nuclio's processor and its wrapper: framed events in, packets out."""

from __future__ import annotations

import select
import socket
import threading
import time

CHUNK = 1 << 18
MAX_EVENT = 1 << 30
"""Bytes; a longer frame means that the two sides no longer agree where a frame starts."""
CONNECT_TIMEOUT = 60.0
"""Seconds; the processor gives a wrapper two minutes to connect."""
LOG_DELAY = 0.1
"""Seconds that a log record may wait for others."""
LOG_HELD = 1 << 16
"""Bytes of log records that may wait."""
WAKE_UP = 5
"""Bytes: the length of an event is a write of its own, and not worth waking up for."""


class Disconnected(Exception):
    """The processor has closed the line, or sends what is not a frame."""


class Frames:
    """Cuts a stream of bytes into events: four bytes of length, big-endian, then so many bytes."""

    def __init__(self) -> None:
        self._data = bytearray()
        # One for all reads: so much memory by itself is three system calls for each.
        self._room = bytearray(CHUNK)
        self._filled = memoryview(self._room)

    def read(self, line: socket.socket) -> None:
        """Wait for more, and take it.

        Raises:
            Disconnected: there is no more.
        """
        size = line.recv_into(self._room, self._wanted())
        self.feed(self._filled[:size])

    def feed(self, data: bytes | memoryview) -> None:
        if not data:
            raise Disconnected("the processor closed the connection")
        self._data += data

    def pop(self) -> bytes | None:
        """The next whole event, or None.

        Raises:
            Disconnected: an event cannot have that length.
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

    def _wanted(self) -> int:
        # A read waits for WAKE_UP bytes, or for all that it asks for: an event's last ones may be fewer.
        data = self._data
        if not data:
            return CHUNK
        missing = 4 - len(data)
        if missing <= 0:
            missing += int.from_bytes(data[:4], "big", signed=True)
        return missing if 0 < missing < WAKE_UP else CHUNK


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
