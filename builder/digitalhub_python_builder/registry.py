"""Speaks to registries: what is there, what it holds, and putting more there.

Every answer is checked against the digest that was asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, cast
from urllib.parse import quote, urljoin

from digitalhub_python_builder import manifests
from digitalhub_python_builder.connections import (  # fmt: skip
    ANSWER_LIMIT,
    ATTEMPTS,
    BREAKS,
    PASSING,
    Answer,
    Body,
    Connection,
    unreachable,
)
from digitalhub_python_builder.references import DOCKER_HUB, parse
from digitalhub_runtime_python.errors import EnvironmentFault
from digitalhub_runtime_python.nesting import read_json

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SMALL = 1 << 20
"""Bytes up to which a blob is sent in one request, and again as a whole if that breaks off."""

_ACCEPT = ", ".join([OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST])
_PROGRESS = 1 << 20
"""Bytes after which a blob that breaks off counts as going on."""
_PAGES = 1000
"""Pages of a list of tags."""


class Registry:
    """What a registry holds, and putting more there. It may be used by several threads."""

    def __init__(
        self, host: str, environ: Mapping[str, str], *, plain_http: bool = False, pause: float = 0.2
    ) -> None:  # fmt: skip
        self._connection = Connection(host, environ, plain_http=plain_http, pause=pause)
        self._call = self._connection.call
        self._expect = self._connection.expect

    @property
    def name(self) -> str:
        return self._connection.name

    def close(self) -> None:
        """Let its connections go."""
        self._connection.close()

    def wait(self, attempt: int) -> None:
        """Wait before something is tried again."""
        self._connection.wait(attempt)

    def manifest(self, repository: str, reference: str) -> tuple[str, str, bytes] | None:
        """(digest, media type, content) of a manifest or index, by tag or digest; None if absent.

        Raises:
            EnvironmentFault: the registry refuses or cannot be reached, or the content is another's.
        """
        answer = self._call(
            "GET", repository, f"manifests/{reference}", headers={"Accept": _ACCEPT}
        )
        if answer.status == 404:
            return None
        self._expect(answer, f"{repository}:{reference}", 200)
        digest = f"sha256:{hashlib.sha256(answer.data).hexdigest()}"
        wanted = reference if reference.startswith("sha256:") else answer.headers.get("Docker-Content-Digest", digest)  # fmt: skip
        if digest != wanted:
            raise _altered(self.name, f"the manifest {repository}:{reference}", wanted, digest)
        return digest, answer.headers.get("Content-Type", "").partition(";")[0], answer.data

    def digest(self, repository: str, reference: str) -> str:
        """The digest of what a tag names; empty when there is nothing."""
        answer = self._call("HEAD", repository, f"manifests/{reference}", headers={"Accept": _ACCEPT})  # fmt: skip
        if answer.status == 404:
            return ""
        self._expect(answer, f"{repository}:{reference}", 200)
        said = answer.headers.get("Docker-Content-Digest", "")
        if said:
            return str(said)
        found = self.manifest(repository, reference)
        if found is None:
            return ""
        manifests.read_manifest(found[2])  # a page that says "log in" is nothing that a tag names
        return found[0]

    @contextlib.contextmanager
    def blob(self, repository: str, digest: str) -> Iterator[IO[bytes]]:
        """A blob, read as it comes; whoever reads it checks its digest, since only they see its end."""
        stream = _Blob(self, repository, digest)
        try:
            yield cast("IO[bytes]", stream)
        finally:
            stream.close()

    def open_blob(self, repository: str, digest: str, offset: int = 0) -> Answer:
        """A blob's bytes from `offset` on, as the body of an answer, which the caller closes.

        Raises:
            EnvironmentFault: the registry refuses, cannot be reached, or cannot begin there.
        """
        ranged = {"Range": f"bytes={offset}-"} if offset else {}
        answer = self._call("GET", repository, f"blobs/{digest}", headers=ranged, stream=True)
        if offset and answer.status == 416:
            return answer  # it has ended there
        self._expect(answer, f"the blob {digest} of {repository}", 200, 206)
        begins = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        at = int(begins[1]) if begins and answer.status == 206 else 0
        if at > offset:
            answer.body.close()
            raise EnvironmentFault(
                "build/registry",
                f"The registry {self.name or DOCKER_HUB} goes on with another part of the blob {digest[:19]}… than was asked for.",
                "Run the same command again; ask whoever runs the registry if it stays.",
            )
        while at < offset and (skipped := answer.body.read(min(offset - at, 1 << 20))):
            at += len(skipped)
        return answer

    def small_blob(self, repository: str, digest: str, limit: int = ANSWER_LIMIT) -> bytes:
        """A blob of at most `limit` bytes, checked."""
        data = b""
        with self.blob(repository, digest) as stream:
            while len(data) <= limit and (part := stream.read(limit + 1 - len(data))):
                data += part
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if found != digest:
            raise _altered(self.name, f"a blob of {repository}", digest, found)
        return data

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether a blob is there."""
        answer = self._call("HEAD", repository, f"blobs/{digest}", push=True)
        if answer.status == 404:
            return False
        self._expect(answer, f"the blob {digest}", 200)
        return True

    def put_blob(
        self, repository: str, digest: str, size: int, body: Body, mounts: Sequence[str] = ()
    ) -> str:
        """Have a blob there; how it came: `mounted` or `sent`.

        Args:
            mounts: repositories of this registry that may have it.
        """
        location = ""
        for source in mounts:
            target = f"blobs/uploads/?mount={digest}&from={quote(source)}"
            answer = self._call("POST", repository, target, push=True, also=source)
            if answer.status == 201:
                return "mounted"
            if answer.status == 202:
                location = self._location(answer)
                break
        if size <= SMALL:
            self._put_whole(repository, digest, body, location)
        else:
            self._put_parts(repository, digest, size, body, location)
        return "sent"

    def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> str:
        """Put a manifest under a tag or its digest; its digest."""
        answer = self._call(
            "PUT", repository, f"manifests/{reference}", push=True,
            headers={"Content-Type": media_type}, body=data,
        )  # fmt: skip
        self._expect(answer, f"the manifest {repository}:{reference}", 201, 202)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        said = answer.headers.get("Docker-Content-Digest", digest)
        if said != digest:
            raise _altered(self.name, f"the manifest {repository}:{reference}", digest, said)
        return digest

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository; empty where there is none."""
        found: list[str] = []
        target = "tags/list"
        for _ in range(_PAGES):
            answer = self._call("GET", repository, target)
            if answer.status == 404:
                break
            self._expect(answer, f"the tags of {repository}", 200)
            try:
                found += [str(tag) for tag in read_json(answer.data).get("tags") or ()]
            except (ValueError, AttributeError, TypeError) as exc:
                raise EnvironmentFault(
                    "build/registry",
                    f"The registry {self.name or DOCKER_HUB} answers with something else than the tags of {repository}.",
                    "Check its name: perhaps no registry is there.",
                ) from exc
            more = re.search(r'<([^>]*)>\s*;\s*rel="?next', answer.headers.get("Link", ""))
            if not more:
                break
            target = self._own(urljoin(f"{self._connection.root}/", more[1]))
        return sorted(set(found))

    def _put_whole(self, repository: str, digest: str, body: Body, location: str) -> None:
        """Send a blob in one request; after a break, another upload, and from the beginning."""
        with contextlib.closing(body()) as file:
            data = file.read(SMALL + 1)
        head = {"Content-Type": "application/octet-stream"}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                location = location or self._begin(repository)
                answer = self._call("PUT", repository, _with_digest(location, digest), push=True, body=data, attempts=1, headers=head)  # fmt: skip
            except EnvironmentFault as fault:
                if not _broke_off(fault) or attempt == ATTEMPTS:
                    raise
            else:
                # The place of an upload that went wrong may be gone.
                lasting = answer.status not in PASSING and answer.status not in (404, 416)
                if lasting or attempt == ATTEMPTS:
                    self._expect(answer, f"the blob {digest}", 201, 202, 204)
                    return
            location = ""
            self.wait(attempt)

    def _put_parts(
        self, repository: str, digest: str, size: int, body: Body, location: str
    ) -> None:
        """Send a blob in one stream; after a break, go on where the registry says that it stands."""
        offset, failed = 0, 0
        location = location or self._begin(repository)
        while offset < size:
            head = {"Content-Type": "application/octet-stream", "Content-Length": str(size - offset), "Content-Range": f"{offset}-{size - 1}"}  # fmt: skip
            try:
                answer = self._call("PATCH", repository, location, push=True, headers=head, body=_from(body, offset), attempts=1)  # fmt: skip
                broken = answer.status in PASSING or answer.status in (404, 416)
                if not broken:
                    self._expect(answer, f"the blob {digest}", 202, 204)
                    location, offset = self._location(answer), size
                    continue
            except EnvironmentFault as fault:
                if not _broke_off(fault) or failed >= ATTEMPTS:
                    raise
            else:
                if failed >= ATTEMPTS:
                    self._expect(answer, f"the blob {digest}", 202)
            failed += 1
            self._connection.wait(failed)
            stands = self._call("GET", repository, location, push=True)
            if stands.status == 204:
                ends = re.search(r"-(\d+)$", stands.headers.get("Range", ""))
                there = int(ends[1]) + 1 if ends else 0
                failed = 1 if there > offset else failed
                offset = 0 if there <= 1 else there
                location = self._location(stands, location)
            else:
                location, offset = self._begin(repository), 0
        answer = self._call("PUT", repository, _with_digest(location, digest), push=True, headers={"Content-Length": "0"})  # fmt: skip
        if answer.status != 201 and not self.has_blob(repository, digest):
            self._expect(answer, f"the blob {digest}", 201)

    def _begin(self, repository: str) -> str:
        answer = self._call("POST", repository, "blobs/uploads/", push=True, headers={"Content-Length": "0"})  # fmt: skip
        self._expect(answer, f"an upload to {repository}", 202)
        return self._location(answer)

    def _location(self, answer: Answer, default: str = "") -> str:
        found = str(answer.headers.get("Location", "")) or default
        there = urljoin(f"{self._connection.root}/", found)
        if not found or (
            self._connection.root.startswith("https") and not there.startswith("https")
        ):
            raise EnvironmentFault(
                "build/registry", f"The registry {self.name} names no place for an upload.", "Ask whoever runs it."
            )  # fmt: skip
        return there

    def _own(self, url: str) -> str:
        """A URL that the registry names of its own."""
        if not url.startswith(f"{self._connection.root}/"):
            raise EnvironmentFault(
                "build/registry", f"The registry {self.name} goes on at another place.", "Ask whoever runs it."
            )  # fmt: skip
        return url


class _Blob:
    """The bytes of a blob; where its connection breaks off, the rest is asked for."""

    def __init__(self, registry: Registry, repository: str, digest: str) -> None:
        self._registry = registry
        self._blob = (repository, digest)
        self._answer: Answer | None = registry.open_blob(repository, digest)
        self._position = 0
        self._failed = 0
        self._counted = 0

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; empty at the end.

        Raises:
            EnvironmentFault: it breaks off again and again.
        """
        while True:
            try:
                if self._answer is None:
                    self._answer = self._registry.open_blob(*self._blob, self._position)
                if self._answer.body is None:
                    return b""
                data = bytes(self._answer.body.read(size if size >= 0 else None))
            except BREAKS as exc:
                self._broken(exc)
                continue
            self._position += len(data)
            return data

    def close(self) -> None:
        if self._answer is not None and self._answer.body is not None:
            self._answer.body.close()
            self._answer.body.release_conn()
        self._answer = None

    def _broken(self, exc: BaseException) -> None:
        self.close()
        going_on = self._position - self._counted >= _PROGRESS
        self._failed = 1 if going_on else self._failed + 1
        self._counted = self._position if going_on else self._counted
        if self._failed >= ATTEMPTS:
            raise unreachable(self._registry.name, exc) from exc
        self._registry.wait(self._failed)


def digest_of(reference: str, environ: Mapping[str, str], *, plain_http: bool = False) -> str:
    """The digest of an image in its registry; empty when it is not there.

    Raises:
        EnvironmentFault: the registry cannot be reached or refuses.
    """
    wanted = parse(reference)
    with contextlib.closing(Registry(wanted.registry, environ, plain_http=plain_http)) as registry:
        return registry.digest(wanted.repository, wanted.digest or wanted.tag or "latest")


def config_of(
    reference: str, environ: Mapping[str, str], platform: str = ""
) -> tuple[str, dict[str, str]]:
    """(digest of its config, labels) of an image in its registry; empty when it is not there.

    The config's digest is what an engine that keeps images calls an image's id.
    """
    wanted = parse(reference)
    with contextlib.closing(Registry(wanted.registry, environ)) as registry:
        found = registry.manifest(wanted.repository, wanted.digest or wanted.tag or "latest")
        content = manifests.read_manifest(found[2]) if found else {}
        if "manifests" in content:
            digest = manifests.of_platform(content, platform or "linux/amd64")
            found = registry.manifest(wanted.repository, digest) if digest else None
            content = manifests.read_manifest(found[2]) if found else {}
        if "config" not in content:
            return "", {}
        blob = content["config"]["digest"]
        config = manifests.read_configuration(registry.small_blob(wanted.repository, blob))
        return blob, (config.get("config") or {}).get("Labels") or {}


def _broke_off(fault: EnvironmentFault) -> bool:
    """Whether a request broke off on its way: the next one may not."""
    return fault.code == "build/registry" and isinstance(fault.__cause__, BREAKS)


def _with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={quote(digest)}"


def _from(body: Body, offset: int) -> Body:
    def opened() -> IO[bytes]:
        file = body()
        file.seek(offset)
        return file

    return opened


def _altered(host: str, what: str, wanted: str, found: str) -> EnvironmentFault:
    return EnvironmentFault(
        "build/digest",
        f"{what} at {host or DOCKER_HUB} has the digest {found[:19]}…, not {wanted[:19]}….",
        "It was altered, or cut short: nothing was made of it. Try again, or ask whoever runs the registry.",
    )
