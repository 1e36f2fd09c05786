"""One downloaded file: got once, checked, and then unpacked or put in place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Callable

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.sources import Fetched, cache, tree
from digitalhub_runtime_python.sources.uri import SourceUri

Download = Callable[[str, Path], "str | None"]
"""`download(etag, target)` writes target and returns its ETag; None: unchanged since `etag`."""


def obtain(
    address: tuple[str, ...],
    held: Path | None,
    folder: Path,
    download: Download,
    *,
    sha256: str = "",
    current: str = "",
) -> tuple[Path, str]:
    """The file at an address and its digest, transferred only if it is not known already.

    Args:
        address: what tells it from others: URL, endpoint, …
        held: the cache.
        folder: for the unfinished download.
        sha256: the digest that it must have; then an equal one in the cache will do.
        current: its ETag, where a listing has told.
    """
    if found := cache.file(held, sha256):
        return found, sha256
    name = cache.key(*address)
    etag, known = cache.last_seen(held, name)
    if known and current and current == etag:
        return known, known.name
    target = folder / name
    new = download(etag if known else "", target)
    if new is None and known:
        return known, known.name
    digest = tree.file_digest(target)
    path = cache.keep_file(held, target, digest)
    cache.remember(held, name, new or "", digest)
    return path, digest


def check_digest(uri: SourceUri, digest: str) -> None:
    """Compare a file's digest with the one that the source asks for.

    Raises:
        SourceFault: they differ.
    """
    if uri.sha256 and uri.sha256 != digest:
        raise SourceFault(
            "source/checksum",
            f"{uri.shown} has sha256 {digest}, not {uri.sha256}.",
            "Find out why it changed; if that is right, give the new digest.",
        )


def place(path: Path, digest: str, uri: SourceUri, dest: Path, folder: Path) -> Fetched:
    """Put a downloaded file, or what is in an archive, into `dest`.

    Args:
        folder: where `path` may be taken away from and an archive be unpacked: beside `dest`.
    """
    check_digest(uri, digest)
    revision = f"sha256:{digest}"
    if uri.archive:
        unpack(path, uri, dest)
        return Fetched(dest, None, revision)
    if path.parent == folder and folder.parent == dest:
        path.rename(dest / uri.file_name)
    else:
        shutil.copyfile(path, dest / uri.file_name)
    return Fetched(dest, Path(uri.file_name), revision)


def unpack(path: Path, uri: SourceUri, dest: Path) -> None:
    """Unpack an archive, or the subfolder of it that the source names, into `dest`."""
    from digitalhub_runtime_python.sources import archive  # zipfile costs 20 ms in a small pod

    if not uri.subfolder:
        archive.extract(path, dest, uri.shown)
        return
    with cache.scratch(None, dest) as folder:
        archive.extract(path, folder, uri.shown)
        tree.take(folder, uri.subfolder, dest, uri.shown, keep=False)
