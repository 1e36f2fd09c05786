"""Services as a user starts them: processes on loopback with free ports, ended with the test."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

CASES = Path(__file__).parents[1] / "cases"


@dataclass
class Service:
    """A service that answers."""

    url: str
    management_url: str
    process: subprocess.Popen[bytes]
    log_file: Path
    workers: list[int] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname and parts.port
        return parts.hostname, parts.port

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    def post(self, body: Any = None, **more: Any) -> requests.Response:
        return requests.post(self.url + more.pop("path", "/"), json=body, timeout=30, **more)

    def manage(self, path: str) -> requests.Response:
        return requests.get(self.management_url + path, timeout=10)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all label sets that contain the given ones."""
        total = 0.0
        for line in self.manage("/metrics").text.splitlines():
            if line.startswith(name) and line[len(name)] in "{ ":
                given = line.partition("{")[2].partition("}")[0]
                if all(f'{k}="{v}"' in given for k, v in labels.items()):
                    total += float(line.rpartition(" ")[2])
        return total

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.address, timeout=30)
        if data:
            client.sendall(data)
        return client

    def exchange(self, data: bytes) -> bytes:
        """What the service answers to these bytes, until it closes the connection."""
        with self.connect(data) as client:
            return read_all(client)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 40) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)


@contextmanager
def serving(
    file: Path,
    handler: str,
    *options: str,
    tmp_path: Path,
    env: dict[str, str] | None = None,
    wait: bool = True,
) -> Iterator[Service]:
    """`dhpy serve FILE:HANDLER` on free ports."""
    command = [sys.executable, "-c", "from digitalhub_runtime_python.cli import main; main()"]
    command += ["serve", f"{file}:{handler}", "--port", "0", "--management-port", "0", *options]
    with started(command, tmp_path=tmp_path, env=env, wait=wait) as service:
        yield service


@contextmanager
def started(
    command: list[str],
    *,
    tmp_path: Path,
    env: dict[str, str] | None = None,
    wait: bool = True,
    **more: Any,
) -> Iterator[Service]:
    """A command that serves; killed at the end with all that it started."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DHPY_", "DHCORE_"))}
    tmp_path.mkdir(parents=True, exist_ok=True)
    ready, log_file = tmp_path / "ready.json", tmp_path / "service.log"
    ready.unlink(missing_ok=True)
    settings = {
        "DHPY_READY_FILE": str(ready),
        "DHPY_WORKSPACE": str(tmp_path / "work"),
        "PYTHONUNBUFFERED": "1",
        **(env or {}),
    }
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, env={**own, **settings}, stdout=log, stderr=log, **more)
    service = Service("", "", process, log_file)
    try:
        if wait:
            wait_until(lambda: ready.exists() or process.poll() is not None, 60)
            assert ready.exists(), f"it does not start:\n{service.log}"
            said = json.loads(ready.read_text())
            service.url, service.management_url = said["url"], said["management_url"]
        yield service
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)  # the second one ends it at once
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for a condition, generously: a busy machine is slow."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"it did not happen within {seconds:g} s"
        time.sleep(0.02)


def read_all(client: socket.socket) -> bytes:
    data = bytearray()
    try:
        while chunk := client.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    return bytes(data)


def read_response(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One response with a length, from a connection that stays open."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = client.recv(65536)
        if not chunk:
            raise ConnectionError(f"the connection was closed after {data!r}")
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    length = int(headers.get("content-length", 0))
    while len(body) < length:
        chunk = client.recv(65536)
        if not chunk:
            raise ConnectionError("the connection was closed in a body")
        body += chunk
    return int(lines[0].split()[1]), headers, body


def request_bytes(body: bytes = b"", path: str = "/", **headers: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*head, "", ""]).encode() + body


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
