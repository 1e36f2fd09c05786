"""Projects: their spec lists what is in them, and deleting one deletes all of it."""

from __future__ import annotations

from digitalhub_python_control.api import removal
from digitalhub_python_control.api.resources import add, find, missing, page
from digitalhub_python_control.api.web import Call, Json
from digitalhub_python_control.store import times
from digitalhub_python_control.store.entities import EMBEDDED, Entity, new_entity, updated_entity

_BASE = ("extensions", "id", "key", "kind", "name", "project", "user")


def create(call: Call) -> Json:
    """POST of a project."""
    entity = new_entity("projects", "", call.document(), call.user, times.now())
    return with_lists(call, add(call, "projects", without_lists(entity)))


def list_projects(call: Call) -> Json:
    """GET of a page of projects."""
    filters = {k: v for k, v in call.query.items() if k in ("q", "name", "user", "state") and v}
    found = page(call, "projects", None, filters, all_versions=True)
    return {**found, "content": [with_lists(call, project) for project in found["content"]]}


def read(call: Call) -> Json:
    """GET of a project."""
    return with_lists(call, find(call, "projects", call.project))


def put(call: Call) -> Json:
    """PUT of a project: spec, metadata and status are replaced, the lists are the server's."""
    sent, now = call.document(), times.now()
    changed = call.store.change(
        "projects",
        call.project,
        call.project,
        lambda old: without_lists(updated_entity("projects", old, sent, call.user, now)),
    )
    if changed is None:
        raise missing("projects")
    return with_lists(call, changed)


def delete(call: Call) -> Json:
    """DELETE of a project; with `cascade` everything in it too, else what is in it stays stored."""
    find(call, "projects", call.project)
    if call.flag("cascade"):
        removal.remove_all(call)
    call.store.delete("projects", call.project, [call.project])
    return None


def share(call: Call) -> Json:
    """GET, POST and DELETE of …/share: there is one user here, so it is shared with nobody."""
    find(call, "projects", call.project)
    return []


def with_lists(call: Call, project: Entity) -> Entity:
    """The project with the latest version of each function, artifact, … in its spec."""
    found = call.store.latest(project["name"], EMBEDDED)
    lists = {
        plural: [_listed(call, plural, entity) for entity in latest]
        for plural, latest in found.items()
    }
    return {**project, "spec": {**project["spec"], **lists}}


def without_lists(project: Entity) -> Entity:
    """The project as it is stored: the lists are made when it is read."""
    spec = {key: value for key, value in project["spec"].items() if key not in EMBEDDED}
    return {**project, "spec": spec}


def _listed(call: Call, plural: str, entity: Entity) -> Entity:
    """All of an embedded entity; of any other what tells it apart, as Core does."""
    if entity["metadata"].get("embedded") is True:
        return entity
    metadata = entity["metadata"]
    address = f"{call.base_url}/api/v1/-/{entity['project']}/{plural}/{entity['id']}"
    listed = {field: entity[field] for field in _BASE if field in entity}
    listed["metadata"] = {
        "name": entity["name"],
        "project": entity["project"],
        "ref": address,
        "created": metadata["created"],
        "updated": metadata["updated"],
    }
    return listed
