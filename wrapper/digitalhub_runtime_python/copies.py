"""Copies of the user's files for a run: an input belongs to the user, and a handler may do with its copy what it likes.

Where the file system shares blocks until they are written to (btrfs, XFS, APFS on Linux hosts do), a copy costs
nothing; elsewhere the bytes are copied, and holes stay holes. Never hard links: writing to one writes to both.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path

from digitalhub_runtime_python import folders
from digitalhub_runtime_python.errors import ArgumentFault

_FICLONE = 0x40049409
_CHUNK = 8 * 1024 * 1024


def copy(source: Path, folder: Path) -> Path:
    """A file or folder as one of the same name in `folder`, which is made.

    Raises:
        ArgumentFault: it is, or holds, what is neither a file nor a folder, or a link that leads nowhere or back.
        OSError: it cannot be read, or there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (source.name or "input")
    if not source.is_dir():
        copy_file(source, target)
        return target
    target.mkdir()
    for file, relative in files_of(source):
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        copy_file(file, target / relative)
    return target


def files_of(source: Path) -> list[tuple[Path, Path]]:
    """The files below a folder, links followed, each with its path in it."""

    def refuse(path: Path, why: str) -> ArgumentFault:
        return ArgumentFault(
            "arguments/input",
            f"The input {str(source)!r} cannot be copied for the run: {str(path)!r} {why}.",
            "Pass a file, or a folder of files and folders.",
        )

    found = folders.walk(source, refuse)
    return [(file, relative) for file, relative, _ in found if file is not None]


def copy_file(source: str | Path, target: str | Path) -> None:
    """The bytes, the permissions and the time of a file; the copy may be written also where the file may not."""
    with Path(source).open("rb") as reader, Path(target).open("wb") as writer:
        if not _cloned(reader.fileno(), writer.fileno()):
            _copy_data(reader.fileno(), writer.fileno())
        found = os.fstat(reader.fileno())
        os.fchmod(writer.fileno(), stat.S_IMODE(found.st_mode) | stat.S_IRUSR | stat.S_IWUSR)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _cloned(reader: int, writer: int) -> bool:
    """Whether the file system has made the one share the blocks of the other, until one is written to."""
    if not sys.platform.startswith("linux"):
        return False
    import fcntl

    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError:
        return False
    return True


def _copy_data(reader: int, writer: int) -> None:
    size, at = os.fstat(reader).st_size, 0
    while at < size:
        start, end = _data(reader, at, size)
        os.lseek(reader, start, os.SEEK_SET)
        os.lseek(writer, start, os.SEEK_SET)
        while start < end:
            chunk = os.read(reader, min(_CHUNK, end - start))
            if not chunk:
                break  # it has shrunk meanwhile
            start += _written(writer, chunk)
        at = end
    os.ftruncate(writer, size)


def _data(reader: int, at: int, size: int) -> tuple[int, int]:
    """The next part of a file that is not a hole."""
    with contextlib.suppress(AttributeError):  # a system that knows no holes
        try:
            start = os.lseek(reader, at, os.SEEK_DATA)
            return start, min(os.lseek(reader, start, os.SEEK_HOLE), size)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return size, size  # nothing but a hole is left
    return at, size


def _written(writer: int, chunk: bytes) -> int:
    view = memoryview(chunk)
    while view:
        view = view[os.write(writer, view) :]
    return len(chunk)
