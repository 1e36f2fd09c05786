"""Parts that the tests of images start: a registry on loopback, faulty ones before it, kaniko's executor."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import bases
import docker_engine
import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = ("3.9", "3.10", "3.11")

CONFIG = """\
version: 0.1
storage: {{ filesystem: {{ rootdirectory: {folder} }} }}
http: {{ addr: "127.0.0.1:{port}" }}
log: {{ level: error }}
{auth}
"""
AUTH = """\
auth: {{ htpasswd: {{ realm: tests, path: {file} }} }}
"""


def unavailable(reason: str) -> NoReturn:
    """Skip where a part is missing; in CI, which has to have it, fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class BaseImages:
    """The project's base images, built when they are first asked for; layers come from the cache."""

    def __init__(self) -> None:
        self._built: set[str] = set()

    def __call__(self, python: str, flavour: str = "slim") -> str:
        name = f"digitalhub-runtime-python:{python}-{flavour}"
        if name not in self._built:
            self.standin(python)
            command = [sys.executable, "images/build.py", "--python", python, "--flavour", flavour]
            command += ["--network", "host", "--docker", docker_engine.debian_client()]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
            self._built.add(name)
        return name

    def standin(self, python: str) -> str:
        """`python:3.x-slim-bookworm`, the real one or a stand-in."""
        try:
            return bases.ensure(python)
        except LookupError as exc:
            if python in REQUIRED:
                unavailable(str(exc))
            pytest.skip(str(exc))


class Registry:
    """Debian's docker-registry; with a password it takes `me` and nobody else."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.port = free_port()
        self.name = f"127.0.0.1:{self.port}"
        self._folder = folder
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Registry:
        program = shutil.which("docker-registry")
        if program is None:
            unavailable("docker-registry is not installed")
        auth = ""
        if self._password:
            file = self._folder / "htpasswd"
            file.write_text(f"me:{_bcrypt(self._password)}\n")
            auth = AUTH.format(file=file)
        config = self._folder / "config.yml"
        config.write_text(CONFIG.format(folder=self._folder / "data", port=self.port, auth=auth))
        # It takes every REGISTRY_… variable for a setting of its own, and buildah has one of that name.
        env = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, "serve", str(config)], stdout=log, stderr=log, env=env
            )
        wait_for(self.port, self._folder / "log")
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20)

    def tags(self, repository: str) -> list[str]:
        import json

        with urllib.request.urlopen(f"http://{self.name}/v2/{repository}/tags/list") as answer:
            return sorted(json.load(answer)["tags"] or [])


def wait_for(port: int, log: Path) -> None:
    give_up = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < give_up, f"nothing listens:\n{log.read_text()}"
            time.sleep(0.05)


def _bcrypt(password: str) -> str:
    # Perl has the C library's crypt; Python has given it up.
    program = "print crypt($ARGV[0], '$2y$05$abcdefghijklmnopqrstuu')"
    done = subprocess.run(
        ["perl", "-e", program, password], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("$2y$"), "this machine's crypt has no bcrypt"
    return done.stdout


@contextlib.contextmanager
def breaks_off(port: int, request: bytes) -> Iterator[int]:
    """A port before a registry: a connection ends without an answer when `request` comes along it."""
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(server, port, request), daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()


def _accept(server: socket.socket, port: int, request: bytes) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_relay, args=(client, port, request), daemon=True).start()


def _relay(client: socket.socket, port: int, request: bytes) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as upstream:
        back = threading.Thread(target=_pump, args=(upstream, client, b""), daemon=True)
        back.start()
        _pump(client, upstream, request)
        back.join()


def _pump(source: socket.socket, sink: socket.socket, stop: bytes) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if stop and stop in data:
                break
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def kaniko_wrapper(folder: Path) -> str:
    """A script that runs the real executor in a container, with the folders that it is given.

    Skips the test where this machine has no executor: only container registries carry it.
    """
    found = os.environ.get("KANIKO_EXECUTOR") or shutil.which("executor")
    if not found:
        pytest.skip(
            "kaniko's executor is not on this machine: neither on PATH nor in KANIKO_EXECUTOR"
        )
    image = "dhpy-test/kaniko:latest"
    (folder / "context").mkdir()
    shutil.copy2(found, folder / "context" / "executor")
    shutil.copy2("/etc/ssl/certs/ca-certificates.crt", folder / "context" / "ca.crt")
    (folder / "context" / "Dockerfile").write_text(
        "FROM scratch\nCOPY executor /kaniko/executor\nCOPY ca.crt /kaniko/ssl/certs/ca-certificates.crt\n"
        "ENV PATH=/usr/local/bin:/kaniko HOME=/root USER=root SSL_CERT_DIR=/kaniko/ssl/certs DOCKER_CONFIG=/kaniko/.docker\n"
        'WORKDIR /workspace\nENTRYPOINT ["/kaniko/executor"]\n'
    )
    docker = docker_engine.debian_client()
    subprocess.run(
        [docker, "build", "-q", "-t", image, str(folder / "context")],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    script = folder / "executor"
    script.write_text(
        "#!/bin/sh\n"
        f'exec {docker} run --rm --network host -v "$DHPY_TEST_MOUNT:$DHPY_TEST_MOUNT" {image} "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def docker(*arguments: str, check: bool = True, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Debian's docker client; its output is text."""
    done = subprocess.run(
        [docker_engine.debian_client(), *arguments], capture_output=True, text=True, **kwargs
    )
    assert not check or done.returncode == 0, (
        f"docker {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    )
    return done


def clean_up(*, own: bool) -> None:
    """Remove what tests have left in the engine: names on loopback, volumes; in one of our own, old images."""
    listed = docker(
        "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=127.0.0.1:*/*/*"
    )
    listed_flat = docker(
        "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=127.0.0.1:*/*"
    )
    names = [n for n in (listed.stdout + listed_flat.stdout).split() if "<none>" not in n]
    if names:
        docker("rmi", "--force", *names, check=False)
    volumes = docker("volume", "ls", "--quiet", "--filter", "name=dhpy-containers").stdout.split()
    if volumes:
        docker("volume", "rm", "--force", *volumes, check=False)
    if own:
        # Every change of the runtime makes new images; those of today are the next run's cache.
        old = ("--filter", "until=72h", "--filter", "label!=dhpy-test.stand-in")
        docker("image", "prune", "--all", "--force", *old, check=False)
