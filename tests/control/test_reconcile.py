from __future__ import annotations

import importlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from reconciling import (
    PROJECT,
    executions_of,
    is_running,
    log_of,
    new_run,
    reconciler_of,
    record,
    settings_in,
    store_of,
    wait_ended,
    wait_for,
    wait_state,
)

from digitalhub_python_control.running import engines, logs, steps
from digitalhub_python_control.running.engines.keeper import descendants
from digitalhub_python_control.running.engines.process import ProcessEngine
from digitalhub_python_control.running.engines.processes import marked
from digitalhub_runtime_python.spec import ACTIONS


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path)


@pytest.fixture
def store(settings):
    store = store_of(settings)
    yield store
    store.close()


@pytest.fixture
def reconciler(store, settings):
    reconciler = reconciler_of(store, settings)
    reconciler.start()
    yield reconciler
    for run in store.unsettled_runs():
        store.set_target(run.project, run.id, "STOP")
    wait_for(lambda: not store.unsettled_runs(), what="the end of what a test has left")
    reconciler.close()


def pids_of(settings, identity) -> list[int]:
    claims = (settings.home / "runs" / PROJECT / identity).glob("attempt-*/started")
    return [int(claim.read_text().split("\n")[0]) for claim in claims]


def test_a_job_goes_through_its_states_to_completed(reconciler, store, settings):
    run = wait_ended(store, new_run(store, settings))
    assert run.state == "COMPLETED"
    states = [step["status"] for step in run.entity["status"]["transitions"]]
    assert states == ["COMPLETED", "RUNNING", "PENDING"]
    assert "begins" in log_of(settings, run.id)
    assert executions_of(settings) == [run.id]


def test_fifty_runs_at_once_all_end_and_none_runs_twice(reconciler, store, settings):
    runs = [new_run(store, settings, "exit 3" if i % 10 == 0 else "sleep 0.05") for i in range(50)]
    ended = [wait_ended(store, run, 60) for run in runs]
    assert [run.state for run in ended] == [
        "ERROR" if i % 10 == 0 else "COMPLETED" for i in range(50)
    ]
    assert sorted(executions_of(settings)) == sorted(runs)


def test_no_more_jobs_than_allowed_work_at_once(store, tmp_path):
    settings = settings_in(tmp_path, max_jobs=2)
    reconciler = reconciler_of(store, settings)
    for _ in range(6):
        new_run(store, settings, "sleep 0.1")
    reconciler.start()
    most = 0
    while store.unsettled_runs():
        most = max(most, store.count_runs().get("RUNNING", 0))
        time.sleep(0.01)
    reconciler.close()
    assert most == 2


def test_a_run_that_waits_for_one_that_it_has_started_lends_it_its_place(store, tmp_path):
    settings = settings_in(tmp_path, max_jobs=1)
    reconciler = reconciler_of(store, settings)
    reconciler.start()
    mark = tmp_path / "mark"
    parent = new_run(store, settings, f"until {mark}")
    wait_state(store, parent, "RUNNING")
    # More than are prepared ahead: the child must pass them there as well.
    strangers = [new_run(store, settings) for _ in range(steps.AHEAD + 4)]
    children = [new_run(store, settings, parent=parent) for _ in range(2)]
    children.append(new_run(store, settings, f"touch {mark}", parent=children[0]))
    for run in [*children, parent, *strangers]:
        assert wait_ended(store, run).state == "COMPLETED"
    assert executions_of(settings)[0] == parent
    assert set(executions_of(settings)[1:3]) <= set(children)
    wait_for(lambda: reconciler.places() == {"process": {"held": 0, "lent": 0, "waiting": 0}})
    reconciler.close()


def test_those_that_wait_go_in_the_order_of_their_creation(store, tmp_path):
    settings = settings_in(tmp_path, max_jobs=1)
    reconciler = reconciler_of(store, settings)
    reconciler.start()
    runs = [new_run(store, settings, "sleep 1")]
    wait_state(store, runs[0], "RUNNING")
    runs += [new_run(store, settings) for _ in range(30)]
    for run in runs:
        wait_ended(store, run)
    reconciler.close()
    assert executions_of(settings) == runs


def test_an_exit_status_is_the_message_where_the_run_reported_none(reconciler, store, settings):
    run = wait_ended(store, new_run(store, settings, "exit 12"))
    assert run.state == "ERROR"
    assert (
        run.entity["status"]["message"] == "exit status 12 (the arguments do not fit the handler)"
    )


def test_the_reported_error_is_the_message(reconciler, store, settings):
    identity = new_run(store, settings, "sleep 60")
    wait_for(lambda: "begins" in log_of(settings, identity))
    wait_state(store, identity, "RUNNING")
    error = {"type": "ValueError", "message": "too small\nby far", "file": "main.py", "line": 7}
    store.move_run(PROJECT, identity, "RUNNING", status={"error": error})
    os.killpg(pids_of(settings, identity)[0], signal.SIGTERM)
    run = wait_ended(store, identity)
    assert run.state == "ERROR"
    assert run.entity["status"]["message"] == "ValueError: too small (main.py, line 7)"


@pytest.mark.parametrize(
    ("number", "name"), [(9, "SIGKILL"), (11, "SIGSEGV"), (15, "SIGTERM")], ids=["9", "11", "15"]
)
def test_a_killed_run_says_by_what(reconciler, store, settings, number, name):
    run = wait_ended(store, new_run(store, settings, f"die {number}"))
    assert run.state == "ERROR"
    assert run.entity["status"]["message"].startswith(f"killed by signal {number} ({name})")


def test_a_run_killed_together_with_its_keeper_says_so(reconciler, store, settings):
    identity = new_run(store, settings, "sleep 60")
    wait_state(store, identity, "RUNNING")
    wait_for(lambda: pids_of(settings, identity))
    os.killpg(pids_of(settings, identity)[0], signal.SIGKILL)
    run = wait_ended(store, identity)
    assert run.state == "ERROR"
    assert "it was killed (SIGKILL)" in run.entity["status"]["message"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux lets us find them")
def test_what_a_killed_keeper_leaves_behind_is_ended(reconciler, store, settings):
    identity = new_run(store, settings, "sleep 60")
    wait_for(lambda: executions_of(settings))
    keeping = pids_of(settings, identity)[0]
    children = descendants(keeping)
    assert children
    os.kill(keeping, signal.SIGKILL)
    assert wait_ended(store, identity).state == "ERROR"
    wait_for(lambda: not is_running(children[0]), what="the end of the orphan")


@pytest.mark.parametrize("obstacle", ["fifo", "folder", "forged", "link"])
def test_a_run_that_forges_its_end_lives_until_it_has_ended_and_can_be_stopped(
    reconciler, store, settings, obstacle
):
    identity = new_run(store, settings, "sleep 60")
    wait_state(store, identity, "RUNNING")
    end = settings.home / "runs" / PROJECT / identity / "attempt-0" / "exit"
    if obstacle == "fifo":
        os.mkfifo(end)
    elif obstacle == "folder":
        end.mkdir()
    elif obstacle == "link":
        end.symlink_to("/dev/zero")
    else:
        end.write_text("0\n")
    reconciler.tell(PROJECT, identity)
    time.sleep(0.3)  # nothing is to happen, which nothing tells
    assert record(store, identity).state == "RUNNING"
    store.set_target(PROJECT, identity, "STOP")
    assert wait_ended(store, identity).state == "STOPPED"
    assert not any(is_running(pid) for pid in marked(f"RUN_ID={identity}".encode()))


@pytest.mark.parametrize("obstacle", ["fifo", "link"])
def test_a_log_that_is_no_plain_file_is_neither_waited_for_nor_followed(
    reconciler, store, settings, obstacle
):
    run = wait_ended(store, new_run(store, settings))
    log = settings.home / "runs" / PROJECT / run.id / "log"
    log.unlink()
    if obstacle == "fifo":
        os.mkfifo(log)
    else:
        log.symlink_to(settings.home / "dhpy.db")
    assert logs.log_items(settings.home, run.entity, 1 << 20) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_what_a_run_leaves_running_ends_with_it(reconciler, store, settings):
    run = wait_ended(store, new_run(store, settings, "leave-child"))
    assert run.state == "COMPLETED"
    assert not any(is_running(pid) for pid in marked(f"RUN_ID={run.id}".encode()))


@pytest.mark.parametrize("behaviour", ["sleep 60", "stubborn"])
def test_a_run_is_stopped_within_two_seconds(store, tmp_path, behaviour):
    settings = settings_in(tmp_path, stop_grace=1.0)  # the default
    reconciler = reconciler_of(store, settings)
    reconciler.start()
    identity = new_run(store, settings, behaviour)
    wait_state(store, identity, "RUNNING")
    wait_for(lambda: "begins" in log_of(settings, identity))
    if behaviour == "stubborn":
        wait_for(lambda: "ignores" in log_of(settings, identity))
    began = time.monotonic()
    store.set_target(PROJECT, identity, "STOP")
    run = wait_ended(store, identity)
    assert time.monotonic() - began < 2.0
    reconciler.close()
    assert run.state == "STOPPED"
    assert not any(is_running(pid) for pid in pids_of(settings, identity))


def test_a_waiting_run_is_stopped_without_being_started(store, tmp_path):
    settings = settings_in(tmp_path, max_jobs=1)
    reconciler = reconciler_of(store, settings)
    reconciler.start()
    first = new_run(store, settings, "sleep 60")
    wait_for(lambda: executions_of(settings) == [first])
    second = new_run(store, settings)
    wait_state(store, second, "PENDING")
    store.set_target(PROJECT, second, "STOP")
    assert wait_ended(store, second).state == "STOPPED"
    store.set_target(PROJECT, first, "STOP")
    wait_ended(store, first)
    reconciler.close()
    assert executions_of(settings) == [first]


def test_a_deleted_run_is_ended_and_leaves_nothing(reconciler, store, settings):
    identity = new_run(store, settings, "stubborn")
    wait_for(lambda: "ignores" in log_of(settings, identity))
    pids = pids_of(settings, identity)
    store.set_target(PROJECT, identity, "DELETE")
    wait_for(lambda: store.get_run_record(PROJECT, identity) is None)
    assert not any(is_running(pid) for pid in pids)
    assert not (settings.home / "runs" / PROJECT / identity).exists()


def test_a_failing_job_is_tried_again_up_to_its_limit(reconciler, store, settings):
    good = new_run(store, settings, "fail-until 2", backoff_limit=2)
    bad = new_run(store, settings, "exit 7", backoff_limit=1)
    run = wait_ended(store, good)
    assert (run.state, run.attempt) == ("COMPLETED", 1)
    assert "message" not in run.entity["status"]
    run = wait_ended(store, bad)
    assert (run.state, run.attempt) == ("ERROR", 1)
    assert run.entity["status"]["message"] == "exit status 7"
    counts = {name: executions_of(settings).count(name) for name in (good, bad)}
    assert counts == {good: 2, bad: 2}
    assert "attempt 1 of 2 failed: exit status 7; the next one begins in 1 s" in log_of(
        settings, bad
    )


def test_an_attempt_that_never_came_to_the_users_code_is_none(reconciler, store, settings):
    run = wait_ended(store, new_run(store, settings, "not-loaded 2", backoff_limit=0))
    assert (run.state, run.attempt) == ("COMPLETED", 1)
    assert "it begins again in 1 s" in log_of(settings, run.id)


def test_one_whose_report_was_lost_has_come_to_it_and_is_not_started_again(
    reconciler, store, settings
):
    run = wait_ended(store, new_run(store, settings, "not-reported"))
    assert run.state == "ERROR"
    assert executions_of(settings) == [run.id]


@pytest.mark.parametrize("limit", [-1, "2", True, 1.5])
def test_a_wrong_backoff_limit_is_named(reconciler, store, settings, limit):
    run = wait_ended(store, new_run(store, settings, "exit 7", backoff_limit=limit))
    assert run.state == "ERROR"
    assert run.entity["status"]["message"].startswith(f"backoff_limit is {limit!r}.")


def test_a_missing_secret_is_named_and_nothing_runs(reconciler, store, settings):
    store.set_secret_values(PROJECT, {"here": "value"})
    run = wait_ended(store, new_run(store, settings, secrets=["here", "absent"]))
    assert run.state == "ERROR"
    assert "Project 'p' has no secret 'absent'." in run.entity["status"]["message"]
    assert executions_of(settings) == []


def test_secrets_and_envs_reach_the_run_and_its_identity_cannot_be_changed(
    reconciler, store, settings
):
    store.set_secret_values(PROJECT, {"TOKEN": "s3cret-value"})
    envs = [{"name": "RUN_ID", "value": "other"}, {"name": "MINE", "value": "42"}]
    runs = [
        new_run(store, settings, f"show {name}", secrets=["TOKEN"], envs=envs)
        for name in ("TOKEN", "MINE", "PROJECT_NAME", "DHCORE_ENDPOINT", "AWS_ENDPOINT_URL")
    ]
    logs = "".join(log_of(settings, wait_ended(store, run).id) for run in runs)
    url = settings.url
    for line in (
        "TOKEN = •••",
        f"TOKEN reversed = {'s3cret-value'[::-1]}",
        "MINE = 42",
        "PROJECT_NAME = p",
        f"DHCORE_ENDPOINT = {url}",
        f"AWS_ENDPOINT_URL = {url}/s3",
    ):
        assert line in logs
    assert sorted(executions_of(settings)) == sorted(runs)
    kept = [p for p in (settings.home / "runs").rglob("*") if p.is_file()]
    assert kept and not any(b"s3cret-value" in path.read_bytes() for path in kept)


def test_what_an_engine_says_of_a_failure_shows_no_secret(reconciler, store, settings, monkeypatch):
    def refuse(*_):
        raise OSError("cannot start with TOKEN=s3cret%2Fvalue")

    monkeypatch.setattr(ProcessEngine, "start", refuse)
    store.set_secret_values(PROJECT, {"TOKEN": "s3cret/value"})
    run = wait_ended(store, new_run(store, settings, secrets=["TOKEN"]))
    assert run.entity["status"]["message"].endswith("cannot start with TOKEN=•••")
    assert "TOKEN=•••" in log_of(settings, run.id)
    assert "s3cret" not in log_of(settings, run.id)


def test_secrets_of_the_control_plane_do_not_reach_a_run(store, settings, monkeypatch):
    monkeypatch.setenv("DHPY_TOKEN_OF_MINE", "x")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    reconciler = reconciler_of(store, settings)
    reconciler.start()
    runs = [new_run(store, settings, f"show {n}") for n in ("DHPY_TOKEN_OF_MINE", "PYTHONPATH")]
    logs = [log_of(settings, wait_ended(store, run).id) for run in runs]
    reconciler.close()
    assert "DHPY_TOKEN_OF_MINE = None" in logs[0]
    assert "PYTHONPATH = None" in logs[1]


def test_an_action_that_the_engine_cannot_do_says_what_can(
    reconciler, store, settings, monkeypatch
):
    monkeypatch.setattr(ProcessEngine, "actions", frozenset({"job", "serve"}))
    run = wait_ended(store, new_run(store, settings, action="build"))
    assert run.state == "ERROR"
    message = run.entity["status"]["message"]
    assert "cannot do the action 'build'; it can do: job, serve." in message
    assert "dhpy build" in message


def test_a_build_runs_on_the_engine_that_builds_for_the_chosen_one(store, tmp_path):
    settings = settings_in(tmp_path, engine="docker")
    reconciler = reconciler_of(store, settings)  # with the process engine alone
    reconciler.start()
    build, job = new_run(store, settings, action="build"), new_run(store, settings)
    assert wait_ended(store, build).engine == "process"
    assert "needs the engine 'docker'" in wait_ended(store, job).entity["status"]["message"]
    reconciler.close()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", engines.ENGINES)
def test_every_action_has_an_engine_that_can_do_it(name, action):
    module, _, attribute = engines.ENGINES[engines.choose(action, name)].partition(":")
    assert action in getattr(importlib.import_module(module), attribute).actions


def test_parameters_without_meaning_are_named_in_the_log(reconciler, store, settings):
    spec = {
        "node_selector": [{"key": "a", "value": "b"}],
        "affinity": {},
        "resources": {"mem": "1Gi", "cpu": None},
        "volumes": [],
        "tolerations": None,
    }
    run = wait_ended(store, new_run(store, settings, **spec))
    lines = [line for line in log_of(settings, run.id).splitlines() if line.startswith("dhpy: ")]
    assert [line.split()[1] for line in lines] == ["resources", "node_selector"]


def test_an_interpreter_that_does_not_exist_is_an_error_of_the_run(store, settings):
    reconciler = reconciler_of(store, settings, ["/nonexistent/python"])
    reconciler.start()
    run = wait_ended(store, new_run(store, settings))
    reconciler.close()
    assert (
        run.entity["status"]["message"]
        == "exit status 127 (the interpreter was not found; see its log)"
    )


def test_a_home_that_cannot_be_written_is_one_clear_line(store, settings):
    reconciler = reconciler_of(store, settings)
    reconciler.start()
    (settings.home / "runs").write_text("in the way")
    run = wait_ended(store, new_run(store, settings))
    reconciler.close()
    message = run.entity["status"]["message"]
    assert message.startswith("The run engine failed: ") and "runs" in message
    assert "\n" not in message


def test_a_local_run_is_never_touched(reconciler, store, settings):
    local = new_run(store, settings, target=None)
    other = new_run(store, settings)
    wait_ended(store, other)
    assert record(store, local).state == "READY"
    assert executions_of(settings) == [other]


def test_a_failing_store_does_not_end_the_reconciler(reconciler, store, settings, caplog):
    read = store.get_run_record
    store.get_run_record = lambda project, identity: 1 / 0
    held_up = new_run(store, settings)
    wait_for(lambda: "the reconciler failed" in caplog.text)
    store.get_run_record = read
    assert wait_ended(store, held_up).state == "COMPLETED"
    assert wait_ended(store, new_run(store, settings)).state == "COMPLETED"


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can make a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_holds_runs_up_and_loses_none(small_disk, caplog):
    settings = settings_in(small_disk)
    store = store_of(settings)
    runs = [new_run(store, settings) for _ in range(4)]
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 4096)
    reconciler = reconciler_of(store, settings)
    reconciler.start()
    wait_for(lambda: "the reconciler failed" in caplog.text)
    assert "The disk is full" in caplog.text
    filler.unlink()
    assert {wait_ended(store, run).state for run in runs} == {"COMPLETED"}
    reconciler.close()
    store.close()
    assert sorted(executions_of(settings)) == sorted(runs)
