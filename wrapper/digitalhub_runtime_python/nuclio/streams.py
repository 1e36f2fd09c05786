"""Streams: passed on chunk by chunk to a processor that knows them, as one answer to one that does not."""

from __future__ import annotations

import functools
import logging
import mmap
import os
from pathlib import Path
from typing import Any

from digitalhub_runtime_python.calls.replies import Reply
from digitalhub_runtime_python.nuclio import packets
from digitalhub_runtime_python.nuclio.wire import Outbox

logger = logging.getLogger(__name__)

SWITCH = "DHPY_NUCLIO_STREAMING"
"""`on`, `off`, or (default) `auto`: look whether the processor knows."""
_MARKS = (b"streamingFlushPeriod", b"chunkTimeout")
"""Words that are in a processor's program when it knows streams."""


class Stream:
    """One reply on its way; `start` once, `add` each chunk, then `end` or `fail`."""

    def __init__(self, reply: Reply, outbox: Outbox) -> None:
        self._reply = reply
        self._outbox = outbox
        self._passed_on = knows_streams()
        self._parts = [reply.body]
        if self._passed_on:
            outbox.send(packets.answer(reply, "c"))

    def add(self, chunk: Any) -> None:
        raw = self._reply.encode(chunk)
        if self._passed_on:
            self._outbox.send(packets.chunk(raw))
        else:
            self._parts.append(raw)

    def end(self) -> bytes:
        """The last packet."""
        if self._passed_on:
            return packets.STREAM_END
        self._reply.body = b"".join(self._parts)
        return packets.answer(self._reply)

    def fail(self, exc: BaseException, failed: Reply) -> bytes:
        """The last packet where the generator raised.

        The client of a stream has its status already, and a second answer would go to someone else:
        the stream ends short, and the log says why.
        """
        if not self._passed_on:
            return packets.answer(failed)
        logger.error("the stream broke off: %s", exc)
        return packets.STREAM_END


@functools.lru_cache(maxsize=1)
def knows_streams() -> bool:
    """Whether the processor that started this process passes streams on (1.15 and later)."""
    switch = os.environ.get(SWITCH, "auto").lower()
    if switch != "auto":
        return switch in ("on", "true", "yes", "1")
    try:
        # Nothing on the line tells; the one packet too many would leave a client waiting for ever.
        with (
            Path(f"/proc/{os.getppid()}/exe").open("rb") as program,
            mmap.mmap(program.fileno(), 0, access=mmap.ACCESS_READ) as text,
        ):
            return any(text.find(mark) >= 0 for mark in _MARKS)
    except (OSError, ValueError):
        return False
