from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
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

HERE = Path(__file__).parent


@contextmanager
def control_plane(folder: Path, max_jobs: int = 4):
    """A reconciler in a process of its own, which is killed at the end as by the out-of-memory killer."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "reconciler_process.py"), str(folder), str(max_jobs)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "started\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path)


@pytest.fixture
def store(settings):
    store = store_of(settings)
    yield store
    store.close()


def attempt_of(settings, identity) -> Path:
    return settings.home / "runs" / PROJECT / identity / "attempt-0"


def test_killing_the_control_plane_loses_doubles_and_sticks_no_run(tmp_path, settings, store):
    chance = random.Random(20261120)
    runs = [new_run(store, settings, f"sleep {chance.uniform(0, 0.4):.2f}") for _ in range(50)]
    while store.unsettled_runs() and len(executions_of(settings)) < 45:
        with control_plane(tmp_path):
            time.sleep(chance.uniform(0.05, 0.8))
    with control_plane(tmp_path):
        ended = [wait_ended(store, run, 60) for run in runs]
    assert {run.state for run in ended} == {"COMPLETED"}
    assert sorted(executions_of(settings)) == sorted(runs)


def test_a_run_goes_on_without_the_control_plane_and_its_end_is_found_later(
    tmp_path, settings, store
):
    with control_plane(tmp_path):
        good = new_run(store, settings, "sleep 0.3")
        bad = new_run(store, settings, "exit 4")
        wait_state(store, good, "RUNNING")
        wait_for(lambda: len(executions_of(settings)) == 2)
    wait_for(lambda: (attempt_of(settings, good) / "exit").exists())
    with control_plane(tmp_path):
        assert wait_ended(store, good).state == "COMPLETED"
        assert wait_ended(store, bad).state == "ERROR"
    assert sorted(executions_of(settings)) == sorted([good, bad])


def test_a_run_killed_while_the_control_plane_was_away_is_not_stuck(tmp_path, settings, store):
    with control_plane(tmp_path):
        identity = new_run(store, settings, "sleep 60")
        wait_for(lambda: executions_of(settings))
    os.killpg(
        int((attempt_of(settings, identity) / "started").read_text().split()[0]), signal.SIGKILL
    )
    with control_plane(tmp_path):
        run = wait_ended(store, identity)
    assert run.state == "ERROR"
    assert run.entity["status"]["message"].startswith("lost: its process has gone without a trace")


def test_a_run_that_was_started_but_not_written_down_is_adopted(settings, store):
    """The line that a kill -9 is most likely to fall behind: started, and the store knows nothing."""
    identity = new_run(store, settings, "sleep 0.3")
    reconciler = reconciler_of(store, settings)
    move_run = store.move_run

    def killed_before_running(project, run, state, **changes):
        if state == "RUNNING":
            raise RuntimeError("killed here")
        return move_run(project, run, state, **changes)

    store.move_run = killed_before_running
    reconciler.start()
    wait_for(lambda: "begins" in log_of(settings, identity))
    reconciler.close()
    store.move_run = move_run
    assert record(store, identity).handle is None
    wait_for(lambda: (attempt_of(settings, identity) / "started").exists())

    second = reconciler_of(store, settings)
    second.start()
    assert wait_ended(store, identity).state == "COMPLETED"
    second.close()
    assert executions_of(settings) == [identity]


def test_a_stop_is_finished_by_the_next_control_plane(tmp_path, settings, store):
    with control_plane(tmp_path):
        identity = new_run(store, settings, "stubborn")
        wait_for(lambda: "ignores" in log_of(settings, identity))
    store.set_target(PROJECT, identity, "STOP")
    pid = int((attempt_of(settings, identity) / "started").read_text().split()[0])
    with control_plane(tmp_path):
        assert wait_ended(store, identity).state == "STOPPED"
    assert not is_running(pid)


def test_a_run_that_ended_in_the_store_but_lives_is_ended(tmp_path, settings, store):
    with control_plane(tmp_path):
        identity = new_run(store, settings, "sleep 60")
        wait_for(lambda: executions_of(settings))
        wait_state(store, identity, "RUNNING")
    store.move_run(PROJECT, identity, "ERROR")
    pid = int((attempt_of(settings, identity) / "started").read_text().split()[0])
    assert is_running(pid)
    with control_plane(tmp_path):
        wait_for(lambda: not is_running(pid))


def test_a_later_process_with_the_same_pid_is_never_signalled(tmp_path, settings, store):
    identity = new_run(store, settings)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        attempt = attempt_of(settings, identity)
        attempt.mkdir(parents=True)
        boot = Path("/proc/sys/kernel/random/boot_id")
        boot_id = boot.read_text() if boot.exists() else ""
        (attempt / "started").write_text(f"{bystander.pid}\n(sh) {'1 ' * 30}\n{boot_id}")
        store.set_target(PROJECT, identity, "STOP")
        with control_plane(tmp_path):
            assert wait_ended(store, identity).state == "STOPPED"
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_vanished_run_folder_ends_the_run_and_does_not_start_it_again(tmp_path, settings, store):
    with control_plane(tmp_path):
        identity = new_run(store, settings, "sleep 60")
        wait_for(lambda: executions_of(settings))
        wait_state(store, identity, "RUNNING")
        pid = int((attempt_of(settings, identity) / "started").read_text().split()[0])
        os.killpg(pid, signal.SIGKILL)
        shutil.rmtree(attempt_of(settings, identity).parent, ignore_errors=True)
        assert wait_ended(store, identity).state == "ERROR"
    assert executions_of(settings) == [identity]
