"""What all tests share: a control plane in a process of its own, and a log that each test leaves as it was."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3


@dataclass
class ControlPlane:
    """The embedded control plane, listening on loopback."""

    url: str
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


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """`python -m digitalhub_python_control` on a free port, with an empty store."""
    home = tmp_path_factory.mktemp("control-plane")
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DH", "AWS_", "S3_"))}
    env = {**own, "DHPY_HOME": str(home), "DHPY_PORT": "0", "DHPY_HOST": "127.0.0.1"}
    with (home / "server.log").open("wb") as log:
        command = [sys.executable, "-m", "digitalhub_python_control"]
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        url = _url(server, home)
        yield ControlPlane(url, {**own, **_client_variables(url, env)})
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


def _client_variables(url: str, env: dict[str, str]) -> dict[str, str]:
    from digitalhub_python_control.clientenv import client_environment
    from digitalhub_python_control.settings import ControlSettings

    return client_environment(url, ControlSettings.from_env(env), {})


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Commands set the runtime's logger up for a whole process; a test gives it back."""
    own = logging.getLogger("digitalhub_runtime_python")
    before = own.handlers[:], own.level, own.propagate
    yield
    own.handlers[:], own.level, own.propagate = before
