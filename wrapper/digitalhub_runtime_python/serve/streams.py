"""From the handler's thread to the front: calls on its loop, and the chunks of a response."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any, Callable

STREAM_HIGH = 256 * 1024
"""Bytes of a stream that the client has not taken yet; above it the handler waits."""


class Outbox:
    """Calls that the handler's thread wants made on the front's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._scheduled = False

    def put(self, function: Callable[[Any], None], argument: Any) -> None:
        self._calls.append((function, argument))
        if not self._scheduled:
            self._scheduled = True
            # Closed: the front has ended, and whoever would have been told with it.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._scheduled = False
        calls = self._calls
        while calls:
            function, argument = calls.popleft()
            function(argument)


class Stream:
    """The chunks of one response, from the handler's thread to the front."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._chunks: deque[bytes] = deque()
        self._put = 0  # bytes; written by the handler's thread only,
        self._taken = 0  # and this one by the front's only
        self._resume: Callable[[], None] | None = None
        self._listener: Callable[[], None] | None = None
        self.ended = False
        self.failed = False
        self.closed = False
        """The client takes no more."""

    # The handler's side.
    def put(self, chunk: bytes) -> None:
        self._put += len(chunk)
        self._chunks.append(chunk)
        self._outbox.put(self._wake, None)

    def end(self, failed: bool = False) -> None:
        self.failed = failed
        self.ended = True
        self._outbox.put(self._wake, None)

    def wait_for(self, resume: Callable[[], None]) -> bool:
        """Whether the handler has to wait; `resume` is then called when it may go on."""
        if not self._full():
            return False
        self._resume = resume
        # The front may have taken everything in between, and would then never call it.
        if not self._full():
            self._resume = None
            return False
        return True

    def _full(self) -> bool:
        return self._put - self._taken >= STREAM_HIGH and not self.closed

    @property
    def held_up(self) -> bool:
        """The handler waits for the client."""
        return self._resume is not None

    # The front's side.
    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever there is something to take, or the end to be seen."""
        self._listener = listener
        listener()

    def take(self) -> bytes:
        """All that is there."""
        data = b"".join(self._chunks.popleft() for _ in range(len(self._chunks)))
        self._taken += len(data)
        if self._put - self._taken < STREAM_HIGH // 2:
            self._go_on()
        return data

    def close(self) -> None:
        self.closed = True
        self._go_on()
        self._wake(None)

    def _wake(self, _: None) -> None:
        if self._listener is not None:
            self._listener()

    def _go_on(self) -> None:
        resume, self._resume = self._resume, None
        if resume is not None:
            resume()
