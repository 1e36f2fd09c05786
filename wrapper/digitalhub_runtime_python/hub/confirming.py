"""Sees that a report lasts on a platform that may write an older status over it.

DigitalHub Core reads a run, asks the cluster about its pod for a second or two, and writes back what it
read. A report that came meanwhile is gone: in a real cluster that was two short jobs in three, whose
results nobody would have seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Callable

from digitalhub_runtime_python.errors import PlatformFault
from digitalhub_runtime_python.states import MERGED

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.2
"""Seconds between two looks at the run."""
QUIET = 1.0
"""Seconds after which a platform that writes nothing is taken to have nothing older in hand."""
QUIET_BEFORE_START = 2.5
"""The same while it has not yet seen that the run started. What it still has in hand it read before the
report, and asking the cluster takes it a second or two; what it reads from now on has the report in it."""
PATIENCE = 12.0
"""Seconds after which the process ends in any case."""

_BEFORE_START = ("CREATED", "BUILT", "READY", "PENDING")


def confirm(
    status: Mapping[str, Any],
    written: Mapping[str, Any],
    read: Callable[[], dict[str, Any]],
    write_again: Callable[[], dict[str, Any]],
) -> None:
    """Return when nothing older can be written over a report any more, as far as can be told.

    That is so when the platform has written the run since, with the report in it, and knows that the
    run has started; or has been quiet for a while. Its next look at the pod, up to 10 s away, is not
    waited for: the pod ends when its work does.

    Args:
        status: what was reported.
        written: the run as the platform answered it to that.
        read: gets the run.
        write_again: reports once more, and gets the run as it then is.
    """
    stamp, since = _stamp(written), time.monotonic()
    give_up = since + PATIENCE
    while time.monotonic() < give_up:
        time.sleep(LOOK_EVERY)
        try:
            run = read()
            if not _has(run.get("status") or {}, status):
                logger.info("the platform has written over the report; it is sent again")
                stamp, since = _stamp(write_again()), time.monotonic()
                continue
        except PlatformFault as fault:  # it has been delivered; this is only a second look
            logger.debug("the report could not be looked at: %s", fault)
            continue
        has_written = _stamp(run) != stamp
        if (run.get("status") or {}).get("state") in _BEFORE_START:
            if has_written:
                stamp, since = _stamp(run), time.monotonic()
            elif time.monotonic() - since > QUIET_BEFORE_START:
                return
        elif has_written or time.monotonic() - since > QUIET:
            return


def _stamp(run: Mapping[str, Any]) -> Any:
    """What changes with each write."""
    return (run.get("metadata") or {}).get("updated")


def _has(there: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether what was reported is there, by name: a platform may write a value in another form."""
    for key, value in status.items():
        if not value:
            continue
        if key not in there:
            return False
        if key in MERGED and not set(value) <= set(there[key] or {}):
            return False
    return True
