"""One file over http:// or https://: proxies, retries, what an answer means."""

from __future__ import annotations

import logging
import time
from base64 import b64encode
from collections.abc import Mapping
from copy import copy
from http import HTTPStatus
from pathlib import Path
from typing import Any, Callable
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import (
    HTTPError,
    IncompleteRead,
    LocationValueError,
    MaxRetryError,
    ProtocolError,
    ResponseError,
    SSLError,
)
from urllib3.util import Retry, Timeout, make_headers

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.transfer import CHUNK, Address, Budget

log = logging.getLogger(__name__)

TIMEOUT = Timeout(connect=10, read=30)
"""Seconds: to be answered at all, and between two pieces of an answer."""
ATTEMPTS = 4
"""With PAUSE this bridges a server's restart: 0.3 + 0.6 + 1.2 s."""
PAUSE = 0.3
"""Seconds before the second attempt; doubled for each further one."""
PASSING = (429, 500, 502, 503, 504)


def download(
    address: Address,
    target: Path,
    budget: Budget,
    environ: Mapping[str, str],
    *,
    etag: str = "",
    check: Callable[[Mapping[str, str]], None] = lambda headers: None,
) -> str | None:
    """Download what is at an address into the file `target`; its ETag, None if unchanged since `etag`.

    Args:
        environ: names the proxies, as HTTP_PROXY and the like.
        check: looks at the answer's headers before the body is read, and may raise.

    Raises:
        SourceFault: it cannot be downloaded, or is more than the budget has.
    """
    # Not urllib3's own retries: they end where the body begins, and log the query, which may be
    # a signature. Redirects are urllib3's: it does not take the password to another host.
    with _client(address.url, environ) as client:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _attempt(client, address, etag, target, copy(budget), check)
            except (_PassingError, HTTPError) as exc:
                if attempt == ATTEMPTS or not _may_pass(exc):
                    # The cause's text holds the query, which may be a signature.
                    raise _fault(address, exc) from (None if "?" in address.url else exc)
                log.warning("fetching %s: %s; trying again", address.shown, _reason(exc))
                time.sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError("the last attempt returns or raises")


def _client(url: str, environ: Mapping[str, str]) -> urllib3.PoolManager:
    # Not a context of our own: urllib3 1.26 cannot check an address that is not a name with one. Its
    # own takes the machine's authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR.
    options: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED", "timeout": TIMEOUT}
    proxy = _proxy(url, environ)
    if not proxy:
        return urllib3.PoolManager(**options)
    try:
        user = urllib3.util.parse_url(proxy).auth
        headers = make_headers(proxy_basic_auth=unquote(user)) if user else None
        return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
    except (LocationValueError, ValueError):
        raise SourceFault(
            "source/proxy",
            "The proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used.",
            "Set it to http://host:port.",
        ) from None  # its text holds the proxy's password


def _proxy(url: str, environ: Mapping[str, str]) -> str:
    names = {k.lower(): v for k, v in environ.items() if k.lower().endswith("_proxy") and v}
    parts = urlsplit(url)
    proxy = names.get(f"{parts.scheme}_proxy") or names.get("all_proxy", "")
    if not proxy:
        return ""
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    from urllib import request  # only where there is a proxy

    hosts = {"no": names.get("no_proxy", "")}
    # typeshed has this function on Macs alone
    bypass = request.proxy_bypass_environment(parts.hostname or "", hosts)  # type: ignore[attr-defined]
    return "" if bypass else proxy


class _PassingError(Exception):
    """A status that may be another one soon."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status} {_phrase(status)}")
        self.status = status


def _attempt(
    client: urllib3.PoolManager,
    address: Address,
    etag: str,
    target: Path,
    budget: Budget,
    check: Callable[[Mapping[str, str]], None],
) -> str | None:
    headers = {"User-Agent": "dhpy", "Accept-Encoding": "identity"}
    if etag:
        headers["If-None-Match"] = etag
    if address.user or address.password:
        # Not urllib3's make_headers, which knows Latin-1 only.
        secret = b64encode(f"{address.user}:{address.password}".encode()).decode()
        headers["Authorization"] = f"Basic {secret}"
    response = client.request(
        "GET",
        address.url,
        headers=headers,
        preload_content=False,
        enforce_content_length=True,  # urllib3 1.26 takes half a file for a whole one otherwise
        retries=Retry(total=None, connect=0, read=0, other=0, redirect=5, status=0),
    )
    try:
        if response.status == HTTPStatus.NOT_MODIFIED and etag:
            return None
        _check(address, response)
        check(response.headers)
        # A packed piece of this size is a few MiB unpacked at most, which a small pod can hold.
        piece = 4096 if response.headers.get("Content-Encoding") else CHUNK
        with target.open("wb") as file:
            budget.write(response.stream(piece), file)
        return response.headers.get("ETag", "")
    finally:
        response.close()


def _check(address: Address, response: Any) -> None:
    history = response.retries.history if response.retries else ()
    if address.url.startswith("https:") and any(
        (step.redirect_location or "").lower().startswith("http:") for step in history
    ):
        raise SourceFault(
            "source/tls",
            f"{address.shown} redirects from https to plain http.",
            "Give the address that serves it over https, or http:// if that is meant.",
        )
    status = response.status
    if status in PASSING:
        raise _PassingError(status)
    if status != HTTPStatus.OK:
        raise _refused(address, status)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise SourceFault(
            "source/unavailable",
            f"{address.shown} is encoded as {encoding[:40]!r}, though it was asked for as it is.",
            "Have the server send the file as it is.",
        )


def _refused(address: Address, status: int) -> SourceFault:
    known = address.user or address.password
    if status == HTTPStatus.UNAUTHORIZED and not known:
        code, what = "source/auth-required", "asks for a user and a password"
        hint = "Write them as https://user:password@…, or use a signed address."
    elif status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        code, what = (
            "source/auth-refused",
            f"refuses {'this user' if known else 'access'} ({status})",
        )
        hint = "Check user, password and rights there; a signed address may have expired."
    elif status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        code, what, hint = "source/not-found", f"does not exist ({status})", "Check the address."
    else:
        code, what = "source/unavailable", f"answers {status} {_phrase(status)}".rstrip()
        hint = "Check the address, or try again later."
    return SourceFault(code, f"{address.shown} {what}.", hint, http_status=status)


def _may_pass(exc: Exception) -> bool:
    cause = _cause(exc)
    return not isinstance(cause, (SSLError, ResponseError, LocationValueError))


def _cause(exc: Exception) -> BaseException:
    return exc.reason if isinstance(exc, MaxRetryError) and exc.reason else exc


def _reason(exc: Exception) -> str:
    """What went wrong in a few words: urllib3's own text holds object ids and the query."""
    cause = _cause(exc)
    if isinstance(cause, _PassingError):
        return str(cause)
    if isinstance(cause, (IncompleteRead, ProtocolError)):
        return "the connection broke off"
    inner = cause.__cause__ or cause.__context__
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    if isinstance(cause, SSLError) and cause.args:
        return str(cause.args[0])
    return type(cause).__name__


def _fault(address: Address, exc: Exception) -> SourceFault:
    cause, reason = _cause(exc), _reason(exc)
    if isinstance(cause, SSLError):
        return SourceFault(
            "source/tls",
            f"The certificate or the encryption of {address.shown} is not accepted: {reason}.",
            "For an authority of your own set SSL_CERT_FILE to a file with its certificate.",
        )
    if isinstance(cause, _PassingError):
        hint = "The server is in trouble or busy: try again later."
        return SourceFault(
            "source/unavailable",
            f"{address.shown} cannot be read: {reason}.",
            hint,
            retry=True,
            http_status=cause.status,
        )
    if isinstance(cause, (ResponseError, LocationValueError)):
        return SourceFault(
            "source/unavailable",
            f"{address.shown} redirects to nowhere: {cause}.",
            "Check the address.",
        )
    return SourceFault(
        "source/unreachable",
        f"{address.shown} cannot be reached: {reason}.",
        "Check host, port and network; behind a proxy set HTTPS_PROXY.",
        retry=True,
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
