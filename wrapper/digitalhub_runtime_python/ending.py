"""How a run ends, the same in every mode: read `conclude`.

A job, a service and its workers, a worker of Nuclio's, a build, a run in the caller's process and `dhpy run`
keep a `Walk` while they go, and hand it in with what was raised.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from digitalhub_runtime_python import error_report, loading
from digitalhub_runtime_python.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USER_ERROR,
    Fault,
    HandlerFault,
    PlatformFault,
    Terminated,
)

if TYPE_CHECKING:
    from digitalhub_runtime_python.settings import Settings
    from digitalhub_runtime_python.sources import Fetched
    from digitalhub_runtime_python.spec import RunSpec


@dataclass
class Walk:
    """How far a run has come: what its end needs to know."""

    settings: Settings
    report: Callable[[dict[str, Any]], None] | None = None
    """Delivers a status, retrying and at last keeping it on disk; None where nobody is to be told."""
    run: RunSpec | None = None
    """Once it is loaded."""
    root: Path | None = None
    """The folder of the user's code, to name files relative to it."""
    status: dict[str, Any] = field(default_factory=dict)
    """What there is to report so far: `results`, `outputs`, `source`."""
    quiet: bool = False
    """Nothing is written to standard error: the caller gets the exception itself."""

    def fetched(self, code: Fetched) -> None:
        """Note where the code lies, and which revision of it."""
        self.root = code.root
        if code.revision:
            self.status["source"] = {"revision": code.revision}

    def failed(self, exc: BaseException, trace: str = "") -> None:
        """Describe what was raised; best while the files are there whose lines it shows."""
        error = error_report.describe(exc, self.root, self.secrets(), before=trace)
        self.status["error"] = {**error, "exit_status": exit_status(exc)}

    def hide(self, told: dict[str, Any]) -> dict[str, Any]:
        """The same without the values of secrets in its texts."""
        return error_report.redact(told, self.secrets())

    def secrets(self) -> set[str]:
        """What no text of ours may show."""
        return self.settings.secret_values(self.run.secrets if self.run else ())


@dataclass
class Ending:
    """How a run ended."""

    status: dict[str, Any] = field(default_factory=dict)
    """What was reported: `results`, `outputs`, `source`, `error`."""
    error: BaseException | None = None
    """What was raised, as it is: the user's exception, or one of our faults."""
    exit_status: int = EXIT_OK
    undelivered: PlatformFault | None = None
    """Why the status could not be reported; says where it is kept."""


def conclude(exc: BaseException | None, walk: Walk, *, trace: str = "") -> Ending:
    """End a run: tell standard error and the termination message, report the status, choose the exit status.

    Never raises for a failing run, nor for a report that cannot be delivered: the ending has both.

    Args:
        exc: what was raised; None where all went well.
        trace: where the run was, as the text of a traceback, for what was raised elsewhere.
    """
    ending = Ending(walk.status, exc)
    told = ""
    if exc is not None:
        if "error" not in walk.status:
            walk.failed(exc, trace)
        ending.exit_status = exit_status(exc)
        told = _tell(walk, error_report.shown(walk.status["error"]))
    # A platform that did not give the run takes no report of it either.
    if walk.report is None or (walk.run is None and type(exc) is PlatformFault):
        return ending
    try:
        walk.report(ending.status)
    except Exception as problem:  # noqa: BLE001 - what failed to be told must not hide what failed
        fault = problem if isinstance(problem, PlatformFault) else _not_reported(problem)
        ending.undelivered = fault
        error = error_report.describe(fault, secrets=walk.secrets())
        _tell(walk, error_report.shown(error), after=told)
        if exc is None:
            ending.error, ending.exit_status = fault, fault.exit_status
    return ending


def exit_status(exc: BaseException) -> int:
    """The status to exit with for what was raised (the table of errors.py)."""
    if error_report.is_a(exc, Fault):
        return exc.exit_status
    if error_report.is_a(exc, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if error_report.is_a(exc, Terminated):
        return 128 + exc.signal
    return HandlerFault.exit_status if loading.raised_by_import(exc) else EXIT_USER_ERROR


def _tell(walk: Walk, text: str, *, after: str = "") -> str:
    """Write to standard error, and to the container's termination message, after what that has already."""
    if walk.quiet:
        return ""
    sys.stderr.write(text)
    sys.stderr.flush()
    place = walk.settings.termination_log
    if place is not None:
        try:
            # Kubernetes keeps 4,096 bytes; what was raised is at the end of a traceback.
            place.write_bytes((after + text).encode(errors="replace")[-4096:])
        except OSError as problem:
            sys.stderr.write(f"the termination message cannot be written: {problem}\n")
    return text


def _not_reported(problem: Exception) -> PlatformFault:
    return PlatformFault(
        "platform/report",
        f"The report could not be made: {type(problem).__name__}: {error_report.first_line(problem)}.",
        "What the run did before it ended has been done; its log has the rest.",
    )
