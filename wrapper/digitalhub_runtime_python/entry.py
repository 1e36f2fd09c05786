"""`python -m digitalhub_runtime_python COMMAND`: the container's entry. Small imports, on purpose."""

from __future__ import annotations

import faulthandler
import io
import os
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING

from digitalhub_runtime_python import cpus, log
from digitalhub_runtime_python.errors import (
    EXIT_OK,
    DeadlineFault,
    Fault,
    Terminated,
    UsageFault,
)
from digitalhub_runtime_python.settings import Settings

if TYPE_CHECKING:
    from digitalhub_runtime_python.hub import Hub

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
        if command == "processor":
            from digitalhub_runtime_python.nuclio import standin

            return main(*standin.translate(argv[1:], environ))
        if command == "version":
            from digitalhub_runtime_python._version import __version__

            sys.stdout.write(__version__ + "\n")
            return EXIT_OK
    except Fault as fault:  # before there was a run
        if command == "processor":
            from digitalhub_runtime_python.nuclio.telling import tell

            return tell(fault, environ)
        from digitalhub_runtime_python.ending import Walk, conclude

        return conclude(fault, Walk(Settings.to_end_with(environ))).exit_status
    sys.stdout.write(USAGE) if command in ("-h", "--help", "help") else sys.stderr.write(USAGE)
    return EXIT_OK if command in ("-h", "--help", "help") else UsageFault.exit_status


def job(settings: Settings) -> int:
    """Execute the run that the environment names, report it, and say on standard error how it ended."""
    log.configure(settings.log_level, settings.log_format)
    if settings.cpus == "auto":
        cpus.stay_on_one()
    from digitalhub_runtime_python.ending import Walk, conclude  # on that CPU
    from digitalhub_runtime_python.hub.opening import open_hub
    from digitalhub_runtime_python.lifecycle import run_job

    _show_at_once()
    _raise_on_sigterm()
    try:
        hub = open_hub(settings)
        watchdog = _watch(hub, settings)
        ending = run_job(hub, settings, own_process=True)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # there is nothing left to clean up
        if watchdog is not None:
            watchdog.cancel()
            watchdog.join()  # if the deadline has just passed, it ends the process
    except BaseException as exc:  # noqa: BLE001 - outside of the function: while the run was set up or told
        ending = conclude(exc, Walk(settings))
    _name_threads()
    sys.stdout.flush()
    return ending.exit_status


def _show_at_once() -> None:
    """What the function prints is read while it runs, and must not be lost with the process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    faulthandler.enable()  # a crash in C code shows where it was


def _raise_on_sigterm() -> None:
    """The first SIGTERM ends the handler as an exception does, so its `finally` runs; a second one kills."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated(number)

    def hold() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    def release_in_child() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        release()

    signal.signal(signal.SIGTERM, end)
    # A process that the function forks dies of SIGTERM as any does. Held meanwhile: Python forgets a
    # signal that comes right after the fork, and Pool.terminate() would wait for ever.
    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=release_in_child)


def _watch(hub: Hub, settings: Settings) -> threading.Timer | None:
    """End the process when the deadline passes, also where the handler sits in C code or catches everything."""
    if settings.deadline is None:
        return None

    def expire() -> None:
        from digitalhub_runtime_python import error_report
        from digitalhub_runtime_python.ending import Walk, conclude

        fault = DeadlineFault(
            "deadline/passed",
            f"The run took longer than its deadline of {settings.deadline:g} s.",
            "Raise DHPY_DEADLINE, or make the function do less in one run.",
        )
        try:
            frame = sys._current_frames().get(threading.main_thread().ident or 0)
            walk = Walk(settings, hub.report)
            conclude(fault, walk, trace=error_report.stack_text(frame))
        finally:
            sys.stderr.flush()
            os._exit(fault.exit_status)

    timer = threading.Timer(settings.deadline, expire)
    timer.daemon = True
    timer.start()
    return timer


def _name_threads() -> None:
    """Say what keeps the process alive."""
    others = [
        t.name
        for t in threading.enumerate()
        if not t.daemon and t is not threading.main_thread() and t.is_alive()
    ]
    if others:
        sys.stderr.write(f"the process stays until these threads end: {', '.join(others)}\n")
