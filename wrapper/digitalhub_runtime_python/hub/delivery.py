"""Asks a platform in trouble again, for a bounded time; a report that it does not take is kept on disk."""

from __future__ import annotations

import logging
import time
from typing import Callable, TypeVar

from digitalhub_runtime_python.errors import PlatformFault
from digitalhub_runtime_python.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")


def deliver(
    write: Callable[[], T],
    run_id: str,
    text: Callable[[], str],
    settings: Settings,
    seconds: float | None = None,
) -> T:
    """What `write` returns, once it succeeds.

    Args:
        write: delivers the report; may be repeated.
        text: the report as JSON, to keep where it is not delivered.
        seconds: how long to try; by default the settings' time.

    Raises:
        PlatformFault: platform/report, it was not delivered; the message says where it is kept.
    """
    try:
        return patiently(write, settings.report_timeout if seconds is None else seconds)
    except PlatformFault as fault:
        raise _kept(run_id, text(), settings, fault) from fault


def patiently(ask: Callable[[], T], seconds: float) -> T:
    """What `ask` returns, asked again while the platform is in trouble, for so long; raises as `ask`."""
    give_up = time.monotonic() + seconds
    pause = 0.5
    while True:
        try:
            return ask()
        except PlatformFault as fault:
            if not fault.retry or time.monotonic() + pause > give_up:
                raise
            logger.warning("the platform does not answer, trying again in %.1f s: %s", pause, fault)
            time.sleep(pause)
            pause = min(pause * 2, 10)


def _kept(run_id: str, text: str, settings: Settings, fault: PlatformFault) -> PlatformFault:
    place = settings.workspace.absolute() / f"report-{run_id}.json"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")
        kept = f"It is kept in {place}."
    except OSError as exc:
        kept = f"It could not be kept in {place} either ({exc.strerror}): {text}"
    return PlatformFault(
        "platform/report",
        f"The report of run {run_id} was not delivered: {fault.message} {kept}",
        "PUT it into the run's status when the platform is back.",
    )
