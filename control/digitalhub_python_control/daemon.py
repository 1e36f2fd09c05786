"""The control plane of this machine as others see it: is it up, where, start it, stop it, ask it."""

from __future__ import annotations

import base64
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
from typing import Any
from urllib.parse import quote

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


class Client:
    """Asks a control plane, with the settings' credentials.

    urllib3 and not requests: no proxy of the environment gets between us and this machine.
    """

    def __init__(self, url: str, settings: ControlSettings) -> None:
        self.url = url
        self._http = urllib3.PoolManager(timeout=30, retries=False)
        self._headers = _authorization(settings)

    def get(self, path: str) -> Any:
        """The JSON at `path`; None where there is nothing (404).

        Raises:
            PlatformFault: it does not answer, or refuses.
        """
        try:
            answer = self._http.request("GET", f"{self.url}{path}", headers=self._headers)
        except urllib3.exceptions.HTTPError as exc:
            raise PlatformFault(
                "control/no-answer",
                f"The control plane at {self.url} does not answer: {type(exc).__name__}.",
                "Look at server.log in its home; start it again with: dhpy up",
            ) from exc
        if answer.status == 404:
            return None
        if answer.status == 401:
            raise PlatformFault(
                "control/credentials",
                f"The control plane at {self.url} asks for credentials.",
                "Set DHPY_USER and DHPY_PASSWORD, or DHPY_TOKEN, as where it was started.",
            )
        if answer.status != 200:
            raise PlatformFault(
                "control/no-answer",
                f"The control plane at {self.url} answers {answer.status} to GET {path}.",
                "Look at server.log in its home.",
            )
        return json.loads(answer.data or b"null")

    def pages(self, path: str) -> list[dict[str, Any]]:
        """Every entity of a list."""
        found: list[dict[str, Any]] = []
        number, total = 0, 1
        while number < total:
            page = self.get(f"{path}?page={number}") or {}
            found += page.get("content", [])
            total, number = int(page.get("totalPages", 0)), number + 1
        return found

    def find_run(self, name: str, project: str | None) -> dict[str, Any] | None:
        """A run by its id or key, in any project where none is named."""
        identity = name.rsplit("/", 1)[-1].rpartition(":")[2]
        if name.startswith("store://"):
            project = name[len("store://") :].partition("/")[0]
        projects = [project] if project else [p["name"] for p in self.pages("/api/v1/projects")]
        for one in projects:
            run = self.get(f"/api/v1/-/{quote(one, safe='')}/runs/{quote(identity, safe='')}")
            if run is not None:
                found: dict[str, Any] = run
                return found
        return None

    def log_text(self, run: Mapping[str, Any]) -> str:
        """What the run has written until now, or the end of it."""
        items = self.get(f"/api/v1/-/{run['project']}/runs/{run['id']}/logs") or []
        parts = [base64.b64decode(item.get("content") or "") for item in items]
        return b"".join(parts).decode("utf-8", "replace")


def _authorization(settings: ControlSettings) -> dict[str, str]:
    if settings.user:
        return dict(urllib3.make_headers(basic_auth=f"{settings.user}:{settings.password}"))
    return {"Authorization": f"Bearer {settings.token}"} if settings.token else {}


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
