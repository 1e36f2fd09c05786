"""Files that a run could have tampered with: read only where they are plain files, never waited for."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

LARGEST = 64 * 1024
"""Bytes: more of a file that says how a run is doing is not read."""
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO | None]:
    """The file, opened for reading; None where there is none, or a link, FIFO, folder or device.

    A link would show any file that we may read, and a FIFO would hold us until somebody writes to it.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno not in _NOT_THERE:
            raise
        yield None
        return
    with os.fdopen(number, "rb") as file:
        yield file if stat.S_ISREG(os.fstat(number).st_mode) else None


def read_text(path: Path) -> str | None:
    """What a small file says; None where there is no plain file."""
    with opened(path) as file:
        return None if file is None else file.read(LARGEST).decode("utf-8", "replace")
