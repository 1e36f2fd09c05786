"""A platform that misbehaves on demand: enough of Core's API for one run, over real sockets."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Union

from servers.web import serving

from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.states import MERGES

Mood = Union[int, str]
"""A status to answer with, or `drop` (close at once), `cut` (close within the body), `list`, `html`."""


@dataclass
class MoodyPlatform:
    """One run and its platform; `moods` are used up, one a request, then everything is fine."""

    url: str
    run: dict[str, Any]
    moods: list[Mood | None] = field(default_factory=list)
    always: Mood | None = None
    """The mood of every request once `moods` is used up."""
    strict: bool = False
    """Whether NaN is refused, as the letter of JSON has it."""
    merges: bool = True
    """Whether it says that it merges a status; Core does not."""
    writes: list[tuple[str, bool]] = field(default_factory=list)
    """What it writes by itself, one before each reading that follows a report: the state, and whether
    it writes back the status from before that report, as Core does when it had begun earlier."""
    before: dict[str, Any] | None = None
    """The status before the last report."""
    refused: tuple[str, ...] = ()
    """Methods that are answered with 403."""
    token: str = ""
    """The bearer token that it asks for; none: it asks for none."""
    fresh_token: str = "fresh"
    requests: list[str] = field(default_factory=list)
    """`METHOD path` of each request."""
    created: dict[str, dict[str, Any]] = field(default_factory=dict)
    forms: list[str] = field(default_factory=list)
    retry_after: str = ""
    lock: Any = field(default_factory=threading.Lock)

    def settings(self, workspace: Any, **environ: str) -> Settings:
        return Settings.from_env(self.environ(workspace, **environ))

    def environ(self, workspace: Any, **environ: str) -> dict[str, str]:
        return {
            "DHCORE_ENDPOINT": self.url,
            "PROJECT_NAME": "proj",
            "RUN_ID": "run1",
            "DHPY_WORKSPACE": str(workspace),
            "DHPY_REPORT_TIMEOUT": "1",
            **environ,
        }


def written(run: dict[str, Any]) -> dict[str, Any]:
    """The run as it is stored: every write has a time of its own."""
    metadata = run.get("metadata") or {}
    return {**run, "metadata": {**metadata, "updated": metadata.get("updated", 0) + 1}}


@contextlib.contextmanager
def moody_platform(run: dict[str, Any]) -> Iterator[MoodyPlatform]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self.serve("GET")

        def do_PUT(self) -> None:
            self.serve("PUT")

        def do_POST(self) -> None:
            self.serve("POST")

        def serve(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with platform.lock:
                platform.requests.append(f"{method} {self.path}")
                mood = platform.moods.pop(0) if platform.moods else platform.always
                mood = 403 if method in platform.refused else mood
            status, answer = self.answer(method, body)
            if mood in ("drop", "cut"):
                if mood == "cut":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b'{"id"')
                self.close_connection = True
                return
            if isinstance(mood, int):
                status, answer = mood, json.dumps({"status": mood, "message": "moody"}).encode()
            elif mood == "list":
                answer = b"[]"
            elif mood == "html":
                answer = b"<html>Welcome to the hotel's network</html>"
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            if platform.merges:
                self.send_header(MERGES, "yes")
            if platform.retry_after:
                self.send_header("Retry-After", platform.retry_after)
            self.end_headers()
            self.wfile.write(answer)

        def answer(self, method: str, body: bytes) -> tuple[int, bytes]:
            path = self.path
            if path == "/issuer/.well-known/openid-configuration":
                return 200, json.dumps({"token_endpoint": f"{platform.url}/token"}).encode()
            if path == "/token":
                platform.forms.append(body.decode())
                platform.token = platform.fresh_token
                tokens = {"access_token": platform.fresh_token, "refresh_token": "next"}
                return 200, json.dumps(tokens).encode()
            if platform.token and self.headers.get("Authorization") != f"Bearer {platform.token}":
                return 401, b'{"message": "who are you"}'
            if path == "/api/v1/-/proj/runs/run1":
                if (
                    platform.strict
                    and (b"NaN" in body or b"Infinity" in body)
                    and b'"NaN"' not in body
                ):
                    return 400, b'{"message": "Non-standard token"}'
                if method == "PUT":
                    platform.before = platform.run["status"]
                    platform.run = written(json.loads(body))
                elif platform.before is not None and platform.writes:
                    state, stale = platform.writes.pop(0)
                    status = platform.before if stale else platform.run["status"]
                    platform.run = written({**platform.run, "status": {**status, "state": state}})
                return 200, json.dumps(platform.run).encode()
            if method == "POST":
                entity = json.loads(body)
                if entity["id"] in platform.created:
                    message = f"Duplicated entity artifact:{entity['id']}"
                    return 400, json.dumps({"message": message}).encode()
                platform.created[entity["id"]] = entity
                return 200, body
            if method == "PUT":
                return 200, body
            if (entity_id := path.rpartition("/")[2]) in platform.created:
                return 200, json.dumps(platform.created[entity_id]).encode()
            return 404, b'{"message": "No such EntityName.ARTIFACT(value=artifact)."}'

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    platform = MoodyPlatform(f"http://127.0.0.1:{server.server_port}", run)
    with serving(server):
        yield platform
        platform.always = "drop"  # connections that are kept open outlive the server's socket
