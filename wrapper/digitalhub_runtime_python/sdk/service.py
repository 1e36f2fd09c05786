"""Calls the service of a serve run. `requests` does the call; here is only which URL and which method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

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


def invoke(
    run: Any, method: str | None, url: str | None, options: dict[str, Any]
) -> requests.Response:
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
        method = (
            "POST" if any(options.get(k) is not None for k in ("json", "data", "files")) else "GET"
        )
    options.setdefault("timeout", TIMEOUT)
    return requests.request(method, target(base, url), **options)  # noqa: S113 - it is in options


def target(base: str, url: str | None) -> str:
    """The URL to call: `base`, a path below it, or a URL of the same service.

    Raises:
        UsageFault: usage/service, when `url` is of another host or port.
    """
    own = urlsplit(base)
    if url and url.partition("/")[0] == own.netloc:
        url = f"{own.scheme}://{url}"  # as the platform writes it
    if not url or "://" not in url:
        return f"{base.rstrip('/')}/{url.lstrip('/')}" if url else base
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or _address(parts) != _address(own):
        raise UsageFault(
            "usage/service",
            f"{url!r} is no URL of the run's service.",
            f"The service is {base}; pass a path below it, or nothing.",
        )
    return url


def _address(parts: SplitResult) -> tuple[str | None, int | None]:
    try:
        return parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # a port that is no number
        return None, None
