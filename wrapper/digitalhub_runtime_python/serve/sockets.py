"""Listening sockets: made here, or inherited."""

from __future__ import annotations

import socket

from digitalhub_runtime_python.errors import UsageFault

BACKLOG = 2048
"""Connections that the kernel keeps for a service whose workers are busy or are being replaced."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UsageFault: the address is taken, or none of this machine's.
    """
    try:
        # As text it goes through the codec of international names, which 2 ms are spent on importing.
        name = host.encode() if host.isascii() else host
        family, kind, protocol, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as exc:
        raise UsageFault(
            "serve/address",
            f"The service cannot listen on {host}:{port}: {exc.strerror or exc}.",
            "Choose another port or address; port 0 takes a free one.",
        ) from exc
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def is_free(host: str, port: int) -> bool:
    """Whether `listen` would succeed just now."""
    try:
        listen(host, port).close()
    except UsageFault:
        return False
    return True


def inherited(fd: int) -> socket.socket:
    """A listening socket that the process was started with.

    Raises:
        UsageFault: no such socket was handed over.
    """
    try:
        listener = socket.socket(fileno=fd)
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(f"descriptor {fd} does not listen")
    except OSError as exc:
        raise UsageFault(
            "serve/address",
            f"DHPY_LISTEN_FD is {fd}, which is not a listening socket: {exc}.",
            "Pass one on to this process, or set DHPY_PORT.",
        ) from exc
    listener.setblocking(False)
    return listener
