"""The Docker Engine, over its API (docker-py).

docker-py takes a quarter of a second to import, which is most of a build that finds its image there; so
what such a build asks is asked over the engine's socket, and docker-py comes in where anything is done.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Callable
from urllib.parse import quote

from digitalhub_python_builder.engines import (
    PROBE,
    Image,
    Log,
    Request,
    base_fault,
    build_fault,
    push_fault,
)
from digitalhub_python_builder.references import parse
from digitalhub_runtime_python.errors import EnvironmentFault

_UNIX = "unix://"
_BUILD_TIMEOUT = 3600
"""Seconds without a word from the engine: a compiler may be silent for long."""


class DockerEngine:
    """Needs nothing but an engine that answers; has layer caching, no build secrets."""

    name = "docker"
    abilities = frozenset({"local"})

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._connection: Any = None

    def describe(self) -> str:
        found = self._ask("/version", lambda client: client.version())
        if not found:
            raise _absent(self._host)
        return f"Docker Engine {found['Version']} at {self._host}"

    def inspect(self, reference: str) -> Image | None:
        found = self._ask(
            f"/images/{quote(reference, safe='/:@')}/json",
            lambda client: client.inspect_image(reference),
        )
        if found is None:
            return None
        digests = [text.partition("@")[2] for text in found.get("RepoDigests") or () if text.startswith(parse(reference).name + "@")]  # fmt: skip
        labels = (found.get("Config") or {}).get("Labels") or {}
        return Image(reference, found["Id"], digests[0] if digests else "", labels, found["Size"])

    def pull(self, reference: str, log: Log, *, platform: str = "") -> Image:
        found = self.inspect(reference)
        if found is None:
            log(f"Pulling {reference} …")
            wanted = parse(reference)
            try:
                stream = self._client.pull(
                    wanted.name, wanted.digest or wanted.tag or "latest", stream=True, decode=True
                )
                _follow(stream, lambda line: None)
            except _errors() as exc:
                raise base_fault(reference, _explain(exc)) from exc
            found = self.inspect(reference)
        if found is None:
            raise base_fault(reference, "the engine does not have it after pulling it")
        return found

    def probe(self, reference: str) -> str:
        import docker.errors

        container = self._client.create_container(reference, entrypoint=list(PROBE), network_disabled=True)  # fmt: skip
        try:
            self._client.start(container)
            if self._client.wait(container, timeout=60)["StatusCode"]:
                return ""
            words = self._client.logs(container, stderr=False).decode().split()
            return words[1] if words[:1] == ["dhpy-python"] else ""
        except docker.errors.APIError:
            # Started it cannot be where the program does not exist.
            return ""
        finally:
            self._client.remove_container(container, force=True)

    def build(self, request: Request, log: Log) -> Image:
        last: deque[str] = deque(maxlen=4)

        def heard(line: str) -> None:
            last.append(line.strip())
            log(line)

        with _tar(request.context) as context:
            try:
                stream = self._client.build(
                    fileobj=context,
                    custom_context=True,
                    tag=request.reference,
                    rm=True,
                    forcerm=True,
                    decode=True,
                    platform=request.platform,
                    network_mode=request.network or None,
                    timeout=_BUILD_TIMEOUT,
                )
                _follow(stream, heard)
            except _errors() as exc:
                raise build_fault(f"{_status(_explain(exc))} {' '.join(last)}") from exc
        built = self.inspect(request.reference)
        if built is None:
            raise build_fault("the engine does not have the image after building it")
        return built

    def tag(self, reference: str, other: str) -> None:
        """Give an image another name as well."""
        wanted = parse(other)
        self._client.tag(reference, wanted.name, wanted.tag or "latest")

    def push(self, reference: str, log: Log, *, plain_http: bool = False) -> str:
        wanted = parse(reference)
        digest = ""

        def take(line: Mapping[str, Any]) -> None:
            nonlocal digest
            digest = (line.get("aux") or {}).get("Digest") or digest

        try:
            stream = self._client.push(wanted.name, wanted.tag, stream=True, decode=True)
            _follow(stream, log, take)
        except _errors() as exc:
            raise push_fault(reference, _explain(exc)) from exc
        if not digest:
            raise push_fault(reference, "the registry broke off without naming a digest")
        return digest

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def _host(self) -> str:
        return self._environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

    @property
    def _client(self) -> Any:
        if self._connection is None:
            if not _listens(self._host):
                raise _absent(self._host)
            import docker

            try:
                self._connection = docker.from_env(environment=dict(self._environ)).api
            except _errors() as exc:
                raise _absent(self._host) from exc
        return self._connection

    def _ask(self, path: str, afar: Callable[[Any], Any]) -> dict[str, Any] | None:
        """The engine's answer to a GET; None for "not found".

        Args:
            afar: the same by docker-py, which knows how to reach an engine over TLS or SSH.
        """
        if not self._host.startswith(_UNIX):
            import docker.errors

            try:
                return dict(afar(self._client))
            except docker.errors.ImageNotFound:
                return None
            except _errors() as exc:
                raise _absent(self._host) from exc
        connection = http.client.HTTPConnection("localhost")
        try:
            with contextlib.closing(connection), socket.socket(socket.AF_UNIX) as connected:
                connected.settimeout(60)
                connected.connect(self._host[len(_UNIX) :])
                connection.sock = connected
                connection.request("GET", path)
                answer = connection.getresponse()
                content: dict[str, Any] = json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException) as exc:
            raise _absent(self._host) from exc
        if answer.status not in (200, 404):
            raise _absent(self._host, f"{answer.status} {content.get('message', '')}".strip())
        return content if answer.status == 200 else None


def _listens(host: str) -> bool:
    """Whether anybody is at a socket; docker-py leaves one open for each time that nobody is."""
    if not host.startswith(_UNIX):
        return True
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(host[len(_UNIX) :])
    except OSError:
        return False
    return True


def _absent(host: str, said: str = "") -> EnvironmentFault:
    return EnvironmentFault(
        "build/engine-absent",
        f"What answers at {host} refuses: {said}."
        if said
        else f"No Docker Engine answers at {host}.",
        "Start it, or set DOCKER_HOST.",
    )


def _errors() -> tuple[type[BaseException], ...]:
    """What docker-py raises where the engine refuses, or is gone."""
    import docker.errors
    import requests.exceptions

    return (
        docker.errors.DockerException,
        requests.exceptions.RequestException,
        _StreamError,
        OSError,
    )


class _StreamError(Exception):
    """What the engine says in the middle of its answer."""


def _follow(stream: Iterable[Mapping[str, Any]], log: Log, take: Any = None) -> None:
    error = ""
    for line in stream:
        # It is the last one; what is read to its end leaves no connection open.
        error = error or line.get("error", "")
        if take is not None:
            take(line)
        text = line.get("stream") or ("" if line.get("progressDetail") else line.get("status", ""))
        for part in str(text).splitlines():
            if part.strip():
                log(part.rstrip())
    if error:
        raise _StreamError(error)


def _explain(exc: BaseException) -> str:
    return str(getattr(exc, "explanation", None) or exc)


def _status(text: str) -> str:
    """A failed instruction without its command, which is in the output already."""
    return re.sub(
        r"The command '.*' returned a non-zero code: (\d+)", r"exit status \1:", text, flags=re.S
    )


@contextlib.contextmanager
def _tar(folder: Path) -> Iterator[Any]:
    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name, filter=plain)
        file.seek(0)
        yield file
