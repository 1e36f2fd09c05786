"""Speaks to registries: what is there, what it holds, and putting more there.

Every answer is checked against the digest that was asked for. A login goes to the registry and to the
place that it names for tokens, never to where it redirects.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Callable, Optional
from urllib.parse import quote, urljoin, urlsplit

import urllib3

from digitalhub_python_builder import credentials
from digitalhub_python_builder.references import DOCKER_HUB, Reference, parse
from digitalhub_runtime_python.errors import EnvironmentFault

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_LIMIT = 4 << 20
"""Bytes of a manifest; the distribution specification asks for no more."""
SMALL = 1 << 20
"""Bytes up to which a blob is sent in one request, and again as a whole if that breaks off."""

_ACCEPT = ", ".join([OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST])
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_ATTEMPTS = 5
_LONGEST_WAIT = 60.0
"""Seconds that a registry's Retry-After is followed; one that asks for more is reported."""
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_CERTIFICATES = Path("/etc/docker/certs.d")

Body = Callable[[], IO[bytes]]
"""Opens what is sent, from its beginning: a request may have to be made again."""


class Registry:
    """One registry, with its login, its certificates and its open connections.

    It may be used by several threads.
    """

    def __init__(self, host: str, environ: Mapping[str, str], *, plain_http: bool = False) -> None:
        self.name = host
        self._environ = environ
        address = "registry-1.docker.io" if host in ("", DOCKER_HUB) else host
        self.plain = plain_http or Reference("x", host).on_loopback
        self.root = f"{'http' if self.plain else 'https'}://{address}"
        self._pool = _pool(self.root, address, environ)
        self._challenge = ""
        self._tokens: dict[str, dict[str, str]] = {}
        self._login: Optional[credentials.Login] = None  # noqa: UP045
        self._login_known = False

    def close(self) -> None:
        """Let its connections go."""
        self._pool.clear()

    def manifest(self, repository: str, reference: str) -> tuple[str, str, bytes] | None:
        """(digest, media type, content) of a manifest or index, by tag or digest; None if absent.

        Raises:
            EnvironmentFault: the registry refuses or cannot be reached, or the content is another's.
        """
        answer = self.call("GET", repository, f"manifests/{reference}", headers={"Accept": _ACCEPT})
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
        answer = self.call("HEAD", repository, f"manifests/{reference}", headers={"Accept": _ACCEPT})  # fmt: skip
        if answer.status == 404:
            return ""
        self._expect(answer, f"{repository}:{reference}", 200)
        said = answer.headers.get("Docker-Content-Digest", "")
        if said:
            return str(said)
        found = self.manifest(repository, reference)
        return found[0] if found else ""

    @contextlib.contextmanager
    def blob(self, repository: str, digest: str) -> Iterator[IO[bytes]]:
        """A blob, read as it comes; whoever reads it checks its digest, since only they see its end."""
        answer = self.call("GET", repository, f"blobs/{digest}", stream=True)
        try:
            if answer.status != 200:
                answer.read(MANIFEST_LIMIT)
            self._expect(answer, f"the blob {digest} of {repository}", 200)
            yield answer
        finally:
            answer.close()
            answer.release_conn()

    def small_blob(self, repository: str, digest: str, limit: int = MANIFEST_LIMIT) -> bytes:
        """A blob of at most `limit` bytes, checked."""
        with self.blob(repository, digest) as stream:
            data = stream.read(limit + 1)
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if found != digest:
            raise _altered(self.name, f"a blob of {repository}", digest, found)
        return data

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether a blob is there."""
        answer = self.call("HEAD", repository, f"blobs/{digest}", push=True)
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
            answer = self.call("POST", repository, target, push=True, also=source)
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
        answer = self.call(
            "PUT", repository, f"manifests/{reference}", push=True,
            headers={"Content-Type": media_type}, body=data,
        )  # fmt: skip
        self._expect(answer, f"the manifest {repository}:{reference}", 200, 201, 202)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        said = answer.headers.get("Docker-Content-Digest", digest)
        if said != digest:
            raise _altered(self.name, f"the manifest {repository}:{reference}", digest, said)
        return digest

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository; empty where there is none."""
        answer = self.call("GET", repository, "tags/list")
        if answer.status == 404:
            return []
        self._expect(answer, f"the tags of {repository}", 200)
        return sorted(str(tag) for tag in json.loads(answer.data).get("tags") or ())

    def call(
        self,
        method: str,
        repository: str,
        target: str,
        *,
        push: bool = False,
        also: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
        stream: bool = False,
        attempts: int = _ATTEMPTS,
    ) -> Any:
        """An answer to a request, whatever its status; what passes by itself has been waited for.

        Args:
            target: below the repository, or a URL of the registry's own.
            also: a repository that is read from in the same request.
            body: bytes, or what opens them.

        Raises:
            EnvironmentFault: the registry cannot be reached.
        """
        url = target if "://" in target else f"{self.root}/v2/{_full(self.name, repository)}/{target}"  # fmt: skip
        scopes = [f"repository:{_full(self.name, repository)}:{'pull,push' if push else 'pull'}"]
        scopes += [f"repository:{also}:pull"] if also else []
        renewed = False
        attempt = 0
        while True:
            attempt += 1
            try:
                sent = {**(headers or {}), **self._authorization(scopes, url)}
                answer = self._follow(method, url, sent, body, stream)
            except (urllib3.exceptions.HTTPError, OSError) as exc:
                # Nobody listens there, which a second question seldom changes.
                attempt += isinstance(exc, urllib3.exceptions.NewConnectionError)
                if attempt >= attempts:
                    raise _unreachable(self.name, exc) from exc
                time.sleep(0.1 * 2**attempt)
                continue
            if answer.status == 401 and not renewed and answer.headers.get("WWW-Authenticate"):
                renewed = True
                self._challenge = _chosen(answer.headers)
                self._tokens.pop(" ".join(scopes), None)
                _drop(answer)
                continue
            wait = _wait(answer, attempt)
            if answer.status not in _PASSING or attempt >= attempts or wait > _LONGEST_WAIT:
                return answer
            _drop(answer)
            time.sleep(wait)

    def _follow(
        self, method: str, url: str, headers: dict[str, str], body: bytes | Body | None, stream: bool
    ) -> Any:  # fmt: skip
        for _ in range(6):
            opened = body() if callable(body) else None
            try:
                answer: Any = self._pool.urlopen(
                    method, url, body=opened if opened is not None else body, headers=headers,
                    redirect=False, retries=False, preload_content=not stream,
                    timeout=urllib3.Timeout(connect=15, read=120), decode_content=False,
                )  # fmt: skip
            finally:
                if opened is not None:
                    opened.close()
            if answer.status not in (301, 302, 303, 307, 308) or method not in ("GET", "HEAD"):
                return answer
            there = urljoin(url, answer.headers.get("Location", ""))
            _drop(answer)
            old, new = urlsplit(url), urlsplit(there)
            if new.scheme != "https" and not (new.scheme == "http" and old.scheme == "http"):
                raise EnvironmentFault(
                    "build/registry",
                    f"The registry {self.name} redirects to {new.scheme or 'nowhere'}://{new.hostname}, which is not HTTPS.",
                    "Nothing was fetched from there; ask whoever runs the registry.",
                )
            if (old.scheme, old.netloc) != (new.scheme, new.netloc):
                headers = {k: v for k, v in headers.items() if k != "Authorization"}
            url = there
        raise EnvironmentFault(
            "build/registry", f"The registry {self.name} redirects in circles.", "Ask whoever runs it."
        )  # fmt: skip

    def _authorization(self, scopes: Sequence[str], url: str) -> dict[str, str]:
        if not self._challenge or urlsplit(url).netloc != urlsplit(self.root).netloc:
            return {}
        key = " ".join(scopes)
        if key not in self._tokens:
            self._tokens[key] = self._ask_token(scopes)
        return self._tokens[key]

    def _ask_token(self, scopes: Sequence[str]) -> dict[str, str]:
        if not self._login_known:
            self._login = credentials.find(self.name, self._environ)
            self._login_known = True
        login = self._login
        basic: dict[str, str] = {}
        if login and not login.identity_token:
            basic = dict(urllib3.make_headers(basic_auth=f"{login.user}:{login.password}"))
            basic = {"Authorization": next(iter(basic.values()))}
        if self._challenge.lower().startswith("basic"):
            return basic
        fields = dict(_CHALLENGE.findall(self._challenge))
        realm = fields.get("realm", "")
        if not realm.startswith("https://") and not (self.plain and realm.startswith("http://")):
            return {}
        asked = [("service", fields["service"])] if "service" in fields else []
        asked += [("scope", scope) for scope in scopes]
        if login and login.identity_token:
            form = [*asked, ("grant_type", "refresh_token"), ("refresh_token", login.identity_token), ("client_id", "dhpy")]  # fmt: skip
            answer: Any = self._pool.request("POST", realm, fields=form, encode_multipart=False, redirect=False, retries=False)  # fmt: skip
        else:
            answer = self._pool.request("GET", realm, fields=asked, headers=basic, redirect=False, retries=False)  # fmt: skip
        if answer.status in _PASSING:
            raise urllib3.exceptions.HTTPError(f"{answer.status} from {urlsplit(realm).netloc}")
        if answer.status != 200:
            return {}
        token = json.loads(answer.data)
        return {"Authorization": f"Bearer {token.get('token') or token.get('access_token')}"}

    def _put_whole(self, repository: str, digest: str, body: Body, location: str) -> None:
        for attempt in range(_ATTEMPTS):
            location = location or self._begin(repository)
            with contextlib.closing(body()) as file:
                data = file.read(SMALL + 1)
            answer = self.call(
                "PUT", repository, _with_digest(location, digest), push=True, body=data, attempts=1 + 2 * (attempt > 0),
                headers={"Content-Type": "application/octet-stream"},
            )  # fmt: skip
            # The place of an upload that went wrong may be gone: another one, and from the beginning.
            if answer.status not in _PASSING and answer.status != 404:
                self._expect(answer, f"the blob {digest}", 201, 202, 204)
                return
            location = ""
            time.sleep(0.1 * 2**attempt)
        self._expect(answer, f"the blob {digest}", 201)

    def _put_parts(
        self, repository: str, digest: str, size: int, body: Body, location: str
    ) -> None:
        """Send a blob in one stream; after a break, go on where the registry says that it stands."""
        offset, failed = 0, 0
        location = location or self._begin(repository)
        while offset < size:
            head = {"Content-Type": "application/octet-stream", "Content-Length": str(size - offset), "Content-Range": f"{offset}-{size - 1}"}  # fmt: skip
            try:
                answer = self.call("PATCH", repository, location, push=True, headers=head, body=_from(body, offset), attempts=1)  # fmt: skip
                broken = answer.status in _PASSING or answer.status in (404, 416)
                if not broken:
                    self._expect(answer, f"the blob {digest}", 202, 204)
                    location, offset = self._location(answer), size
                    continue
            except EnvironmentFault as fault:
                if fault.code != "build/registry" or not isinstance(fault.__cause__, (urllib3.exceptions.HTTPError, OSError)):  # fmt: skip
                    raise
                if failed >= _ATTEMPTS:
                    raise
            else:
                if failed >= _ATTEMPTS:
                    self._expect(answer, f"the blob {digest}", 202)
            failed += 1
            time.sleep(0.1 * 2**failed)
            stands = self.call("GET", repository, location, push=True)
            if stands.status == 204:
                ends = re.search(r"-(\d+)$", stands.headers.get("Range", ""))
                there = int(ends[1]) + 1 if ends else 0
                failed = 1 if there > offset else failed
                offset = 0 if there <= 1 else there
                location = self._location(stands, location)
            else:
                location, offset = self._begin(repository), 0
        answer = self.call("PUT", repository, _with_digest(location, digest), push=True, headers={"Content-Length": "0"})  # fmt: skip
        if answer.status != 201 and not self.has_blob(repository, digest):
            self._expect(answer, f"the blob {digest}", 201)

    def _begin(self, repository: str) -> str:
        answer = self.call("POST", repository, "blobs/uploads/", push=True, headers={"Content-Length": "0"})  # fmt: skip
        self._expect(answer, f"an upload to {repository}", 202)
        return self._location(answer)

    def _location(self, answer: Any, default: str = "") -> str:
        found = str(answer.headers.get("Location", "")) or default
        there = urljoin(f"{self.root}/", found)
        if not found or (self.root.startswith("https") and not there.startswith("https")):
            raise EnvironmentFault(
                "build/registry", f"The registry {self.name} names no place for an upload.", "Ask whoever runs it."
            )  # fmt: skip
        return there

    def _expect(self, answer: Any, what: str, *statuses: int) -> None:
        if answer.status in statuses:
            return
        said = _said(answer)
        if answer.status in (401, 403):
            raise EnvironmentFault(
                "build/registry-login",
                f"The registry {self.name or DOCKER_HUB} refuses {what} ({answer.status}{said}).",
                "Log in to it (docker login, buildah login), or choose a name that you may use.",
            )
        raise EnvironmentFault(
            "build/registry",
            f"The registry {self.name or DOCKER_HUB} answers {answer.status} to {what}{said}.",
            "Run the same command again when it answers; nothing was tagged.",
        )


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
        content = json.loads(found[2]) if found else {}
        if content.get("manifests"):
            asked = platform or "linux/amd64"
            its = [(one.get("platform") or {}, one["digest"]) for one in content["manifests"]]
            digests = [d for p, d in its if f"{p.get('os')}/{p.get('architecture')}" == asked]
            found = registry.manifest(wanted.repository, digests[0]) if digests else None
            content = json.loads(found[2]) if found else {}
        blob = (content.get("config") or {}).get("digest")
        if not blob:
            return "", {}
        config = json.loads(registry.small_blob(wanted.repository, blob))
        return str(blob), dict((config.get("config") or {}).get("Labels") or {})


def _full(host: str, repository: str) -> str:
    return repository if "/" in repository or host not in ("", DOCKER_HUB) else f"library/{repository}"  # fmt: skip


def _pool(root: str, host: str, environ: Mapping[str, str]) -> urllib3.PoolManager:
    settings: dict[str, Any] = {"maxsize": 8}
    if root.startswith("https"):
        settings["ssl_context"] = _trust(host, environ)
    lower = {k.lower(): v for k, v in environ.items()}
    scheme = root.partition(":")[0]
    proxy = lower.get(f"{scheme}_proxy") or lower.get("all_proxy")
    bypassed = urllib.request.proxy_bypass_environment(host, {"no": lower.get("no_proxy", "")})  # type: ignore[attr-defined]
    loopback = Reference("x", host).on_loopback
    if proxy and not bypassed and not loopback:
        return urllib3.ProxyManager(proxy, **settings)
    return urllib3.PoolManager(**settings)


def _trust(host: str, environ: Mapping[str, str]) -> ssl.SSLContext:
    """Certificates that are trusted, and our own, where Docker has them too."""
    bundle = environ.get("SSL_CERT_FILE") or environ.get("REQUESTS_CA_BUNDLE")
    context = ssl.create_default_context(cafile=bundle or None)
    folder = _CERTIFICATES / host
    for authority in sorted(folder.glob("*.crt")):
        context.load_verify_locations(authority)
    for own in sorted(folder.glob("*.cert")):
        context.load_cert_chain(own, own.with_suffix(".key"))
    return context


def _chosen(headers: Any) -> str:
    """The challenge that is answered, where a registry names several: the one with tokens."""
    said = str(headers.get("WWW-Authenticate", ""))
    found = re.search(r"Bearer\s+realm=.*", said, re.I)
    return found[0] if found else said


def _with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={quote(digest)}"


def _from(body: Body, offset: int) -> Body:
    def opened() -> IO[bytes]:
        file = body()
        file.seek(offset)
        return file

    return opened


def _wait(answer: Any, attempt: int) -> float:
    said = str(answer.headers.get("Retry-After", ""))
    return float(said) if re.fullmatch(r"\d{1,6}", said) else 0.1 * 2**attempt


def _drop(answer: Any) -> None:
    """Read what is left of an answer, so that its connection is used again."""
    answer.drain_conn()
    answer.release_conn()


def _said(answer: Any) -> str:
    try:
        errors = json.loads(answer.data)["errors"]
        text = "; ".join(str(one.get("message") or one.get("code")) for one in errors[:3])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f": {text[:300]}" if text else ""


def _altered(host: str, what: str, wanted: str, found: str) -> EnvironmentFault:
    return EnvironmentFault(
        "build/digest",
        f"{what} at {host or DOCKER_HUB} has the digest {found[:19]}…, not {wanted[:19]}….",
        "It was altered, or cut short: nothing was made of it. Try again, or ask whoever runs the registry.",
    )


def _unreachable(host: str, exc: BaseException) -> EnvironmentFault:
    return EnvironmentFault(
        "build/registry",
        f"The registry {host or DOCKER_HUB} cannot be reached: {type(exc).__name__}.",
        "Check its name and the network, then run the same command again; nothing was tagged.",
    )
