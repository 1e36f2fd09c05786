"""Moves an entity's files between the run's folder and the platform's store."""

from __future__ import annotations

import atexit
import shutil
import time
from pathlib import Path
from typing import Any

from digitalhub_runtime_python.errors import ArgumentFault
from digitalhub_runtime_python.hub.offline import read_frame, read_polars
from digitalhub_runtime_python.object_store import open_store
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources.tree import member_path

CHUNK = 8 * 1024 * 1024
"""Bytes that are read at once: a pod of 282 MiB must be able to store more than it can hold."""


def upload(path: Path, uri: str, settings: Settings) -> list[dict[str, Any]]:
    """Upload a file to `uri`, or a folder's files below it; the entity's `status.files`."""
    store, key = open_store(uri, settings)
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


def load(uri: str, form: str, settings: Settings) -> Any:
    """An entity's content as a pandas frame, a polars frame, or a local path."""
    path = _download(uri, settings)
    if form == "path":
        return path
    return read_polars(path) if form == "polars" else read_frame(path)


def _download(uri: str, settings: Settings) -> Path:
    if "://" not in uri:
        return Path(uri)
    folder = _input_folder(settings)
    if uri.startswith(("http://", "https://")):
        return _download_http(uri, folder)
    store, key = open_store(uri, settings)
    names = [o["path"] for batch in store.list(key) for o in batch] if key.endswith("/") else [key]
    if not names:
        raise _nothing(uri)
    for name in names:
        relative = name[len(key) :] if key.endswith("/") else name.rpartition("/")[2]
        try:
            target = folder / member_path(relative)
            result = store.get(name)
        except ValueError as exc:
            raise ArgumentFault(
                "arguments/input", f"{uri} holds {relative!r}, which {exc}.", "Rename it."
            ) from exc
        except FileNotFoundError as exc:
            raise _nothing(uri) from exc
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for chunk in result.stream(min_chunk_size=CHUNK):
                file.write(chunk)
    return folder if key.endswith("/") else target


def _input_folder(settings: Settings) -> Path:
    """A folder for one input; not in the run's own, since what was returned may still be read from it."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="dhpy-input-", dir=settings.workspace))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _nothing(uri: str) -> ArgumentFault:
    return ArgumentFault(
        "arguments/input", f"Nothing is stored at {uri}.", "Check the entity's path."
    )


def _download_http(uri: str, folder: Path) -> Path:
    import urllib3

    target = folder / (uri.partition("?")[0].rpartition("/")[2] or "file")
    timeout = urllib3.Timeout(connect=10, read=60)
    try:
        with urllib3.PoolManager(timeout=timeout).request(
            "GET", uri, preload_content=False
        ) as response:
            if response.status != 200:
                raise _refused(uri, f"answered {response.status}")
            with target.open("wb") as file:
                for chunk in response.stream(CHUNK):
                    file.write(chunk)
    except urllib3.exceptions.HTTPError as exc:
        raise _refused(uri, f"cannot be read: {getattr(exc, 'reason', None) or exc}") from exc
    return target


def _refused(uri: str, why: str) -> ArgumentFault:
    return ArgumentFault("arguments/input", f"{uri} {why}.", "Check the entity's path.")
