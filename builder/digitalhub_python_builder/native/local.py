"""What keeps images on this machine: the Docker Engine, over its socket, and containerd, by `ctr`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from digitalhub_python_builder import commands
from digitalhub_runtime_python.errors import EnvironmentFault

_UNIX = "unix://"


class Docker:
    """A Docker Engine at a socket; one afar is left to docker-py."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.host = environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

    def answers(self) -> bool:
        with contextlib.suppress(EnvironmentFault), self._answer("GET", "/version") as answer:
            return answer.status == 200
        return False

    def image(self, reference: str) -> dict[str, Any] | None:
        """What the engine says of an image; None where it has none, or does not answer."""
        path = f"/images/{quote(reference, safe='/:@')}/json"
        with contextlib.suppress(EnvironmentFault), self._answer("GET", path) as answer:
            return dict(json.loads(answer.read())) if answer.status == 200 else None
        return None

    def save(self, reference: str, file: IO[bytes]) -> None:
        """Write an image as `docker save` does."""
        with self._answer("GET", f"/images/{quote(reference, safe='/:@')}/get") as answer:
            if answer.status != 200:
                raise _refused(answer.read())
            while part := answer.read(1 << 20):
                try:
                    file.write(part)
                except OSError as exc:
                    raise EnvironmentFault(
                        "environment/cache",
                        f"The image {reference} cannot be written to {file.name}: {exc.strerror}.",
                        "Make room there, or set DHPY_CACHE to another folder.",
                    ) from exc

    def load(self, file: IO[bytes], size: int) -> None:
        """Take an image as `docker load` does."""
        head = {"Content-Type": "application/x-tar", "Content-Length": str(size)}
        with self._answer("POST", "/images/load?quiet=1", file, head) as answer:
            said = answer.read()
            if answer.status != 200 or b'"error"' in said:
                raise _refused(said)

    def tag(self, reference: str, repository: str, tag: str) -> None:
        """Give an image another name as well."""
        query = f"repo={quote(repository, safe='')}&tag={quote(tag)}"
        with self._answer("POST", f"/images/{quote(reference, safe='/:@')}/tag?{query}") as answer:
            if answer.status != 201:
                raise _refused(answer.read())

    @contextlib.contextmanager
    def _answer(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        if not self.host.startswith(_UNIX):
            raise EnvironmentFault(
                "build/engine-absent",
                f"The Docker Engine at {self.host} is not on this machine.",
                "Push the image, write it to a file with --output, or build with --engine docker.",
            )
        connection = http.client.HTTPConnection("localhost")
        try:
            with contextlib.closing(connection), socket.socket(socket.AF_UNIX) as connected:
                connected.settimeout(600)
                connected.connect(self.host[len(_UNIX) :])
                connection.sock = connected
                connection.request(method, path, body, dict(headers or {}))
                yield connection.getresponse()
        except (OSError, http.client.HTTPException) as exc:
            raise EnvironmentFault(
                "build/engine-absent",
                f"The Docker Engine at {self.host} does not answer: {type(exc).__name__}.",
                "Start it, or set DOCKER_HOST.",
            ) from exc


class Containerd:
    """A containerd whose socket we may use."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.address = environ.get("CONTAINERD_ADDRESS") or "/run/containerd/containerd.sock"
        self.namespace = environ.get("CONTAINERD_NAMESPACE") or "default"
        self._program = shutil.which("ctr", path=environ.get("PATH")) or ""

    def answers(self) -> bool:
        return bool(self._program) and Path(self.address).is_socket() and os.access(self.address, os.W_OK)  # fmt: skip

    def load(self, file: Path, platform: str = "") -> None:
        """Take an image as `ctr images import` does."""
        command = [self._program, "--address", self.address, "--namespace", self.namespace, "images", "import"]  # fmt: skip
        command += ["--platform", platform] if platform else []
        done = commands.run([*command, str(file)], self._environ)
        if done.status:
            raise _refused(" ".join(done.lines[-2:]).encode())


def _refused(said: bytes) -> EnvironmentFault:
    return EnvironmentFault(
        "build/load",
        f"The engine does not take the image: {said.decode('utf-8', 'replace').strip()[:300]}",
        "It is in the cache all the same: push it, or write it to a file with --output.",
    )
