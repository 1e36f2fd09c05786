"""Opens the hub that the settings name, the same way for every mode."""

from __future__ import annotations

import os

from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.hub import Hub
from digitalhub_runtime_python.nesting import read_json
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.spec import RunSpec


def open_hub(settings: Settings) -> Hub:
    """The platform; or a hub without one, where a file or a variable holds the run.

    Without a platform the run's variables are set here, which a platform does before it starts the
    process, and `outputs/status.json` in the workspace gets what is reported.

    Raises:
        UsageFault: usage/run-file, the run cannot be read.
        PlatformFault: platform/not-configured, the settings name neither a run nor a platform.
    """
    if settings.run_file is None and not settings.run_json:
        from digitalhub_runtime_python.hub.core import CoreHub

        return CoreHub(settings)
    from digitalhub_runtime_python.hub.offline import OfflineHub

    run = OfflineHub(settings.run_file or _given(settings.run_json), None).load_run()
    apply_envs(run, settings)
    folder = settings.workspace / "outputs"
    return OfflineHub(run, folder, folder / "status.json")


def apply_envs(run: RunSpec, settings: Settings) -> None:
    """Set the run's variables, where no platform has; for a process that gets its run from another."""
    if settings.run_file is not None or settings.run_json:
        os.environ.update(run.envs)


def _given(text: str) -> RunSpec:
    try:
        return RunSpec.from_entity(read_json(text), own=True)
    except ValueError as exc:
        raise UsageFault(
            "usage/run-file", f"DHPY_RUN is not JSON: {exc}.", "It is what `dhpy manifests` writes."
        ) from exc
