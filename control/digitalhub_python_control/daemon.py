"""The control plane of this machine as others see it: is it up, where, start it, stop it, ask it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import urllib3

from digitalhub_python_control.settings import ControlSettings
from digitalhub_runtime_python.errors import PlatformFault

START_TIMEOUT = 60.0
"""Seconds: how long a control plane may take until it answers; a cold disk takes a few."""
STOP_TIMEOUT = 30.0
"""Seconds: how long it may take to end after SIGTERM."""
_LOOK = 0.05


@dataclass(frozen=True)
class Place:
    """A control plane that is up."""

    pid: int
    url: str
    started: int
    """Seconds since the epoch."""


def find(settings: ControlSettings) -> Place | None:
    """The control plane that works in the settings' home, or None.

    What `server.json` says counts only while its server holds the home's lock: the file of one that
    was killed stays behind.
    """
    try:
        place = json.loads((settings.home / "server.json").read_text(encoding="utf-8"))
        found = Place(int(place["pid"]), str(place["url"]), int(place.get("started", 0)))
        os.kill(found.pid, 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # Last, and never while a server may be starting: trying the lock takes it for a moment.
    return found if _is_locked(settings.home / "lock") else None


def needed(settings: ControlSettings) -> Place:
    """The control plane that is up.

    Raises:
        PlatformFault: control/not-running
    """
    place = find(settings)
    if place is None:
        raise PlatformFault(
            "control/not-running", "The control plane is not running.", "Start it with: dhpy up"
        )
    return place


def start(settings: ControlSettings, environ: Mapping[str, str]) -> Place:
    """Start a control plane in the background and wait until it answers.

    Raises:
        PlatformFault: it did not start; the message is its own last line.
    """
    log = settings.home / "server.log"
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with log.open("ab") as output:
            begin = output.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "digitalhub_python_control"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=settings.home,
                env=dict(environ),
                start_new_session=True,
            )
    except OSError as exc:
        raise PlatformFault(
            "control/home",
            f"Cannot write {exc.filename or settings.home}: {exc.strerror or exc}.",
            "Set DHPY_HOME to a folder you may write.",
        ) from exc
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        place = find(settings)
        if place is not None and place.pid == process.pid and _answers(place.url):
            # It is meant to outlive us; Python would complain that nobody waited for it.
            process.returncode = 0
            return place
        if process.poll() is not None:
            raise _did_not_start(log, begin, process.returncode)
        time.sleep(_LOOK)
    process.terminate()
    process.wait()
    raise _did_not_start(log, begin, None)


def stop(settings: ControlSettings, place: Place) -> None:
    """End a control plane and wait until it has ended; its runs go on.

    Raises:
        PlatformFault: it does not end.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(place.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT
    while _is_locked(settings.home / "lock"):
        if time.monotonic() > deadline:
            raise PlatformFault(
                "control/does-not-stop",
                f"The control plane (pid {place.pid}) does not end within {STOP_TIMEOUT:.0f} s.",
                f"End it with: kill -9 {place.pid}. Its runs go on, and the next one finds them.",
            )
        time.sleep(_LOOK)


def _answers(url: str) -> bool:
    try:
        http = urllib3.PoolManager(timeout=5, retries=False)
        return bool(http.request("GET", f"{url}/health").status == 200)
    except urllib3.exceptions.HTTPError:
        return False


def _is_locked(path: Path) -> bool:
    try:
        with path.open("r", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _did_not_start(log: Path, begin: int, status: int | None) -> PlatformFault:
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    said = lines[-1] if lines else "it said nothing"
    how = "did not answer in time" if status is None else "could not start"
    return PlatformFault(
        "control/did-not-start", f"The control plane {how}: {said}", f"Its log is {log}."
    )
