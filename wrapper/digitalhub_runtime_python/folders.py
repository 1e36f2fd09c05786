"""Looks through a returned file or folder before it is stored, so that whoever stores it meets plain files alone."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Callable

from digitalhub_runtime_python.errors import OutputFault

FILES_LIMIT = 1_000_000
"""Files of a folder; more of them come of links that lead to one another."""

_OWN = re.compile(r"dhpy-([0-9a-f]{12}|input-.*)|report-.*\.json")
"""What the runtime keeps in its workspace, where a function may run beside it."""

_KINDS = {
    stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


def plain(path: Path, name: str, place: Path, own: Path) -> Path:
    """The path itself, or where it holds links to folders or folders of the runtime's, one in `place` that does not.

    Args:
        name: the output's, for messages.
        place: where a folder may be made for it.
        own: the run's own folder, which is never part of what it returns.

    Raises:
        OutputFault: nothing is there; or it is, or holds, what cannot be stored (a link that leads
            nowhere or back, a FIFO, a socket, a device, a name that is not text); the message names it.
    """
    shown, path, refuse = path, path.absolute(), partial(_refused, name)
    if not os.path.lexists(path):
        raise OutputFault(
            "outputs/no-file",
            f"Output {name!r} is the path {str(shown)!r}, and nothing is there.",
            "Return the path of a file or folder that the function wrote and that is still there "
            "when it returns: what a `with TemporaryDirectory()` made is gone by then.",
        )
    if not stat.S_ISDIR(_mode(path, shown, refuse)):
        return path
    files: list[tuple[Path, Path]] = []
    needs_view = False
    for file, relative, as_is in walk(path, refuse, own):
        needs_view |= not as_is
        if file is not None:
            files.append((file, relative))
    return _view(files, place / "view" / (path.name or "folder")) if needs_view else path


def gathered(
    paths: Iterable[Path], name: str, place: Path, own: Path, names: Sequence[str] = ()
) -> Path:
    """Several files and folders in one folder, each under its own name, or one of `names` with its suffix, or one that is free."""
    folder, taken = place / "view" / name, set[str]()
    folder.mkdir(parents=True)
    for index, path in enumerate(paths):
        source = plain(path, name, place / str(index), own)
        wanted = Path(names[index] + source.suffix if names else source.name)
        target, n = wanted.name, 1
        while target in taken:
            n += 1
            target = f"{wanted.stem}-{n}{wanted.suffix}"
        taken.add(target)
        if source.is_dir():
            _view(
                [(f, r) for f, r, _ in walk(source, partial(_refused, name), own) if f],
                folder / target,
            )
        else:
            (folder / target).symlink_to(source)
    return folder


Refuse = Callable[[Path, str], Exception]
"""Makes the fault for a path below the folder, and why it cannot be used."""


def walk(
    top: Path, refuse: Refuse, own: Path | None = None
) -> Iterator[tuple[Path | None, Path, bool]]:
    """(file or None, its path below `top`, whether the tree may be used as it is so far); links are followed."""
    count = 0
    stack = [(top, Path(), frozenset([_identity(top)]))]
    while stack:
        folder, relative, above = stack.pop()
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            path, below = Path(entry.path), relative / entry.name
            if own and (path == own or (folder == own.parent and _OWN.fullmatch(entry.name))):
                yield None, below, False
                continue
            if stat.S_ISDIR(_mode(path, below, refuse)):
                here = _identity(path)
                if here in above:
                    raise refuse(below, "is a link that leads back to a folder it lies in")
                stack.append((path, below, above | {here}))
                if entry.is_symlink():
                    yield None, below, False
                continue
            count += 1
            if count > FILES_LIMIT:
                raise refuse(below, f"is one of more than {FILES_LIMIT} files")
            yield path, below, True


def _mode(path: Path, shown: Path, refuse: Refuse) -> int:
    """The mode of a regular file or a folder, behind a link if it is one."""
    try:
        str(shown).encode()
        mode = path.stat().st_mode
    except UnicodeEncodeError:
        raise refuse(shown, "has a name that is not text") from None
    except OSError as exc:
        if path.is_symlink() and exc.errno == errno.ENOENT:
            raise refuse(
                shown, f"is a link to {str(path.readlink())!r}, where nothing is"
            ) from None
        raise refuse(shown, f"cannot be read: {exc.strerror or exc}") from exc
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind:
        raise refuse(shown, f"is {kind}")
    return mode


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _view(files: Iterable[tuple[Path, Path]], folder: Path) -> Path:
    """A folder of real folders, whose files are links to the real ones: nothing is copied."""
    folder.mkdir(parents=True)
    for file, relative in files:
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file)
    return folder


def _refused(name: str, path: Path, why: str) -> OutputFault:
    shown = str(path).encode(errors="backslashreplace").decode()
    return OutputFault(
        "outputs/folder",
        f"Output {name!r} cannot be stored: {shown!r} {why}.",
        "Return a file, or a folder of files and folders.",
    )
