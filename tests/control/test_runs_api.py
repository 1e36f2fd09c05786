"""Runs over HTTP: what is merged into one, whose the state is, stop, delete, logs."""

from __future__ import annotations

import base64
import json
import math

import pytest
from serving import SOURCE, Plane, reference, run_of, serving, settings_in

from digitalhub_runtime_python.states import MERGES, SDK_STATES


@pytest.fixture
def woken(plane: Plane) -> list[int]:
    """One entry for each time the reconciler would have been woken."""
    calls: list[int] = []
    plane.store.on_change = lambda project, identity: calls.append(1)
    return calls


def states_of(run: dict) -> list[str]:
    return [one["status"] for one in run["status"]["transitions"]]


def test_a_remote_run_is_merged_stored_ready_and_left_to_the_reconciler(
    plane: Plane, woken: list[int]
) -> None:
    function = plane.function(requirements=["a==1"], image=None)
    task = plane.task(function, envs=[{"name": "A", "value": "task"}], volumes=[{"name": "v"}])
    run = plane.run(
        task,
        parameters={"a": 1},
        envs=[{"name": "A", "value": "run"}],
        source={"handler": "other"},
        requirements=["b==2"],
        local_execution=False,
    )
    assert run["status"]["state"] == "READY" and states_of(run) == ["READY", "BUILT"]
    assert run["spec"] == {
        "task": f"python+job://proj/{task['id']}",
        "function": reference(function),
        "python_version": "PYTHON3_11",
        "source": SOURCE,  # the function's values always win, as in Core
        "requirements": ["a==1"],
        "envs": [{"name": "A", "value": "run"}],  # the run's go before the task's
        "volumes": [{"name": "v"}],
        "inputs": {},
        "parameters": {"a": 1},
        "init_parameters": {},
        "local_execution": False,
    }
    assert run["metadata"]["relationships"] == [{"type": "run_of", "dest": function["key"]}]
    assert run["key"] == f"store://proj/run/python+job:run/{run['id']}:{run['id']}"
    record = plane.store.get_run_record("proj", run["id"])
    assert record is not None and record.target == "RUN" and record.entity == run
    assert plane.store.unsettled_runs() == [record]
    assert woken


def test_a_local_run_is_stored_and_not_run(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()), local_execution=True)
    assert run["status"] == {"state": "CREATED"}
    record = plane.store.get_run_record("proj", run["id"])
    assert record is not None and record.target is None
    assert plane.store.unsettled_runs() == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"task": "python+job://proj/none"}, "no task"),
        ({"task": "nonsense"}, "is not a reference"),
        ({"task": None}, "is not a reference"),
        ({"task": "python+job://other/x"}, "other"),
        ({"function": "python://proj/f:none"}, "function"),
        ({"parameters": [1]}, "parameters"),
        ({"inputs": "x"}, "inputs"),
        ({"envs": {"A": "1"}}, "envs"),
        ({"envs": [{"name": "A=B", "value": "1"}]}, "envs"),
        ({"secrets": "token"}, "secrets"),
    ],
)
def test_a_run_that_could_only_fail_is_refused_and_not_stored(
    plane: Plane, spec: dict, says: str
) -> None:
    body = run_of(plane.task(plane.function()))
    body["spec"].update(spec)
    assert says in plane.refused("POST", "/-/proj/runs", 400, json=body)
    assert plane.ask("GET", "/-/proj/runs")["totalElements"] == 0


def test_a_run_of_a_function_without_handler_or_version_is_refused(plane: Plane) -> None:
    for name, changes, says in (
        ("a", {"source": {"base64": "eA=="}}, "handler"),
        ("b", {"source": None}, "handler"),
        ("c", {"python_version": None}, "python_version"),
    ):
        task = plane.task(plane.function(name, **changes))
        assert says in plane.refused("POST", "/-/proj/runs", 400, json=run_of(task))


def test_a_run_of_another_kind_than_its_task_is_refused(plane: Plane) -> None:
    body = {**run_of(plane.task(plane.function())), "kind": "python+serve:run"}
    assert "python+job:run" in plane.refused("POST", "/-/proj/runs", 400, json=body)


def test_the_state_of_a_remote_run_is_the_servers(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()))
    plane.store.move_run("proj", run["id"], "RUNNING", status={"service": {"url": "x:1"}})
    # The client read the run before it was RUNNING, and writes all of it back.
    sent = {**run, "status": {**run["status"], "state": "COMPLETED", "results": {"x": math.nan}}}
    sent["spec"] = {"other": 1}
    changed = plane.ask("PUT", f"/-/proj/runs/{run['id']}", content=json.dumps(sent))
    assert changed["status"]["state"] == "RUNNING"
    assert states_of(changed) == ["RUNNING", "READY", "BUILT"]
    assert changed["status"]["service"] == {"url": "x:1"}
    assert math.isnan(changed["status"]["results"]["x"])
    assert changed["spec"] == run["spec"]


def test_what_is_reported_in_two_puts_is_merged(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()))
    for status in ({"results": {"a": 1}}, {"outputs": {"b": "store://x"}}, {"state": "NONSENSE"}):
        run = plane.ask("PUT", f"/-/proj/runs/{run['id']}", json={**run, "status": status})
    assert run["status"]["results"] == {"a": 1} and run["status"]["outputs"] == {"b": "store://x"}
    assert run["status"]["state"] == "READY"


def test_the_answer_to_a_report_says_that_it_stays(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()))
    answer = plane.http.put(f"/api/v1/-/proj/runs/{run['id']}", json=run)
    assert MERGES in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        ["BUILT", "RUNNING", "COMPLETED"],  # SDK 0.14
        ["BUILT", "READY", "RUNNING", "COMPLETED"],  # SDK 0.15
        ["RUNNING", "COMPLETED"],
        ["COMPLETED"],
        ["ERROR"],
    ],
)
def test_the_state_of_a_local_run_is_the_sdks(plane: Plane, path: list[str]) -> None:
    run = plane.run(plane.task(plane.function()), local_execution=True)
    for state in path:
        sent = {**run, "status": {**run["status"], "state": state, "message": state.lower()}}
        run = plane.ask("PUT", f"/-/proj/runs/{run['id']}", json=sent)
        assert run["status"]["state"] == state and run["status"]["message"] == state.lower()
    assert states_of(run) == path[::-1]


def test_the_spec_of_a_local_run_is_frozen_once_it_is_built(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()), local_execution=True)
    spec = {**run["spec"], "python_version": "PYTHON3_11", "local_execution": False}
    built = {**run, "spec": spec, "status": {"state": "BUILT"}}
    run = plane.ask("PUT", f"/-/proj/runs/{run['id']}", json=built)
    assert run["spec"] == {**spec, "local_execution": True}
    sent = {**run, "spec": {}, "status": {"state": "RUNNING"}}
    assert plane.ask("PUT", f"/-/proj/runs/{run['id']}", json=sent)["spec"] == run["spec"]


def test_a_run_that_has_ended_stays_as_it_ended(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()), local_execution=True)
    path = f"/-/proj/runs/{run['id']}"
    plane.ask("PUT", path, json={**run, "status": {"state": "ERROR", "message": "first"}})
    for state in sorted(SDK_STATES):
        changed = plane.ask("PUT", path, json={**run, "status": {"state": state}})
        assert changed["status"]["state"] == "ERROR" and changed["status"]["message"] == "first"
    assert "nope" in plane.refused("PUT", path, 400, json={**run, "status": {"state": "nope"}})


def test_a_running_run_is_asked_to_stop_and_the_target_is_stored_first(
    plane: Plane, woken: list[int]
) -> None:
    run = plane.run(plane.task(plane.function()))
    path = f"/-/proj/runs/{run['id']}/stop"
    assert plane.ask("POST", path, json={})["status"]["state"] == "READY"
    record = plane.store.get_run_record("proj", run["id"])
    assert record is not None and record.target == "STOP" and len(woken) == 2
    plane.store.move_run("proj", run["id"], "RUNNING")
    assert plane.ask("POST", path)["status"]["state"] == "STOP"
    plane.store.move_run("proj", run["id"], "STOPPED")
    assert plane.ask("POST", path)["status"]["state"] == "STOPPED"
    assert plane.store.unsettled_runs() == []


def test_a_local_run_is_stopped_in_name_and_an_ended_one_stays(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()), local_execution=True)
    path = f"/-/proj/runs/{run['id']}"
    plane.ask("PUT", path, json={**run, "status": {"state": "RUNNING"}})
    assert plane.ask("POST", f"{path}/stop", json={})["status"]["state"] == "STOPPED"
    assert plane.ask("POST", f"{path}/stop", json={})["status"]["state"] == "STOPPED"
    assert "cannot be resumed" in plane.refused("POST", f"{path}/resume", 400, json={})


def test_a_live_run_that_is_deleted_is_gone_for_clients_and_left_to_the_reconciler(
    plane: Plane,
) -> None:
    run = plane.run(plane.task(plane.function()))
    plane.store.move_run("proj", run["id"], "RUNNING")
    plane.ask("DELETE", f"/-/proj/runs/{run['id']}", params={"cascade": "true"})
    plane.refused("GET", f"/-/proj/runs/{run['id']}", 404)
    plane.refused("PUT", f"/-/proj/runs/{run['id']}", 404, json=run)
    assert plane.ask("GET", "/-/proj/runs")["content"] == []
    assert [one.target for one in plane.store.unsettled_runs()] == ["DELETE"]
    plane.store.delete_run("proj", run["id"])
    assert plane.store.unsettled_runs() == []


def test_an_ended_run_is_deleted_with_its_log(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()))
    folder = plane.settings.home / "runs" / "proj" / run["id"]
    folder.mkdir(parents=True)
    (folder / "log").write_text("hello")
    plane.store.move_run("proj", run["id"], "RUNNING")
    plane.store.move_run("proj", run["id"], "COMPLETED")
    plane.ask("DELETE", f"/-/proj/runs/{run['id']}")
    assert not folder.exists() and plane.store.get_run_record("proj", run["id"]) is None


def test_logs_are_a_plain_list_with_the_end_of_the_log(tmp_path) -> None:
    with serving(settings_in(tmp_path / "home", max_log=2000)) as plane:
        plane.project()
        run = plane.run(plane.task(plane.function()))
        path = f"/-/proj/runs/{run['id']}/logs"
        assert plane.ask("GET", path) == []
        folder = plane.settings.home / "runs" / "proj" / run["id"]
        folder.mkdir(parents=True)
        (folder / "log").write_bytes(b"h\xc3\xa4llo\n\xff\n")
        (item,) = plane.ask("GET", path)
        assert base64.b64decode(item["content"]).decode() == "hällo\n\ufffd\n"
        assert item["kind"] == "log" and item["spec"]["run"] == run["id"] and item["name"]
        (folder / "log").write_text("".join(f"line {n} ä\n" for n in range(10_000)))
        (item,) = plane.ask("GET", path)
        text = base64.b64decode(item["content"]).decode()
        assert text.endswith("line 9999 ä\n") and text.startswith("line ") and len(text) < 2001
        plane.refused("GET", "/-/proj/runs/none/logs", 404)


def test_relationships_name_their_source(plane: Plane) -> None:
    function = plane.function()
    run = plane.run(plane.task(function))
    found = plane.ask("GET", f"/-/proj/runs/{run['id']}/relationships")
    assert found == [{"type": "run_of", "source": run["key"], "dest": function["key"]}]


def test_a_function_named_without_its_id_is_the_latest(plane: Plane) -> None:
    plane.function("g")
    latest = plane.function("g")
    task = plane.create("tasks", kind="python+job", spec={"function": "python://proj/g"})
    run = plane.create(
        "runs",
        kind="python+job:run",
        spec={"task": f"python+job://proj/{task['id']}"},
    )
    assert run["metadata"]["relationships"][0]["dest"] == latest["key"]


def test_a_task_of_no_function_is_refused(plane: Plane) -> None:
    for function in ("python://proj/none:1", "nonsense", None, 3):
        body = {"kind": "python+job", "spec": {"function": function}}
        assert "function" in plane.refused("POST", "/-/proj/tasks", 400, json=body)
    assert plane.ask("GET", "/-/proj/tasks")["totalElements"] == 0
