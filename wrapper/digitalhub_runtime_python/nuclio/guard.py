"""Ends what a worker leaves behind: the processor kills a worker that is too slow, not its children."""

from __future__ import annotations

import contextlib
import os

_WATCH = "trap '' HUP INT TERM USR1 USR2; read -r _; kill -9 -$0"
"""For a shell that is given the group: its input ends when the last process that has the other end does."""


def start() -> None:
    """Start a small process that outlives this one and then kills this one's process group.

    Call it before anything is imported or opened. A child that the handler put into a session of its
    own is left alone: that was meant to outlive the worker.
    """
    if not hasattr(os, "posix_spawn") or not os.access("/bin/sh", os.X_OK):
        return
    worker = os.getpid()
    try:
        os.setpgid(0, 0)
    except PermissionError:
        if os.getpgrp() != worker:
            return  # a session leader leads its own group already; anyone else's group is not ours
    # Python's files are closed in programs that it starts: only what the worker forks could hold this one.
    ours, theirs = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    os.register_at_fork(after_in_child=lambda: _close(theirs))
    try:
        os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _WATCH, str(worker)],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, ours, 0),
                # A pipe that someone reads to its end must not stay open because of us.
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, null, 2),
            ],
            setpgroup=0,
        )
    finally:
        os.close(ours)
        os.close(null)


def _close(number: int) -> None:
    with contextlib.suppress(OSError):
        os.close(number)
