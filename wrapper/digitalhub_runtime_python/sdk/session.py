"""The SDK's objects for a run in a container, loaded when a handler asks for `project` or `run`."""

from __future__ import annotations

from typing import Any

import digitalhub as dh
from digitalhub.context.api import get_context


def open_session(project: str, run_id: str) -> tuple[Any, Any]:
    """(Project, Run) of the SDK; what the handler logs from then on is a product of the run.

    The SDK itself makes it so: its context reads RUN_ID.
    """
    return dh.get_project(project), dh.get_run(run_id, project=project)


def get_entity(key: str) -> Any:
    """The SDK's entity of a key, `store://project/type/kind/name:id`."""
    entity_type = key.partition("store://")[2].split("/")[1]
    return getattr(dh, f"get_{entity_type}")(key)


def logged(project: str) -> dict[str, str]:
    """Name -> key of what the handler logged in the project; SDK 0.14 does not keep it."""
    return dict(getattr(get_context(project), "logged", {}))
