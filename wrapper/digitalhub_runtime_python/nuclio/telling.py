"""Tells of a fault before there is a run: to the log, the termination message, and the platform's run."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from digitalhub_runtime_python.errors import Fault


def tell(fault: Fault, environ: Mapping[str, str]) -> int:
    """Conclude with a fault; the exit status. The run that the environment names gets `status.error`."""
    from digitalhub_runtime_python.ending import Walk, conclude
    from digitalhub_runtime_python.hub.opening import open_hub
    from digitalhub_runtime_python.settings import Settings

    walk = Walk(Settings.to_end_with(environ))
    if environ.get("RUN_ID"):  # while an image is built there is none
        try:
            walk.report = open_hub(walk.settings).report
        except Fault as problem:
            sys.stderr.write(f"the platform is not told: {problem}\n")
    return conclude(fault, walk).exit_status
