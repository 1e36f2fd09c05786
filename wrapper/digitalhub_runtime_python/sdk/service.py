"""Calls the service of a serve run. `requests` does the call; here is only which URL and which method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from digitalhub_runtime_python.errors import UsageFault

if TYPE_CHECKING:
    import requests

TIMEOUT = 60.0
"""Seconds that a call may take, unless the caller says otherwise."""
_PORTS = {"http": 80, "https": 443}


def service_url(run: Any) -> str | None:
    """The service's URL with its scheme; the platform writes `host:port`. None: there is none yet."""
    service = run.status.service
    url = service.get("url") if isinstance(service, dict) else None
    if not url:
        return None
    return url if "://" in url else f"http://{url}"


def invoke(run: Any, method: str | None, url: str | None, options: dict[str, Any]) -> requests.Response:
    """Call the service.

    Raises:
        UsageFault: usage/service
    """
    import requests  # heavy, and only services need it

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
    if method is None:
        method = "POST" if any(options.get(k) is not None for k in ("json", "data", "files")) else "GET"
    options.setdefault("timeout", TIMEOUT)
    return requests.request(method, target(base, url), **options)


def target(base: str, url: str | None) -> str:
    """The URL to call: `base`, a path below it, or a URL of the same service.

    Raises:
        UsageFault: usage/service, when `url` is of another host or port.
    """
    if not url:
        return base
    if url.startswith("/") and not url.startswith("//"):
        return base.rstrip("/") + url
    own = urlsplit(base)
    parts = urlsplit(url if "://" in url else f"{own.scheme}://{url}")
    if "://" not in url and (parts.hostname, _port(parts)) != (own.hostname, _port(own)):
        return f"{base.rstrip('/')}/{url}"
    if parts.scheme not in _PORTS or (parts.hostname, _port(parts, own)) != (own.hostname, _port(own)):
        raise UsageFault(
            "usage/service",
            f"{url!r} is no URL of the run's service.",
            f"The service is {base}; pass a path below it, or nothing.",
        )
    return urlunsplit(parts)


def _port(parts: Any, default: Any = None) -> int | None:
    try:
        port = parts.port
    except ValueError:
        return None
    return port or (default.port if default is not None and default.port else _PORTS.get(parts.scheme))
