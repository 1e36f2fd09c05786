"""Search in a run's log: from its end backwards, in pieces, so that a log of any size costs the same memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

from digitalhub_python_control.running.plain_files import opened

_PIECE = 4 * 1024 * 1024
_SEARCHED = 512 * 1024 * 1024
"""Bytes of a log's end that are searched: about a second's work."""
_SHOWN = 200
"""Lines with a match that are answered, the last ones."""
_WIDEST = 400
_AROUND = 16 * 1024


class Match(NamedTuple):
    """A line with what was looked for."""

    at: int
    """Where the line begins: bytes from the log's start."""
    text: str


class Found(NamedTuple):
    """What a search has found, the newest line first."""

    total: int
    """Matches, of which a line may have several."""
    lines: list[Match]
    left_out: int
    """Bytes before what was searched."""


class Log:
    """A log and the part of it that was rotated away, as one row of bytes. A context manager."""

    def __init__(self, path: Path) -> None:
        self._paths = (path.with_name(f"{path.name}.1"), path)
        self._stack = ExitStack()
        self._files: list[tuple[BinaryIO, int]] = []

    def __enter__(self) -> Log:
        for path in self._paths:
            file = self._stack.enter_context(opened(path))
            if file is not None:
                self._files.append((file, file.seek(0, os.SEEK_END)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def size(self) -> int:
        return sum(size for _, size in self._files)

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`, as far as they are there."""
        parts, begins = [], 0
        for file, size in self._files:
            first, last = max(start, begins), min(end, begins + size)
            if first < last:
                file.seek(first - begins)
                parts.append(file.read(last - first))
            begins += size
        return b"".join(parts)


def search(log: Log, wanted: str, searched: int = _SEARCHED, piece: int = _PIECE) -> Found:
    """The lines that have `wanted`; ASCII letters match in capitals and not.

    Args:
        wanted: not empty.
        searched: bytes of the log's end that are looked at.
        piece: bytes that are read at once.
    """
    needle, count = wanted.encode("utf-8", "replace").lower(), 0
    lines: list[Match] = []
    first = max(0, log.size - searched)
    for begins, content in _backwards(log, first, piece):
        low = content.lower()
        count += low.count(needle)
        at = low.rfind(needle)
        while at >= 0 and len(lines) < _SHOWN:
            start = content.rfind(b"\n", 0, at) + 1
            end = content.find(b"\n", at)
            lines.append(Match(begins + start, _cut(content, start, at, len(content) if end < 0 else end)))  # fmt: skip
            at = low.rfind(needle, 0, start)
    return Found(count, lines, first)


def around(log: Log, at: int) -> tuple[list[str], int]:
    """(lines around the one that begins at byte `at`, which of them it is)."""
    at = min(max(at, 0), log.size)
    before = log.read(max(0, at - _AROUND), at)
    if at > _AROUND:
        before = before.partition(b"\n")[2]
    after = log.read(at, at + _AROUND).rpartition(b"\n")[0] or log.read(at, at + _AROUND)
    above = before.decode("utf-8", "replace").split("\n")[:-1]
    return above + after.decode("utf-8", "replace").split("\n"), len(above)


def _backwards(log: Log, first: int, piece: int) -> Iterator[tuple[int, bytes]]:
    """(where it begins, whole lines), from the end of the log to byte `first`."""
    end = log.size
    while end > first:
        begins = max(first, end - piece)
        content = log.read(begins, end)
        if begins > first and b"\n" in content[:-1]:
            cut = content.index(b"\n") + 1
            begins, content = begins + cut, content[cut:]
        yield begins, content
        end = begins


def _cut(content: bytes, start: int, at: int, end: int) -> str:
    """A line, or of a long one what is around the match."""
    if end - start > _WIDEST:
        start, end = max(start, at - _WIDEST // 4), min(end, at + _WIDEST)
    return content[start:end].decode("utf-8", "replace").rstrip("\r")
