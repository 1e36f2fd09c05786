"""Blobs by digest and what is known of them, below a cache that is its user's alone.

Whatever is there is whole: it is written beside and renamed, so that a kill leaves nothing half.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from digitalhub_runtime_python.errors import EnvironmentFault

_STALE = 86400
"""Seconds after which what a killed build has left is removed."""


class Store:
    """A folder of blobs and notes; any number of builds may use it at once."""

    def __init__(self, cache: Path) -> None:
        self.root = cache / "images"
        try:
            for folder in (self._blobs, self.temporary, self.root / "notes"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
            self._sweep()
        except OSError as exc:
            raise _unwritable(self.root, exc) from exc

    def path(self, digest: str) -> Path:
        """Where a blob lies, whether it is there or not."""
        return self._blobs / digest.partition(":")[2]

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def read(self, digest: str) -> bytes:
        return self.path(digest).read_bytes()

    def open(self, digest: str) -> IO[bytes]:
        return self.path(digest).open("rb")

    def add(self, data: bytes) -> str:
        """Keep `data`; its digest."""
        with self.writer() as blob:
            blob.write(data)
        return blob.digest

    @contextlib.contextmanager
    def writer(self, expected: str = "") -> Iterator[BlobWriter]:
        """A blob that is there once the block has ended well, and only if it is the expected one."""
        with tempfile.NamedTemporaryFile(dir=self.temporary, delete=False) as file:
            blob = BlobWriter(file)
            try:
                yield blob
                try:
                    file.close()
                    if expected in ("", blob.digest):
                        Path(file.name).replace(self.path(blob.digest))
                    else:
                        Path(file.name).unlink()
                except OSError as exc:
                    raise _unwritable(self.root, exc) from exc
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that is gone afterwards."""
        place = Path(tempfile.mkdtemp(dir=self.temporary))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def note(self, kind: str, key: str, value: Any) -> None:
        """Keep what is known of `key`."""
        target = self._note(kind, key)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.temporary, delete=False, encoding="utf-8") as file:  # fmt: skip
            json.dump(value, file)
        Path(file.name).replace(target)

    def noted(self, kind: str, key: str) -> Any:
        """What is known of `key`; None for nothing."""
        try:
            return json.loads(self._note(kind, key).read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def all_noted(self, kind: str) -> list[Any]:
        """What is known of every key of a kind."""
        found = []
        for path in sorted((self.root / "notes" / kind).glob("*")):
            with contextlib.suppress(OSError, ValueError):
                found.append(json.loads(path.read_text("utf-8")))
        return found

    @property
    def _blobs(self) -> Path:
        return self.root / "blobs" / "sha256"

    @property
    def temporary(self) -> Path:
        """Where what is not whole yet lies."""
        return self.root / "tmp"

    def _note(self, kind: str, key: str) -> Path:
        return self.root / "notes" / kind / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"

    def _sweep(self) -> None:
        limit = time.time() - _STALE
        for left in self.temporary.iterdir():
            with contextlib.suppress(OSError):
                if left.stat().st_mtime > limit:
                    continue
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink()


class BlobWriter:
    """Takes the bytes of a blob as they come."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        try:
            return self._file.write(data)
        except OSError as exc:
            raise _unwritable(Path(self._file.name).parent, exc) from exc

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def _unwritable(place: Path, exc: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        "environment/cache",
        f"The cache {place} cannot be written: {exc.strerror}.",
        "Make room or permissions there, or set DHPY_CACHE to another folder.",
    )


def canonical(value: Any) -> bytes:
    """JSON that is the same bytes for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def cpus() -> int:
    """Processors that we may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
