"""The files of a base image, read from its layers and merged; nothing is unpacked.

A base may come from anywhere: what could lead out of an image, or fill this machine, is refused.
"""

from __future__ import annotations

import functools
import hashlib
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from digitalhub_python_builder.manifests import unsafe
from digitalhub_python_builder.native.layers import Entry
from digitalhub_runtime_python.errors import EnvironmentFault

READ_LIMIT = 1 << 20
"""Bytes of a header of a tar, with its long names; and of a file that is kept."""
ENTRY_LIMIT = 1_000_000
SIZE_LIMIT = 64 << 30
"""Bytes of a layer, uncompressed."""
_RATIO = 400
"""How much a layer may unpack to beyond a gigabyte, times its size; gzip reaches 1032."""
_LINK_LIMIT = 40
_BLOCK = 1 << 18
# Files that say what Python there is, what is installed for it, and for which libc.
_KEPT = re.compile(
    r".*\.dist-info/(RECORD|METADATA)|(.*/)?pyvenv\.cfg|(usr/lib|etc)/os-release|"
    r"((usr/)?lib(64)?/)([a-z0-9_]+-linux-gnu/)?libc\.so\.6|((usr/)?lib(64)?/)([a-z0-9_]+-linux-gnu/)?libc-2\.\d+\.so"
)
_LIBC_VERSION = re.compile(rb"GNU C Library [^\n]*?version (\d+\.\d+)")
_LIBC_SIZE = 8 << 20

Node = list[Any]
"""[type, mode, uid, gid, link]; type is `d`, `f` or `l`."""


@dataclass(frozen=True)
class Tree:
    """Paths, without a leading slash, and the contents that were kept."""

    nodes: Mapping[str, Node]
    contents: Mapping[str, str]

    def resolve(self, path: str) -> str:
        """Where a path leads, through all its links; the path itself where nothing is.

        Raises:
            EnvironmentFault: the links run in circles.
        """
        left = [part for part in path.split("/") if part not in ("", ".")]
        done: list[str] = []
        followed = 0
        while left:
            part = left.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            node = self.nodes.get("/".join([*done, part]))
            if node is None or node[0] != "l":
                done.append(part)
                continue
            followed += 1
            if followed > _LINK_LIMIT:
                raise unsafe(f"the links at /{path} run in circles")
            target = str(node[4])
            done = [] if target.startswith("/") else done
            left = [one for one in target.split("/") if one not in ("", ".")] + left
        return "/".join(done)

    def is_file(self, path: str) -> bool:
        return bool(self.nodes.get(self.resolve(path), [""])[0] == "f")

    def is_folder(self, path: str) -> bool:
        return bool(self.nodes.get(self.resolve(path), [""])[0] == "d")

    def text(self, path: str) -> str:
        """A kept file; empty where there is none."""
        return self.contents.get(self.resolve(path), "")

    @functools.cached_property
    def _bytecode(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in self.nodes:
            if path.endswith(".pyc"):
                found.setdefault(posixpath.dirname(posixpath.dirname(path)), []).append(path)
        return found

    def bytecode(self, folder: str) -> list[str]:
        """The bytecode that a folder's modules have in its `__pycache__`."""
        return self._bytecode.get(folder, [])

    def folders(self) -> dict[str, Entry]:
        """Its folders, as entries of a layer."""
        return {p: Entry(None, n[1], n[2], n[3]) for p, n in self.nodes.items() if n[0] == "d"}


def read_layer(stream: IO[bytes], compressed_size: int, media_type: str, diff_id: str) -> dict[str, Any]:  # fmt: skip
    """What a layer holds, as JSON keeps it: nodes, kept contents, and what it hides of those below.

    Args:
        stream: the blob, compressed or not.
        diff_id: the digest that its tar must have.

    Raises:
        EnvironmentFault: it is unsafe, no tar, or another than it says.
    """
    limit = min(SIZE_LIMIT, (1 << 30) + _RATIO * compressed_size)
    source = _Bounded(_decompressed(stream, media_type), limit)
    nodes: dict[str, Node] = {}
    contents: dict[str, str] = {}
    hidden: list[str] = []
    try:
        with tarfile.open(fileobj=source, mode="r:") as tar:  # type: ignore[call-overload]
            for number, member in enumerate(tar):
                tar.members = []
                if number >= ENTRY_LIMIT:
                    raise unsafe(f"a layer has more than {ENTRY_LIMIT} entries")
                _take(tar, member, nodes, contents, hidden)
        source.drain()
    except (tarfile.TarError, zlib.error, EOFError, UnicodeError, ValueError) as exc:
        raise unsafe(f"a layer cannot be read: {type(exc).__name__}: {str(exc)[:120]}") from exc
    if source.digest != diff_id:
        raise EnvironmentFault(
            "build/digest",
            f"A layer of the base image has the content {source.digest[:19]}…, not {diff_id[:19]}….",
            "It was altered, or cut short: nothing was made of it. Take another base image.",
        )
    return {"nodes": nodes, "contents": contents, "hidden": hidden}


def merge(layers: Iterable[Mapping[str, Any]]) -> Tree:
    """The files of an image, from what its layers hold, lowest first."""
    nodes: dict[str, Node] = {}
    contents: dict[str, str] = {}
    for layer in layers:
        added = layer["nodes"]
        # A folder that becomes a file takes what is in it along.
        covered = [
            f"{path}/" for path, node in added.items() if node[0] != "d" and nodes.get(path, "x")[0] == "d"
        ]  # fmt: skip
        if gone := {*layer["hidden"], *covered}:
            nodes = {path: node for path, node in nodes.items() if not _hidden(path, gone)}
        nodes.update(added)
        contents.update(layer["contents"])
    for path in [*nodes]:
        while (path := posixpath.dirname(path)) and path not in nodes:
            nodes[path] = ["d", 0o755, 0, 0, ""]  # it is there, since something is in it
    return Tree(nodes, {path: text for path, text in contents.items() if path in nodes})


def _take(
    tar: tarfile.TarFile, member: tarfile.TarInfo, nodes: dict[str, Node], contents: dict[str, str], hidden: list[str]
) -> None:  # fmt: skip
    path = _clean(member.name)
    if not path:
        return
    folder, name = posixpath.split(path)
    if name.startswith(".wh."):
        hidden += _whiteout(folder, name[4:])
        return
    if member.isdir():
        kind = "d"
    elif member.issym():
        kind = "l"
    elif member.islnk():
        _clean(member.linkname)
        kind = "f"
    else:
        kind = "f" if member.isreg() else "x"
    nodes[path] = [kind, member.mode & 0o7777, member.uid, member.gid, member.linkname if kind == "l" else ""]  # fmt: skip
    if kind == "f" and member.isreg() and _KEPT.fullmatch(path):
        contents[path] = _kept(tar, member, path)


def _kept(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> str:
    file = tar.extractfile(member)
    if file is None:
        return ""
    if "libc" in path.rpartition("/")[2]:
        # The only thing wanted of it is what it says it is.
        found = None
        if member.size <= _LIBC_SIZE:
            data = b"".join(iter(lambda: file.read(_BLOCK), b""))
            found = _LIBC_VERSION.search(data)
        return found[1].decode() if found else ""
    if path.endswith("METADATA"):
        return file.read(4096).decode("utf-8", "replace")
    if member.size > 16 * READ_LIMIT:
        raise unsafe(f"/{path} has {member.size} bytes")
    return b"".join(iter(lambda: file.read(_BLOCK), b"")).decode("utf-8", "replace")


def _clean(name: str) -> str:
    if "\0" in name or len(name) > 4096:
        raise unsafe(f"a layer has the path {name[:80]!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise unsafe(f"a layer has the path {name[:80]!r}, which leads out of it")
    return "/".join(parts)


def _whiteout(folder: str, name: str) -> list[str]:
    if name == ".wh..opq":
        return [f"{folder}/"]
    if name.startswith(".wh."):
        return []  # bookkeeping of one storage driver
    if name in ("", ".", ".."):
        raise unsafe(f"a layer hides {f'{folder}/{name}'!r}")
    return [posixpath.join(folder, name)]


def _hidden(path: str, gone: set[str]) -> bool:
    """Whether a path is hidden; one with a slash at its end hides only what is below it."""
    if path in gone or "/" in gone:
        return True
    while path := posixpath.dirname(path):
        if path in gone or f"{path}/" in gone:
            return True
    return False


def _decompressed(stream: IO[bytes], media_type: str) -> Iterator[bytes]:
    if media_type.endswith("zstd"):
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
        try:
            yield from iter(lambda: reader.read(_BLOCK), b"")
        except zstandard.ZstdError as exc:
            raise ValueError(str(exc)) from exc
        return
    first = stream.read(_BLOCK)
    if first[:2] != b"\x1f\x8b":
        while first:
            yield first
            first = stream.read(_BLOCK)
        return
    unzip = zlib.decompressobj(31)
    data = first
    while data:
        while data:
            # Never more than a block at once, whatever it would unpack to.
            if out := unzip.decompress(data, _BLOCK):
                yield out
            data = unzip.unconsumed_tail
            if unzip.eof:
                data = unzip.unused_data
                if not data:
                    data = stream.read(_BLOCK)
                if not data:
                    return
                unzip = zlib.decompressobj(31)
        data = stream.read(_BLOCK)
    if not unzip.eof:
        raise EOFError("it ends in the middle")


class _Bounded:
    """A file that is read forwards, in small pieces, and hashed as it goes."""

    def __init__(self, blocks: Iterator[bytes], limit: int) -> None:
        self._blocks = blocks
        self._limit = limit
        self._held = b""
        self._offset = 0
        self._position = 0
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > READ_LIMIT:
            raise unsafe(f"a layer has a header of {size} bytes")
        parts = []
        while size > 0 and self._fill():
            part = self._held[self._offset : self._offset + size]
            self._offset += len(part)
            self._position += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def seek(self, position: int) -> int:
        while self._position < position and self._fill():
            step = min(position - self._position, len(self._held) - self._offset)
            self._offset += step
            self._position += step
        if self._position != position:
            raise EOFError("it is cut short")
        return position

    def drain(self) -> None:
        """Read to the end: a digest is of the whole."""
        while self._fill():
            self._position += len(self._held) - self._offset
            self._offset = len(self._held)

    def _fill(self) -> bool:
        while self._offset >= len(self._held):
            block = next(self._blocks, b"")
            if not block:
                return False
            self._hash.update(block)
            self._held, self._offset = block, 0
            if self._position + len(block) > self._limit:
                raise unsafe(f"a layer unpacks to more than {self._limit >> 20} MiB")
        return True
