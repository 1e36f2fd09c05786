"""Runs: what is merged into a new one, what a PUT may change, how one is stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from digitalhub_python_control.api.resources import add, check_project, find, missing
from digitalhub_python_control.api.web import Call, Json, Refusal, answer
from digitalhub_python_control.running import logs
from digitalhub_python_control.store import times
from digitalhub_python_control.store.entities import Entity, check_state, new_entity, updated_entity
from digitalhub_python_control.store.names import check_same, parse_reference
from digitalhub_python_control.store.records import RunRecord, moved
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.spec import RunSpec, interpreter_version
from digitalhub_runtime_python.states import ENDED, MERGES, may_move

_SERVERS = ("state", "transitions", "service", "k8s", "pods", "events")
"""Keys of a run's status that are the server's: a client's copy of them is older, never newer."""

DEEPEST = 16
"""Runs that may have started each other one below the other: a function that runs itself comes to an end."""


def create(call: Call) -> Json:
    """POST of a run. One that is not local is merged, stored and left to the reconciler."""
    check_project(call)
    run = new_entity("runs", call.project, call.document(), call.user, times.now())
    run["spec"]["local_execution"] = bool(run["spec"].get("local_execution"))
    if run["spec"]["local_execution"]:
        check_state(run["status"]["state"])
        return add(call, "runs", run)
    run = merged(call, run)
    check_runnable(run)
    if call.run is not None:
        run["status"]["parent"] = _parent(call.run)
    for state in ("BUILT", "READY"):
        run = moved(run, state)
    return add(call, "runs", run, target="RUN")


def create_task(call: Call) -> Json:
    """POST of a task, whose function must exist; its reference is stored with the function's id."""
    check_project(call)
    task = new_entity("tasks", call.project, call.document(), call.user, times.now())
    function = _referred(call, task, "function", "functions")
    kind, name = function["kind"], function["name"]
    if kind != task["kind"].partition("+")[0]:
        raise UsageFault(
            "usage/kind",
            f"A task of kind {task['kind']!r} cannot be of a function of kind {kind!r}.",
            "Name the kind that belongs to the function.",
        )
    task["spec"]["function"] = f"{kind}://{call.project}/{name}:{function['id']}"
    return add(call, "tasks", task)


def merged(call: Call, run: Entity) -> Entity:
    """The run with its task's and its function's spec in it; the function's values always win.

    Raises:
        UsageFault, Refusal: its task or function is not named, or does not exist.
    """
    task = _referred(call, run, "task", "tasks")
    if run["kind"] != f"{task['kind']}:run":
        raise UsageFault(
            "usage/kind",
            f"A run of kind {run['kind']!r} cannot be of a task of kind {task['kind']!r}.",
            f"Its kind is {task['kind']}:run.",
        )
    function = _referred(call, task, "function", "functions")
    if run["spec"].get("function") is not None:
        named = _referred(call, run, "function", "functions")
        check_same(named["id"], function["id"], "function's id")
    run["spec"]["function"] = task["spec"]["function"]
    spec: dict[str, Any] = {"inputs": {}, "parameters": {}, "init_parameters": {}}
    for part in (task["spec"], run["spec"], function["spec"]):
        spec.update({key: value for key, value in part.items() if value is not None})
    status = {"state": "CREATED"}
    return {
        **run,
        "spec": spec,
        "metadata": _related(run["metadata"], function["key"]),
        "status": status,
    }


def check_runnable(run: Entity) -> None:
    """Refuse a run that could only fail.

    Raises:
        UsageFault: its interpreter is not known, nothing says what to call, or a part of it has
            the wrong shape.
    """
    spec = run["spec"]
    interpreter_version(spec.get("python_version") or "")
    read = RunSpec.from_entity(run)
    if read.action != "build" and not read.source.handler:
        raise UsageFault(
            "usage/handler",
            f"The function {spec['function']} names no handler.",
            "Set `handler` in its source: the name of the Python function to call.",
        )


def put(call: Call) -> Response:
    """PUT of a run: status is merged. A local run's state is the SDK's, any other's the server's."""
    sent, now = call.document(), times.now()

    def change(old: Entity) -> Entity:
        # What a run reports of another one would be believed to be that one's own.
        if call.run is not None and call.id != call.run.id and not old["spec"]["local_execution"]:
            raise Refusal(403, f"Run {call.run.id} may not write what run {call.id} reports.")
        return _changed(old, sent, call.user, now)

    changed = call.store.change("runs", call.project, call.id, change)
    if changed is None:
        raise missing("runs")
    return answer(changed, headers={MERGES: "yes"})


def stop(call: Call) -> Json:
    """POST …/stop: stores that the run shall stop; the reconciler sees to it.

    A run that has ended stays as it is: asking twice is not an error, as in Core.
    """
    run = find(call, "runs")
    record = call.store.get_run_record(run["project"], run["id"])
    if record is not None and record.state not in ENDED:
        if record.target is None:  # a local run: its process is not ours to stop
            call.store.move_run(run["project"], run["id"], "STOPPED")
        else:
            call.store.set_target(run["project"], run["id"], "STOP")
            if record.state == "RUNNING":
                call.store.move_run(run["project"], run["id"], "STOP")
    return find(call, "runs")


def resume(call: Call) -> Json:
    """POST …/resume: runs of Python functions cannot be."""
    run = find(call, "runs")
    raise Refusal(400, f"Runs of kind {run['kind']} cannot be resumed. Run the function again.")


def read_logs(call: Call) -> Json:
    """GET …/logs: a plain list; `limit` asks for more of a long log's end, in bytes."""
    run = find(call, "runs")
    home = logs.home_of(call.store.get_run_record(run["project"], run["id"]), call.settings.home)
    largest = max(call.settings.max_log, 2 * call.settings.max_run_log)
    limit = call.number("limit", call.settings.max_log, 1, largest)
    return list(logs.log_items(home, run, limit))


def remove(call: Call, run_ids: list[str]) -> None:
    """Delete runs: one that lives is stopped first, by the reconciler."""
    for identity in run_ids:
        record = call.store.get_run_record(call.project, identity)
        if record is None:
            continue
        if record.target is not None and record.state not in ENDED:
            call.store.set_target(call.project, identity, "DELETE")
        else:
            call.store.delete_run(call.project, identity)
            home = logs.home_of(record, call.settings.home)
            logs.remove_run_folder(home, call.project, identity)


def _parent(run: RunRecord) -> Json:
    """What a run that is started by another one keeps of that: its id, and how many are above it.

    Raises:
        UsageFault: there are too many.
    """
    above = run.entity["status"].get("parent")
    depth = 1 + (int(above["depth"]) if isinstance(above, Mapping) else 0)
    if depth > DEEPEST:
        raise UsageFault(
            "usage/nesting",
            f"Run {run.id} is {DEEPEST} runs deep, each started by the one before, and may start no other.",
            "Look for a function that runs itself without an end, or start its runs side by side.",
        )
    return {"run": run.id, "depth": depth}


def _changed(old: Entity, sent: Mapping[str, Any], user: str, now: int) -> Entity:
    sent = dict(sent)
    is_local, state = old["spec"]["local_execution"], old["status"]["state"]
    wanted = None
    if isinstance(sent.get("status"), dict):
        sent["status"] = dict(sent["status"])
        wanted = sent["status"].pop("state", None)
        # Set by `create` alone: nobody may change it, or give one to a run that has none.
        sent["status"].pop("parent", None)
    if not is_local or state != "CREATED":
        sent.pop("spec", None)  # frozen from then on
    run = updated_entity("runs", old, sent, user, now)
    run["spec"] = {**run["spec"], "local_execution": is_local}
    kept = {key: old["status"][key] for key in _SERVERS if key in old["status"]}
    run["status"] = {**old["status"], **run["status"], **kept}
    if not is_local or wanted is None:
        return run
    check_state(wanted)
    # An SDK may skip states; a run that has ended stays as it ended, as in Core.
    if state not in ENDED and (wanted in ENDED or may_move(state, wanted)):
        run = moved(run, wanted)
    return run


def _referred(call: Call, run: Entity, field: str, plural: str) -> Entity:
    kind, project, name, identity = parse_reference(run["spec"].get(field), f"spec.{field}")
    check_same(project, call.project, f"project of spec.{field}")
    wanted = name if plural == "tasks" else identity
    if wanted is None:
        found, _ = call.store.page(plural, project, {"name": name}, all_versions=False, size=1)
        entity = found[0] if found else None
    else:
        entity = call.store.get(plural, project, wanted)
    if entity is None or entity["kind"] != kind:
        raise UsageFault(
            "usage/reference",
            f"There is no {field} {run['spec'][field]!r}.",
            f"Create the {field} first, or look its reference up.",
        )
    return entity


def _related(metadata: dict[str, Any], function_key: str) -> dict[str, Any]:
    listed = metadata.get("relationships") or []
    if any(isinstance(one, dict) and one.get("type") == "run_of" for one in listed):
        return metadata
    return {**metadata, "relationships": [{"type": "run_of", "dest": function_key}, *listed]}
