"""The commands for runs, against a control plane that the tests of this file share."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from click.testing import CliRunner
from serving import run_of, wait_until

from digitalhub_python_control import shown
from digitalhub_python_control.runs_cli import seconds_of
from digitalhub_runtime_python.cli import dhpy
from digitalhub_runtime_python.errors import Fault, UsageFault

CODE = """
import time, pathlib
def good(n=1):
    print("line of good", n)
    pathlib.Path("note.txt").write_text("kept")
    return n, pathlib.Path("note.txt")
def bad():
    for i in range(2000):
        print("row", i)
    raise ValueError("no good")
def slow():
    time.sleep(60)
"""


class Commands:
    """`dhpy` and the API of one control plane."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        environ = server.settings.environ
        self.env = {k: v for k, v in environ.items() if k.startswith("DHPY_")}
        self.api = httpx.Client(base_url=f"{server.url}/api/v1", timeout=60)

    def __call__(self, *words: str, fault: str = "", status: int = 0) -> str:
        result = CliRunner().invoke(dhpy, list(words), env=self.env)
        if fault:
            assert isinstance(result.exception, Fault), (result.output, result.exception)
            assert result.exception.code == fault
            return str(result.exception)
        assert result.exit_code == status, (words, result.output, result.exception)
        return result.output

    def task(self, handler: str, project: str = "cli") -> dict:
        self.api.post("/projects", json={"name": project, "kind": "project"})
        spec = {
            "python_version": "PYTHON3_11",
            "source": {"handler": handler, "code": CODE, "source": "main.py"},
        }
        entity = {"kind": "python", "name": handler, "spec": spec}
        function = self.api.post(f"/-/{project}/functions", json=entity).json()
        reference = f"python://{project}/{handler}:{function['id']}"
        task = {"kind": "python+job", "spec": {"function": reference}}
        return self.api.post(f"/-/{project}/tasks", json=task).json()

    def run(self, handler: str, project: str = "cli", ended: bool = True, **spec) -> str:
        task = self.task(handler, project)
        answer = self.api.post(f"/-/{project}/runs", json=run_of(task, **spec))
        assert answer.status_code == 200, answer.text
        identity = answer.json()["id"]
        if ended:
            wait_until(lambda: self.state(identity, project) in ("COMPLETED", "ERROR"))
        return identity

    def state(self, identity: str, project: str = "cli") -> str:
        return self.api.get(f"/-/{project}/runs/{identity}").json()["status"]["state"]


@pytest.fixture(scope="module")
def commands(server, tmp_path_factory):
    commands = Commands(server, tmp_path_factory.mktemp("commands"))
    yield commands
    commands.api.close()


@pytest.fixture(scope="module")
def good(commands):
    return commands.run("good", parameters={"n": 5})


@pytest.fixture(scope="module")
def bad(commands):
    return commands.run("bad")


def test_runs_lists_them_newest_first_with_what_went_wrong(commands, good, bad):
    table = commands("runs", "--project", "cli").splitlines()
    assert table[0].split()[:4] == ["RUN", "FUNCTION", "ACTION", "STATE"]
    rows = {line.split()[0]: line for line in table[1:]}
    assert "good" in rows[good[:8]] and "COMPLETED" in rows[good[:8]]
    assert "ERROR" in rows[bad[:8]] and "ValueError: no good" in rows[bad[:8]]
    assert rows[bad[:8]].split()[1:3] == ["bad", "job"]
    created = [r["metadata"]["created"] for r in json.loads(commands("runs", "--json"))]
    assert created == sorted(created, reverse=True)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--state", "error"], {"bad"}),
        (["--state", "ERROR", "--state", "COMPLETED"], {"good", "bad"}),
        (["--function", "good"], {"good"}),
        (["--function", "goo"], set()),
        (["--action", "build"], set()),
        (["--since", "1d"], {"good", "bad"}),
        (["--since", "0s"], set()),
    ],
)
def test_runs_are_filtered(commands, good, bad, options, found):
    listed = json.loads(commands("runs", "--project", "cli", "--json", "-n", "1000", *options))
    names = {good: "good", bad: "bad"}
    assert {names[run["id"]] for run in listed if run["id"] in names} == found


def test_a_filter_that_cannot_be_is_refused(commands, good):
    assert "COMPLETED" in commands("runs", "--state", "DONE", fault="usage/state")
    assert "12h" in commands("runs", "--since", "yesterday", fault="usage/age")
    assert "'nope'" in commands("runs", "--project", "nope", fault="usage/project")


@pytest.mark.parametrize("bad", ["", "5", "d", "-1d", "1.5h", "1w", "9999999999d", "²d"])
def test_a_time_span_is_a_number_and_a_unit(bad):
    with pytest.raises(UsageFault):
        seconds_of(bad)


def test_a_run_is_named_by_any_unique_beginning_its_key_or_last(commands, good, bad):
    key = commands.api.get(f"/-/cli/runs/{good}").json()["key"]
    for name in (good, good[:7], key):
        assert json.loads(commands("show", name, "--json"))["id"] == good
    newest = commands.run("good", project="newest")
    assert json.loads(commands("show", "last", "--json"))["id"] == newest
    assert json.loads(commands("show", "last", "--project", "newest", "--json"))["id"] == newest
    assert "no run 'zzz' in any project" in commands("show", "zzz", fault="usage/run")
    assert "no run 'last' in project" in commands(
        "show", "last", "--project", "nope", fault="usage/project"
    ).replace("no project 'nope'", "no run 'last' in project")
    several = commands("show", "", fault="usage/run")
    assert "Several runs" in several and "more of the id" in several


def test_show_has_everything_and_the_error_last(commands, good, bad):
    page = commands("show", good)
    for part in (good, "good (job)", "COMPLETED", "n = 5", "output_0 = 5", "output_1 = "):
        assert part in page
    assert commands("show", bad).rstrip().endswith("ValueError: no good")
    assert [r["id"] for r in json.loads(commands("show", good, bad, "--json"))] == [good, bad]


def test_a_traceback_is_printed_once(commands, bad):
    said = commands("logs", bad)
    assert said.startswith("ValueError: no good (main.py, line 10)\nTraceback")
    assert said.count("Traceback (most recent call last)") == 1
    assert "row 0\n" in said and "row 1999\n" in said


def test_the_end_of_a_log_says_what_was_left_out(commands, bad):
    said = commands("logs", bad, "--tail", "3")
    assert "lines before this were left out" in said and "--all" in said
    assert "row 1999\n" in said and "row 1990\n" not in said
    path = f"/-/cli/runs/{bad}/logs"
    item = commands.api.get(path, params={"limit": 100}).json()[0]
    assert item["status"]["omitted"] > 1000
    assert commands.api.get(path).json()[0]["status"]["omitted"] == 0


def test_outputs_are_listed_and_downloaded_into_folders_of_their_own(commands, good):
    assert "output_0 = 5" in commands("outputs", good)
    told = json.loads(commands("outputs", good, "--json"))
    assert told["results"] == {"output_0": 5}
    assert told["outputs"]["output_1"]["kind"] == "artifact"
    place = commands.folder / "got"
    assert str(place) in commands("outputs", good, "--download", "-o", str(place))
    assert (place / "output_1" / "note.txt").read_text() == "kept"
    commands("outputs", good, "--download", "-o", str(place), fault="usage/output-dir")


def test_a_rerun_takes_what_the_run_took_but_what_is_changed(commands, good):
    again = commands("rerun", good, "-p", "n=7").strip()
    wait_until(lambda: commands.state(again) == "COMPLETED")
    run = json.loads(commands("show", again, "--json"))
    assert run["status"]["results"] == {"output_0": 7} and run["id"] != good
    same = commands("rerun", good, "--follow")
    assert "line of good 5" in same


def test_a_run_is_stopped_then_removed_and_a_live_one_is_not_removed_by_mistake(commands):
    run = commands.run("slow", ended=False)
    assert "--force" in commands("rm", run, fault="usage/live-run")
    assert "is being stopped" in commands("stop", run) or commands.state(run) == "STOPPED"
    wait_until(lambda: commands.state(run) == "STOPPED")
    assert "has ended: STOPPED" in commands("stop", run)
    commands("rm", run)
    commands("show", run, fault="usage/run")


def test_nothing_is_done_where_one_of_the_names_is_wrong(commands, good):
    for command in ("stop", "rm", "rerun"):
        commands(command, good, "nothing-like-it", fault="usage/run")
    assert commands.state(good) == "COMPLETED"


def test_functions_are_listed(commands, good):
    table = commands("functions", "--project", "cli")
    assert "good" in table and "PYTHON3_11" in table
    assert any(f["name"] == "good" for f in json.loads(commands("functions", "--json")))


def test_prune_lists_first_and_removes_with_yes(commands):
    run = commands.run("good", project="old")
    time.sleep(1.1)
    listed = commands("prune", "--project", "old", "--runs", "1s")
    assert run in listed and "would be removed" in listed
    assert commands.state(run, "old") == "COMPLETED"
    assert "0 runs" in commands("prune", "--project", "old", "--runs", "1d", "--yes")
    assert "1 runs, 0 environments and 0 sources removed" in commands(
        "prune", "--project", "old", "--runs", "1s", "--yes"
    )
    commands("show", run, fault="usage/run")
    commands("prune", status=2)


def test_watching_ends_when_all_have_ended(commands, good, bad):
    assert "COMPLETED" in commands("runs", "--project", "cli", "--watch")


def test_runs_by_a_functions_key_and_by_states_that_are_none(commands, good, bad):
    run = commands.api.get(f"/-/cli/runs/{good}").json()
    kind, _, rest = run["spec"]["function"].partition("://")
    project, _, name = rest.partition("/")
    key = f"store://{project}/function/{kind}/{name}"
    asked = commands.api.get("/-/cli/runs", params={"function": key, "size": 100}).json()
    assert {r["spec"]["function"] for r in asked["content"]} == {run["spec"]["function"]}
    task = commands.api.get("/-/cli/tasks", params={"function": key}).json()["content"][0]
    asked = commands.api.get("/-/cli/runs", params={"task": task["key"], "size": 100}).json()
    assert good in {r["id"] for r in asked["content"]}
    assert commands.api.get("/-/cli/runs", params={"state": "DONE"}).status_code == 400


def test_a_duration_is_as_long_as_the_run_worked():
    def run(*steps):
        listed = [{"status": s, "time": f"2026-01-01T{t}Z"} for s, t in reversed(steps)]
        return {"status": {"transitions": listed}}

    assert shown.duration(run(("READY", "00:00:00"))) == ""
    assert (
        shown.duration(run(("RUNNING", "00:00:00.000000"), ("COMPLETED", "00:00:00.400000")))
        == "0.4s"
    )
    assert shown.duration(run(("RUNNING", "00:00:00"), ("ERROR", "00:03:12"))) == "3m 12s"
    assert shown.duration(run(("RUNNING", "00:00:00"), ("STOPPED", "02:05:00"))) == "2h 5m"


def test_how_far_a_run_is_is_shown_with_it_and_in_the_table(commands):
    identity = commands.run("slow", ended=False)
    wait_until(lambda: commands.state(identity) == "RUNNING")
    place = f"/-/cli/runs/{identity}"
    run = commands.api.get(place).json()
    run["status"]["progress"] = {"done": 1, "total": 4, "text": "first"}
    assert commands.api.put(place, json=run).status_code == 200
    said = "█████░░░░░░░░░░░░░░░ 1 of 4, 25 %, first"
    assert f"progress    {said}" in commands("show", identity)
    assert said in commands("runs", "--project", "cli", "--state", "RUNNING")
    commands("stop", identity)
