"""Opens the hub that the settings name, the same way for every mode."""

from __future__ import annotations

from digitalhub_runtime_python.hub import Hub
from digitalhub_runtime_python.settings import Settings


def open_hub(settings: Settings) -> Hub:
    """The hub that the settings name: a run's file, or the platform."""
    if settings.run_file is not None:
        from digitalhub_runtime_python.hub.offline import OfflineHub

        return OfflineHub(settings.run_file, settings.workspace / "outputs")
    from digitalhub_runtime_python.hub.core import CoreHub

    return CoreHub(settings)
