"""Who may ask: basic authentication or a bearer token, where the server has credentials; and runs.

A run asks with a token of its own, with which it reaches its project, and nothing else, while it lives.

An open server runs what it is sent, and any page that the user has open in a browser can send
requests to loopback. So what a browser sends on behalf of another site is refused everywhere.
"""

from __future__ import annotations

import base64
import hmac
import re
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from digitalhub_python_control.api.web import ASKING, refuse
from digitalhub_python_control.settings import ControlSettings, is_loopback
from digitalhub_python_control.store.store import Store
from digitalhub_python_control.store.tokens import PREFIX, run_of_token
from digitalhub_runtime_python.errors import Fault

_OPEN = ("/health",)
_OWN_CHECK = ("/s3", "/console")
"""Paths, with all below them, whose requests are signed instead, or whose pages ask for a login."""

_OF_A_RUN = (
    ("*", "/health|/api/auth|/[.]well-known/configuration"),
    ("GET PUT", "/api/v1/projects/{project}"),
    ("*", "/api/v1/-/{project}/.+"),
)
"""Methods and paths that a run of a project may use; all that is not here is refused."""


class Access:
    """Middleware that answers 401 to who does not prove that they may ask."""

    def __init__(self, app: ASGIApp, settings: ControlSettings, store: Store) -> None:
        self._app = app
        self._settings = settings
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if is_foreign(Headers(scope=scope), self._settings, opens_page=_opens_page(scope)):
            await refuse(403, "Requests of other web sites are not answered.")(scope, receive, send)
            return
        if (token := run_token(Headers(scope=scope))) and not self._may_all(scope):
            await self._answer_run(token, scope, receive, send)
            return
        if self._may(scope):
            await self._app(scope, receive, send)
            return
        challenge = {"WWW-Authenticate": 'Basic realm="digitalhub-python", charset="UTF-8"'}
        message = "Credentials are missing or wrong. Set DHCORE_USER and DHCORE_PASSWORD, or DHCORE_ACCESS_TOKEN."
        await refuse(401, message, challenge)(scope, receive, send)

    async def _answer_run(self, token: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            run = await run_in_threadpool(run_of_token, token, self._store)
        except Fault as fault:
            await refuse(503, str(fault))(scope, receive, send)
            return
        if run is None:
            text = "The token is not one of a run, or its run has ended."
            await refuse(401, text, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        if not is_of_run(method, path, run.project):
            text = f"A run of project {run.project!r} may not {method} {path}."
            await refuse(403, text)(scope, receive, send)
            return
        await self._app({**scope, ASKING: run}, receive, send)

    def _may_all(self, scope: Scope) -> bool:
        return allowed(Headers(scope=scope).get("authorization", ""), self._settings)

    def _may(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if not self._settings.needs_credentials or path in _OPEN:
            return True
        if any(path == own or path.startswith(f"{own}/") for own in _OWN_CHECK):
            return True
        if path == "/" and asks_for_page(Headers(scope=scope)):
            return True
        return self._may_all(scope)


def run_token(headers: Headers) -> str:
    """The token of a run that came with a request; empty where none did."""
    scheme, _, value = headers.get("authorization", "").strip().partition(" ")
    value = value.strip()
    return value if scheme.lower() == "bearer" and value.startswith(PREFIX) else ""


def is_of_run(method: str, path: str, project: str) -> bool:
    """Whether a run of the project may send such a request."""
    return any(
        (methods == "*" or method in methods.split())
        and re.fullmatch(pattern.replace("{project}", re.escape(project)), path, re.DOTALL)
        for methods, pattern in _OF_A_RUN
    )


def asks_for_page(headers: Headers) -> bool:
    """Whether it is a browser that wants something to look at: the SDKs and curl name no HTML."""
    return "text/html" in headers.get("accept", "")


def _opens_page(scope: Scope) -> bool:
    """Whether a link leads to a page of the console, in a window of its own: reading changes nothing."""
    headers, path = Headers(scope=scope), scope["path"]
    is_page = path == "/" or path.startswith("/console/")
    mode, dest = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return bool(is_page and scope["method"] == "GET" and (mode, dest) == ("navigate", "document"))


def is_foreign(headers: Headers, settings: ControlSettings, *, opens_page: bool = False) -> bool:
    """Whether a browser sent this for a page of another site; a link that `opens_page` may be on any.

    `Origin` and `Sec-Fetch-Site` tell on requests across sites; a name that is not of this machine
    in `Host` tells on a site whose name was made to lead here (DNS rebinding). Behind a server with
    credentials the name may be any: that of a proxy, say.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    if not opens_page and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    try:
        if origin is not None and urlsplit(origin).netloc != host:
            return True
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # no address at all
        return True
    return bool(host) and not settings.needs_credentials and not is_loopback(name)


def allowed(authorization: str, settings: ControlSettings) -> bool:
    """Whether an Authorization header proves one of the settings' identities."""
    scheme, _, value = authorization.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and settings.token:
        return _equal(value, settings.token)
    if scheme.lower() == "basic" and settings.user:
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:  # no base64, or no UTF-8 in it
            return False
        # Both are compared always: the time tells nothing about which one is wrong.
        return bool(_equal(user, settings.user) & _equal(password, settings.password))
    return False


def _equal(sent: str, expected: str) -> bool:
    return hmac.compare_digest(sent.encode("utf-8", "replace"), expected.encode())
