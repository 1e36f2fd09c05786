"""Our answers beside those of a real DigitalHub Core, where its samples lie: the same keys and forms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Plane

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "contracts" / "core-samples"
pytestmark = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="the samples of a real Core are not here"
)

# What only a cluster has, or what a later Core puts among a run's relationships.
NOT_OURS = {"k8s", "pods", "events"}


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())["body"]


def missing(theirs: Any, ours: Any, path: str = "") -> Iterator[str]:
    """The keys, and the types of values, that a real Core answers and we do not."""
    if isinstance(theirs, dict):
        if not isinstance(ours, dict):
            yield f"{path}: {type(ours).__name__}"
            return
        for key, value in theirs.items():
            if key in NOT_OURS:
                continue
            if key not in ours:
                yield f"{path}.{key}"
            else:
                yield from missing(value, ours[key], f"{path}.{key}")
    elif isinstance(theirs, list):
        if not isinstance(ours, list):
            yield f"{path}: {type(ours).__name__}"
        elif theirs and ours and not isinstance(theirs[0], str):
            yield from missing(theirs[0], ours[0], f"{path}[]")
    elif theirs is not None and type(theirs) is not type(ours):
        yield f"{path}: {type(ours).__name__}"


def same_form(theirs: Any, ours: Any) -> None:
    assert list(missing(theirs, ours)) == []


def key_form(entity: dict[str, Any]) -> str:
    """An entity's key with its parts by name."""
    name = re.escape(entity["name"])
    key = entity["key"].replace(entity["project"], "PROJECT", 1).replace(entity["id"], "ID")
    key = key.replace(entity["kind"], "KIND", 1) if entity["kind"] != entity_type(key) else key
    return re.sub(f"/{name}(:ID)?$", r"/NAME\1", key)


def entity_type(key: str) -> str:
    return key.split("/")[3]


@pytest.mark.parametrize("name", ["artifact", "dataitem", "model", "function", "secret"])
def test_an_entity_has_every_key_that_core_answers(plane: Plane, name: str) -> None:
    theirs = sample(name)
    sent = {k: theirs[k] for k in ("name", "kind", "spec", "status")}
    sent["metadata"] = {"embedded": False}
    made = plane.create(f"{name}s", **sent)
    ours = plane.ask("GET", f"/-/proj/{name}s/{made['id']}")
    same_form(theirs, ours)
    assert key_form(ours) == key_form(theirs)
    assert ours["spec"] == theirs["spec"] and ours["status"] == theirs["status"]


def test_a_project_has_every_key_and_list_that_core_answers(plane: Plane) -> None:
    theirs = sample("project")
    plane.function()
    for plural in ("artifacts", "dataitems", "models"):
        plane.create(plural, name="x", kind=theirs["spec"][plural][0]["kind"])
    project = plane.ask("GET", "/projects/proj")
    project["metadata"]["description"] = "d"
    project["spec"].update(source="./", config={})
    plane.ask("PUT", "/projects/proj", json=project)
    ours = plane.ask("GET", "/projects/proj")
    same_form(theirs, ours)
    for plural in ("artifacts", "dataitems", "models", "functions"):
        listed, real = ours["spec"][plural][0], theirs["spec"][plural][0]
        assert set(listed) == set(real) and set(listed["metadata"]) == set(real["metadata"])
        assert key_form(listed) == key_form(real)


@pytest.mark.parametrize("name", ["functions-page", "tasks-page"])
def test_a_page_has_every_key_that_core_answers(plane: Plane, name: str) -> None:
    function = plane.function()
    plane.create(
        "functions", name="g", kind="python", spec=function["spec"], metadata={"embedded": False}
    )
    for _ in range(2):
        task = plane.task(function)
    ours = plane.ask("GET", f"/-/proj/{name.partition('-')[0]}", params={"size": 2})
    same_form(sample(name), ours)
    assert set(ours) == set(sample(name))
    assert key_form(task) == key_form(sample("tasks-page")["content"][0])


@pytest.mark.parametrize(
    "name", ["run-pending", "run-running", "run-completed", "run-error", "run-serve-running"]
)
def test_a_run_has_every_key_that_core_answers(plane: Plane, name: str) -> None:
    theirs = sample(name)
    action = "serve" if "serve" in name else "job"
    task = plane.task(plane.function(), action)
    own = {k: v for k, v in theirs["spec"].items() if k in ("envs", "resources", "parameters")}
    run = plane.run(task, **own)
    service = {"service": theirs["status"]["service"]} if action == "serve" else None
    plane.store.move_run("proj", run["id"], "PENDING")
    plane.store.move_run("proj", run["id"], "RUNNING", status=service)
    path = f"/-/proj/runs/{run['id']}"
    reported = {k: v for k, v in theirs["status"].items() if k in ("results", "outputs")}
    run = plane.ask("PUT", path, json={**plane.ask("GET", path), "status": reported})
    if name == "run-error":
        plane.store.move_run("proj", run["id"], "ERROR", message="m")
    if name == "run-completed":
        plane.store.move_run("proj", run["id"], "COMPLETED")
    ours = plane.ask("GET", path)
    same_form(theirs, ours)
    if name != "run-pending":
        assert ours["status"]["state"] == theirs["status"]["state"]
    assert key_form(ours) == key_form(theirs)
    names = [one["status"] for one in theirs["status"]["transitions"] if isinstance(one, dict)]
    assert [one["status"] for one in ours["status"]["transitions"]][-2:] == ["READY", "BUILT"]
    if name != "run-pending":
        assert [one["status"] for one in ours["status"]["transitions"]][: len(names)] == names


def test_what_is_not_a_page_in_core_is_none_here(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()))
    assert plane.ask("GET", f"/-/proj/runs/{run['id']}/logs") == sample("logs")
    lineage = plane.ask("GET", f"/-/proj/runs/{run['id']}/relationships")
    same_form(sample("lineage"), lineage)
    plane.ask("PUT", "/-/proj/secrets/data", json=sample("secret-data"))
    assert plane.ask("GET", "/-/proj/secrets/data?keys=s1") == sample("secret-data")


def test_refusals_have_cores_status_and_keys(plane: Plane) -> None:
    assert plane.refused("POST", "/projects", 400, json={"name": "proj"}) == sample(
        "err-duplicate"
    )["message"].replace("proj-d", "proj")
    for name in ("err-bad-kind", "err-bad-name", "err-bad-python-version"):
        sent = json.loads((SAMPLES / f"{name}.json").read_text())["sent"]
        plane.refused("POST", "/-/proj/functions", sample(name)["status"], json=sent)
    # Core's newer words for this, `No such artifact.`, make both SDKs fail.
    assert plane.refused("GET", "/-/proj/artifacts/nope", sample("err-not-found")["status"])


def test_the_configuration_has_what_needs_no_cluster_and_no_tokens(plane: Plane) -> None:
    ours = plane.http.get("/.well-known/configuration").json()
    left = {
        path for path in missing(sample("configuration"), ours) if not path.startswith(".oauth2")
    }
    # An API level would make one of the two SDKs refuse to work.
    assert left == {".container_registry", ".dhcore_api_level"}
