"""What is read apart from its entity: metrics, lists of files, values of secrets."""

from __future__ import annotations

from typing import Any

from digitalhub_python_control.api.resources import add, check_project, find
from digitalhub_python_control.api.web import Call, Handler, Json, Refusal
from digitalhub_python_control.store import times
from digitalhub_python_control.store.entities import new_entity
from digitalhub_python_control.store.names import check_name

WITH_METRICS = ("runs", "models")
WITH_FILES = ("artifacts", "dataitems", "models")


def reading_metrics(plural: str) -> Handler:
    def metrics(call: Call) -> Json:
        find(call, plural)
        return call.store.details(plural, call.project, call.id, "metric")

    return metrics


def reading_metric(plural: str) -> Handler:
    def metric(call: Call) -> Json:
        find(call, plural)
        found = call.store.details(plural, call.project, call.id, "metric")
        if call.path["name"] not in found:
            raise Refusal(404, f"No such metric {call.path['name']}.")
        value: Json = found[call.path["name"]]
        return value

    return metric


def writing_metric(plural: str) -> Handler:
    def metric(call: Call) -> Json:
        find(call, plural)
        name, value = check_name(call.path["name"], "metric's name"), call.body
        if not _is_number(value) and not (isinstance(value, list) and all(map(_is_number, value))):
            raise Refusal(400, f"The metric {name!r} must be a number or a list of numbers.")
        call.store.set_detail(plural, call.project, call.id, "metric", name, value)
        return None

    return metric


def reading_files(plural: str) -> Handler:
    """A plain list: both SDKs fail on the page that newer Cores answer."""

    def files(call: Call) -> Json:
        entity = find(call, plural)
        stored = call.store.details(plural, call.project, call.id, "files")
        listed = stored.get("info", entity["status"].get("files"))
        return listed if isinstance(listed, list) else []

    return files


def writing_files(plural: str) -> Handler:
    def files(call: Call) -> Json:
        find(call, plural)
        if not isinstance(call.body, list) or not all(isinstance(one, dict) for one in call.body):
            raise Refusal(400, "The list of files must be a JSON array of objects.")
        call.store.set_detail(plural, call.project, call.id, "files", "info", call.body)
        return None

    return files


def read_secrets(call: Call) -> Json:
    """GET …/secrets/data?keys=a,b: values of those that exist."""
    check_project(call)
    names = [n for key, value in call.queries if key == "keys" for n in value.split(",") if n]
    return dict(call.store.secret_values(call.project, names))


def write_secrets(call: Call) -> Json:
    """PUT …/secrets/data: values by name; a secret that is new becomes an entity too."""
    check_project(call)
    values = call.document()
    for name, value in values.items():
        check_name(name, "secret's name")
        if not isinstance(value, str):
            raise Refusal(400, f"The value of the secret {name!r} must be a string.")
    for name in values:
        _, total = call.store.page("secrets", call.project, {"name": name}, size=1)
        if not total:
            spec: dict[str, Any] = {"path": f"secret://{name}", "provider": "kubernetes"}
            sent = {"kind": "secret", "name": name, "spec": spec}
            add(call, "secrets", new_entity("secrets", call.project, sent, call.user, times.now()))
    call.store.set_secret_values(call.project, values)
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
