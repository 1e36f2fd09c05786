"""`python -m digitalhub_runtime_python COMMAND`: the container's entry. Small imports, on purpose."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING

from digitalhub_runtime_python import log
from digitalhub_runtime_python.errors import DeadlineFault, Fault, Terminated, UsageFault
from digitalhub_runtime_python.settings import Settings

if TYPE_CHECKING:
    from digitalhub_runtime_python.hub import Hub
    from digitalhub_runtime_python.lifecycle import Outcome

USAGE = """usage: python -m digitalhub_runtime_python job|serve|version

  job      run the function of run $RUN_ID of project $PROJECT_NAME (or of $DHPY_RUN_FILE), report, exit
  serve    serve it over HTTP; see serve --help
  version  print the version
"""


def main(argv: list[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run a command; the exit status (the table of errors.py)."""
    command = argv[0] if argv else ""
    try:
        if command == "job" and len(argv) == 1:
            return job(Settings.from_env(environ))
        if command == "serve":
            from digitalhub_runtime_python.serve.command import main as serve

            return serve(argv[1:], environ)
        if command == "version":
            from digitalhub_runtime_python._version import __version__

            sys.stdout.write(__version__ + "\n")
            return 0
    except Fault as fault:
        sys.stderr.write(f"{fault} [{fault.code}]\n")
        return fault.exit_status
    sys.stdout.write(USAGE) if command in ("-h", "--help", "help") else sys.stderr.write(USAGE)
    return 0 if command in ("-h", "--help", "help") else UsageFault.exit_status


def job(settings: Settings) -> int:
    """Execute the run that the environment names, report it, and say on standard error how it ended."""
    from digitalhub_runtime_python.lifecycle import run_job

    log.configure(settings.log_level, settings.log_format)
    hub = _hub(settings)
    _raise_on_sigterm()
    watchdog = _watch(hub, settings)
    try:
        outcome = run_job(hub, settings)
    finally:
        if watchdog is not None:
            watchdog.cancel()
    _print_error(outcome, settings)
    sys.stdout.flush()
    return outcome.exit_status


def _hub(settings: Settings) -> Hub:
    if settings.run_file is not None:
        from digitalhub_runtime_python.hub.offline import OfflineHub

        return OfflineHub(settings.run_file, settings.workspace / "outputs")
    from digitalhub_runtime_python.hub.core import CoreHub

    return CoreHub(settings)


def _raise_on_sigterm() -> None:
    """The first SIGTERM ends the handler as an exception does, so its `finally` runs; a second one kills."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated(number)

    signal.signal(signal.SIGTERM, end)


def _watch(hub: Hub, settings: Settings) -> threading.Timer | None:
    """End the process when the deadline passes, also where the handler sits in C code or catches everything."""
    if settings.deadline is None:
        return None

    def expire() -> None:
        from digitalhub_runtime_python import report

        fault = DeadlineFault(
            "deadline/passed",
            f"The run took longer than its deadline of {settings.deadline:g} s.",
            "Raise DHPY_DEADLINE, or make the function do less in one run.",
        )
        error = report.describe(fault)
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        if frame is not None:
            import traceback

            error["traceback"] = "".join(traceback.format_stack(frame)[-10:])
        try:
            hub.report({"error": error})
        finally:
            sys.stderr.write(f"{fault} [{fault.code}]\n")
            sys.stderr.flush()
            os._exit(fault.exit_status)

    timer = threading.Timer(settings.deadline, expire)
    timer.daemon = True
    timer.start()
    return timer


def _print_error(outcome: Outcome, settings: Settings) -> None:
    """The error in full on standard error, and in the container's termination message."""
    error = outcome.status.get("error")
    if not error:
        return
    code = f" [{error['code']}]" if error.get("code") else ""
    text = error.get("traceback") or f"{error['message']}{code}\n"
    sys.stderr.write(text)
    sys.stderr.flush()
    if settings.termination_log is not None:
        try:
            # Kubernetes keeps 4,096 bytes; what was raised is at the end of a traceback.
            settings.termination_log.write_bytes(text.encode()[-4096:])
        except OSError as exc:
            sys.stderr.write(f"the termination message cannot be written: {exc}\n")
