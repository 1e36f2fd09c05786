"""A registry in memory, over real HTTP, that does harm on demand: what the distribution specification asks for, no more."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable
from urllib.parse import parse_qs, urlsplit

from servers.web import serving


@dataclass
class Said:
    """An answer before it is sent."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Break off after so many bytes of the body."""
    chunked: bool = False


Harm = Callable[[int, str, Callable[[], Said]], "Said | None"]
"""(number of the request, `METHOD path`, what would be answered) -> the answer, or None to break off without one."""


@dataclass
class Store:
    name: str
    harm: Harm
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """By tag and by digest: media type and content."""
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@contextlib.contextmanager
def registry(harm: Harm = lambda number, what, answer: answer()) -> Iterator[Store]:
    """Serve a registry on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            number = len(store.requests)
            what = f"{self.command} {self.path}"
            store.requests.append(what)
            said = store.harm(number, what, lambda: self.answered(body))
            if said is None:
                self.break_off()
                return
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in said.headers:
                self.send_header("Content-Length", str(len(said.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said.body if said.cut is None else said.body[: said.cut])
            if said.cut is not None:
                self.wfile.flush()
                self.break_off(gently=True)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = handle_any

        def break_off(self, *, gently: bool = False) -> None:
            self.close_connection = True
            if not gently:
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def answered(self, body: bytes) -> Said:
            path = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(path.query).items()}
            if found := re.fullmatch(r"/v2/.+/blobs/(sha256:[0-9a-f]{64})", path.path):
                return self.blob(found[1])
            if re.fullmatch(r"/v2/.+/blobs/uploads/", path.path):
                name = f"u{len(store.uploads)}"
                store.uploads[name] = b""
                return Said(202, headers={"Location": f"{path.path}{name}"})
            if found := re.fullmatch(r"/v2/.+/blobs/uploads/(u\d+)", path.path):
                return self.upload(found[1], path.path, query.get("digest", ""), body)
            if found := re.fullmatch(r"/v2/.+/manifests/(.+)", path.path):
                return self.manifest(found[1], body)
            return Said(404)

        def blob(self, digest: str) -> Said:
            if digest not in store.blobs:
                return Said(404)
            data = store.blobs[digest]
            begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if not begin:
                return Said(200, data)
            if int(begin[1]) >= len(data):
                return Said(416)
            part = data[int(begin[1]) :]
            return Said(
                206, part, {"Content-Range": f"bytes {begin[1]}-{len(data) - 1}/{len(data)}"}
            )

        def upload(self, name: str, path: str, digest: str, body: bytes) -> Said:
            if name not in store.uploads:
                return Said(404)
            if self.command == "GET":
                return Said(
                    204,
                    headers={
                        "Location": path,
                        "Range": f"0-{max(len(store.uploads[name]) - 1, 0)}",
                    },
                )
            store.uploads[name] += body
            if self.command == "PATCH":
                return Said(
                    202, headers={"Location": path, "Range": f"0-{len(store.uploads[name]) - 1}"}
                )
            data = store.uploads.pop(name)
            if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
                return Said(400, b'{"errors": [{"code": "DIGEST_INVALID"}]}')
            store.blobs[digest] = data
            return Said(201)

        def manifest(self, reference: str, body: bytes) -> Said:
            if self.command == "PUT":
                digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
                store.manifests[reference] = store.manifests[digest] = (
                    self.headers["Content-Type"],
                    body,
                )
                return Said(201, headers={"Docker-Content-Digest": digest})
            if reference not in store.manifests:
                return Said(404)
            kind, data = store.manifests[reference]
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            return Said(200, data, {"Content-Type": kind, "Docker-Content-Digest": digest})

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    store = Store(f"127.0.0.1:{server.server_port}", harm)
    with serving(server):
        yield store
