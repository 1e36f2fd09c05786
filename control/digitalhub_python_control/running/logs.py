"""Runs' folders below the home: where a run's log is, and what of it is answered."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from typing import Any

from digitalhub_python_control.running.plain_files import opened
from digitalhub_python_control.store import times
from digitalhub_python_control.store.entities import Entity
from digitalhub_python_control.store.records import RunRecord


def home_of(run: RunRecord | None, home: Path) -> Path:
    """The home in which a run's files are: of the control plane that began it, on this machine."""
    handle = run.handle if run is not None else None
    return Path(handle["home"]) if isinstance(handle, dict) and "home" in handle else home


def run_folder(home: Path, project: str, identity: str) -> Path:
    """The folder of a run; names and ids are checked when they are stored, so it lies in `home`."""
    return home / "runs" / project / identity


def add_line(home: Path, project: str, identity: str, line: str) -> None:
    """Add a line of our own to a run's log."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    number = os.open(run_folder(home, project, identity) / "log", flags, 0o600)
    with os.fdopen(number, "a", encoding="utf-8") as file:
        file.write(f"dhpy: {line}\n")


def remove_run_folder(home: Path, project: str, identity: str) -> None:
    """Remove a run's folder and all in it; nothing happens where there is none."""
    shutil.rmtree(run_folder(home, project, identity), ignore_errors=True)


def log_items(home: Path, run: Entity, limit: int) -> list[dict[str, Any]]:
    """The run's log as Core answers it: one item, or none where nothing was written yet.

    Args:
        limit: bytes; of a longer log the end is answered, from the start of a line.
    """
    path = run_folder(home, run["project"], run["id"]) / "log"
    text, modified, omitted = _tail(path, limit)
    if not text:
        return []
    project, identity = run["project"], run["id"]
    moment = times.text(modified)
    return [
        {
            "id": identity,
            "name": identity,
            "project": project,
            "kind": "log",
            "key": f"store://{project}/log/log/{identity}:{identity}",
            "metadata": {
                "name": identity,
                "project": project,
                "created": run["metadata"]["created"],
                "updated": moment,
            },
            "spec": {"run": identity, "timestamp": modified // 1000},
            "status": {
                "pod": identity,
                "container": "run",
                "namespace": "local",
                "state": "READY",
                "omitted": omitted,
            },
            "content": base64.b64encode(text.encode()).decode(),
            "user": run["user"],
        }
    ]


def _tail(path: Path, limit: int) -> tuple[str, int, int]:
    """The end of a log as text, when it was last written (microseconds), and the bytes left out before it."""
    content, modified, omitted = _end_of(path, limit)
    # What was written before the log was rotated, as far as it is kept.
    left = 0 if omitted else limit - len(content)
    before, earlier, omitted_there = _end_of(path.with_name(f"{path.name}.1"), left)
    content, modified = before + content, modified or earlier
    omitted += omitted_there
    if omitted:
        end = content.partition(b"\n")[2] or content
        omitted, content = omitted + len(content) - len(end), end
    # The SDKs decode it strictly, and a program may write any bytes.
    return content.decode("utf-8", "replace"), modified, omitted


def _end_of(path: Path, limit: int) -> tuple[bytes, int, int]:
    """The last bytes of a file, when it was last written, and how many are before those."""
    with opened(path) as file:
        if file is None:
            return b"", 0, 0
        start = max(0, file.seek(0, os.SEEK_END) - limit)
        file.seek(start)
        return file.read(limit), os.fstat(file.fileno()).st_mtime_ns // 1000, start
