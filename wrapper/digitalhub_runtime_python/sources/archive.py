"""Unpacks a zip that nobody has reason to trust: names and links stay inside, sizes stay bounded."""

from __future__ import annotations

import errno
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from digitalhub_runtime_python import transfer
from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.sources import tree

MAX_RATIO = 200
"""Unpacked over packed bytes of the archive. Source code reaches 10, tables of zeros 100; a bomb 1000."""
RATIO_FROM = 16 << 20
"""Bytes unpacked from which the ratio counts: below, there is nothing to protect."""
MAX_LINK = 4096
"""Bytes of a link's target: PATH_MAX."""
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
)
"""What zipfile raises for damaged archives; which of them depends on where, and on the Python."""


def extract(path: Path, dest: Path, what: str) -> None:
    """Unpack the zip at `path` into the folder `dest`.

    Sizes are counted as they are written: what an archive says of itself may be wrong.

    Args:
        what: the source, for messages.

    Raises:
        SourceFault: it is not a zip, is damaged or encrypted, leads out of `dest`, or is a bomb.
    """
    budget = transfer.Budget(f"The archive {what}")
    packed = max(path.stat().st_size, 1)
    try:
        unpack = _untar if _is_tar(path) else _unzip
        links = unpack(path, dest, what, budget, packed)
        _make_links(dest, links)
    except DAMAGED as exc:
        raise _bad(what, str(exc) or type(exc).__name__, _head(path)) from exc
    except RuntimeError as exc:  # what zipfile raises for a password
        raise _bad(what, str(exc)) from exc
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as exc:
        raise _bad(
            what, f"two members claim the name {_relative(exc.filename2 or exc.filename, dest)}"
        ) from exc
    except OSError as exc:
        if exc.errno in (errno.EINVAL, errno.ENAMETOOLONG):  # a damaged offset; a name
            raise _bad(what, str(exc.strerror)) from exc
        raise
    tree.check_links(dest, what)


def check(path: Path, what: str) -> None:
    """Refuse a file that is neither a zip nor a tar, by its content.

    Raises:
        SourceFault: source/bad-archive
    """
    import tarfile  # few sources are one

    try:
        if zipfile.is_zipfile(path):
            return
        if _is_tar(path):
            with tarfile.open(path) as archive:
                archive.next()
            return
    except (tarfile.TarError, *DAMAGED) as exc:
        raise _bad(what, str(exc) or type(exc).__name__, _head(path)) from exc
    raise _bad(what, "it is neither a zip nor a tar", _head(path))


def _unzip(
    path: Path, dest: Path, what: str, budget: transfer.Budget, packed: int
) -> list[tuple[PurePosixPath, bytes]]:
    """Write the members of a zip but its links, which are returned."""
    links: list[tuple[PurePosixPath, bytes]] = []
    with zipfile.ZipFile(path) as archive:
        for _ in archive.infolist():
            budget.entry()
        for member in archive.infolist():
            name = _safe(member.filename, what)
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _bad(what, f"{name} is packed by method {member.compress_type}")
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir() or member.filename.endswith("\\"):
                (dest / name).mkdir(parents=True, exist_ok=True)
            elif kind == stat.S_IFLNK:
                links.append((name, _link(archive, member, what)))
            elif kind in (0, stat.S_IFREG):
                _write(
                    archive.open(member), dest / name, member.external_attr >> 16, budget, packed
                )
            else:
                raise _bad(what, f"{name} is neither a file nor a folder nor a link")
    return links


def _is_tar(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(512)
    return head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")) or head[257:262] == b"ustar"


def _untar(
    path: Path, dest: Path, what: str, budget: transfer.Budget, packed: int
) -> list[tuple[PurePosixPath, bytes]]:
    """`_unzip` for a tar; a hard link becomes a file of its own."""
    import tarfile  # few sources are one

    links: list[tuple[PurePosixPath, bytes]] = []
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                budget.entry()
                if not member.name.strip("./"):
                    continue  # the folder itself
                name = _safe(member.name, what)
                if member.isdir():
                    (dest / name).mkdir(parents=True, exist_ok=True)
                elif member.issym():
                    links.append((name, _target(os.fsencode(member.linkname), member.name, what)))
                elif member.isreg() or member.islnk():
                    content = archive.extractfile(member)
                    if content is None:
                        raise _bad(what, f"{name} is a link to nothing")
                    _write(content, dest / name, member.mode, budget, packed)
                else:
                    raise _bad(what, f"{name} is neither a file nor a folder nor a link")
    except (tarfile.TarError, KeyError) as exc:
        raise ValueError(str(exc)) from exc
    except OSError as exc:
        if exc.errno is None:  # what gzip and bz2 raise for what is not theirs
            raise ValueError(str(exc)) from exc
        raise
    except Exception as exc:
        if type(exc).__name__ == "LZMAError":  # lzma is not in every Python
            raise ValueError(str(exc)) from exc
        raise
    return links


def _safe(name: str, what: str) -> PurePosixPath:
    try:
        return transfer.member_path(name)
    except ValueError as exc:
        raise SourceFault(
            "source/unsafe-path",
            f"The archive {what} has a member whose name {exc}: {name!r}.",
            "Make the archive anew, with relative names: zip -r code.zip .",
        ) from exc


def _write(content: IO[bytes], path: Path, mode: int, budget: transfer.Budget, packed: int) -> None:
    with content:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            while chunk := content.read(transfer.CHUNK):
                budget.add(len(chunk))
                if budget.bytes > max(RATIO_FROM, MAX_RATIO * packed):
                    raise budget.exceeded(f"more than {MAX_RATIO} times its own size in it")
                file.write(chunk)
    path.chmod(0o755 if mode & 0o111 else 0o644)


def _link(archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str) -> bytes:
    with archive.open(member) as file:
        return _target(file.read(MAX_LINK + 1), member.filename, what)


def _target(target: bytes, name: str, what: str) -> bytes:
    if not target or len(target) > MAX_LINK or b"\0" in target:
        raise _bad(what, f"the link {name!r} has no valid target")
    return target


def _make_links(dest: Path, links: list[tuple[PurePosixPath, bytes]]) -> None:
    # After all files, and after all folders, so that nothing is ever written through a link.
    for name, _ in links:
        (dest / name).parent.mkdir(parents=True, exist_ok=True)
    for name, target in links:
        (dest / name).symlink_to(os.fsdecode(target))


def _relative(path: object, dest: Path) -> str:
    return os.path.relpath(os.fsdecode(str(path)), dest)


def _head(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(256).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "It is a web page, perhaps a login: check the address."
    return ""


def _bad(what: str, why: str, hint: str = "") -> SourceFault:
    return SourceFault(
        "source/bad-archive",
        f"The archive {what} cannot be unpacked: {why}.",
        hint
        or "Make it anew (zip -r code.zip .) and upload it again; zip with deflate and tar are known.",
    )
