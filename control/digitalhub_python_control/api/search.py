"""The search of SDK and console: Solr's address and the filters that the SDKs write, on our store."""

from __future__ import annotations

import json
import re
from typing import Any, Callable

from sqlalchemy import ColumnElement, func, or_, select

from digitalhub_python_control.api.resources import (
    MAX_PAGE_SIZE,
    PAGE_SIZE,
    check_project,
    envelope,
)
from digitalhub_python_control.api.web import Call, Json, Refusal
from digitalhub_python_control.store import times
from digitalhub_python_control.store.database import entities
from digitalhub_python_control.store.entities import TYPES, Entity
from digitalhub_python_control.store.names import plain

_FILTER = re.compile(r"([a-zA-Z_.]+):(.*)", re.DOTALL)
_RANGE = re.compile(r"\[\s*(\S+)\s+TO\s+(\S+)\s*\]")
_MOST = 100
"""Words and filters of one search: a database reads an expression only so deep."""
_NEVER = ("projects", "secrets")
"""Types that are not searched."""


def find_entities(call: Call) -> Json:
    """GET …/solr/search/item: a page of what fits, newest first."""
    check_project(call)
    conditions = [
        entities.c.project == plain(call.project),
        entities.c.type.not_in(_NEVER),
        or_(entities.c.target.is_(None), entities.c.target != "DELETE"),
    ]
    for name, value in call.queries:
        if name == "q" and value.strip():
            conditions += _words(value)
        elif name == "fq" and value.strip():
            conditions += _filter(value)
        if len(conditions) > _MOST:
            raise Refusal(400, f"A search takes up to {_MOST} words and filters.")
    number, size = (
        call.number("page", 0, 0, 10**9),
        call.number("size", PAGE_SIZE, 1, MAX_PAGE_SIZE),
    )
    query = select(entities.c.type, entities.c.body).where(*conditions)
    ordered = query.order_by(entities.c.created.desc(), entities.c.seq.desc())
    with call.store.reading() as connection:
        total = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
        rows = connection.execute(ordered.limit(size).offset(number * size)).all()
    found: list[Any] = [_item(row.type, json.loads(row.body)) for row in rows]
    return envelope(found, total, number, size)


def _item(plural: str, entity: Entity) -> dict[str, Any]:
    fields = ("id", "kind", "project", "name", "key", "metadata", "status")
    return {
        **{field: entity[field] for field in fields},
        "type": TYPES[plural].singular,
        "highlights": {},
    }


def _words(text: str) -> list[ColumnElement[bool]]:
    """Every word of a query occurs somewhere in name, kind, description or labels."""
    columns = [entities.c[c] for c in ("id", "name", "kind", "description", "labels")]
    words = [plain(word).lower().strip('"*') for word in text.split()]
    return [
        or_(*(func.lower(column).contains(word, autoescape=True) for column in columns))
        for word in words
        if word
    ]


def _filter(text: str) -> list[ColumnElement[bool]]:
    """One `fq`: `field:x`, `field:"x"`, `field:(a OR b)`, `field:(a AND b)`, `field:[from TO to]`."""
    found = _FILTER.fullmatch(text.strip())
    if not found:
        raise Refusal(400, f"{text[:80]!r} is not a filter. Write field:value.")
    field, value = found.group(1), plain(found.group(2).strip())
    field = field.partition("metadata.")[2] or field
    if field in ("created", "updated"):
        return _range(field, value)
    if field not in _TESTS:
        raise Refusal(400, f"There is no filter {field!r}. Filters are: {', '.join(_TESTS)}.")
    is_group = value.startswith("(") and value.endswith(")")
    values = re.split(r"\s+(?:OR|AND)\s+", value[1:-1]) if is_group else [value]
    if len(values) > _MOST:
        raise Refusal(400, f"A filter takes up to {_MOST} values.")
    tests = [_TESTS[field](one.strip().strip('"')) for one in values]
    return [or_(*tests)] if is_group and " OR " in value else tests


def _like(column: ColumnElement[str], value: str) -> ColumnElement[bool]:
    """The value as it is, or with `*` for anything."""
    if "*" not in value:
        return column == value
    pattern = re.sub(r"([%_/])", r"/\1", value).replace("*", "%")
    return column.like(pattern, escape="/")


_TESTS: dict[str, Callable[[str], ColumnElement[bool]]] = {
    "type": lambda value: entities.c.type == f"{value}s",
    "kind": lambda value: _like(entities.c.kind, value),
    "name": lambda value: _like(entities.c.name, value),
    "state": lambda value: entities.c.state == value,
    "user": lambda value: entities.c.user == value,
    "id": lambda value: entities.c.id == value,
    "project": lambda value: entities.c.project == value,
    "description": lambda value: entities.c.description.contains(value.lower(), autoescape=True),
    "labels": lambda value: entities.c.labels.contains(f"\n{value.lower()}\n", autoescape=True),
}


def _range(field: str, value: str) -> list[ColumnElement[bool]]:
    """`[from TO to]`, both included; `*` is open."""
    found = _RANGE.fullmatch(value)
    if not found:
        raise Refusal(400, f"{value[:80]!r} is not a range. Write {field}:[from TO to].")
    start, end = found.groups()
    column = entities.c[field]
    conditions: list[ColumnElement[bool]] = []
    if start != "*":
        conditions.append(column >= times.parse(start, field))
    if end != "*":
        conditions.append(column <= times.parse(end, field) + 999)
    return conditions
