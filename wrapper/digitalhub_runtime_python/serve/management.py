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
import time
import urllib.parse
from pathlib import Path
from typing import Any

from digitalhub_runtime_python.calls import problems
from digitalhub_runtime_python.nesting import read_json
from digitalhub_runtime_python.serve import board, loops, metrics, openapi, page
from digitalhub_runtime_python.serve.exchange import Exchange, Shared
from digitalhub_runtime_python.serve.messages import BadMessage, is_foreign, split_target
from digitalhub_runtime_python.serve.processes import ABANDONED, kill_group
from digitalhub_runtime_python.serve.server import Server
from digitalhub_runtime_python.settings import ServeSettings

logger = logging.getLogger(__name__)

Answer = tuple[int, str, bytes]

_TRY_LIMIT = 8 * 1024 * 1024
"""Bytes of an answer that the page shows."""


class Management:
    """The endpoint of the management port.

    Args:
        folder: of the service, with `openapi.json`.
        address: of the function's port.
        local: it listens on this machine alone, where whoever asks has no other name for it.
    """

    streams = False

    def __init__(
        self, the_board: board.Board, folder: Path, address: tuple[str, int], *, local: bool
    ) -> None:
        self._board = the_board
        self._folder = folder
        self._address = address
        self._local = local
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the protocol's calls ---

    def begin(self, exchange: Exchange) -> None:
        if exchange.length > _TRY_LIMIT:
            exchange.refuse(413, "The page sends no more than 8 MiB.")

    def grow(self, exchange: Exchange) -> None:
        if exchange.size > _TRY_LIMIT:
            exchange.refuse(413, "The page sends no more than 8 MiB.")

    def respond(self, exchange: Exchange) -> None:
        method = exchange.method
        try:
            path, _ = split_target(method, exchange.target)
        except BadMessage as exc:
            self.finish(exchange, _problem(exc.status, str(exc)))
            return
        any_name = path in _PROBED and not self._local
        if is_foreign(exchange.headers, any_name=any_name):
            self.finish(exchange, _problem(403, "The request is of another site's page. Use this machine's address."))  # fmt: skip
        elif path == "/try" and method == "POST":
            task = asyncio.get_running_loop().create_task(self._tried(exchange))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif path not in _PAGES:
            self.finish(exchange, _problem(404, f"There is no {path} here."))
        elif method not in ("GET", "HEAD"):
            self.finish(exchange, _problem(405, f"{path} is for GET."))
        else:
            self.finish(exchange, getattr(self, _PAGES[path])())

    def lost(self, exchange: Exchange) -> None: ...

    def writable(self, exchange: Exchange) -> None: ...

    def finish(self, exchange: Exchange, answer: Answer) -> None:
        status, content_type, body = answer
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if not exchange.answered:
            exchange.answer(status, headers, body)

    async def _tried(self, exchange: Exchange) -> None:
        self.finish(exchange, await self._try(exchange))

    # --- the pages ---

    def live(self) -> Answer:
        return 200, "text/plain", b"OK\n"

    def ready(self) -> Answer:
        """200 once all workers have started, and as long as one takes requests."""
        ready = sum(slot.takes_requests() for slot in self._board.slots)
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

    async def _try(self, exchange: Exchange) -> Answer:
        """Pass a request of the page on to the function, which is on another port and so another origin."""
        # Other sites' pages cannot send this type without asking first, and nobody says yes.
        if exchange.content_type.partition(";")[0] != "application/json":
            return _problem(415, "The page sends JSON.")
        import http.client  # for the page alone

        try:
            request = read_json(exchange.body())
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
_PROBED = ("/live", "/ready", "/metrics")
"""What probes and Prometheus ask for, by a name of their cluster."""
_STATES = {board.STARTING: "starting", board.READY: "ready", board.DRAINING: "draining"}


def _problem(status: int, detail: str) -> Answer:
    return status, problems.CONTENT_TYPE.decode(), problems.problem(status, detail)


def main(
    app: Management, the_board: board.Board, listener: socket.socket, lifeline: socket.socket
) -> int:
    """Serve the management port until SIGTERM, or until `lifeline` ends with its supervisor; the exit status."""
    os.setpgid(0, 0)  # Ctrl-C is the supervisor's to handle
    loop = loops.new_loop()
    # With the limits of the function's port: whoever can hold up /live can have the pod ended.
    shared = Shared(ServeSettings(keep_alive=30), lambda status, seconds: None)
    server = Server(loop, listener, shared, app)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    loop.add_signal_handler(signal.SIGTERM, server.drain, 1.0)
    try:
        loop.run_until_complete(_serve(server, the_board, lifeline))
    finally:
        loop.close()
    return 0


async def _serve(server: Server, the_board: board.Board, lifeline: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()

    def end() -> None:
        loop.remove_reader(lifeline)
        server.drain(1.0)
        gone.set()

    loop.add_reader(lifeline, end)
    server.tick()
    server.accept_more()
    while not server.drained():
        await asyncio.sleep(0.5 if server.drain_by is None else 0.02)
        the_board.beat = time.monotonic()
        server.tick()
    if gone.is_set():
        # The workers end what is in flight; who lives on hangs, and so does what a worker left behind.
        await asyncio.sleep(ABANDONED)
        for slot in the_board.slots:
            if pid := int(slot.values[board.PID]):
                kill_group(pid)
