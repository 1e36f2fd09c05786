"""Our own faults, on one page. The user's exceptions are the user's and never become one of these.

Fault                 exit status   raised when
├── UsageFault          2           a command, a run or an entity is not well formed
├── SourceFault        10           code cannot be fetched or unpacked
├── HandlerFault       11           the handler or the init function cannot be found or imported
├── ArgumentFault      12           the arguments do not fit the handler's signature
├── OutputFault        13           a returned value cannot be stored
├── PlatformFault      14           the platform cannot be reached, or refuses
├── EnvironmentFault   15           requirements cannot be installed, or an interpreter is missing
└── DeadlineFault     124           the run took longer than it may

A user's exception exits with 1, a signal with 128 + its number (130 SIGINT, 143 SIGTERM).
Every `code` in use is listed in docs/reference/errors.md; a test compares the two.
"""

from __future__ import annotations

import signal
from typing import Any

EXIT_OK = 0
EXIT_USER_ERROR = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM


class Fault(Exception):
    """One of our own faults: what happened, to what, and what to do next.

    Args:
        code: stable, `family/what`, for programs and for the reference page.
        message: what happened and to what, one sentence; never holds a secret.
        hint: what to do next, one sentence.
        retry: the same may succeed a little later.
        http_status: what a server answered; where we are the server, what to answer.
    """

    exit_status = 70
    retry = False
    """Whether the same may go well in a while, with nothing changed."""

    def __init__(
        self,
        code: str,
        message: str,
        hint: str = "",
        *,
        retry: bool = False,
        http_status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retry = retry
        self.http_status = http_status

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type, tuple[str, str, str], dict[str, Any]]:
        fields: dict[str, Any] = {"retry": self.retry, "http_status": self.http_status}
        return type(self), (self.code, self.message, self.hint), fields


class UsageFault(Fault):
    exit_status = 2


class SourceFault(Fault):
    exit_status = 10


class HandlerFault(Fault):
    exit_status = 11


class ArgumentFault(Fault):
    exit_status = 12


class OutputFault(Fault):
    exit_status = 13


class PlatformFault(Fault):
    exit_status = 14


class EnvironmentFault(Fault):
    exit_status = 15


class DeadlineFault(Fault):
    exit_status = 124


class Terminated(BaseException):
    """A signal asked the process to end; a BaseException, so that a handler's `except Exception` lets it by."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"ended by signal {signal_number}")
        self.signal = signal_number
