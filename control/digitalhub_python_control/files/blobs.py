"""The bytes of stored files, on disk below `files/`.

A file's name here is a random number that the server draws; the name that a client gives it exists
only in the database (objects.py). So no name, however it is written, can lead out of this folder.
Bytes are written beside their place and renamed into it: what is there is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_COPY = 1024 * 1024
_ID = re.compile(r"[0-9a-f]{32}")
_STALE_UPLOAD = 7 * 24 * 3600
"""Seconds after which a multipart upload that nobody finished is dropped."""


class Writer:
    """Bytes on their way in; call `keep` or `discard` at the end, never both."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("xb")
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self.size = 0
        self.crc32 = 0

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._md5.update(content)
        self._sha256.update(content)
        self.crc32 = zlib.crc32(content, self.crc32)
        self.size += len(content)

    @property
    def etag(self) -> str:
        """The md5 of what was written, in hexadecimal digits."""
        return self._md5.hexdigest()

    @property
    def md5(self) -> bytes:
        return self._md5.digest()

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def keep(self, place: Path) -> None:
        self._file.close()
        self._path.replace(place)

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


class Blobs:
    """The folder of stored bytes: `<2 digits>/<id>`, `tmp/`, `uploads/<upload>/<part>-<md5>`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tmp = folder / "tmp"
        self._uploads = folder / "uploads"
        for place in (self._tmp, self._uploads):
            place.mkdir(parents=True, exist_ok=True)

    def writer(self) -> Writer:
        return Writer(self._tmp / uuid.uuid4().hex)

    def keep(self, writer: Writer) -> str:
        """Give what was written its place; its id."""
        blob = uuid.uuid4().hex
        place = self._place(blob)
        place.parent.mkdir(exist_ok=True)
        writer.keep(place)
        return blob

    def open(self, blob: str) -> BinaryIO:
        return self._place(blob).open("rb")

    def remove(self, blob: str) -> None:
        self._place(blob).unlink(missing_ok=True)

    def duplicate(self, blob: str) -> str:
        """The same bytes under a new id, without copying them: they never change."""
        copy = uuid.uuid4().hex
        place = self._place(copy)
        place.parent.mkdir(exist_ok=True)
        os.link(self._place(blob), place)
        return copy

    # Uploads in parts

    def begin_upload(self, description: dict[str, Any]) -> str:
        """Start an upload in parts; its id."""
        upload = uuid.uuid4().hex
        folder = self._uploads / upload
        folder.mkdir()
        (folder / "upload.json").write_text(json.dumps(description))
        return upload

    def upload(self, upload: str) -> dict[str, Any] | None:
        """What the upload was started with; None where there is none of that id."""
        if not _ID.fullmatch(upload):
            return None
        try:
            description: dict[str, Any] = json.loads(
                (self._uploads / upload / "upload.json").read_text()
            )
        except FileNotFoundError:
            return None
        return description

    def keep_part(self, upload: str, number: int, writer: Writer) -> None:
        """Store one part; it replaces the one of that number."""
        folder, name = self._uploads / upload, f"{number}-{writer.etag}"
        writer.keep(folder / name)
        for older in folder.glob(f"{number}-*"):
            if older.name != name:
                older.unlink(missing_ok=True)

    def parts(self, upload: str) -> dict[int, tuple[str, int]]:
        """Number -> (md5, size) of the parts that are there."""
        found: dict[int, tuple[str, int]] = {}
        for path in (self._uploads / upload).glob("*-*"):
            number, _, etag = path.name.partition("-")
            found[int(number)] = (etag, path.stat().st_size)
        return found

    def assemble(self, upload: str, parts: list[tuple[int, str]]) -> Writer:
        """The parts, one after the other, in a writer that is ready to be kept."""
        writer = self.writer()
        try:
            for number, etag in parts:
                with (self._uploads / upload / f"{number}-{etag}").open("rb") as file:
                    while chunk := file.read(_COPY):
                        writer.write(chunk)
        except BaseException:
            writer.discard()
            raise
        return writer

    def end_upload(self, upload: str) -> None:
        shutil.rmtree(self._uploads / upload, ignore_errors=True)

    # After a crash

    def sweep(self, started: float) -> Iterator[str]:
        """Remove what an earlier server left half done; the ids of all blobs older than `started`.

        Args:
            started: seconds since 1970, when this server started.
        """
        for path in self._tmp.iterdir():
            if path.stat().st_mtime < started:
                path.unlink(missing_ok=True)
        for folder in self._uploads.iterdir():
            if folder.stat().st_mtime < time.time() - _STALE_UPLOAD:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self._folder.glob("[0-9a-f][0-9a-f]"):
            for path in folder.iterdir():
                if path.stat().st_mtime < started:
                    yield path.name

    def _place(self, blob: str) -> Path:
        return self._folder / blob[:2] / blob
