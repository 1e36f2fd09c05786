"""The management port: health, metrics, OpenAPI and a page to try the function.

A process of its own, so that it answers whatever the handlers do, the interpreter's lock included.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import urllib.parse
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.server import Server

from digitalhub_runtime_python.calls import problems
from digitalhub_runtime_python.serve import board, metrics, openapi, page
from digitalhub_runtime_python.serve.protocol import Connection, FrontState
from digitalhub_runtime_python.settings import ServeSettings

logger = logging.getLogger(__name__)

Answer = tuple[int, str, bytes]

_TRY_LIMIT = 8 * 1024 * 1024
"""Bytes of an answer that the page shows."""


class Management:
    """An ASGI application.

    Args:
        folder: of the service, with `openapi.json`.
        address: of the function's port.
    """

    def __init__(self, the_board: board.Board, folder: Path, address: tuple[str, int]) -> None:
        self._board = the_board
        self._folder = folder
        self._address = address

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path, method = scope["path"], scope["method"]
        if path == "/try" and method == "POST":
            status, content_type, body = await self._try(scope, receive)
        elif path not in _PAGES:
            status, content_type, body = _problem(404, f"There is no {path} here.")
        elif method not in ("GET", "HEAD"):
            status, content_type, body = _problem(405, f"{path} is for GET.")
        else:
            status, content_type, body = getattr(self, _PAGES[path])()
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def live(self) -> Answer:
        return 200, "text/plain", b"OK\n"

    def ready(self) -> Answer:
        """200 once all workers have started, and as long as one takes requests."""
        ready = sum(slot.values[board.STATE] == board.READY for slot in self._board.slots)
        state = self._board.state
        body = {"ready": int(ready), "workers": len(self._board.slots), "state": _STATES[state]}
        status = 200 if state == board.READY and ready else 503
        return status, "application/json", json.dumps(body).encode()

    def metrics(self) -> Answer:
        return 200, "text/plain; version=0.0.4; charset=utf-8", metrics.render(self._board).encode()

    def openapi(self) -> Answer:
        try:
            return 200, "application/json", (self._folder / openapi.FILE).read_bytes()
        except FileNotFoundError:
            return _problem(503, "The function is not loaded yet.")

    def page(self) -> Answer:
        return 200, "text/html; charset=utf-8", page.HTML.encode()

    async def _try(self, scope: Any, receive: Any) -> Answer:
        """Pass a request of the page on to the function, which is on another port and so another origin."""
        headers = dict(scope["headers"])
        # Other sites' pages cannot send this type without asking first, and nobody says yes.
        if headers.get(b"content-type", b"").partition(b";")[0] != b"application/json":
            return _problem(415, "The page sends JSON.")
        raw = bytearray()
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if len(raw) > _TRY_LIMIT:
                return _problem(413, "The page sends no more than 8 MiB.")
            if not message.get("more_body"):
                break
        import http.client  # for the page alone

        try:
            request = json.loads(raw)
            answer = await asyncio.to_thread(self._call, request)
        except (ValueError, KeyError, TypeError, AttributeError, http.client.HTTPException) as exc:
            return _problem(400, f"The request cannot be sent: {exc}.")
        except OSError as exc:
            return _problem(502, f"The function cannot be reached: {exc}.")
        return 200, "application/json", json.dumps(answer).encode()

    def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        import http.client

        connection = http.client.HTTPConnection(*self._address, timeout=300)
        with contextlib.closing(connection):
            path = urllib.parse.quote(str(request.get("path") or "/"), safe="/?&=%:,+@~")
            headers = {str(k): str(v) for k, v in (request.get("headers") or {}).items()}
            body = str(request.get("body") or "").encode()
            connection.request(str(request.get("method") or "POST"), path, body or None, headers)
            response = connection.getresponse()
            return {
                "status": response.status,
                "reason": response.reason,
                "headers": response.getheaders(),
                "body": response.read(_TRY_LIMIT).decode("utf-8", "replace"),
            }


_PAGES = {
    "/": "page",
    "/live": "live",
    "/ready": "ready",
    "/metrics": "metrics",
    "/openapi.json": "openapi",
}
_STATES = {board.STARTING: "starting", board.READY: "ready", board.DRAINING: "draining"}


def _problem(status: int, detail: str) -> Answer:
    return status, problems.CONTENT_TYPE.decode(), problems.problem(status, detail)


def main(app: Management, listener: socket.socket, lifeline: socket.socket) -> int:
    """Serve the management port until SIGTERM, or until `lifeline` ends with its supervisor; the exit status."""
    os.setpgid(0, 0)  # Ctrl-C is the supervisor's to handle
    # uvicorn raises the signal that ended it once more when it is done.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    asyncio.run(_serve(Server(config), listener, lifeline))
    return 0


async def _serve(server: Server, listener: socket.socket, lifeline: socket.socket) -> None:
    def end() -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        server.should_exit = True

    asyncio.get_running_loop().add_reader(lifeline, end)
    # With the limits of the function's port: whoever can hold up /live can have the pod ended.
    state = FrontState(ServeSettings(keep_alive=30), board.Board(1).slots[0])
    server.server_state = state
    clock = asyncio.create_task(_watch(state))
    await server.serve([listener])
    clock.cancel()


async def _watch(state: FrontState) -> None:
    while True:
        now = asyncio.get_running_loop().time()
        for connection in list(state.connections):
            connection.check(now)
        await asyncio.sleep(1)
