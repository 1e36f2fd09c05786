"""Ends what a worker leaves behind: the processor kills a worker that is too slow, not its children."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time


def start() -> None:
    """Fork a small process that outlives this one and then kills this one's process group.

    Call it before anything is imported or opened: the child keeps all that is there. A child that the
    handler put into a session of its own is left alone: that was meant to outlive the worker.
    """
    if not hasattr(os, "fork") or not hasattr(os, "setpgid"):
        return
    worker = os.getpid()
    try:
        os.setpgid(0, 0)
    except PermissionError:
        if os.getpgrp() != worker:
            return  # a session leader leads its own group already; anyone else's group is not ours
    if os.fork() == 0:
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)
            _close_files()
            _wait_for_end(worker)
            with contextlib.suppress(OSError):
                os.killpg(worker, signal.SIGKILL)
        finally:
            os._exit(0)


def _close_files() -> None:
    # A pipe that someone reads to its end must not stay open because of us.
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, 256)


def _wait_for_end(worker: int) -> None:
    try:
        handle = os.pidfd_open(worker)  # type: ignore[attr-defined,unused-ignore]
    except (AttributeError, OSError):  # an old kernel, or a sandbox
        while os.getppid() == worker:
            time.sleep(0.5)
        return
    if os.getppid() == worker:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll()
