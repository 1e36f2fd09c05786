"""Moves an entity's files between the run's folder and the platform's store."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from digitalhub_runtime_python import copies
from digitalhub_runtime_python.errors import ArgumentFault, SourceFault
from digitalhub_runtime_python.frames import read_frame
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources.uri import SourceUri, parse
from digitalhub_runtime_python.transfer import Budget, member_path

CHUNK = 8 * 1024 * 1024
"""Bytes that are read at once: a pod of 282 MiB must be able to store more than it can hold."""


def upload(path: Path, uri: str, settings: Settings) -> list[dict[str, Any]]:
    """Upload a file to `uri`, or a folder's files below it; the entity's `status.files`."""
    from digitalhub_runtime_python.transfer import (
        objects,  # 12 MiB, which an input over HTTP is spared
    )

    store, key = objects.open_store(uri, settings)
    if not path.is_dir():
        return [_upload_file(store, key, path, path.name)]
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return [
        _upload_file(store, key + p.relative_to(path).as_posix(), p, p.relative_to(path).as_posix())
        for p in files
    ]


def _upload_file(store: Any, key: str, file: Path, relative: str) -> dict[str, Any]:
    import hashlib
    import mimetypes  # both only for a run that stores a file

    media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    store.put(key, file, attributes={"Content-Type": media_type})
    return {
        "path": relative,
        "name": file.name,
        "content_type": media_type,
        "size": file.stat().st_size,
        "hash": f"md5:{digest.hexdigest()}",
        "last_modified": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
    }


def load(uri: str, form: str, settings: Settings, folder: Path) -> Any:
    """An entity's content as a pandas frame, a polars frame, or a file or folder below `folder`."""
    own = local_path(uri)
    if own is not None and form != "path":
        return read_frame(own, engine=_ENGINES[form])  # reading it leaves it as it is
    path = copies.copy(own, folder) if own is not None else _download(uri, settings, folder)
    return path if form == "path" else read_frame(path, engine=_ENGINES[form])


_ENGINES = {"frame": "pandas", "polars": "polars"}


def local_path(uri: str) -> Path | None:
    """The file of this machine that a path or a `file://` address is; None for other addresses."""
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path))
    return None if "://" in uri else Path(uri)


def _download(uri: str, settings: Settings, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if uri.startswith(("http://", "https://")):
            return _download_web(uri, folder, settings)
        return _download_objects(uri, folder, settings)
    except SourceFault as fault:
        raise ArgumentFault(
            "arguments/input",
            fault.message,
            fault.hint,
            retry=fault.retry,
            http_status=fault.http_status,
        ) from fault


def _budget(shown: str, folder: Path) -> Budget:
    """Data may be as large as the disk, not as code."""
    hint = "Set DHPY_WORKSPACE to a folder with more space."
    return Budget(shown, entries=1_000_000, size=shutil.disk_usage(folder).free, hint=hint)


def _download_web(uri: str, folder: Path, settings: Settings) -> Path:
    from digitalhub_runtime_python.transfer import web

    address = parse(uri.partition("#")[0])
    try:
        target = folder / member_path(unquote(urlsplit(address.url).path).lstrip("/")).name
    except ValueError:
        target = folder / "file"
    web.download(address, target, _budget(address.shown, folder), settings.environ)
    return target


def _download_objects(uri: str, folder: Path, settings: Settings) -> Path:
    from digitalhub_runtime_python.transfer import objects

    bucket = objects.Bucket(SourceUri("", uri, uri), settings)
    budget = _budget(uri, folder)
    if not bucket.key.endswith("/"):
        target = folder / member_path(bucket.key).name
        bucket.download(bucket.key, target, budget)
        return target
    for relative, item in bucket.below(budget):
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        bucket.download(item["path"], target, _budget(uri, folder))
    return folder
