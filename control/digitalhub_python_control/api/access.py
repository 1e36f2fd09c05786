"""Who may ask: basic authentication or a bearer token, where the server has credentials.

An open server runs what it is sent, and any page that the user has open in a browser can send
requests to loopback. So what a browser sends on behalf of another site is refused everywhere.
"""

from __future__ import annotations

import base64
import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from digitalhub_python_control.api.web import refuse
from digitalhub_python_control.settings import ControlSettings, is_loopback

_OPEN = ("/health",)
_OWN_CHECK = ("/s3", "/s3/")
"""Paths whose requests are signed instead (s3auth.py)."""


class Access:
    """Middleware that answers 401 to who does not prove that they may ask."""

    def __init__(self, app: ASGIApp, settings: ControlSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if is_foreign(Headers(scope=scope), self._settings):
            await refuse(403, "Requests of other web sites are not answered.")(scope, receive, send)
            return
        if self._may(scope):
            await self._app(scope, receive, send)
            return
        challenge = {"WWW-Authenticate": 'Basic realm="digitalhub-python", charset="UTF-8"'}
        message = "Credentials are missing or wrong. Set DHCORE_USER and DHCORE_PASSWORD, or DHCORE_ACCESS_TOKEN."
        await refuse(401, message, challenge)(scope, receive, send)

    def _may(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if not self._settings.needs_credentials or path in _OPEN:
            return True
        if path == _OWN_CHECK[0] or path.startswith(_OWN_CHECK[1]):
            return True
        return allowed(Headers(scope=scope).get("authorization", ""), self._settings)


def is_foreign(headers: Headers, settings: ControlSettings) -> bool:
    """Whether a browser sent this for a page of another site.

    `Origin` and `Sec-Fetch-Site` tell on requests across sites; a name that is not of this machine
    in `Host` tells on a site whose name was made to lead here (DNS rebinding). Behind a server with
    credentials the name may be any: that of a proxy, say.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
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
