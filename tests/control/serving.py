"""What the tests of the API share: the application on loopback, in this process or in its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from digitalhub_python_control.api.app import create_app
from digitalhub_python_control.clientenv import client_environment
from digitalhub_python_control.console import live, routes
from digitalhub_python_control.hosting import Host
from digitalhub_python_control.settings import ControlSettings
from digitalhub_python_control.store.store import Store
from digitalhub_python_control.store.vault import open_vault

PATIENCE = 60
SOURCE = {
    "source": "f.py",
    "handler": "f",
    "base64": "ZGVmIGYoYSk6CiAgICByZXR1cm4gYQo=",
    "lang": "python",
}
FUNCTION = {"python_version": "PYTHON3_11", "source": SOURCE}


@dataclass
class Plane:
    """The control plane's API, without a reconciler: runs stay as they are stored."""

    settings: ControlSettings
    store: Store
    http: httpx.Client

    def ask(self, method: str, path: str, *, status: int = 200, **kwargs: Any) -> Any:
        """Send a request below /api/v1 and check its status; the answer's JSON."""
        answer = self.http.request(method, f"/api/v1{path}", **kwargs)
        assert answer.status_code == status, (method, path, answer.status_code, answer.text)
        return json.loads(answer.text) if answer.text else None

    def refused(self, method: str, path: str, status: int, **kwargs: Any) -> str:
        """The message of a request that must be refused."""
        answer = self.ask(method, path, status=status, **kwargs)
        assert set(answer) == {"status", "message", "errorCode"} and answer["status"] == status
        return str(answer["message"])

    def project(self, name: str = "proj", **fields: Any) -> dict[str, Any]:
        return self.ask("POST", "/projects", json={"name": name, "kind": "project", **fields})

    def create(self, plural: str, project: str = "proj", **entity: Any) -> dict[str, Any]:
        return self.ask("POST", f"/-/{project}/{plural}", json=entity)

    def function(self, name: str = "f", project: str = "proj", **spec: Any) -> dict[str, Any]:
        spec = {**FUNCTION, **spec}
        return self.create("functions", project, kind="python", name=name, spec=spec)

    def task(self, function: Mapping[str, Any], action: str = "job", **spec: Any) -> dict[str, Any]:
        spec = {"function": reference(function), **spec}
        return self.create("tasks", function["project"], kind=f"python+{action}", spec=spec)

    def run(self, task: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
        return self.create("runs", task["project"], **run_of(task, **spec))


def reference(function: Mapping[str, Any]) -> str:
    return f"{function['kind']}://{function['project']}/{function['name']}:{function['id']}"


def run_of(task: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    function = task["spec"]["function"]
    return {
        "kind": f"{task['kind']}:run",
        "spec": {
            "task": f"{task['kind']}://{task['project']}/{task['id']}",
            "function": function,
            **spec,
        },
    }


def settings_in(home: Path, **changes: Any) -> ControlSettings:
    values = {"database_url": f"sqlite:///{home / 'dhpy.db'}", "port": 0, **changes}
    return ControlSettings(home=home, cache=home / "cache", **values)


@contextmanager
def serving(settings: ControlSettings, **client: Any) -> Iterator[Plane]:
    """The API in a thread of this process."""
    settings.home.mkdir(parents=True, exist_ok=True)
    store = Store(settings.database_url, open_vault(settings.home / "secret.key"))
    listener = socket.create_server((settings.host, settings.port))
    settings = replace(settings, port=listener.getsockname()[1])
    app = create_app(settings, store, pages=routes.pages())
    # Open pages would keep it waiting.
    host = Host(app, listener, grace=5, on_stop=partial(live.close, app))
    started = threading.Event()
    thread = threading.Thread(target=host.run, args=[started.set])
    thread.start()
    try:
        assert started.wait(PATIENCE)
        with httpx.Client(base_url=settings.url, timeout=PATIENCE, **client) as http:
            yield Plane(settings, store, http)
    finally:
        host.stop()
        thread.join(PATIENCE)
        listener.close()
        store.close()


@dataclass
class Process:
    """A control plane in a process of its own, as `python -m digitalhub_python_control`."""

    process: subprocess.Popen[bytes]
    url: str
    home: Path
    settings: ControlSettings

    def client_env(self, home: Path) -> dict[str, str]:
        """The environment of a user's process that talks to it; `home` is its HOME."""
        base = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LD_LIBRARY_PATH")}
        env = client_environment(self.url, self.settings, os.environ)
        return {**base, "HOME": str(home), **env}


@contextmanager
def server_process(home: Path, *, files: int | None = None, **environ: str) -> Iterator[Process]:
    """Start a server on a free port that may open so many files, and stop it with SIGTERM."""
    command = [sys.executable, "-m", "digitalhub_python_control"]
    if files is not None:
        command = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh", *command]
    env = server_env(home, **environ)
    with (home.parent / f"{home.name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    place = home / "server.json"
    try:
        wait_until(lambda: process.poll() is not None or _names(place, process.pid))
        assert process.poll() is None, (home.parent / f"{home.name}.log").read_text()
        url = json.loads(place.read_text())["url"]
        yield Process(process, url, home, ControlSettings.from_env(env))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) in (0, -signal.SIGKILL)


def server_env(home: Path, **environ: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DHPY_") or k == "DHPY_CACHE"}
    return {**clean, "DHPY_HOME": str(home), "DHPY_PORT": "0", **environ}


def wait_until(condition: Any, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def skip_or_fail(reason: str) -> None:
    """Skip what this machine cannot do; where everything has been installed, that is an error."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str, *folders: str) -> str | None:
    """The path of a program on PATH or in one of these folders, the last one first."""
    return shutil.which(name) or next(
        (found for folder in reversed(folders) if (found := shutil.which(name, path=folder))), None
    )


def _names(place: Path, pid: int) -> bool:
    return place.exists() and json.loads(place.read_text())["pid"] == pid
