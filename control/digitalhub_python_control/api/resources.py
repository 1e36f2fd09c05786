"""The requests that every type of entity has in common: create, list, read, update, delete."""

from __future__ import annotations

from typing import Any

from digitalhub_python_control.api.web import Call, Handler, Json, Refusal
from digitalhub_python_control.store import queries, times
from digitalhub_python_control.store.entities import TYPES, Entity, new_entity, updated_entity
from digitalhub_python_control.store.store import DuplicateError

PAGE_SIZE = 25
MAX_PAGE_SIZE = 1000


def missing(plural: str) -> Refusal:
    """404 in the words that the SDKs look for; Core's newer ones (`No such run.`) they do not know."""
    return Refusal(404, f"No such {TYPES[plural].label}.")


def find(call: Call, plural: str, identity: str | None = None) -> Entity:
    """The entity that the address names.

    Raises:
        Refusal: it was not found (404).
    """
    entity = call.store.get(plural, call.project, call.id if identity is None else identity)
    if entity is None:
        raise missing(plural)
    return entity


def add(call: Call, plural: str, entity: Entity, target: str | None = None) -> Entity:
    """Store a new entity.

    Raises:
        Refusal: there is one of that id already (400).
    """
    try:
        call.store.create(plural, entity, target=target)
    except DuplicateError:
        what = f"{TYPES[plural].singular}:{entity['id']}"
        raise Refusal(400, f"Duplicated entity {what}.") from None
    return entity


def check_project(call: Call) -> None:
    """Refuse what is asked of a project that does not exist."""
    if call.store.get("projects", call.project, call.project) is None:
        raise missing("projects")


def creating(plural: str) -> Handler:
    def create(call: Call) -> Json:
        check_project(call)
        entity = new_entity(plural, call.project, call.document(), call.user, times.now())
        return add(call, plural, entity)

    return create


def listing(plural: str) -> Handler:
    def list_entities(call: Call) -> Json:
        project = call.path.get("project")
        if project is not None:
            check_project(call)
        filters = {k: v for k, v in call.query.items() if k in queries.TAKEN and v != ""}
        all_versions = not TYPES[plural].versioned or filters.get("versions") == "all"
        return page(call, plural, project, filters, all_versions=all_versions)

    return list_entities


def page(
    call: Call, plural: str, project: str | None, filters: dict[str, str], *, all_versions: bool
) -> dict[str, Any]:
    number = call.number("page", 0, 0, 10**9)
    size = call.number("size", PAGE_SIZE, 1, MAX_PAGE_SIZE)
    content, total = call.store.page(
        plural, project, filters, all_versions=all_versions, page=number, size=size
    )
    return envelope(content, total, number, size)


def envelope(content: list[Any], total: int, number: int, size: int) -> dict[str, Any]:
    """A page as Core answers it; the SDKs read `content` and `totalPages`."""
    pages = -(-total // size)
    sort = {"empty": False, "sorted": True, "unsorted": False}
    return {
        "content": content,
        "pageable": {
            "pageNumber": number,
            "pageSize": size,
            "sort": sort,
            "offset": number * size,
            "paged": True,
            "unpaged": False,
        },
        "totalElements": total,
        "totalPages": pages,
        "last": number >= pages - 1,
        "size": size,
        "number": number,
        "numberOfElements": len(content),
        "sort": sort,
        "first": number == 0,
        "empty": not content,
    }


def reading(plural: str) -> Handler:
    def read(call: Call) -> Json:
        return find(call, plural)

    return read


def changing(plural: str) -> Handler:
    def put(call: Call) -> Json:
        sent, now, force = call.document(), times.now(), call.flag("force")
        changed = call.store.change(
            plural,
            call.project,
            call.id,
            lambda old: updated_entity(plural, old, sent, call.user, now, force=force),
        )
        if changed is None:
            raise missing(plural)
        return changed

    return put


def relating(plural: str) -> Handler:
    """GET …/relationships: what the metadata says, with the source filled in."""

    def relationships(call: Call) -> Json:
        entity = find(call, plural)
        listed = entity["metadata"].get("relationships") or []
        return [{"source": entity["key"], **one} for one in listed if isinstance(one, dict)]

    return relationships
