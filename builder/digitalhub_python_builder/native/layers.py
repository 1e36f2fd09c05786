"""Layers: tars that are the same bytes for the same files, whoever makes them, where and when."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import posixpath
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deflate

from digitalhub_python_builder.native.store import BlobWriter, Store
from digitalhub_python_builder.plan import Content

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
COMPRESSIONS = {"gzip": GZIP, "zstd": ZSTD}

_CHUNK = 4 << 20
# libdeflate's first level: a third of zlib's time for the same size.
_LEVEL = 1
_ZSTD_LEVEL = 3


@dataclass(frozen=True)
class Entry:
    """A file, a folder or a link of a layer."""

    content: Content | None = None
    """None for a folder and a link."""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str = ""

    @property
    def is_folder(self) -> bool:
        return self.content is None and not self.link


@dataclass(frozen=True)
class Layer:
    """A layer that the store or a base has."""

    digest: str
    size: int
    diff_id: str
    media_type: str = GZIP
    title: str = ""
    """What it holds, for people: `numpy 2.1.0`."""
    cause: str = ""
    """Why it was made; empty for one that was there already."""
    seconds: float = 0.0

    @property
    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}

    @property
    def record(self) -> dict[str, Any]:
        """What is noted of it."""
        known = dataclasses.asdict(self)
        return {k: v for k, v in known.items() if k not in ("cause", "seconds")}


def write(
    store: Store, files: Mapping[str, Entry], *, title: str = "", compression: str = "gzip"
) -> Layer:
    """Make a layer of `files`, by path without a leading slash; folders above them are not added."""
    with store.writer() as blob:
        sink = _Sink(blob, compression)
        with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            for path in sorted(files, key=_order):
                _add(tar, path, files[path])
        sink.finish()
    return Layer(blob.digest, blob.size, sink.diff_id, COMPRESSIONS[compression], title)


def compress(store: Store, stream: Any, *, compression: str = "gzip") -> Layer:
    """Keep a tar that is there already, as a layer."""
    with store.writer() as blob:
        sink = _Sink(blob, compression)
        while data := stream.read(_CHUNK):
            sink.write(data)
        sink.finish()
    return Layer(blob.digest, blob.size, sink.diff_id, COMPRESSIONS[compression])


def with_parents(files: Mapping[str, Entry], known: Mapping[str, Entry]) -> dict[str, Entry]:
    """`files` and the folders above them, as the base has them.

    An engine that makes a folder which a layer leaves out makes it as it likes, some for root alone.
    """
    found = dict(files)
    for path in files:
        parent = posixpath.dirname(path)
        while parent and parent not in found:
            found[parent] = known.get(parent, Entry(mode=0o755))
            parent = posixpath.dirname(parent)
    return found


def tree(files: Mapping[str, Content], below: str) -> dict[str, Entry]:
    """The files of a plan as entries, root's, readable to all."""
    start = f"{below}/" if below else ""
    return {f"{start}{name}": Entry(content, _mode(content)) for name, content in files.items()}


def whiteouts(paths: Iterable[str]) -> dict[str, Entry]:
    """What hides paths of the layers below."""
    return {
        posixpath.join(posixpath.dirname(path), f".wh.{posixpath.basename(path)}"): Entry(b"")
        for path in paths
    }


def _mode(content: Content) -> int:
    runs = isinstance(content, Path) and content.stat().st_mode & 0o111
    return 0o755 if runs else 0o644


def _order(path: str) -> list[str]:
    # A folder before what is in it, and in every locale the same.
    return path.split("/")


def _add(tar: tarfile.TarFile, path: str, entry: Entry) -> None:
    member = tarfile.TarInfo(path)
    member.mode, member.uid, member.gid = entry.mode, entry.uid, entry.gid
    if entry.link:
        member.type, member.linkname = tarfile.SYMTYPE, entry.link
        tar.addfile(member)
    elif entry.content is None:
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
    elif isinstance(entry.content, bytes):
        member.size = len(entry.content)
        tar.addfile(member, io.BytesIO(entry.content))
    else:
        with entry.content.open("rb") as file:
            member.size = entry.content.stat().st_size
            tar.addfile(member, file)
    # Each has been written; a list of them would grow with the image.
    tar.members = []  # type: ignore[attr-defined]


class _Sink:
    """Takes a tar, hashes it and hands it on compressed, a few megabytes at a time.

    Each piece is a gzip member or a zstd frame of its own, as the formats allow: so memory is bounded, and
    the bytes depend on nothing but the library that compresses, which comes with its Python package.
    """

    def __init__(self, blob: BlobWriter, compression: str) -> None:
        self._blob = blob
        self._hash = hashlib.sha256()
        self._held = bytearray()
        self._compress = _gzip if compression == "gzip" else _zstd()
        self._written = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self._held += data
        self._written += len(data)
        while len(self._held) >= _CHUNK:
            self._blob.write(self._compress(bytes(self._held[:_CHUNK])))
            del self._held[:_CHUNK]
        return len(data)

    def tell(self) -> int:
        return self._written

    def finish(self) -> None:
        if self._held or not self._written:
            self._blob.write(self._compress(bytes(self._held)))
            self._held.clear()

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def _gzip(data: bytes) -> bytes:
    return bytes(deflate.gzip_compress(data, _LEVEL))


def _zstd() -> Any:
    import zstandard

    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress
