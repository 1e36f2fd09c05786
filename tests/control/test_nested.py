"""Runs that start runs and wait for them: real control plane, real runtime, fewer places than runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from serving import run_of, server_process, wait_until
from test_engines_process import User
from test_separation import Two, credentials, two  # noqa: F401 - a fixture

from digitalhub_python_control.api.runs import DEEPEST
from digitalhub_runtime_python.cli import dhpy

BY_SDK = """
def f(project, depth):
    if depth == 0:
        return 0
    run = project.get_function("f").run("job", parameters={"depth": depth - 1}, wait=True)
    return run.results()["output_0"] + 1
"""

# As the SDK does, without the second that it takes to import it.
BY_HAND = """
import json, os, time, urllib.request

def ask(method, path, body=None):
    url = f"{os.environ['DHCORE_ENDPOINT']}/api/v1/-/{os.environ['PROJECT_NAME']}/{path}"
    headers = {"Authorization": f"Bearer {os.environ['DHCORE_ACCESS_TOKEN']}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers, method=method)
    return json.load(urllib.request.urlopen(request, timeout=60))

def f(depth, wide):
    me = ask("GET", f"runs/{os.environ['RUN_ID']}")
    spec = {key: me["spec"][key] for key in ("task", "function")}
    spec["parameters"] = {"depth": depth - 1, "wide": wide}
    children = [ask("POST", "runs", {"kind": me["kind"], "spec": spec})["id"] for _ in range(wide if depth else 0)]
    end = time.monotonic() + 120
    for child in children:
        while (state := ask("GET", f"runs/{child}")["status"]["state"]) != "COMPLETED":
            assert state != "ERROR" and time.monotonic() < end, state
            time.sleep(0.1)
    return depth
"""


def test_with_one_place_a_chain_of_runs_that_wait_for_each_other_ends(tmp_path: Path) -> None:
    with server_process(tmp_path / "home", DHPY_MAX_JOBS="1") as server:
        user = User(server, "proj")
        top = user.run(user.task(BY_SDK), parameters={"depth": 2})
        status = user.ended(top)
        assert status.get("results") == {"output_0": 2}, status
        listed = user.http.get("/-/proj/runs").json()["content"]
        deep = {run["status"].get("parent", {}).get("depth", 0): run for run in listed}
        assert sorted(deep) == [0, 1, 2] and deep[0]["id"] == top
        assert deep[1]["status"]["parent"] == {"run": top, "depth": 1}
        assert deep[2]["status"]["parent"] == {"run": deep[1]["id"], "depth": 2}
        env = {k: v for k, v in server.settings.environ.items() if k.startswith("DHPY_")}
        table = CliRunner().invoke(dhpy, ["runs"], env=env).output
        assert re.search(rf"{deep[2]['id'][:8]}.*by {deep[1]['id'][:8]}", table), table
        page = CliRunner().invoke(dhpy, ["show", deep[1]["id"]], env=env).output
        assert re.search(rf"started by\s+{top}\n", page), page

        def idle() -> bool:
            text = user.http.get(f"{server.url}/metrics").text
            return all(
                f'dhpy_places{{engine="process",use="{use}"}} 0.0' in text
                for use in ("held", "lent", "waiting")
            )

        wait_until(idle)
        user.http.close()


def test_with_two_places_three_runs_that_each_wait_for_two_end(tmp_path: Path) -> None:
    with server_process(tmp_path / "home", DHPY_MAX_JOBS="2") as server:
        user = User(server, "proj")
        task = user.task(BY_HAND)
        tops = [user.run(task, parameters={"depth": 1, "wide": 2}) for _ in range(3)]
        for top in tops:
            status = user.ended(top)
            assert status.get("results") == {"output_0": 1}, status
        user.http.close()


def test_who_started_a_run_is_what_the_token_says_and_nothing_else(two: Two) -> None:  # noqa: F811
    task = two.plane.task(two.plane.function("g", project="alpha"))
    forged = {"parent": {"run": "other", "depth": 1}}
    child = two.ask("POST", "/api/v1/-/alpha/runs", json=run_with(task, status=forged)).json()
    own = {"run": two.runs["alpha"]["id"], "depth": 1}
    assert child["status"]["parent"] == own
    path = f"/-/alpha/runs/{child['id']}"
    two.plane.ask("PUT", path, json={**child, "status": forged})
    assert two.plane.ask("GET", path)["status"]["parent"] == own
    mine = two.plane.create("runs", "alpha", **run_with(task, status=forged))
    two.plane.ask("PUT", f"/-/alpha/runs/{mine['id']}", json={**mine, "status": forged})
    assert "parent" not in two.plane.ask("GET", f"/-/alpha/runs/{mine['id']}")["status"]


@pytest.mark.parametrize("two", ["with credentials"], indirect=True)
def test_a_function_that_runs_itself_without_an_end_is_stopped(two: Two) -> None:  # noqa: F811
    task = two.plane.task(two.plane.function("g", project="alpha"))
    for _ in range(DEEPEST):
        made = two.ask("POST", "/api/v1/-/alpha/runs", json=run_with(task))
        assert made.status_code == 200
        two.own = credentials(two.plane, made.json())
    answer = two.ask("POST", "/api/v1/-/alpha/runs", json=run_with(task))
    assert answer.status_code == 400
    assert "may start no other" in answer.json()["message"]


def run_with(task: dict, **fields) -> dict:
    return {**run_of(task), **fields}
