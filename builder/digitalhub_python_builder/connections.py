"""Connections to registries: requests are made again where that helps, logins go to their registry alone.

A login goes to the registry and to the place that it names for tokens, never to where it redirects.
Whatever a registry answers is read up to a limit, or as a stream.
"""

from __future__ import annotations

import re
import ssl
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Optional
from urllib.parse import urljoin, urlsplit

import urllib3

from digitalhub_python_builder import credentials
from digitalhub_python_builder.references import DOCKER_HUB, Reference
from digitalhub_runtime_python.errors import EnvironmentFault
from digitalhub_runtime_python.nesting import read_json

ANSWER_LIMIT = 4 << 20
"""Bytes of an answer that is not a blob; for manifests the distribution specification asks for no more."""
ATTEMPTS = 5
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that pass by themselves."""
BREAKS = (urllib3.exceptions.HTTPError, OSError)
"""What a connection raises that cannot be made, or that breaks off."""

_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_LONGEST_WAIT = 60.0
"""Seconds that a registry's Retry-After is followed; one that asks for more is reported."""
_CERTIFICATES = Path("/etc/docker/certs.d")
# An answer shorter than it says is an error in every release of urllib3.
_SENT: dict[str, Any] = {
    "redirect": False, "retries": False, "preload_content": False, "enforce_content_length": True,
    "decode_content": False, "timeout": urllib3.Timeout(connect=15, read=120),
}  # fmt: skip

Body = Callable[[], IO[bytes]]
"""Opens what is sent, from its beginning: a request may have to be made again."""


@dataclass(frozen=True)
class Answer:
    """An answer, read to its end unless it was asked for as a stream and is one of success."""

    status: int
    headers: Mapping[str, str]
    data: bytes = b""
    body: Any = None
    """What is still to be read."""


class Connection:
    """One registry, with its login, its certificates and its open connections.

    It may be used by several threads.

    Args:
        pause: seconds before a request is made a second time; each further time they are doubled.
    """

    def __init__(
        self, host: str, environ: Mapping[str, str], *, plain_http: bool = False, pause: float = 0.2
    ) -> None:  # fmt: skip
        self.name = host
        self.pause = pause
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

    def full(self, repository: str) -> str:
        """A repository as the registry knows it."""
        own = "/" in repository or self.name not in ("", DOCKER_HUB)
        return repository if own else f"library/{repository}"

    def call(
        self, method: str, repository: str, target: str, *, push: bool = False, also: str = "",
        headers: Mapping[str, str] | None = None, body: bytes | Body | None = None,
        attempts: int = ATTEMPTS, stream: bool = False,
    ) -> Answer:  # fmt: skip
        """An answer to a request, whatever its status; what passes by itself has been waited for.

        Args:
            target: below the repository, or a URL of the registry's own.
            also: a repository that is read from in the same request.
            body: bytes, or what opens them.
            stream: leave the body of a success to be read, and closed, by the caller.

        Raises:
            EnvironmentFault: the registry cannot be reached, breaks off each time, or sends too much.
        """
        url = target if "://" in target else f"{self.root}/v2/{self.full(repository)}/{target}"
        scopes = [f"repository:{self.full(repository)}:{'pull,push' if push else 'pull'}"]
        scopes += [f"repository:{also}:pull"] if also else []
        renewed = False
        attempt = 0
        while True:
            attempt += 1
            try:
                sent = {**(headers or {}), **self._authorization(scopes, url)}
                answer = self._follow(method, url, sent, body, stream)
            except BREAKS as exc:
                # Nobody listens there, which a second question seldom changes.
                attempt += isinstance(exc, urllib3.exceptions.NewConnectionError)
                if attempt >= attempts:
                    raise unreachable(self.name, exc) from exc
                self.wait(attempt)
                continue
            if answer.status == 401 and not renewed and answer.headers.get("WWW-Authenticate"):
                renewed = True
                self._challenge = _chosen(answer.headers)
                self._tokens.pop(" ".join(scopes), None)
                continue
            asked = _retry_after(answer.headers)
            if answer.status not in PASSING or attempt >= attempts or asked > _LONGEST_WAIT:
                return answer
            if asked:
                time.sleep(asked)
            else:
                self.wait(attempt)

    def wait(self, attempt: int) -> None:
        """Wait before a request is made again."""
        time.sleep(self.pause * 2 ** (attempt - 1))

    def expect(self, answer: Answer, what: str, *statuses: int) -> None:
        """Take an answer of these statuses only.

        Raises:
            EnvironmentFault: it has another.
        """
        if answer.status in statuses:
            return
        said = _said(answer.data)
        name = self.name or DOCKER_HUB
        if answer.status in (401, 403):
            raise EnvironmentFault(
                "build/registry-login",
                f"The registry {name} refuses {what} ({answer.status}{said}).",
                "Log in to it (docker login, buildah login), or choose a name that you may use.",
            )
        raise EnvironmentFault(
            "build/registry",
            f"The registry {name} answers {answer.status} to {what}{said}.",
            "Run the same command again when it answers; nothing was tagged.",
        )

    def _follow(
        self, method: str, url: str, headers: dict[str, str], body: bytes | Body | None, stream: bool
    ) -> Answer:  # fmt: skip
        for _ in range(6):
            opened = body() if callable(body) else None
            try:
                raw: Any = self._pool.urlopen(
                    method, url, body=opened if opened is not None else body, headers=headers, **_SENT
                )  # fmt: skip
            finally:
                if opened is not None:
                    opened.close()
            if stream and raw.status in (200, 206):
                return Answer(raw.status, raw.headers, body=raw)
            answer = self._read(raw)
            if answer.status not in (301, 302, 303, 307, 308) or method not in ("GET", "HEAD"):
                return answer
            there = urljoin(url, answer.headers.get("Location", ""))
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

    def _read(self, raw: Any) -> Answer:
        """An answer to its end, or to the limit; its connection is used again."""
        data = b""
        try:
            while part := raw.read(ANSWER_LIMIT + 1 - len(data)):
                data += part
                if len(data) > ANSWER_LIMIT:
                    raw.close()
                    raise EnvironmentFault(
                        "build/registry",
                        f"The registry {self.name or DOCKER_HUB} sends more than {ANSWER_LIMIT >> 20} MiB where a manifest or a few words are due.",
                        "Nothing was made of it; ask whoever runs the registry.",
                    )
        finally:
            raw.release_conn()
        return Answer(raw.status, raw.headers, data)

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
            raw: Any = self._pool.request("POST", realm, fields=form, encode_multipart=False, **_SENT)  # fmt: skip
        else:
            raw = self._pool.request("GET", realm, fields=asked, headers=basic, **_SENT)
        answer = self._read(raw)
        if answer.status in PASSING:
            raise urllib3.exceptions.HTTPError(f"{answer.status} from {urlsplit(realm).netloc}")
        if answer.status != 200:
            return {}
        try:
            said = read_json(answer.data)
            token = said.get("token") or said.get("access_token")
            sent = str(token).encode("ascii")
        except (ValueError, AttributeError) as exc:
            raise _no_token(self.name, urlsplit(realm).netloc) from exc
        if not isinstance(token, str) or re.search(rb"[\0-\x20\x7f]", sent):
            raise _no_token(self.name, urlsplit(realm).netloc)
        return {"Authorization": f"Bearer {token}"}


def unreachable(host: str, exc: BaseException) -> EnvironmentFault:
    """The fault for a registry that nobody reaches, or that breaks off each time."""
    refused = isinstance(exc, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.SSLError))
    broken = isinstance(exc, urllib3.exceptions.ProtocolError)
    what = "cannot be reached" if refused else "breaks off" if broken else "does not answer as it should"  # fmt: skip
    return EnvironmentFault(
        "build/registry",
        f"The registry {host or DOCKER_HUB} {what}: {type(exc).__name__}.",
        "Check its name and the network, then run the same command again; nothing was tagged.",
    )


def _no_token(host: str, place: str) -> EnvironmentFault:
    return EnvironmentFault(
        "build/registry-login",
        f"{place}, which the registry {host or DOCKER_HUB} names for tokens, answers without one.",
        "Log in again (docker login, buildah login), or ask whoever runs the registry.",
    )


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


def _retry_after(headers: Any) -> float:
    """Seconds that an answer asks to wait; 0 where it asks for none."""
    said = str(headers.get("Retry-After", ""))
    return float(said) if re.fullmatch(r"[0-9]{1,6}", said) else 0.0


def _said(data: bytes) -> str:
    try:
        errors = read_json(data)["errors"]
        text = "; ".join(str(one.get("message") or one.get("code")) for one in errors[:3])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f": {text[:300]}" if text else ""
