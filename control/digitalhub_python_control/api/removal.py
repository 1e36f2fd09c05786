"""Deleting, with all that hangs on what is deleted: function → tasks → runs → logs; files."""

from __future__ import annotations

from digitalhub_python_control.api import runs
from digitalhub_python_control.api.resources import find
from digitalhub_python_control.api.web import Call, Handler, Json, Refusal
from digitalhub_python_control.store.entities import TYPES, Entity

_WITH_FILES = ("artifacts", "dataitems", "models")


def deleting(plural: str) -> Handler:
    def delete(call: Call) -> Json:
        remove(call, plural, [find(call, plural)], cascade=call.flag("cascade"))
        return None

    return delete


def deleting_by_name(plural: str) -> Handler:
    """DELETE of all versions of a name."""

    def delete(call: Call) -> Json:
        name = call.query.get("name")
        if not name:
            raise Refusal(400, f"Say which {plural} to delete: ?name=…")
        found, _ = call.store.page(plural, call.project, {"name": name})
        remove(call, plural, found, cascade=call.flag("cascade"))
        return None

    return delete


def remove(call: Call, plural: str, found: list[Entity], *, cascade: bool) -> None:
    """Delete entities of one type; with `cascade` what hangs on them too."""
    if plural == "runs":
        runs.remove(call, [run["id"] for run in found])
        return
    if cascade:
        for entity in found:
            _remove_dependents(call, plural, entity)
    if plural == "secrets":
        call.store.delete_secret_values(call.project, [entity["name"] for entity in found])
    call.store.delete(plural, call.project, [entity["id"] for entity in found])


def remove_all(call: Call) -> None:
    """Delete everything in a project."""
    for plural in TYPES:
        if plural != "projects":
            found, _ = call.store.page(plural, call.project, {})
            remove(call, plural, found, cascade=plural in _WITH_FILES)
    call.store.delete_secret_values(call.project)


def _remove_dependents(call: Call, plural: str, entity: Entity) -> None:
    name = f"{entity['project']}/{entity['name']}:{entity['id']}"
    if plural == "functions":
        reference = {"function": f"{entity['kind']}://{name}"}
        found, _ = call.store.page("tasks", call.project, reference)
        remove(call, "tasks", found, cascade=True)
        found, _ = call.store.page("runs", call.project, reference)
        remove(call, "runs", found, cascade=True)
    elif plural == "tasks":
        reference = {"task": f"{entity['kind']}://{entity['project']}/{entity['id']}"}
        found, _ = call.store.page("runs", call.project, reference)
        remove(call, "runs", found, cascade=True)
    elif plural in _WITH_FILES:
        _remove_files(call, plural, entity)


def _remove_files(call: Call, plural: str, entity: Entity) -> None:
    """Delete stored files where the SDK put them for this very entity, and nowhere else.

    An entity may also point at files that were there before it: those are not its own.
    """
    path = entity["spec"].get("path")
    place = f"{entity['project']}/{TYPES[plural].singular}/{entity['name']}/{entity['id']}/"
    if isinstance(path, str) and path.startswith("s3://"):
        bucket, _, key = path.partition("://")[2].partition("/")
        if key.startswith(place):
            call.objects.delete_below(bucket, place)
