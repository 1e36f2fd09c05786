"""Waits for a run: one small request at a time, quick at first, so that a short run is not waited for long."""

from __future__ import annotations

import socket
import time
from typing import Any
from urllib.parse import urlsplit

from digitalhub.utils.exceptions import BackendError, EntityNotExistsError

from digitalhub_runtime_python import error_report
from digitalhub_runtime_python.progress import Line, line_of
from digitalhub_runtime_python.sdk import compat, pods, views
from digitalhub_runtime_python.sdk.service import service_url
from digitalhub_runtime_python.states import ENDED

logger = compat.get_logger(__name__)

FIRST_PAUSE, LAST_PAUSE = 0.05, 0.25
"""Seconds between two requests, growing from the first to the last."""
PATIENCE = 60.0
"""Seconds that the platform may be away."""
ANSWER_WITHIN = 30.0
"""Seconds that a service may take to answer after the platform has named its address."""


def wait(run: Any, log_info: bool, timeout: float | None) -> None:
    """Refresh `run` until it has ended, or, for a service, until it answers.

    Raises:
        TimeoutError: `timeout` seconds are over.
    """
    give_up = None if timeout is None else time.monotonic() + timeout
    pause, said, outage, warned = FIRST_PAUSE, "", 0.0, ""
    line = Line(logger.info)
    try:
        while True:
            outage = _refresh_patiently(run, outage)
            state = run.status.state
            if log_info and state != said:
                line.end()
                logger.info("run %s is %s", run.id, state)
                said = state
            if log_info:
                line.show(_progress(run))
            if state in ENDED or _serves(run):
                break
            obstacle = pods.obstacle(vars(run.status)) or ""
            if obstacle and obstacle.partition(":")[0] != warned.partition(":")[0]:
                line.end()
                logger.warning("run %s does not get on: %s", run.id, obstacle)
                warned = obstacle
            if give_up is not None and time.monotonic() > give_up:
                why = f" ({obstacle})" if obstacle else ""
                raise TimeoutError(f"run {run.id} is {state} after {timeout:g} s{why}; it goes on")
            time.sleep(pause)
            pause = min(pause * 1.3, LAST_PAUSE)
    except KeyboardInterrupt:
        logger.info("run %s goes on: run.wait() waits again, run.stop() stops it", run.id)
        raise
    finally:
        line.end()
    if run.status.state == "ERROR":
        show_error(run)


def _progress(run: Any) -> str:
    """How far the run is, in a line; empty where it does not say."""
    told = line_of(run.status.progress)
    return f"{views.function_name(run)} {told}" if told else ""


def _refresh_patiently(run: Any, outage: float) -> float:
    """Refresh; a platform that is away for a while (a restart) does not end the wait.

    Args:
        outage: since when it has not answered, by the monotonic clock; 0 while it answers.

    Returns:
        The same, as it is now.
    """
    try:
        refresh(run)
    except BackendError as exc:
        if not isinstance(exc, EntityNotExistsError) and '"status": 404' not in str(exc):
            raise
        run.status.state = "DELETED"
    except OSError as exc:  # what requests raises without an answer
        if not outage:
            logger.warning("run %s cannot be read, trying again: %s", run.id, exc)
        elif time.monotonic() - outage > PATIENCE:
            raise
        return outage or time.monotonic()
    return 0.0


def refresh(run: Any) -> None:
    """Read the run anew."""
    run._update_attributes(compat.read_run(run))


def show_error(run: Any) -> None:
    """Log why a run failed: the user's own error, where it was reported, before the platform's words."""
    error = run.status.error if isinstance(run.status.error, dict) else {}
    platforms = run.status.message or "no reason is known; see run.logs()"
    message = error_report.summary(error) if error else platforms
    logger.error(
        "run %s failed: %s", run.id, "\n".join([message, error.get("traceback") or ""]).strip()
    )


def _serves(run: Any) -> bool:
    """Whether a service run has an address that answers, or that cannot be reached from here."""
    if not run.kind.startswith("python+serve") or run.status.state == "STOP":
        return False
    url = service_url(run)
    if url is None:
        return False
    parts = urlsplit(url)
    give_up = time.monotonic() + ANSWER_WITHIN
    while True:
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=1).close()
        except socket.gaierror:
            return True  # a name of the cluster's own: it cannot be tried from here
        except OSError:
            refresh(run)
            if run.status.state in ENDED or time.monotonic() > give_up:
                return True
            time.sleep(LAST_PAUSE)
        else:
            return True
