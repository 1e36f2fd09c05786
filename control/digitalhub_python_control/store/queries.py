"""Turns the parameters of a list request into SQL conditions, as Core reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlalchemy import ColumnElement, Select, false, func, or_, select

from digitalhub_python_control.store import times
from digitalhub_python_control.store.database import entities
from digitalhub_python_control.store.entities import check_state
from digitalhub_python_control.store.names import plain

_EXACT_REFERENCE = re.compile(r"[^:/]+://[^/]+/[^/:]+:[^/:]+")
_FIELDS = ("name", "kind", "user")
_RANGES = ("created", "updated")
_REFERENCES = ("function", "workflow", "task")
_KEY = re.compile(r"store://([^/]+)/(?:function|workflow|task)/([^/]+)/([^/]+)")

TAKEN = frozenset(
    (
        *_FIELDS,
        *_RANGES,
        *_REFERENCES,
        "id",
        "state",
        "q",
        "action",
        "versions",
        "page",
        "size",
        "sort",
    )
)
"""Every parameter of a list request that has a meaning."""


def visible(plural: str, project: str | None) -> list[ColumnElement[bool]]:
    """The conditions for entities that clients may see: runs that are being deleted are gone."""
    conditions: list[ColumnElement[bool]] = [entities.c.type == plural]
    if project is not None:
        conditions.append(entities.c.project == project)
    conditions.append(or_(entities.c.target.is_(None), entities.c.target != "DELETE"))
    return conditions


def listing(
    plural: str, project: str | None, filters: Mapping[str, str], *, all_versions: bool
) -> Select[tuple[int]]:
    """Selects `seq` of the entities that a list request asks for.

    Raises:
        UsageFault: `created` or `updated` is not a range of instants.
    """
    conditions, wanted = visible(plural, project), conditions_of(plural, filters)
    if all_versions:
        return select(entities.c.seq).where(*conditions, *wanted)
    if "name" in filters:  # changes nothing but the time: a name's versions are one partition
        conditions.append(entities.c.name == plain(filters["name"]))
    # The latest version of each name first, the filters on those after: an old version that fits
    # the filters is not an answer.
    return latest(conditions).where(*wanted)


def latest(conditions: list[ColumnElement[bool]]) -> Select[tuple[int]]:
    """Selects `seq` of the latest version of each name among the entities that fit."""
    rank = func.row_number().over(
        partition_by=(entities.c.type, entities.c.project, entities.c.name),
        order_by=(entities.c.created.desc(), entities.c.seq.desc()),
    )
    ranked = select(entities.c.seq, rank.label("rank")).where(*conditions).subquery()
    first = select(entities.c.seq).join(ranked, ranked.c.seq == entities.c.seq)
    return first.where(ranked.c.rank == 1)


def conditions_of(plural: str, filters: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """One condition for each filter; a value that nothing has gives an empty list.

    `function`, `workflow` and `task` take a reference, a part of one, or an entity's key; `state` several
    states, with commas; `id` the beginning of an id.

    Raises:
        UsageFault: a run's `state` is not one that exists.
    """
    if any(plain(value) != value for value in filters.values()):
        return [false()]  # no stored text has it, and PostgreSQL would refuse it
    conditions: list[ColumnElement[bool]] = []
    for field in _FIELDS:
        if field in filters:
            conditions.append(entities.c[field] == filters[field])
    for field in _REFERENCES:
        if field in filters:
            column, value = entities.c[field], reference(filters[field])
            exact = _EXACT_REFERENCE.fullmatch(value)
            conditions.append(column == value if exact else column.contains(value, autoescape=True))
    if "action" in filters and "task" not in filters:
        conditions.append(entities.c.task.contains(filters["action"], autoescape=True))
    if "state" in filters:
        states = [state.strip() for state in filters["state"].split(",")]
        if plural == "runs":
            for state in states:
                check_state(state)
        conditions.append(entities.c.state.in_(states))
    if "id" in filters:
        conditions.append(entities.c.id.startswith(filters["id"], autoescape=True))
    if "q" in filters:
        columns = [entities.c.id, entities.c.name]
        if plural == "runs":
            columns += [entities.c.function, entities.c.workflow]
        conditions.append(or_(*(c.icontains(filters["q"], autoescape=True) for c in columns)))
    for field in _RANGES:
        if field in filters:
            conditions += _range(field, filters[field])
    return conditions


def reference(value: str) -> str:
    """What runs and tasks hold of an entity whose key is `value`; any other value as it is."""
    found = _KEY.fullmatch(value)
    if found is None:
        return value
    project, kind, name = found.groups()
    return f"{kind}://{project}/{name}"


def _range(field: str, value: str) -> list[ColumnElement[bool]]:
    """`start[,end]`, both included."""
    start, _, end = value.partition(",")
    column = entities.c[field]
    conditions: list[ColumnElement[bool]] = []
    # Stored instants have microseconds, written ones milliseconds: the end includes its last one.
    if start.strip():
        conditions.append(column >= times.parse(start.strip(), field))
    if end.strip():
        conditions.append(column <= times.parse(end.strip(), field) + 999)
    return conditions
