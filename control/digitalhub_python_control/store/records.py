"""Rows of the store: a run as the reconciler sees it, and an entity's columns. No transaction here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from digitalhub_python_control.store import times
from digitalhub_python_control.store.database import entities
from digitalhub_python_control.store.entities import Entity, searched
from digitalhub_python_control.store.names import plain

_REFERENCES = ("function", "workflow", "task")
RECORD = (
    entities.c.seq,
    entities.c.project,
    entities.c.id,
    entities.c.body,
    entities.c.state,
    entities.c.target,
    entities.c.engine,
    entities.c.handle,
    entities.c.attempt,
    entities.c.owner,
)


Key = tuple[str, str]
"""What names a run: its project and its id."""


@dataclass(frozen=True)
class RunRecord:
    """A run as the reconciler sees it."""

    project: str
    id: str
    entity: Entity
    state: str
    target: str | None
    """`None`: not ours to run; `RUN`, `STOP` or `DELETE`: what it should come to."""
    engine: str | None
    handle: Any
    """What the engine returned by its last side effect."""
    attempt: int
    owner: str | None
    """The control plane that works on it, where several share a database; None: nobody yet."""
    seq: int
    """Its place in the order of creation."""

    @property
    def key(self) -> Key:
        return self.project, self.id


def moved(
    entity: Entity, state: str, message: str | None = None, status: Mapping[str, Any] | None = None
) -> Entity:
    """The run in another state, with the transition written down, newest first."""
    merged = {**entity["status"], **(status or {})}
    merged = {key: value for key, value in merged.items() if value is not None}
    merged["state"] = state
    if message is not None:
        merged["message"] = message
    if state != entity["status"].get("state"):
        step = {"status": state, "time": times.exact_text(times.now())}
        if message is not None:
            step["message"] = message
        merged["transitions"] = [step, *entity["status"].get("transitions", [])]
    metadata = {**entity["metadata"], "updated": times.text(times.now())}
    return {**entity, "status": merged, "metadata": metadata}


def columns_of(entity: Entity) -> dict[str, Any]:
    """The columns of an entity's row that follow from the entity."""
    spec = entity["spec"]
    references = {f: plain(spec[f]) if isinstance(spec.get(f), str) else None for f in _REFERENCES}
    return {
        **{field: entity[field] for field in ("project", "id", "name", "kind", "user")},
        **references,
        "state": entity["status"]["state"],
        "updated": times.parse(entity["metadata"]["updated"], "metadata.updated"),
        **searched(entity),
        "body": json.dumps(entity),
    }


def same_run(project: str, identity: str) -> tuple[Any, ...]:
    """The conditions for one run's row, also when it is being deleted."""
    return (
        entities.c.type == "runs",
        entities.c.project == project,
        entities.c.id == identity,
    )


def record_of(row: Any) -> RunRecord:
    """The record in a row of the columns `RECORD`."""
    return RunRecord(
        project=row.project,
        id=row.id,
        entity=json.loads(row.body),
        state=row.state,
        target=row.target,
        engine=row.engine,
        handle=None if row.handle is None else json.loads(row.handle),
        attempt=row.attempt,
        owner=row.owner,
        seq=row.seq,
    )
