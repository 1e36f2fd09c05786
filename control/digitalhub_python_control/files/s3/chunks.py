"""Takes the aws-chunked wrapping off a body: what AWS's SDKs send over TLS, behind a proxy."""

from __future__ import annotations

import re
from collections.abc import Mapping

from digitalhub_python_control.files.s3.xml import S3Error

_LINE = 8 * 1024
"""Bytes that the head of a chunk, or a trailer, may have."""
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")


_is_size = re.compile(rb"[0-9A-Fa-f]{1,16}").fullmatch


class Decoder:
    """`<hex size>[;chunk-signature=…]CRLF bytes CRLF … 0 CRLF trailers CRLF`."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._left = 0
        self._is_done = False

    def feed(self, content: bytes) -> bytes:
        """The payload in this piece of the body."""
        self._pending += content
        payload = bytearray()
        while not self._is_done:
            if self._left:
                taken = self._pending[: self._left]
                if not taken:
                    break
                del self._pending[: len(taken)]
                self._left -= len(taken)
                payload += taken
                continue
            head = self._next_head()
            if head is None:
                break
            self._left = _size(head)
            self._is_done = self._left == 0
        if self._is_done:
            self._pending.clear()  # trailers: a checksum of what TCP and TLS have checked
        return bytes(payload)

    def finish(self) -> None:
        """Raises:
        S3Error: the body ended before its last chunk.
        """
        if not self._is_done:
            raise S3Error(400, "IncompleteBody", "The body ended before its last chunk.")

    def _next_head(self) -> bytes | None:
        while True:
            line, found, _ = self._pending.partition(b"\r\n")
            if not found:
                if len(self._pending) > _LINE:
                    raise S3Error(400, "InvalidRequest", "The chunks are not well formed.")
                return None
            del self._pending[: len(line) + 2]
            if line:  # an empty one ends the chunk before
                return bytes(line)


def decoder(headers: Mapping[str, str]) -> Decoder | None:
    """A decoder where the headers say that the body is wrapped."""
    encodings = [part.strip() for part in headers.get("content-encoding", "").split(",")]
    streams = headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
    return Decoder() if streams or "aws-chunked" in encodings else None


def _size(head: bytes) -> int:
    size = head.partition(b";")[0]
    # Not what int() takes beside digits: `0x5`, `+5`, `1_0`, blanks.
    if _is_size(size) is None:
        raise S3Error(400, "InvalidRequest", "The chunks are not well formed.")
    return int(size, 16)
