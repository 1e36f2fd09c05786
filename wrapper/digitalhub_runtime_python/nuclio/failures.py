"""What a worker says when it cannot go on: to the log, to whoever looks at the pod, by its exit status."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from digitalhub_runtime_python import error_report
from digitalhub_runtime_python.errors import EXIT_USER_ERROR, Fault, HandlerFault
from digitalhub_runtime_python.nuclio.wire import Outbox

EXIT_VANISHED = 70
"""In place of 0, which the processor would take for a worker that is still there."""


def give_up(exc: BaseException, logger: Any) -> int:
    """Say why the function cannot be served; the exit status, never 0.

    It goes to the processor's log, to standard error, and into the container's termination message,
    which `kubectl describe` shows: the processor itself only says that its worker is gone.
    """
    from digitalhub_runtime_python import loading
    from digitalhub_runtime_python.settings import Settings

    error = error_report.redact(
        error_report.describe(exc), Settings.from_env(os.environ).secret_values()
    )
    code = f" [{error['code']}]" if error.get("code") else ""
    text = error.get("traceback") or f"{exc}{code}\n"
    with contextlib.suppress(OSError):
        logger.error_with("The function cannot be served", error=error)
    sys.stderr.write(text)
    sys.stderr.flush()
    place = Path(os.environ.get("DHPY_TERMINATION_LOG") or "/dev/termination-log")
    if place.exists():
        with contextlib.suppress(OSError):
            place.write_bytes(text.encode()[-4096:])
    if isinstance(exc, Fault):
        return exc.exit_status
    if isinstance(exc, (ImportError, SyntaxError)) or loading.raised_by_import(exc):
        return HandlerFault.exit_status
    return EXIT_USER_ERROR


def guard_exit(outbox: Outbox) -> None:
    """Let no `os._exit(0)` of a handler leave a worker that is dead and counted as ready."""
    worker, leave = os.getpid(), os._exit

    def guarded(status: int) -> None:
        if os.getpid() == worker:
            with contextlib.suppress(OSError):
                outbox.send(b"")
            status = status or EXIT_VANISHED
        leave(status)

    os._exit = guarded  # type: ignore[assignment]
