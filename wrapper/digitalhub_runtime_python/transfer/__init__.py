"""Brings files from elsewhere onto this machine: a function's code, and its inputs.

`web.download` gets one file over HTTP, `objects.Bucket` what an object store holds; both with proxies,
retries, limits, and names that stay inside the folder they are written to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import IO, Protocol

from digitalhub_runtime_python.errors import SourceFault

MAX_ENTRIES = 50_000
"""Files and folders of one source. The largest Python packages have a fifth of that; a bomb, millions."""
MAX_BYTES = 1 << 30
"""Bytes of one source, on the wire and unpacked: what a pod without a volume of its own can hold."""
CHUNK = 1 << 18
"""Bytes read at a time: few system calls, and nothing beside a pod's 282 MiB."""
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Address(Protocol):
    """Where a file is."""

    @property
    def url(self) -> str:
        """What to ask for, without user and password."""

    @property
    def shown(self) -> str:
        """For messages and logs: holds no secret."""

    @property
    def user(self) -> str: ...

    @property
    def password(self) -> str: ...


class Budget:
    """Counts what a download brings, and stops it at its limits.

    Args:
        what: whose limits they are, for the message.
        entries: files and folders at most; by default what code may have.
        size: bytes at most; by default what code may have.
        hint: what to do about more.
    """

    def __init__(
        self,
        what: str,
        *,
        entries: int | None = None,
        size: int | None = None,
        hint: str = "Keep data out of the code: log it as an artifact and take it as an input.",
    ) -> None:
        self.what = what
        self.max_entries = MAX_ENTRIES if entries is None else entries
        self.max_bytes = MAX_BYTES if size is None else size
        self.hint = hint
        self.entries = 0
        self.bytes = 0

    def entry(self) -> None:
        """Count one file or folder."""
        self.entries += 1
        if self.entries > self.max_entries:
            raise self.exceeded(f"more than {self.max_entries} files and folders")

    def add(self, count: int) -> None:
        """Count bytes."""
        self.bytes += count
        if self.bytes > self.max_bytes:
            raise self.exceeded(f"more than {self.max_bytes >> 20} MiB")

    def exceeded(self, limit: str) -> SourceFault:
        return SourceFault("source/too-large", f"{self.what} has {limit}.", self.hint)

    def write(self, chunks: Iterable[bytes], file: IO[bytes]) -> None:
        """Write what comes, as long as it is within the limits."""
        for chunk in chunks:
            self.add(len(chunk))
            file.write(chunk)


def member_path(name: str) -> PurePosixPath:
    """A name out of an archive, a listing or a fragment as a path that stays inside a folder.

    Backslashes separate too: archives made on Windows have them.

    Raises:
        ValueError: it is absolute, leads out, or cannot be a name; the text completes "the name …".
    """
    if _CONTROL.search(name):
        raise ValueError("holds a control character")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise ValueError("cannot be a file's name") from None
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or _DRIVE.match(parts[0]):
        raise ValueError("is empty" if not name else "is absolute")
    if ".." in parts:
        raise ValueError("leads out of the source")
    kept = [part for part in parts if part not in ("", ".")]
    if not kept:
        raise ValueError("is empty")
    return PurePosixPath(*kept)
