"""A file server over HTTP or HTTPS: ETags, basic auth, redirects, and trouble on demand."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    failures: int = 0
    """How many requests get `failure` first."""
    failure: int = 503
    cut: int | None = None
    """Close the connection after so many bytes of the body."""
    credentials: str = ""
    """`user:password` that the page asks for."""


@dataclass
class WebServer:
    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, int]] = field(default_factory=list)
    """Path and status of each answer."""
    authorizations: list[str | None] = field(default_factory=list)


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def web_server(context: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    """Serve `pages` on a free port of 127.0.0.1, over HTTPS if a context is given."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            authorization = self.headers.get("Authorization")
            state.authorizations.append(authorization)
            page = state.pages.get(self.path, Page(b"nothing here", 404))
            etag = f'"{hashlib.md5(page.body).hexdigest()}"'
            expected = "Basic " + base64.b64encode(page.credentials.encode()).decode()
            if page.failures:
                page.failures -= 1
                self.answer(page.failure, b"in trouble")
            elif page.credentials and authorization is None:
                self.answer(401, b"", {"WWW-Authenticate": "Basic realm=test"})
            elif page.credentials and authorization != expected:
                self.answer(403, b"")
            elif page.status == 200 and self.headers.get("If-None-Match") == etag:
                self.answer(304, b"", {"ETag": etag})
            else:
                self.answer(page.status, page.body, {"ETag": etag, **page.headers}, page.cut)

        def answer(
            self, status: int, body: bytes, headers: dict | None = None, cut: int | None = None
        ) -> None:
            state.requests.append((self.path, status))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # a client may stop reading what is too large
                if self.command == "HEAD":
                    return
                self.wfile.write(body if cut is None else body[:cut])
            if cut is not None:
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "https" if context else "http"
    state = WebServer(f"{scheme}://127.0.0.1:{server.server_port}")
    with serving(server):
        yield state
