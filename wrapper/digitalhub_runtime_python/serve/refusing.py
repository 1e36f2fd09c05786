"""Answers 503 in the place of workers that could not start, until the code changes: `dhpy serve --reload`."""

from __future__ import annotations

import contextlib
import select
import socket

from digitalhub_runtime_python.calls.problems import problem

_PATIENCE = 5.0
"""Seconds that a client may take to send its request's head."""
_MOST = 1 << 20
"""Bytes that are read of a request before it is answered."""


def main(listener: socket.socket, reason: str) -> int:
    """Answer every request with why the function cannot be served; until this process is ended."""
    body = problem(503, f"The function cannot be served: {reason}", code="serve/not-served")
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    ).encode()
    while True:
        select.select([listener], [], [])
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.settimeout(_PATIENCE)
                _read_request(client)
                client.sendall(head + body)


def _read_request(client: socket.socket) -> None:
    """Read what is sent, so that the client is not cut off while it still sends."""
    read = client.recv(65536)
    total = len(read)
    while (
        read
        and total < _MOST
        and (b"\r\n\r\n" not in read or select.select([client], [], [], 0)[0])
    ):
        read = client.recv(65536)
        total += len(read)
