"""Schedules as Quartz reads them, and triggers that fire once for each instant."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digitalhub_python_control.api.schedules import next_time
from digitalhub_python_control.api.triggers import Scheduler
from digitalhub_python_control.api.web import Call
from digitalhub_python_control.files.blobs import Blobs
from digitalhub_python_control.files.objects import Objects
from digitalhub_python_control.store import times
from digitalhub_runtime_python.errors import UsageFault

# 1 January 2026 is a Thursday.
START = int(datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp()) * 1_000_000


def following(schedule: str, count: int = 3, after: int = START) -> list[str]:
    found = []
    for _ in range(count):
        moment = next_time(schedule, after)
        if moment is None:
            break
        after = moment
        found.append(times.text(moment)[:19])
    return found


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("0 0 12 * * ?", ["2026-01-01T12:00:00", "2026-01-02T12:00:00"]),
        ("0 15 10 ? * *", ["2026-01-01T10:15:00", "2026-01-02T10:15:00"]),
        ("*/20 * * * * ?", ["2026-01-01T00:00:20", "2026-01-01T00:00:40"]),
        ("0 0/5 14,18 * * ?", ["2026-01-01T14:00:00", "2026-01-01T14:05:00"]),
        ("0 15 10 ? * MON-FRI", ["2026-01-01T10:15:00", "2026-01-02T10:15:00", "2026-01-05T10:15:00"]),
        ("0 15 10 ? * 2-6", ["2026-01-01T10:15:00", "2026-01-02T10:15:00", "2026-01-05T10:15:00"]),
        ("0 0 0 ? * 1", ["2026-01-04T00:00:00", "2026-01-11T00:00:00"]),
        ("0 0 0 ? * 7", ["2026-01-03T00:00:00", "2026-01-10T00:00:00"]),
        ("0 0 0 ? * L", ["2026-01-03T00:00:00", "2026-01-10T00:00:00"]),
        ("0 0 0 L * ?", ["2026-01-31T00:00:00", "2026-02-28T00:00:00"]),
        ("0 15 10 ? * 6L", ["2026-01-30T10:15:00", "2026-02-27T10:15:00"]),
        ("0 15 10 ? * FRIL", ["2026-01-30T10:15:00", "2026-02-27T10:15:00"]),
        ("0 15 10 ? * 6#3", ["2026-01-16T10:15:00", "2026-02-20T10:15:00"]),
        ("0 0 0 15W * ?", ["2026-01-15T00:00:00", "2026-02-16T00:00:00"]),
        ("0 11 11 11 11 ?", ["2026-11-11T11:11:00", "2027-11-11T11:11:00"]),
        ("0 15 10 * * ? 2030", ["2030-01-01T10:15:00", "2030-01-02T10:15:00"]),
        ("0 0 0 1 1 ? 2028-2029", ["2028-01-01T00:00:00", "2029-01-01T00:00:00"]),
        ("0 0 0 1 1 ? 2027/5", ["2027-01-01T00:00:00", "2032-01-01T00:00:00"]),
        ("0 0 0 29 2 ?", ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
        ("0 0 0 1 1 ? 2020", []),
    ],
)  # fmt: skip
def test_a_quartz_expression_fires_when_quartz_says(schedule: str, expected: list[str]) -> None:
    assert following(schedule, max(1, len(expected))) == expected


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "* * * * *",
        "@daily",
        "0 0 0 1 1 ? 2026 1",
        "0 0 0 1 * 2",
        "0 0 0 ? * ?",
        "? 0 0 * * ?",
        "60 * * * * ?",
        "0 0 24 * * ?",
        "0 0 0 32 * ?",
        "0 0 0 ? * 0",
        "0 0 0 ? * 8",
        "0 0 0 ? * XYZ",
        "0 0 0 ? * 6#6",
        "H * * * * ?",
        "R * * * * ?",
        "0 0 0 * * ? abcd",
        "0 0 0 LW * ?",
        "x y z * * ?",
    ],
)
def test_what_is_no_quartz_expression_is_refused(schedule: str) -> None:
    with pytest.raises(UsageFault) as raised:
        next_time(schedule, START)
    assert raised.value.code == "usage/schedule"


@settings(max_examples=60, deadline=None)
@given(
    minute=st.integers(0, 59),
    step=st.integers(1, 30),
    hours=st.sets(st.integers(0, 23), min_size=1, max_size=3),
    days=st.sets(st.integers(1, 7), min_size=1, max_size=4),
    begin=st.integers(0, 60 * 24 * 400),
)
def test_the_next_time_is_what_a_look_at_every_minute_finds(minute, step, hours, days, begin):
    after = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=begin)
    schedule = f"0 {minute}/{step} {','.join(map(str, hours))} ? * {','.join(map(str, days))}"
    look = after
    while True:
        look += timedelta(minutes=1)
        weekday = look.isoweekday() % 7 + 1  # Sunday is 1
        fits = look.minute >= minute and (look.minute - minute) % step == 0
        if fits and look.hour in hours and weekday in days:
            break
    micros = int(after.timestamp()) * 1_000_000
    assert next_time(schedule, micros) == int(look.timestamp()) * 1_000_000


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("0123456789*/,-?LW#HRMONFRI@", min_size=1, max_size=6), min_size=5, max_size=8).map(" ".join))  # fmt: skip
def test_any_text_is_a_schedule_or_refused(schedule: str) -> None:
    try:
        moment = next_time(schedule, START)
    except UsageFault:
        return
    assert moment is None or moment > START


@pytest.fixture
def trigger(plane):
    task = plane.task(plane.function())
    spec = {
        "task": f"python+job://proj/{task['id']}",
        "function": task["spec"]["function"],
        "template": {"parameters": {"a": 7}},
        "schedule": "* * * * * ?",
    }
    return plane.create("triggers", kind="scheduler", name="often", spec=spec)


def scheduler(plane, missed: str = "once") -> Scheduler:
    objects = Objects(plane.store, Blobs(plane.settings.home / "files"))

    def call(project: str) -> Call:
        return Call(plane.store, objects, plane.settings, "local", {"project": project}, {})

    return Scheduler(call, missed)


def runs_of(plane) -> list[dict]:
    return plane.ask("GET", "/-/proj/runs")["content"]


def test_a_trigger_fires_once_for_an_instant_however_often_it_is_looked_at(plane, trigger):
    due = times.parse(trigger["status"]["next"], "next")
    assert trigger["status"]["state"] == "RUNNING"
    scheduler(plane).look(due - 1)
    assert runs_of(plane) == []
    for _ in range(3):  # as if it were killed before it had written down that it fired
        scheduler(plane).look(due)
        plane.store.change(
            "triggers", "proj", trigger["id"], lambda t: {**t, "status": trigger["status"]}
        )
    (run,) = runs_of(plane)
    assert run["spec"]["parameters"] == {"a": 7} and run["status"]["state"] == "READY"
    relations = [(r["type"], r["dest"]) for r in run["metadata"]["relationships"]]
    assert ("produced_by", trigger["key"]) in relations


def test_after_it_has_fired_it_waits_for_its_next_time(plane, trigger):
    due = times.parse(trigger["status"]["next"], "next")
    scheduler(plane).look(due)
    now = plane.ask("GET", f"/-/proj/triggers/{trigger['id']}")["status"]
    assert times.parse(now["next"], "next") == due + 1_000_000
    assert now["last_run"] == runs_of(plane)[0]["id"]


@pytest.mark.parametrize(("missed", "count"), [("once", 1), ("skip", 0)])
def test_what_was_missed_is_made_up_for_once_or_not_at_all(plane, trigger, missed, count):
    hour = 3600 * 1_000_000
    late = times.parse(trigger["status"]["next"], "next") + hour
    scheduler(plane, missed).look(late)
    assert len(runs_of(plane)) == count
    scheduler(plane, missed).look(late + 1_000_000)
    assert len(runs_of(plane)) == count + 1


def test_a_trigger_that_is_stopped_fires_no_more_until_it_is_saved_again(plane, trigger):
    path = f"/-/proj/triggers/{trigger['id']}"
    due = times.parse(trigger["status"]["next"], "next")
    stopped = plane.ask("POST", f"{path}/stop")
    assert stopped["status"]["state"] == "STOPPED"
    scheduler(plane).look(due + 10**9)
    assert runs_of(plane) == []
    assert plane.ask("PUT", path, json=stopped)["status"]["state"] == "RUNNING"


def test_a_trigger_whose_function_is_gone_says_so(plane, trigger):
    function = plane.ask("GET", "/-/proj/functions")["content"][0]
    plane.ask("DELETE", f"/-/proj/functions/{function['id']}?cascade=true")
    scheduler(plane).look(times.parse(trigger["status"]["next"], "next"))
    status = plane.ask("GET", f"/-/proj/triggers/{trigger['id']}")["status"]
    assert status["state"] == "ERROR" and "There is no task" in status["message"]


def test_what_would_never_fire_is_refused(plane, trigger):
    def refused(kind="scheduler", **changes):
        sent = {"kind": kind, "name": "t", "spec": {**trigger["spec"], **changes}}
        return plane.refused("POST", "/-/proj/triggers", 400, json=sent)

    assert "does not fire" in refused("lifecycle", key="store://proj/x", states=["READY"])
    assert "0 30 6 * * ?" in refused(schedule="every day")
    assert "never comes" in refused(schedule="0 0 0 1 1 ? 2020")
    assert "no schedule" in refused(schedule=None)
    assert "There is no task" in refused(task="python+job://proj/nope")
    assert "parameters" in refused(template={"parameters": [1]})
    assert len(plane.ask("GET", "/-/proj/triggers")["content"]) == 1


def test_the_server_fires_what_the_sdk_has_created(server, tmp_path):
    import subprocess
    import sys

    code = """
import digitalhub as dh, json, time, sys
p = dh.get_or_create_project("triggered")
f = p.new_function("f", kind="python", code="def f(a):\\n    return a\\n", handler="f", python_version="PYTHON3_11")
t = f.trigger("job", "scheduler", "often", {"parameters": {"a": 3}}, schedule="* * * * * ?")
for _ in range(300):
    done = [r for r in p.list_runs() if r.status.state == "COMPLETED"]
    if done: break
    time.sleep(0.1)
t.stop()
print(json.dumps([done[0].status.results, t.refresh().status.state]))
"""
    (tmp_path / "user").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=server.client_env(tmp_path / "user"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip().endswith('[{"output_0": 3}, "STOPPED"]'), done.stdout + done.stderr
