"""The part of S3 that reading code takes: GET with If-None-Match, ListObjectsV2, refusals.

Signatures are not computed: what is checked is which access key signed, or that none did.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from servers.web import serving


@dataclass
class ObjectServer:
    url: str
    bucket: str = "bucket"
    access_key: str = ""
    """The only one that may read; empty: anybody may."""
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, int]] = field(default_factory=list)
    signers: list[str] = field(default_factory=list)
    """The access key of each request, empty for an anonymous one."""


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            signed = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
            state.signers.append(signed[1] if signed else "")
            parts = urlsplit(self.path)
            bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
            if state.access_key and state.signers[-1] != state.access_key:
                self.answer(403, self.error("AccessDenied"))
            elif bucket != state.bucket:
                self.answer(404, self.error("NoSuchBucket"))
            elif not key:
                self.answer(200, self.listing(parse_qs(parts.query).get("prefix", [""])[0]))
            elif key not in state.objects:
                self.answer(404, self.error("NoSuchKey"))
            elif self.headers.get("If-None-Match") == self.etag(key):
                self.answer(304, b"", self.etag(key))
            else:
                self.answer(200, state.objects[key], self.etag(key))

        def etag(self, key: str) -> str:
            return f'"{hashlib.md5(state.objects[key]).hexdigest()}"'

        def error(self, code: str) -> bytes:
            return f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()

        def listing(self, prefix: str) -> bytes:
            contents = "".join(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
                f"<ETag>{escape(self.etag(key))}</ETag>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for key, content in sorted(state.objects.items())
                if key.startswith(prefix)
            )
            return (
                f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
            ).encode()

        def answer(self, status: int, body: bytes, etag: str = "") -> None:
            state.requests.append((self.path.partition("?")[0], status))
            self.send_response(status)
            if etag:
                self.send_header("ETag", etag)
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    state = ObjectServer(f"http://127.0.0.1:{server.server_port}")
    with serving(server):
        yield state
