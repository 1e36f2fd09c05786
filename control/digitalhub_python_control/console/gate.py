"""Who may open a page, which forms are ours, and what a browser may load for one.

The rules are the API's (access.py); a browser proves itself with a cookie instead of a header. The
cookie holds no credentials: it is made of them with a key, so that it ends with them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import Response

from digitalhub_python_control.settings import ControlSettings

HOME = "/console/"
COOKIE = "dhpy-console"
_LASTS = 12 * 3600
"""Seconds until somebody must log in again."""
_PROCESS_KEY = secrets.token_bytes(32)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""For our own pages: nothing inline, nothing of another place."""
FOREIGN_POLICY = (
    "sandbox; default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
"""For what users' code wrote: an origin of its own, no script, no request, wherever it is opened."""


def protect(response: Response, policy: str = POLICY) -> Response:
    """The response with the headers that every page and file of the console has."""
    response.headers.update(
        {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
    )
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def may_enter(request: Request, settings: ControlSettings) -> bool:
    """Whether the server is open, or the browser has logged in."""
    if not settings.needs_credentials:
        return True
    ends, _, proof = request.cookies.get(COOKIE, "").partition(".")
    if not ends.isascii() or not ends.isdigit() or int(ends[:12]) < time.time():
        return False
    return hmac.compare_digest(proof.encode("utf-8", "replace"), _proof(settings, ends).encode())


def let_in(response: Response, settings: ControlSettings, *, secure: bool) -> None:
    """Give the browser its cookie; `secure`: it came over TLS."""
    ends = str(int(time.time()) + _LASTS)
    response.set_cookie(
        COOKIE,
        f"{ends}.{_proof(settings, ends)}",
        max_age=_LASTS,
        path=HOME,
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def form_token(request: Request, settings: ControlSettings) -> str:
    """What a form of this session carries: other sites' pages cannot read it."""
    cookie = request.cookies.get(COOKIE, "") if settings.needs_credentials else "open"
    return hmac.new(_key(settings), f"form {cookie}".encode(), hashlib.sha256).hexdigest()


def is_own_form(request: Request, settings: ControlSettings, sent: str) -> bool:
    """Whether a form that was sent is one of this session's pages."""
    expected = form_token(request, settings)
    return hmac.compare_digest(sent.encode("utf-8", "replace"), expected.encode())


def _proof(settings: ControlSettings, ends: str) -> str:
    return hmac.new(_key(settings), f"session {ends}".encode(), hashlib.sha256).hexdigest()


def _key(settings: ControlSettings) -> bytes:
    """Of the credentials, so that it is the same after a restart and in every plane that shares them."""
    if not settings.needs_credentials:
        return _PROCESS_KEY
    return _stretched("\0".join((settings.user, settings.password, settings.token)))


@lru_cache(maxsize=4)
def _stretched(credentials: str) -> bytes:
    # Slow on purpose: whoever gets hold of a cookie could try passwords against it.
    return hashlib.scrypt(credentials.encode(), salt=b"dhpy console", n=2**14, r=8, p=1, dklen=32)
