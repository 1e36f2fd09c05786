"""Which runs used which environment, as the handles of the process engine keep it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import select

from digitalhub_python_control.store.database import entities
from digitalhub_python_control.store.queries import visible
from digitalhub_python_control.store.store import Store


@dataclass
class Use:
    """The runs that used one environment."""

    runs: int = 0
    functions: dict[tuple[str, str], str] = field(default_factory=dict)
    """(project, function's reference) -> the id of the newest run."""


def of_environments(store: Store, most: int = 5000) -> Mapping[str, Use]:
    """Interpreter -> who used it, of the newest `most` runs of all projects."""
    columns = (entities.c.project, entities.c.id, entities.c.function, entities.c.handle)
    newest = (
        select(*columns)
        .where(*visible("runs", None), entities.c.handle.is_not(None))
        .order_by(entities.c.seq.desc())
        .limit(most)
    )
    found: dict[str, Use] = {}
    with store.reading() as connection:
        for project, identity, function, handle in connection.execute(newest):
            python = (json.loads(handle) or {}).get("python")
            if python:
                use = found.setdefault(str(python), Use())
                use.runs += 1
                use.functions.setdefault((project, function or ""), identity)
    return found
