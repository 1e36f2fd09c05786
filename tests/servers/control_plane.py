"""The embedded control plane in a process of its own, with an empty store, on a free port of loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3

from digitalhub_python_control.clientenv import client_environment, foreign_variables
from digitalhub_python_control.settings import ControlSettings


@dataclass
class ControlPlane:
    """The embedded control plane, listening on loopback."""

    url: str
    home: Path
    environ: dict[str, str]
    """What a process needs to be its client, and nothing of this machine's own settings."""

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON that the API answers with."""
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        with urllib3.PoolManager() as http:
            response = http.request(
                method, f"{self.url}/api/v1{path}", body=payload, headers=headers
            )
        assert response.status < 300, (method, path, response.status, response.data)
        return json.loads(response.data) if response.data else None

    def project(self, name: str) -> str:
        self.ask("POST", "/projects", {"name": name, "kind": "project"})
        return name

    def stop_runs(self) -> None:
        """Stop what a test has left running: services outlive the control plane, as they should."""
        give_up = time.monotonic() + 20
        going_on = True
        while going_on and time.monotonic() < give_up:
            going_on = False
            for project in self.ask("GET", "/projects?size=1000")["content"]:
                runs = f"/-/{project['name']}/runs"
                for run in self.ask("GET", f"{runs}?size=1000")["content"]:
                    alive = run["status"]["state"] in ("RUNNING", "PENDING", "READY", "STOP")
                    if alive and not run["spec"].get("local_execution"):
                        going_on = True
                        self.ask("POST", f"{runs}/{run['id']}/stop", {})
            time.sleep(0.1)


@contextmanager
def running(home: Path) -> Iterator[ControlPlane]:
    """A control plane whose store is in `home`; it ends with the block."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DH", "AWS_", "S3_"))}
    # Environments of runs are expensive and belong to the machine: they stay where they always are.
    env = {**own, "DHPY_HOME": str(home), "DHPY_PORT": "0", "DHPY_HOST": "127.0.0.1"}
    with (home / "server.log").open("wb") as log:
        command = [sys.executable, "-m", "digitalhub_python_control"]
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        url = _url(server, home)
        variables = client_environment(url, ControlSettings.from_env(env), os.environ)
        foreign = foreign_variables(variables)
        client = {k: v for k, v in own.items() if k not in foreign}
        plane = ControlPlane(url, home, {**client, **variables})
        yield plane
        plane.stop_runs()
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _url(server: subprocess.Popen[bytes], home: Path) -> str:
    place = home / "server.json"
    give_up = time.monotonic() + 60
    while not place.exists():
        if server.poll() is not None or time.monotonic() > give_up:
            pytest.fail(f"the control plane does not start:\n{(home / 'server.log').read_text()}")
        time.sleep(0.05)
    return str(json.loads(place.read_text())["url"])
