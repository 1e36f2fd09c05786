"""The real processor, where one is on PATH or at $NUCLIO_PROCESSOR: `Real` has the driver's `call`."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from nuclio.driver import WRAPPER


def find() -> str | None:
    return shutil.which("processor") or shutil.which(os.environ.get("NUCLIO_PROCESSOR", ""))


# Only container registries carry it, so it is skipped under CI=true too: the driver's tests run always.
needs_processor = pytest.mark.skipif(
    find() is None, reason="no Nuclio processor on PATH, nor at $NUCLIO_PROCESSOR"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_LIBC = ctypes.CDLL(None)


def die_with_us() -> None:
    """In a child before its program: a test run that is killed leaves no processor behind."""
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class HttpAnswer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.pairs = response.getheaders()
        self.headers = {name.lower(): value for name, value in self.pairs}
        self.content_type = self.headers.get("content-type", "")
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Real:
    """A processor with its HTTP trigger on a free port of the loopback."""

    def __init__(
        self,
        folder: Path,
        handler: str = "main:handler",
        *,
        env: dict[str, str] | None = None,
        spec: dict[str, Any] | None = None,
        trigger: dict[str, Any] | None = None,
        wrapper: Path = WRAPPER,
        python: str = sys.executable,
        wait: bool = True,
    ) -> None:
        self.port, health, admin = free_port(), free_port(), free_port()
        http_trigger = {
            "kind": "http",
            "name": "http",
            "url": f"127.0.0.1:{self.port}",
            "numWorkers": 1,
        }
        config = {
            "metadata": {"name": "f", "namespace": "nuclio"},
            "spec": {
                "runtime": "python:3.11",
                "handler": handler,
                "triggers": {"http": {**http_trigger, **(trigger or {})}},
                **(spec or {}),
            },
        }
        platform = {
            "kind": "local",
            "webAdmin": {"listenAddress": f"127.0.0.1:{admin}"},
            "healthCheck": {"listenAddress": f"127.0.0.1:{health}"},
            "logger": {
                "sinks": {"out": {"kind": "stdout"}},
                "system": [{"level": "debug", "sink": "out"}],
                "functions": [{"level": "debug", "sink": "out"}],
            },
        }
        (folder / "processor.yaml").write_text(yaml.safe_dump(config))
        (folder / "platform.yaml").write_text(yaml.safe_dump(platform))
        self.log_file = folder / "processor.log"
        self.health = health
        program = find()
        assert program is not None
        self.started = time.perf_counter()
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    "--config", str(folder / "processor.yaml"),
                    "--platform-config", str(folder / "platform.yaml"),
                ],
                env={
                    **os.environ,
                    "NUCLIO_PYTHON_WRAPPER_PATH": str(wrapper),
                    "NUCLIO_PYTHON_EXE_PATH": python,
                    "NUCLIO_PYTHON_PATH": str(folder),
                    **(env or {}),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_us,
            )  # fmt: skip
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout: float = 30) -> None:
        give_up = time.monotonic() + timeout
        while time.monotonic() < give_up:
            assert self.process.poll() is None, self.log
            with contextlib.suppress(OSError, http.client.HTTPException):
                if (
                    self._get(self.health, "/ready") == 200
                    and self._get(self.port, "/__internal/health") == 200
                ):
                    return
            time.sleep(0.02)
        raise AssertionError(self.log)

    def _get(self, port: int, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    def call(
        self,
        body: Any = b"",
        *,
        content_type: str = "",
        headers: dict[str, str] | None = None,
        method: str = "POST",
        path: str = "/",
        timeout: float = 30,
    ) -> HttpAnswer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            sent = {"Content-Type": content_type} if content_type else {}
            connection.request(method, path, body=body, headers={**sent, **(headers or {})})
            return HttpAnswer(connection.getresponse())
        finally:
            connection.close()

    def workers(self) -> list[int]:
        found = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(self.process.pid)],
            capture_output=True,
            text=True,
        ).stdout
        return [int(line.split()[0]) for line in found.splitlines() if "--event-socket" in line]

    def __enter__(self) -> Real:
        return self

    def __exit__(self, *_: object) -> None:
        workers = self.workers()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for pid in workers:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for path in re.findall(r"/tmp/nuclio-rpc-\w+\.sock", self.log):  # it leaves them
            Path(path).unlink(missing_ok=True)
