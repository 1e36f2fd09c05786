"""Calls the service of a serve run. `requests` does the call; here is only which URL and which method."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from digitalhub_runtime_python.errors import PlatformFault, UsageFault

if TYPE_CHECKING:
    import requests

TIMEOUT = 60.0
"""Seconds that a call may take, unless the caller says otherwise."""
_WITH_HOST = re.compile(r"(https?://|([\w.-]+|\[[0-9a-f:]+\]):\d+(/|$))", re.IGNORECASE)
"""How a URL begins that is more than a path; the platform writes `host:port` without a scheme."""


def service_url(run: Any) -> str | None:
    """The service's URL with its scheme; the platform writes `host:port`. None: there is none yet."""
    service = run.status.service
    url = service.get("url") if isinstance(service, dict) else None
    if not url:
        return None
    return url if "://" in url else f"http://{url}"


def invoke(
    run: Any, method: str | None, url: str | None, options: dict[str, Any]
) -> requests.Response:
    """Call the service.

    Raises:
        UsageFault: usage/service
        PlatformFault: platform/service-name, its name is one of the cluster's own, and this is outside of it.
    """
    import requests  # heavy, and only services need it

    if method is None:
        method = (
            "POST" if any(options.get(k) is not None for k in ("json", "data", "files")) else "GET"
        )
    options.setdefault("timeout", TIMEOUT)
    try:
        return requests.request(method, target(_base(run, url), url), **options)  # noqa: S113 - it is in options
    except requests.ConnectionError as exc:
        base = service_url(run)
        if _is_whole(url) or base is None or _resolves(base):
            raise
        raise _no_name(base, run.status.service) from exc


def target(base: str | None, url: str | None) -> str:
    """The URL to call: `base`, a path below it, or a whole URL, which takes the place of `base`.

    Raises:
        UsageFault: usage/service, `url` is of another scheme than HTTP, or a path and there is no base.
    """
    if url and _is_whole(url) and _has_port(url):
        return url if "://" in url else f"http://{url}"
    if (url and ("://" in url or _is_whole(url))) or base is None:
        raise UsageFault(
            "usage/service",
            f"{url!r} is not an HTTP URL.",
            "Pass a path, or a URL that begins with http:// or https://.",
        )
    return f"{base.rstrip('/')}/{url.lstrip('/')}" if url else base


def _base(run: Any, url: str | None) -> str | None:
    """The URL that the platform names; not asked for where the caller passes a whole one."""
    if _is_whole(url):
        return None
    base = service_url(run)
    if base is None:
        run.refresh()
        base = service_url(run)
    if base is None:
        raise UsageFault(
            "usage/service",
            f"Run {run.id} has no service: it is a {run.kind} run in state {run.status.state}.",
            "Run the action 'serve', and call run.wait() before run.invoke().",
        )
    return base


def _is_whole(url: str | None) -> bool:
    return bool(url and _WITH_HOST.match(url))


def _has_port(url: str) -> bool:
    """Whether a port that it names is one."""
    try:
        return urlsplit(url if "://" in url else f"http://{url}").port != 0
    except ValueError:
        return False


def _resolves(url: str) -> bool:
    try:
        socket.getaddrinfo(urlsplit(url).hostname or "", None)
    except OSError:
        return False
    return True


def _no_name(base: str, service: Any) -> PlatformFault:
    """The fault for a name that only the cluster knows, with the ways in that the service has."""
    ports = service.get("ports") if isinstance(service, dict) else None
    node_ports = [p["nodePort"] for p in ports or () if isinstance(p, dict) and p.get("nodePort")]
    if node_ports:
        way = f"Its NodePort is {node_ports[0]}: run.invoke(url='http://NODE:{node_ports[0]}/'), with the address of a node of the cluster."
    else:
        way = (
            "Pass url= with the address of an ingress, or run 'serve' with service_type='NodePort'."
        )
    host = urlsplit(base).hostname
    return PlatformFault(
        "platform/service-name",
        f"The service's name {host!r} does not resolve here; it is one of the cluster's own.",
        way,
    )
