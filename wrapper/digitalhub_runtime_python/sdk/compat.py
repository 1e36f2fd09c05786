"""Where SDK 0.14, 0.15 and 0.16 differ: everything that has to ask is here, the rest of sdk/ does not know."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from typing import Any

from digitalhub.context.api import get_context
from digitalhub.entities._processors import processors
from digitalhub.entities.run._base.entity import Run
from digitalhub.factory.entity import entity_factory

SDK_14 = not hasattr(Run, "local_execution")
"""0.14 has the flag in the spec; 0.15 has a method, and leaves the flag to the plug-in."""


READER: Any = next(
    getattr(processors, name)
    for name in ("crud_processor", "context_processor")
    if hasattr(processors, name)
)
"""What reads entities; 0.16 has one object for it, before it was one with much else."""


def read_run(run: Any) -> Any:
    """The run as the platform has it now, with one request; the SDK's own refresh takes two with 0.14."""
    client = run._context().client
    if not hasattr(client, "build_api"):
        return READER.read_unversioned_entity(run.key)
    place = {"project": run.project, "entity_type": "run", "entity_id": run.id}
    found = client.read_object(client.build_api("context", "read", **place))
    return entity_factory.build_entity_from_dict(found)


def list_runs(project: str, **filters: str) -> list[Any]:
    """The runs of a project that fit, newest first."""
    client = get_context(project).client
    if not hasattr(client, "build_api"):
        found: list[Any] = READER.list_context_entities(project, "run", **filters)
        return found
    api = client.build_api("context", "list", project=project, entity_type="run")
    listed = client.list_objects(api, params={**filters, "size": 200})
    return [entity_factory.build_entity_from_dict(entity) for entity in listed]


def read_secrets(project: str, names: Iterable[str]) -> dict[str, str]:
    """The values of a project's secrets, of those that exist."""
    reader: Any = getattr(processors, "secret_processor", READER)
    found = reader.read_secret_data(project, "secret", params={"keys": ",".join(names)})
    return {name: str(value) for name, value in found.items()}


def get_logger(name: str) -> logging.Logger:
    """A logger whose messages reach the user as the SDK's own do."""
    if SDK_14:
        return _attribute("digitalhub.utils.logger", "LOGGER")  # type: ignore[no-any-return]
    return _attribute("digitalhub.utils.logger.logger", "get_logger")(name)  # type: ignore[no-any-return]


def task_kind(function_kind: str, name: str) -> str:
    """The kind of the task that the SDK calls `name`: 0.14 passes the kind, 0.15 the action."""
    return name if "+" in name else f"{function_kind}+{name}"


def task_name(function_kind: str, action: str) -> str:
    """What the SDK calls the task of an action: the inverse of `task_kind`."""
    return f"{function_kind}+{action}" if SDK_14 else action


def files_path(project: str, entity_type: str, name: str, entity_id: str, source: str) -> str:
    """Where an entity's files go in the project's default store.

    Raises:
        ValueError: there is no default store.
    """
    module = (
        "digitalhub.entities._base.material.utils"
        if SDK_14
        else "digitalhub.entities._commons.utils"
    )
    build = _attribute(module, "build_log_path_from_source")
    return str(build(project, entity_type, name, entity_id, source))


def save_with_files(entity: Any, files: list[dict[str, Any]]) -> None:
    """Save an entity together with what is known of its files."""
    if SDK_14:
        entity.status.files = files  # save() moves a long list to its own endpoint
    else:
        entity._update_files_info(files)
    update(entity)


def update(entity: Any) -> None:
    """Save an entity that is stored already; 0.16 has a method for it."""
    if hasattr(type(entity), "update"):
        entity.update()
    else:
        entity.save(update=True)


def shared_run(context: Any) -> Any:
    """The run that a project's context has, in the form that `set_shared_run` takes."""
    return context.__dict__["_run_ctx"] if SDK_14 else context.__dict__["run"]


def set_shared_run(context: Any, run: Any) -> None:
    """Make what is logged in the project a product of `run`; None: of no run."""
    if run is None:
        context.unset_run()
    elif SDK_14 and not isinstance(run, str):
        context.set_run(f"{run.key}:{run.id}")
    else:
        context.set_run(run)


def is_registered(what: str, kind: str) -> bool:
    """Whether the SDK has a builder of this kind; `what` is `entity` or `runtime`.

    The registry's public ways to ask register every plug-in first, and this is asked meanwhile.
    """
    registry = _attribute("digitalhub.factory.registry", "registry")
    return kind in registry.__dict__.get(f"_{what}_builders", ())


def _attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)
