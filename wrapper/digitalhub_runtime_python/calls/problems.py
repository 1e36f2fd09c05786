"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any

import msgspec

CONTENT_TYPE = b"application/problem+json"


def problem(
    status: int, detail: str, *, code: str = "", extra: Mapping[str, Any] | None = None
) -> bytes:
    """The body of an error.

    Args:
        status: the HTTP status.
        detail: what happened and what to do, for whoever called.
        code: one of docs/reference/errors.md, where a fault of ours has one.
        extra: more members: `event_id`, and under --debug `error`.
    """
    body: dict[str, Any] = {"type": "about:blank", "title": title(status), "status": status}
    body["detail"] = detail
    if code:
        body["code"] = code
    return msgspec.json.encode({**body, **(extra or {})})


def title(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"
