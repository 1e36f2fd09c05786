"""A proxy before the API server that can answer in its stead, lose an answer, and break off watches.

It stands in the cluster's network and speaks HTTP to the control plane, TLS to the API server.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Union

from cluster import NODE, Cluster

LOST = "lost"
"""The API server does what it is asked, and its answer never arrives."""
Fault = Union[int, str, None]
"""A status to answer with, `LOST`, or nothing."""


class Proxy:
    """Args:
    choose: what becomes of a request, by its method and path.
    """

    def __init__(self, cluster: Cluster, choose: Callable[[str, str], Fault]) -> None:
        self.choose = choose
        self.asked: list[tuple[str, str, Fault]] = []
        self._watches: list[Any] = []
        context = ssl.create_default_context(cafile=str(cluster.home / "pki" / "apiserver.crt"))
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def work(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size) if size else None
                fault = proxy.choose(self.command, self.path)
                proxy.asked.append((self.command, self.path, fault))
                if isinstance(fault, int):
                    told = {"kind": "Status", "status": "Failure", "code": fault, "reason": "Expired" if fault == 410 else "", "message": f"the proxy says {fault}"}  # fmt: skip
                    self.answer(fault, json.dumps(told).encode())
                    return
                with cluster.entered():
                    upstream = HTTPSConnection(NODE, cluster.port, context=context, timeout=60)
                    upstream.connect()
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "accept-encoding")}  # fmt: skip
                with closing(upstream):
                    upstream.request(self.command, self.path, body, headers)
                    with upstream.getresponse() as got:
                        if "watch=true" in self.path:
                            self.stream(got)
                        elif fault == LOST:
                            got.read()
                            self.close_connection = True
                        else:
                            self.answer(got.status, got.read())

            def answer(self, status: int, data: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def stream(self, got: Any) -> None:
                self.close_connection = True
                self.send_response(got.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                proxy._watches.append(self.connection)
                while data := got.read1(65536):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.write(b"0\r\n\r\n")

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = work

            def handle(self) -> None:
                with suppress(OSError, HTTPException):
                    super().handle()

            def log_message(self, *given: Any) -> None: ...

        with cluster.entered():
            self._server = ThreadingHTTPServer((NODE, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{NODE}:{self._server.server_address[1]}"

    def break_off(self) -> None:
        """End all watches in the middle of whatever they are in."""
        watches, self._watches = self._watches, []
        for one in watches:
            with suppress(OSError):
                one.shutdown(2)


@contextmanager
def before(cluster: Cluster, choose: Callable[[str, str], Fault] = lambda *_: None) -> Iterator[Proxy]:  # fmt: skip
    proxy = Proxy(cluster, choose)
    thread = threading.Thread(target=proxy._server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy._server.shutdown()
        proxy.break_off()
        proxy._server.server_close()
        thread.join(10)
