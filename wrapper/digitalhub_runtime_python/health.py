"""`python -m digitalhub_runtime_python.health`: whether the runtime in this container is well.

A service is when its management port says so; a job is as long as its process runs.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path


def check(environ: Mapping[str, str], command: str) -> int:
    """0 when it is well, 1 when it is not.

    Args:
        environ: `DHPY_MANAGEMENT_PORT` is used; default 8082.
        command: what the container's first process was started with.
    """
    if "serve" not in command.split("\0"):
        return 0
    port = int(environ.get("DHPY_MANAGEMENT_PORT") or 8082)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"GET /live HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return 0 if b" 200 " in client.recv(64) else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(check(os.environ, Path("/proc/1/cmdline").read_text(errors="replace")))
