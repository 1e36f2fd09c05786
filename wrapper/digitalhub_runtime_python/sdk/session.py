"""The SDK's own objects for a run: for handlers that ask for `project` or `run`, here and in a container."""

from __future__ import annotations

from typing import Any

from digitalhub.context.api import get_context

from digitalhub_runtime_python.sdk import compat


def get_project(name: str) -> Any:
    """The SDK's Project."""
    import digitalhub

    return digitalhub.get_project(name)


def get_entity(key: str) -> Any:
    """The SDK's entity under a key; without an id in it, the latest version.

    Raises:
        BackendError: nothing is stored under the key.
    """
    place, _, name = key.rpartition("/")
    parts = place.split("/")  # store:, '', project, type, kind
    if len(parts) == 5 and parts[3] in ("run", "task"):
        return compat.READER.read_unversioned_entity(key)
    if len(parts) == 5 and ":" not in name:
        return compat.READER.read_context_entity(name, entity_type=parts[3], project=parts[2])
    return compat.READER.read_context_entity(key)


def open_session(project: str, run_id: str) -> tuple[Any, Any]:
    """The Project and the Run of a container; from here on, what the run logs is its product."""
    the_project = get_project(project)
    run = compat.READER.read_unversioned_entity(run_id, entity_type="run", project=project)
    compat.set_shared_run(run._context(), run)
    return the_project, run


def logged(project: str) -> dict[str, str]:
    """Name -> key of what the current run has logged by itself; SDK 0.14 does not keep it."""
    return dict(getattr(get_context(project), "logged", None) or {})
