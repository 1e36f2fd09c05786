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
PATIENCE = 12.0
"""Seconds after which the process ends in any case; Core looks at its pods every 10."""

_BEFORE_START = ("CREATED", "BUILT", "READY", "PENDING")


def confirm(
    status: Mapping[str, Any],
    written: Mapping[str, Any],
    read: Callable[[], dict[str, Any]],
    write_again: Callable[[], dict[str, Any]],
) -> None:
    """Return when nothing older can be written over a report any more, as far as can be told.

    That is so when the platform has written the run since, with the report in it, or has been quiet
    for a while; and knows that the run has started, for with that it always writes once.

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
        if (run.get("status") or {}).get("state") in _BEFORE_START:
            continue
        if _stamp(run) != stamp or time.monotonic() - since > QUIET:
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
