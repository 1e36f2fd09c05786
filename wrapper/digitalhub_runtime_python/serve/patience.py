"""How long a client may keep a connection waiting."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from digitalhub_runtime_python.serve.protocol import Connection

LINGER = 5.0
"""Seconds for which a connection that was refused is still read, so that its client reads the answer."""


class Patience:
    """With one client; looked at every now and then."""

    def __init__(self) -> None:
        self._wait: tuple[str, object] = ("", None)  # what is waited for, and how far it has come
        self._since = 0.0

    def check(self, connection: Connection, now: float) -> None:
        """Hang up on a client that has kept us waiting for too long."""
        limits = connection.shared.limits
        wait = waited_for(connection)
        if wait != self._wait:
            self._wait, self._since = wait, now
            return
        limit = {
            "head": limits.header_timeout,
            "body": limits.stall_timeout,
            "first": limits.keep_alive,  # a client's spare connection
            "answer": limits.stall_timeout,
            "end": LINGER,
            "next": limits.keep_alive,
        }.get(wait[0])
        if limit is None or now - self._since <= limit:
            return
        if wait[0] in ("answer", "end"):
            connection.hung_up = True
            connection.transport.abort()
        elif wait[0] == "next":
            connection.transport.close()
        else:
            connection.reject(408, f"The request's {wait[0]} took longer than {limit:g} s.")

    def idle_since(self, connection: Connection) -> float | None:
        """Since when the client has neither asked nor been answered; None where it has."""
        idle = self._wait[0] in ("first", "next") and connection.at_rest()
        return self._since if idle else None


def waited_for(connection: Connection) -> tuple[str, object]:
    """What the client is to send or take next; and what changes when it makes progress with it."""
    if unread := connection.transport.get_write_buffer_size():
        return "answer", (unread, connection.resumed, _unread_by(connection.transport))
    if connection.lingers:
        return "end", None
    if connection.hung_up or connection.read_paused:
        return "", None  # its turn has not come: it is we who keep the client waiting
    if not connection.received:
        return "first", None
    if connection.in_head():
        # A head has its time as a whole: drops do not prolong it.
        return "head", connection.complete
    if connection.reading is None:
        return ("next", connection.complete) if connection.current is None else ("", None)
    if connection.reading.expects:
        return "", None  # it waits to be asked for its body
    return "body", connection.received


def _unread_by(transport: Any) -> int:
    """Bytes that the kernel still has for the client; 0 where it does not say.

    It takes megabytes ahead: a client may read for a minute before it asks this process for more.
    """
    import fcntl  # only where somebody is waited for
    import termios

    try:
        pending = fcntl.ioctl(
            transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4)
        )
    except (AttributeError, OSError):  # not on every system
        return 0
    return int.from_bytes(pending, sys.byteorder)
