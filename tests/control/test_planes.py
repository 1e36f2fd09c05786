"""Several control planes on one PostgreSQL."""

from __future__ import annotations

import os
import random
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
    new_run,
    record,
    settings_in,
    wait_ended,
    wait_for,
    wait_state,
)
from sqlalchemy import create_engine

from digitalhub_python_control.store import planes
from digitalhub_python_control.store.database import metadata
from digitalhub_python_control.store.store import Store
from digitalhub_python_control.store.vault import Vault

RUNS = int(os.environ.get("DHPY_TEST_SHARED_RUNS", "100"))


@pytest.fixture
def settings(tmp_path, postgres_url):
    (tmp_path / "home").mkdir()
    yield settings_in(tmp_path, database_url=postgres_url)
    engine = create_engine(postgres_url)
    metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def store(settings):
    store = Store(settings.database_url, Vault(b"k" * 32))
    yield store
    store.close()


class Plane:
    """A control plane in a process of its own, with a home of its own."""

    def __init__(self, folder: Path, url: str, max_jobs: int = 3) -> None:
        self.home = folder / "home"
        script = str(Path(__file__).with_name("reconciler_process.py"))
        self.process = subprocess.Popen(
            [sys.executable, script, str(folder), str(max_jobs), url],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout.readline() == "started\n"

    @property
    def name(self) -> str:
        return (self.home / "plane").read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def plane(folder: Path, url: str, max_jobs: int = 3):
    one = Plane(folder, url, max_jobs)
    try:
        yield one
    finally:
        one.kill()


def test_each_run_is_worked_on_by_one_and_both_work(tmp_path, settings, store):
    with plane(tmp_path / "a", settings.database_url) as a:
        with plane(tmp_path / "b", settings.database_url) as b:
            runs = [new_run(store, settings, "sleep 0.3") for _ in range(20)]
            ended = [wait_ended(store, run, 60) for run in runs]
            assert {run.state for run in ended} == {"COMPLETED"}
            assert sorted(executions_of(settings)) == sorted(runs)
            assert {run.owner for run in ended} == {a.name, b.name}


def test_a_stop_that_is_asked_of_another_one_is_heard_at_once(tmp_path, settings, store):
    with plane(tmp_path / "a", settings.database_url):
        identity = new_run(store, settings, "sleep 60")
        wait_for(lambda: executions_of(settings))
        wait_state(store, identity, "RUNNING")
        store.plane = "another one"
        store.set_target(PROJECT, identity, "STOP")
        wait_for(lambda: record(store, identity).state == "STOPPED", 5)


def test_the_runs_of_one_that_was_killed_are_taken_over_in_seconds(tmp_path, settings, store):
    one, other = (plane(tmp_path / name, settings.database_url, max_jobs=1) for name in "ab")
    with one as a, other as b:
        runs = [new_run(store, settings, "sleep 4") for _ in range(2)]
        for run in runs:
            wait_state(store, run, "RUNNING")
        assert {record(store, run).owner for run in runs} == {a.name, b.name}
        a.kill()
        ended = [wait_ended(store, run, 20) for run in runs]
        assert {run.state for run in ended} == {"COMPLETED"}
        assert {run.owner for run in ended} == {b.name}
        assert sorted(executions_of(settings)) == sorted(runs)


def test_one_that_is_killed_again_and_again_loses_doubles_and_sticks_no_run(
    tmp_path, settings, store
):
    chance = random.Random(20261125)
    with plane(tmp_path / "b", settings.database_url):
        runs = [
            new_run(store, settings, f"sleep {chance.uniform(0, 0.2):.2f}") for _ in range(RUNS)
        ]
        while len(store.unsettled_runs()) > 10:
            with plane(tmp_path / "a", settings.database_url):
                time.sleep(chance.uniform(0.5, 1.5))
        ended = [wait_ended(store, run, 90) for run in runs]
    assert {run.state for run in ended} == {"COMPLETED"}
    assert sorted(executions_of(settings)) == sorted(runs)


def test_one_that_was_held_up_does_not_undo_what_another_did(tmp_path, settings, store):
    with plane(tmp_path / "a", settings.database_url, max_jobs=1) as a:
        identity = new_run(store, settings, "sleep 60")
        wait_state(store, identity, "RUNNING")
        os.kill(a.process.pid, signal.SIGSTOP)
        with plane(tmp_path / "b", settings.database_url, max_jobs=1) as b:
            wait_for(lambda: record(store, identity).owner == b.name, 20)
            os.kill(a.process.pid, signal.SIGCONT)
            store.set_target(PROJECT, identity, "STOP")
            run = wait_ended(store, identity)
            assert (run.state, run.owner) == ("STOPPED", b.name)
    assert executions_of(settings) == [identity]


def test_a_run_of_another_one_cannot_be_moved(store, settings):
    identity = new_run(store, settings)
    store.plane = "a"
    assert store.move_run(PROJECT, identity, "PENDING", owned=True).owner == "a"
    store.plane = "b"
    assert store.move_run(PROJECT, identity, "RUNNING", owned=True) is None
    assert planes.take_over(store, "a", "b") == 1
    assert store.move_run(PROJECT, identity, "RUNNING", owned=True).owner == "b"


def test_one_is_gone_when_its_beat_stands_still_and_not_before():
    seen: dict = {}
    assert planes.gone(seen, {"a": 1, "b": 1}, 0) == []
    assert planes.gone(seen, {"a": 2, "b": 1}, planes.GONE) == []
    assert planes.gone(seen, {"a": 3, "b": 1}, planes.GONE + 1) == ["b"]
    assert planes.gone(seen, {"a": 4}, planes.GONE + 2) == []
    assert planes.gone(seen, {"a": 4, "b": 1}, planes.GONE + 3) == []


def test_every_start_in_a_home_has_the_same_name(tmp_path):
    assert planes.identity(tmp_path) == planes.identity(tmp_path)
    (tmp_path / "other").mkdir()
    assert planes.identity(tmp_path / "other") != planes.identity(tmp_path)
