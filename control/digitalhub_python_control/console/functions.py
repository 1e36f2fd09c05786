"""The pages of functions, and of what serves: versions, what changed between them, a form to run."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from digitalhub_python_control import shown
from digitalhub_python_control.api import resources
from digitalhub_python_control.api import runs as api
from digitalhub_python_control.api.web import Call, Refusal
from digitalhub_python_control.console import charts, gate, previews, signature
from digitalhub_python_control.console.runs import read_object
from digitalhub_python_control.console.web import Page, redirect
from digitalhub_python_control.store import times
from digitalhub_python_control.store.entities import Entity
from digitalhub_runtime_python.states import ENDED

_CHARTED = 60
"""The last runs of a function, which its chart shows."""


def projects(call: Call) -> Page:
    found = resources.page(call, "projects", None, {}, all_versions=True)
    return Page(
        "projects.html",
        {
            "projects": found["content"],
            "number": found["number"],
            "pages": found["totalPages"],
            "query": "",
        },
    )


def table(call: Call) -> Page:
    resources.check_project(call)
    filters = {"q": call.query["q"]} if call.query.get("q") else {}
    found = resources.page(call, "functions", call.project, filters, all_versions=False)
    query = f"q={filters['q']}" if filters else ""
    return Page("functions.html", {"functions": found["content"], "total": found["totalElements"], "number": found["number"], "pages": found["totalPages"], "query": query, "q": filters.get("q", "")})  # fmt: skip


def one(call: Call) -> Page:
    """A version of a function: its signature, what changed since another, its runs' outcomes."""
    function = resources.find(call, "functions")
    every = resources.page(
        dataclasses.replace(call, query={"size": "100"}),
        "functions",
        call.project,
        {"name": function["name"]},
        all_versions=True,
    )["content"]
    ids = [version["id"] for version in every]
    at = ids.index(function["id"]) if function["id"] in ids else len(ids)
    against = call.query.get("against") or (ids[at + 1] if at + 1 < len(ids) else "")
    older = resources.find(call, "functions", against) if against else None
    recent = resources.page(
        dataclasses.replace(call, query={"size": str(_CHARTED)}),
        "runs",
        call.project,
        {"function": f"{function['kind']}://{function['project']}/{function['name']}:"},
        all_versions=True,
    )
    ended = [run for run in recent["content"] if run["status"]["state"] in ENDED]
    good = sum(run["status"]["state"] == "COMPLETED" for run in ended)
    return Page(
        "function.html",
        {
            "function": function,
            "versions": every,
            "older": older,
            "changes": _changes(older, function) if older else [],
            "signature": _signature(function),
            "source": previews.source_text(function["spec"].get("source") or {}),
            "spec": json.dumps(_without_code(function["spec"]), indent=2),
            "good": good,
            "ended": len(ended),
            "runs_total": recent["totalElements"],
            "chart": _chart(function["name"], ended[::-1]),
        },
    )


def run(call: Call) -> Response:
    """Start a run of this version from the form's fields, or from a JSON object."""
    function = resources.find(call, "functions")
    text = (call.body.get("parameters") or [""])[0]
    known = _signature(function)
    values = signature.values_of(known, call.body) if known else {}
    if text.strip():
        values.update(read_object(text, "The parameters"))
    action = (call.body.get("action") or ["job"])[0]
    if action not in ("job", "serve"):
        raise Refusal(400, f"A function is run as a job or served, not {action!r}.")
    reference = f"{function['kind']}://{function['project']}/{function['name']}:{function['id']}"
    kind = f"{function['kind']}+{action}"
    tasks, _ = call.store.page("tasks", call.project, {"function": reference, "kind": kind}, size=1)
    task: Any = (
        tasks[0]
        if tasks
        else api.create_task(call.having({"kind": kind, "spec": {"function": reference}}))
    )
    name = f"{kind}://{call.project}/{task['id']}"
    spec = {"task": name, "parameters": values, "local_execution": False}
    made: Any = api.create(call.having({"kind": f"{kind}:run", "spec": spec}))
    return redirect(f"{gate.HOME}p/{call.project}/runs/{made['id']}")


def services(call: Call) -> Page:
    """The runs that serve now, with where they answer."""
    resources.check_project(call)
    live = {"action": "serve", "state": "BUILT,READY,PENDING,RUNNING"}
    found = resources.page(call, "runs", call.project, live, all_versions=True)
    return Page("services.html", {"runs": found["content"], "total": found["totalElements"], "number": found["number"], "pages": found["totalPages"], "query": ""})  # fmt: skip


def _signature(function: Entity) -> signature.Signature | None:
    source = function["spec"].get("source")
    if not isinstance(source, dict):
        return None
    return signature.read(previews.source_text(source), str(source.get("handler") or ""))


def _changes(old: Entity, new: Entity) -> list[tuple[str, str]]:
    """(kind, line) of what differs in code and spec; kind is add, del, at or same."""
    lines: list[tuple[str, str]] = []
    for title, read in (("source", _code), ("spec", _settings)):
        for line in difflib.unified_diff(read(old), read(new), f"{title} {old['id'][:8]}", f"{title} {new['id'][:8]}", lineterm=""):  # fmt: skip
            kind = "at" if line[:4] in ("--- ", "+++ ") else _KINDS.get(line[:1], "same")
            lines.append((kind, line))
    return lines


_KINDS = {"+": "add", "-": "del", "@": "at"}


def _code(function: Entity) -> list[str]:
    return previews.source_text(function["spec"].get("source") or {}).split("\n")


def _settings(function: Entity) -> list[str]:
    return json.dumps(_without_code(function["spec"]), indent=2, sort_keys=True).split("\n")


def _without_code(spec: Mapping[str, Any]) -> dict[str, Any]:
    source = spec.get("source")
    if not isinstance(source, dict):
        return dict(spec)
    return {**spec, "source": {k: v for k, v in source.items() if k not in ("base64", "code")}}


def _chart(name: str, runs: list[Entity]) -> Any:
    columns = []
    for run in runs:
        state = run["status"]["state"]
        kind = {"COMPLETED": "good", "ERROR": "bad"}.get(state, "other")
        told = f"{shown.moment(run['metadata']['created'])}: {state}, {shown.duration(run)}"
        columns.append((_seconds(run), kind, told))
    return charts.bars(f"How long the last {len(runs)} runs of {name} took", columns) if columns else None  # fmt: skip


def _seconds(run: Entity) -> float:
    steps = [s for s in run["status"].get("transitions") or [] if isinstance(s, dict)]
    moments = {s.get("status"): times.parse(s["time"], "time") for s in steps}
    if not steps or "RUNNING" not in moments:
        return 0.0
    return max(0.0, (times.parse(steps[0]["time"], "time") - moments["RUNNING"]) / 1_000_000)
