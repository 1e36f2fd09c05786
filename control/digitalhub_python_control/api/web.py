"""Between Starlette and plain functions: a handler takes a Call and returns a value or raises.

Handlers run in threads, so none blocks the event loop. JSON is Python's own `json`, not msgspec:
both SDKs send and expect `NaN` and `Infinity`, which msgspec refuses to read and writes as null.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, Union

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from digitalhub_python_control.files.objects import Objects
from digitalhub_python_control.settings import ControlSettings
from digitalhub_python_control.store.store import RunRecord, Store
from digitalhub_runtime_python.errors import Fault, UsageFault
from digitalhub_runtime_python.nesting import ENTITY, read_json

logger = logging.getLogger(__name__)

_DRAIN = 256 * 1024 * 1024
"""Bytes of a body that is too large which are read and dropped, so that the client reads the answer
instead of failing on a closed connection."""

ASKING = "digitalhub_python_control.run"
"""Where a request's scope has the run whose token came with it."""

Json = Union["dict[str, Any]", "list[Any]", str, int, float, bool, None]


class Refusal(Exception):
    """An answer other than 2xx: its status and the message for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class Call:
    """One request, read and parsed."""

    store: Store
    objects: Objects
    settings: ControlSettings
    user: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    """The last value of each parameter."""
    queries: list[tuple[str, str]] = field(default_factory=list)
    """Every parameter, repeated ones too."""
    body: Any = None
    base_url: str = ""
    run: RunRecord | None = None
    """The run that asks, where one does."""

    @property
    def project(self) -> str:
        return self.path["project"]

    @property
    def id(self) -> str:
        return self.path["id"]

    def having(self, body: Any) -> Call:
        """The same request with another body."""
        return dataclasses.replace(self, body=body)

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() == "true"

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number out of the query, brought between `low` and `high`."""
        text = self.query.get(name) or str(default)
        digits = text[1:] if text.startswith("-") else text
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 4000):
            raise Refusal(400, f"{name} must be a whole number.")
        return min(max(int(text), low), high)

    def document(self) -> dict[str, Any]:
        """The body, which must be a JSON object."""
        if not isinstance(self.body, dict):
            raise Refusal(400, f"The body must be a JSON object, not {type(self.body).__name__}.")
        return self.body


Handler = Callable[[Call], Union[Json, Response]]


def answer(value: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; None becomes an empty body, which both SDKs read as `{}`."""
    if value is None:
        return Response(status_code=status)
    return _json(json.dumps(value), status, headers)


def refuse(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error in Core's form."""
    body = {"status": status, "message": message, "errorCode": None}
    return _json(json.dumps(body), status, headers)


def _json(text: str, status: int, headers: Mapping[str, str] | None) -> Response:
    # What users wrote is in it, and a browser must not take it for a page.
    given = {"X-Content-Type-Options": "nosniff", **(headers or {})}
    return Response(text, status, given, media_type="application/json")


def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A Starlette endpoint that runs `handler` in a thread."""

    async def respond(request: Request) -> Response:
        try:
            content = await read_body(request)
            return await run_in_threadpool(_work, handler, request, content)
        except ClientDisconnect:
            return Response(status_code=400)
        except Refusal as exc:
            return refuse(exc.status, exc.message)
        except Exception as exc:  # noqa: BLE001 - the one place that answers for what went wrong
            return failure(exc, f"{request.method} {request.url.path}")

    return respond


def failure(exc: Exception, what: str) -> Response:
    """The answer for a fault or for an error of ours, which is also logged."""
    if isinstance(exc, UsageFault):
        return refuse(400, str(exc))
    if isinstance(exc, Fault):
        logger.error("%s: %s [%s]", what, exc, exc.code)
        status = 507 if exc.code == "control/disk-full" else 500
        return refuse(status, f"{exc} [{exc.code}]")
    mark = secrets.token_hex(4)
    logger.error("%s failed (%s)", what, mark, exc_info=exc)
    return refuse(500, f"Internal error; the server's log has it under {mark}.")


def parse_json(content: bytes) -> Any:
    """A request's body as JSON; None where there is none.

    Raises:
        Refusal: it is not JSON (400).
    """
    if not content.strip():
        return None
    try:
        return read_json(content, ENTITY)
    except ValueError as exc:
        raise Refusal(400, f"The body is not JSON: {exc}.") from None


async def read_body(request: Request) -> bytes:
    """A request's whole body.

    Raises:
        Refusal: it is larger than the settings allow (413).
    """
    limit = request.app.state.settings.max_body
    content = bytearray()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            content += chunk
        elif size > limit + _DRAIN:
            break
    if size > limit:
        raise Refusal(413, f"The body is larger than {limit} bytes. Set DHPY_MAX_BODY to allow it.")
    return bytes(content)


def _work(handler: Handler, request: Request, content: bytes) -> Response:
    result = handler(call_of(request, parse_json(content)))
    return result if isinstance(result, Response) else answer(result)


def request_of(app: Starlette, project: str) -> Call:
    """A request of the control plane's own about a project."""
    state = app.state
    return Call(
        store=state.store,
        objects=state.objects,
        settings=state.settings,
        user=state.settings.user or "local",
        path={"project": project},
        query={},
    )


def call_of(request: Request, body: Any) -> Call:
    """What a handler is given of a request whose body was read."""
    state = request.app.state
    queries = request.query_params.multi_items()
    run: RunRecord | None = request.scope.get(ASKING)
    return Call(
        store=state.store,
        objects=state.objects,
        settings=state.settings,
        user=state.settings.user or "local" if run is None else run.entity["user"],
        path=request.path_params,
        query=dict(queries),
        queries=queries,
        body=body,
        base_url=str(request.base_url).rstrip("/"),
        run=run,
    )
