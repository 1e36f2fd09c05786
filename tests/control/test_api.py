"""The requests that all entities have in common, and what is refused."""

from __future__ import annotations

import json
import math
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import FUNCTION, Plane, reference, serving, settings_in

from digitalhub_runtime_python.spec import PYTHON_VERSIONS

ARTIFACT = {"kind": "artifact", "spec": {"path": "s3://bucket/file.txt"}}


def test_a_created_entity_has_everything_that_the_server_fills_in(plane: Plane) -> None:
    made = plane.create("artifacts", name="a", **ARTIFACT)
    assert re.fullmatch("[0-9a-f]{32}", made["id"])
    assert made["key"] == f"store://proj/artifact/artifact/a:{made['id']}"
    assert made["project"] == "proj" and made["user"] == "local" and made["extensions"] == []
    assert made["status"] == {"state": "CREATED"}
    metadata = made["metadata"]
    assert metadata["created"] == metadata["updated"] and metadata["created"].endswith("Z")
    assert metadata["name"] == "a" and metadata["version"] not in ("", made["id"])
    assert plane.ask("GET", f"/-/proj/artifacts/{made['id']}") == made


def test_what_a_client_adds_of_its_own_survives(plane: Plane) -> None:
    made = plane.create(
        "artifacts",
        name="a",
        kind="artifact",
        metadata={"labels": ["x"], "mine": {"deep": [1]}},
        spec={"path": "p", "other": None},
        status={"extra": 1},
    )
    assert made["metadata"]["mine"] == {"deep": [1]} and made["spec"]["other"] is None
    assert made["status"] == {"extra": 1, "state": "CREATED"}


@pytest.mark.parametrize("field", ["metadata", "spec", "status"])
def test_null_parts_become_objects_since_the_sdks_cannot_read_null(
    plane: Plane, field: str
) -> None:
    made = plane.create("artifacts", **{"name": "a", "kind": "artifact", field: None})
    assert isinstance(made[field], dict)
    assert "wrong" in plane.refused(
        "POST", "/-/proj/artifacts", 400, json={"name": "b", "kind": "artifact", field: "wrong"}
    ) or field in plane.refused(
        "POST", "/-/proj/artifacts", 400, json={"name": "b", "kind": "artifact", field: [1]}
    )


def test_null_relationships_are_left_out_since_the_sdks_cannot_read_them(plane: Plane) -> None:
    made = plane.create("artifacts", name="a", kind="artifact", metadata={"relationships": None})
    assert "relationships" not in made["metadata"]


@pytest.mark.parametrize(
    "plural",
    [
        "artifacts",
        "dataitems",
        "models",
        "functions",
        "workflows",
        "secrets",
        "triggers",
        "containerimages",
        "extensions",
        "tasks",
        "runs",
    ],
)
def test_a_missing_entity_is_404_in_the_words_that_both_sdks_know(
    plane: Plane, plural: str
) -> None:
    singular = plural[:-1]
    expected = f"No such EntityName.{singular.upper()}(value={singular})."
    assert plane.refused("GET", f"/-/proj/{plural}/none", 404) == expected
    assert plane.refused("PUT", f"/-/proj/{plural}/none", 404, json={}) == expected
    assert plane.refused("DELETE", f"/-/proj/{plural}/none", 404) == expected
    assert plane.ask("GET", f"/-/proj/{plural}")["content"] == []


def test_a_missing_project_is_404_for_all_that_is_asked_of_it(plane: Plane) -> None:
    expected = "No such EntityName.PROJECT(value=project)."
    assert plane.refused("GET", "/projects/none", 404) == expected
    assert plane.refused("GET", "/-/none/artifacts", 404) == expected
    assert (
        plane.refused("POST", "/-/none/artifacts", 404, json={"name": "a", **ARTIFACT}) == expected
    )
    assert plane.refused("POST", "/-/none/runs", 404, json={}) == expected


def test_the_same_id_twice_is_refused_and_changes_nothing(plane: Plane) -> None:
    first = plane.create("artifacts", name="a", id="one", **ARTIFACT)
    again = {"name": "b", "id": "one", "kind": "artifact", "spec": {"path": "other"}}
    message = plane.refused("POST", "/-/proj/artifacts", 400, json=again)
    assert message == "Duplicated entity artifact:one."
    assert plane.ask("GET", "/-/proj/artifacts/one") == first


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "ä", "..", ".", "a:b", "a@b", "x" * 257, 3, None]
)
def test_a_name_that_cannot_be_is_refused_by_name(plane: Plane, name: object) -> None:
    message = plane.refused("POST", "/-/proj/artifacts", 400, json={**ARTIFACT, "name": name})
    assert f"cannot be {str(name)[:80]!r}" in message
    assert plane.ask("GET", "/-/proj/artifacts")["totalElements"] == 0


@pytest.mark.parametrize("identity", ["../x", "a/b", "..", "a\0b", "A b"])
def test_an_id_that_cannot_be_is_refused(plane: Plane, identity: str) -> None:
    body = {**ARTIFACT, "name": "a", "id": identity}
    assert "The id cannot be" in plane.refused("POST", "/-/proj/artifacts", 400, json=body)


@pytest.mark.parametrize("name", ["a", "A-b", "a.b", "x" * 39, "../x", "", None, "a\n"])
def test_a_project_name_that_core_refuses_is_refused(plane: Plane, name: object) -> None:
    assert "cannot be named" in plane.refused("POST", "/projects", 400, json={"name": name})


def test_an_unknown_kind_is_refused_with_those_that_exist(plane: Plane) -> None:
    for plural, known in (("functions", "python"), ("tasks", "python+job"), ("secrets", "secret")):
        body = {"name": "f", "kind": "nope", "spec": {}}
        message = plane.refused("POST", f"/-/proj/{plural}", 400, json=body)
        assert "'nope'" in message and known in message


def test_an_unknown_python_version_is_refused_with_those_available(plane: Plane) -> None:
    body = {"name": "f", "kind": "python", "spec": {**FUNCTION, "python_version": "PYTHON2_7"}}
    message = plane.refused("POST", "/-/proj/functions", 400, json=body)
    assert "'PYTHON2_7'" in message and all(known in message for known in PYTHON_VERSIONS)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"requirements": "pandas"}, "requirements"),
        ({"requirements": [1]}, "requirements"),
        ({"source": "code.py"}, "source"),
        ({"source": {"handler": 1}}, "source.handler"),
        ({"image": ["x"]}, "image"),
        ({"python_version": 3.11}, "python_version"),
    ],
)
def test_a_function_that_no_run_could_read_is_refused(plane: Plane, spec: dict, says: str) -> None:
    body = {"name": "f", "kind": "python", "spec": {**FUNCTION, **spec}}
    assert says in plane.refused("POST", "/-/proj/functions", 400, json=body)
    assert plane.ask("GET", "/-/proj/functions")["totalElements"] == 0


def test_a_state_that_the_sdks_could_not_read_is_refused(plane: Plane) -> None:
    body = {**ARTIFACT, "name": "a", "status": {"state": "running"}}
    assert "'running'" in plane.refused("POST", "/-/proj/artifacts", 400, json=body)
    made = plane.create("artifacts", name="a", **ARTIFACT)
    path = f"/-/proj/artifacts/{made['id']}"
    assert "NOPE" in plane.refused("GET", "/-/proj/runs", 400, params={"state": "NOPE"})
    assert "NOPE" in plane.refused("PUT", path, 400, json={**made, "status": {"state": "NOPE"}})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not JSON"),
        (b"[1]", "object"),
        (b'"x"', "object"),
        (b"", "object"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "nested"),
        (b'{"a": ' + b"9" * 5000 + b"}", ""),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(plane: Plane, content: bytes, says: str) -> None:
    assert says in plane.refused("POST", "/-/proj/artifacts", 400, content=content)


def test_a_body_that_is_too_large_is_413_also_without_its_length(tmp_path) -> None:
    with serving(settings_in(tmp_path / "home", max_body=10_000)) as plane:
        plane.project()
        big = {"name": "a", "kind": "artifact", "spec": {"x": "y" * 5_000_000}}
        message = plane.refused("POST", "/-/proj/artifacts", 413, json=big)
        assert "10000 bytes" in message and "DHPY_MAX_BODY" in message
        chunks = (b"x" * 1000 for _ in range(1000))
        plane.refused("POST", "/-/proj/artifacts", 413, content=chunks)
        assert plane.create("artifacts", name="small", **ARTIFACT)


def test_nan_and_infinity_go_in_and_come_out(plane: Plane) -> None:
    body = '{"name": "a", "kind": "artifact", "spec": {"x": [NaN, Infinity, -Infinity, 1e400]}}'
    made = plane.ask("POST", "/-/proj/artifacts", content=body)
    back = plane.ask("GET", f"/-/proj/artifacts/{made['id']}")["spec"]["x"]
    assert math.isnan(back[0]) and back[1:] == [math.inf, -math.inf, math.inf]


def test_text_of_any_kind_goes_in_and_comes_out(each_plane: Plane) -> None:
    plane = each_plane
    odd = {"a\0b": "\0", "half": "\ud800", "漢字": "🎉", "sql": "'; DROP TABLE entities; --"}
    body = {"name": "a", "kind": "artifact", "spec": odd}
    body["metadata"] = {"description": "\0\ud800", "labels": ["\0", "\udfff", 7, None]}
    made = plane.ask("POST", "/-/proj/artifacts", content=json.dumps(body))
    back = plane.ask("GET", f"/-/proj/artifacts/{made['id']}")
    assert back["spec"] == odd and back["metadata"]["labels"] == ["\0", "\udfff", 7, None]


def test_a_put_changes_metadata_and_status_and_keeps_what_identifies(plane: Plane) -> None:
    made = plane.create("artifacts", name="a", **ARTIFACT)
    time.sleep(0.01)
    sent = {
        **made,
        "metadata": {**made["metadata"], "created": "2001-01-01T00:00:00Z", "labels": ["new"]},
        "status": {"state": "READY", "files": [{"path": "x"}]},
        "user": "someone",
        "key": "store://other",
        "spec": {"path": "elsewhere"},
    }
    changed = plane.ask("PUT", f"/-/proj/artifacts/{made['id']}", json=sent)
    assert changed["status"] == {"state": "READY", "files": [{"path": "x"}]}
    assert changed["metadata"]["labels"] == ["new"]
    assert changed["metadata"]["created"] == made["metadata"]["created"]
    assert changed["metadata"]["updated"] > made["metadata"]["updated"]
    assert changed["user"] == made["user"] and changed["key"] == made["key"]
    assert changed["spec"] == made["spec"], "a version is what it was created as"
    assert plane.ask("GET", f"/-/proj/artifacts/{made['id']}") == changed


def test_a_tasks_spec_can_be_changed_but_not_its_function(plane: Plane) -> None:
    task = plane.task(plane.function())
    sent = {
        **task,
        "spec": {"function": "python://proj/other:1", "envs": [{"name": "A", "value": "1"}]},
    }
    changed = plane.ask("PUT", f"/-/proj/tasks/{task['id']}", json=sent)
    assert changed["spec"] == {**sent["spec"], "function": task["spec"]["function"]}


@pytest.mark.parametrize("field", ["id", "name", "kind", "project"])
def test_a_put_of_another_entity_is_refused(plane: Plane, field: str) -> None:
    made = plane.create("artifacts", name="a", **ARTIFACT)
    path = f"/-/proj/artifacts/{made['id']}"
    assert field in plane.refused("PUT", path, 400, json={**made, field: "other"})
    assert plane.ask("GET", path) == made


def test_a_list_has_the_latest_versions_and_with_versions_all_every_one(each_plane: Plane) -> None:
    plane = each_plane
    ids = [plane.create("artifacts", name=name, **ARTIFACT)["id"] for name in "abab"]
    latest = plane.ask("GET", "/-/proj/artifacts")["content"]
    assert [one["id"] for one in latest] == [ids[3], ids[2]], (
        "newest first, also within a millisecond"
    )
    every = plane.ask("GET", "/-/proj/artifacts", params={"versions": "all"})["content"]
    assert [one["id"] for one in every] == ids[::-1]
    named = plane.ask("GET", "/-/proj/artifacts", params={"name": "a"})["content"]
    assert [one["id"] for one in named] == [ids[2]]
    versions = plane.ask("GET", "/-/proj/artifacts", params={"name": "a", "versions": "all"})
    assert [one["id"] for one in versions["content"]] == [ids[2], ids[0]]


def test_the_latest_version_is_the_one_created_last_by_the_clients_clock(plane: Plane) -> None:
    new = plane.create("artifacts", name="a", **ARTIFACT)
    plane.create(
        "artifacts", name="a", metadata={"created": "2001-01-01T00:00:00+02:00"}, **ARTIFACT
    )
    assert plane.ask("GET", "/-/proj/artifacts")["content"] == [new]


def test_an_old_version_that_fits_a_filter_is_not_the_answer(plane: Plane) -> None:
    old = plane.create("artifacts", name="a", status={"state": "READY"}, **ARTIFACT)
    plane.create("artifacts", name="a", status={"state": "ERROR"}, **ARTIFACT)
    assert plane.ask("GET", "/-/proj/artifacts", params={"state": "READY"})["content"] == []
    every = plane.ask("GET", "/-/proj/artifacts", params={"state": "READY", "versions": "all"})
    assert every["content"] == [old]


def test_lists_are_filtered_and_unknown_values_give_an_empty_page(each_plane: Plane) -> None:
    plane = each_plane
    function = plane.function("alpha")
    task = plane.task(function)
    run = plane.run(task)
    made = {"created": run["metadata"]["created"]}
    for plural, params, count in (
        ("functions", {"name": "alpha"}, 1),
        ("functions", {"name": "alph"}, 0),
        ("functions", {"q": "LPH"}, 1),
        ("functions", {"q": "l%h"}, 0),
        ("functions", {"kind": "python"}, 1),
        ("functions", {"kind": "job"}, 0),
        ("functions", {"user": "local"}, 1),
        ("functions", {"user": "x\0y"}, 0),
        ("tasks", {"kind": "job"}, 0),
        ("tasks", {"function": reference(function)}, 1),
        ("tasks", {"function": reference(function)[:-1]}, 0),
        ("tasks", {"function": "alpha"}, 1),
        ("runs", {"task": f"python+job://proj/{task['id']}"}, 1),
        ("runs", {"action": "job"}, 1),
        ("runs", {"action": "serve"}, 0),
        ("runs", {"state": "READY"}, 1),
        ("runs", {"state": "ERROR"}, 0),
        ("runs", {"state": "ERROR,READY"}, 1),
        ("runs", {"id": run["id"][:9]}, 1),
        ("runs", {"function": function["key"]}, 1),
        ("runs", {"q": "alpha"}, 1),
        ("runs", {"created": made["created"]}, 1),
        ("runs", {"created": f"2001-01-01T00:00:00+01:00,{made['created']}"}, 1),
        ("runs", {"created": "2001-01-01T00:00:00Z,2002-01-01T00:00:00Z"}, 0),
        ("runs", {"updated": "2001-01-01T00:00:00Z"}, 1),
        ("runs", {"unknown": "x"}, 1),
    ):
        found = plane.ask("GET", f"/-/proj/{plural}", params=params)
        assert found["totalElements"] == count, (plural, params)
    assert "created" in plane.refused("GET", "/-/proj/runs", 400, params={"created": "yesterday"})


def test_a_long_list_comes_in_pages_without_gaps(each_plane: Plane) -> None:
    plane = each_plane
    for number in range(57):
        plane.create("artifacts", name=f"a{number}", **ARTIFACT)
    names, page = [], 0
    while True:
        answer = plane.ask("GET", "/-/proj/artifacts", params={"page": page})
        assert answer["totalElements"] == 57 and answer["totalPages"] == 3
        assert answer["numberOfElements"] == len(answer["content"]) and answer["number"] == page
        names += [one["name"] for one in answer["content"]]
        if answer["last"]:
            break
        page += 1
    assert names == [f"a{number}" for number in reversed(range(57))]
    sized = plane.ask("GET", "/-/proj/artifacts", params={"size": 10, "page": 5})
    assert len(sized["content"]) == 7 and sized["totalPages"] == 6 and sized["last"]
    beyond = plane.ask("GET", "/-/proj/artifacts", params={"page": 99})
    assert beyond["content"] == [] and beyond["empty"] is True
    assert "page" in plane.refused("GET", "/-/proj/artifacts", 400, params={"page": "x"})


def test_all_versions_of_a_name_are_deleted_at_once(plane: Plane) -> None:
    for name in "aab":
        plane.create("artifacts", name=name, **ARTIFACT)
    assert plane.ask("DELETE", "/-/proj/artifacts", params={"name": "a"}) is None
    left = plane.ask("GET", "/-/proj/artifacts", params={"versions": "all"})["content"]
    assert [one["name"] for one in left] == ["b"]
    assert "name" in plane.refused("DELETE", "/-/proj/artifacts", 400)


def test_a_function_goes_with_its_tasks_and_runs_and_no_others(each_plane: Plane) -> None:
    plane = each_plane
    gone, kept = plane.function("gone"), plane.function("kept")
    for function in (gone, kept):
        task = plane.task(function)
        plane.run(task, local_execution=True)
        plane.run(task)
    plane.ask("DELETE", f"/-/proj/functions/{gone['id']}", params={"cascade": "true"})
    for plural, count in (("functions", 1), ("tasks", 1), ("runs", 2)):
        found = plane.ask("GET", f"/-/proj/{plural}")["content"]
        assert len(found) == count
        assert all("gone" not in json.dumps(one) for one in found)


def test_without_cascade_only_the_function_goes(plane: Plane) -> None:
    function = plane.function()
    plane.run(plane.task(function), local_execution=True)
    plane.ask("DELETE", f"/-/proj/functions/{function['id']}", params={"cascade": "false"})
    assert plane.ask("GET", "/-/proj/tasks")["totalElements"] == 1
    assert plane.ask("GET", "/-/proj/runs")["totalElements"] == 1


def test_projects_are_listed_with_what_is_in_them(each_plane: Plane) -> None:
    plane = each_plane
    plane.create("artifacts", name="a", **ARTIFACT)
    latest = plane.create("artifacts", name="a", **ARTIFACT)
    whole = plane.create("models", name="m", kind="model", metadata={"embedded": True})
    spec = plane.ask("GET", "/projects/proj")["spec"]
    assert [one["id"] for one in spec["artifacts"]] == [latest["id"]]
    assert "spec" not in spec["artifacts"][0] and spec["artifacts"][0]["key"] == latest["key"]
    assert spec["artifacts"][0]["metadata"]["ref"].endswith(f"/-/proj/artifacts/{latest['id']}")
    assert spec["models"] == [whole]
    assert plane.ask("GET", "/projects")["content"][0]["spec"] == spec


def test_a_put_of_a_project_keeps_what_is_in_it(plane: Plane) -> None:
    plane.create("artifacts", name="a", **ARTIFACT)
    project = plane.ask("GET", "/projects/proj")
    project["spec"].update(artifacts=[], config={"a": 1}, source="./here")
    changed = plane.ask("PUT", "/projects/proj", json=project)
    assert changed["spec"]["config"] == {"a": 1} and len(changed["spec"]["artifacts"]) == 1


def test_a_deleted_project_leaves_nothing_to_one_of_the_same_name(each_plane: Plane) -> None:
    plane = each_plane
    plane.run(plane.task(plane.function()))
    plane.ask("PUT", "/-/proj/secrets/data", json={"token": "x"})
    plane.ask("DELETE", "/projects/proj", params={"cascade": "true"})
    assert plane.ask("GET", "/projects")["content"] == []
    plane.project()
    assert plane.ask("GET", "/-/proj/functions")["content"] == []
    assert plane.ask("GET", "/-/proj/runs")["content"] == []
    assert plane.ask("GET", "/-/proj/secrets/data", params={"keys": "token"}) == {}


def test_metrics_are_numbers_by_name(each_plane: Plane) -> None:
    plane = each_plane
    model = plane.create("models", name="m", kind="model")
    path = f"/-/proj/models/{model['id']}/metrics"
    assert plane.ask("GET", path) == {}
    plane.ask("PUT", f"{path}/loss", json=[0.5, 0.25])
    plane.ask("PUT", f"{path}/loss", json=[0.5, 0.25, 0.125])
    plane.ask("PUT", f"{path}/nan", content="NaN")
    found = plane.ask("GET", path)
    assert found["loss"] == [0.5, 0.25, 0.125] and math.isnan(found["nan"])
    assert plane.ask("GET", f"{path}/loss") == found["loss"]
    for wrong in ('{"a": 1}', '"x"', "true", '["x"]'):
        assert "number" in plane.refused("PUT", f"{path}/loss", 400, content=wrong)
    assert plane.refused("GET", "/-/proj/models/none/metrics", 404)
    plane.ask("DELETE", f"/-/proj/models/{model['id']}")
    plane.create("models", name="m", kind="model", id=model["id"])
    assert plane.ask("GET", path) == {}


def test_lists_of_files_are_plain_lists(plane: Plane) -> None:
    made = plane.create("artifacts", name="a", status={"files": [{"path": "x"}]}, **ARTIFACT)
    path = f"/-/proj/artifacts/{made['id']}/files/info"
    assert plane.ask("GET", path) == [{"path": "x"}]
    files = [{"path": f"{number}", "size": number} for number in range(200)]
    plane.ask("PUT", path, json=files)
    assert plane.ask("GET", path) == files
    assert "array" in plane.refused("PUT", path, 400, json={"a": 1})


def test_secrets_are_values_by_name_and_never_in_the_entity(plane: Plane) -> None:
    plane.create("secrets", name="a", kind="secret", spec={"path": "secret://a"})
    plane.ask("PUT", "/-/proj/secrets/data", json={"a": "välue", "b": "other"})
    assert plane.ask("GET", "/-/proj/secrets/data", params={"keys": "a,b,c"}) == {
        "a": "välue",
        "b": "other",
    }
    listed = plane.ask("GET", "/-/proj/secrets")["content"]
    assert sorted(one["name"] for one in listed) == ["a", "b"] and "välue" not in json.dumps(listed)
    on_disk = b"".join(path.read_bytes() for path in plane.settings.home.glob("dhpy.db*"))
    assert "välue".encode() not in on_disk and b"secret://a" in on_disk
    plane.ask("DELETE", f"/-/proj/secrets/{listed[0]['id']}")
    assert len(plane.ask("GET", "/-/proj/secrets/data", params={"keys": "a,b"})) == 1
    assert "string" in plane.refused("PUT", "/-/proj/secrets/data", 400, json={"a": 1})
    assert "name" in plane.refused("PUT", "/-/proj/secrets/data", 400, json={"a b": "1"})


def test_what_the_platform_says_about_itself(plane: Plane) -> None:
    assert plane.http.get("/health").json()["status"] == "UP"
    assert plane.http.get("/api/auth").status_code == 200
    told = plane.http.get("/.well-known/configuration").json()
    assert told["k8s_resource_profiles"] == [] and told["dhcore_endpoint"] == plane.settings.url
    assert told["aws_endpoint_url"] == f"{plane.settings.url}/s3"
    plane.run(plane.task(plane.function()))
    lines = plane.http.get("/metrics").text.splitlines()
    assert 'dhpy_runs{state="READY"} 1.0' in lines
    assert 'dhpy_requests_total{area="api",method="POST",status="200"} 4.0' in lines
    assert "x-api-level" not in plane.http.get("/api/v1/projects").headers


def test_an_address_that_is_none_is_answered_in_json(plane: Plane) -> None:
    assert "/api/v1/nope" in plane.refused("GET", "/nope", 404)
    assert "DELETE" in plane.refused("DELETE", "/projects", 405)


def test_search_finds_by_type_name_kind_time_description_labels_and_words(
    each_plane: Plane,
) -> None:
    plane = each_plane
    metadata = {"description": "Penguins of Palmer", "labels": ["red", "big one"]}
    made = plane.create("artifacts", name="birds", metadata=metadata, **ARTIFACT)
    plane.create("models", name="birds.model", kind="model", metadata={"labels": ["red"]})
    plane.ask("PUT", "/-/proj/secrets/data", json={"birds": "x"})
    moment = made["metadata"]["updated"]
    for q, fq, names in (
        (None, [], ["birds", "birds.model"]),
        ("palmer PENGUINS", [], ["birds"]),
        ("palmer nope", [], []),
        (None, ["type:(artifact)"], ["birds"]),
        (None, ["type:(artifact OR model)"], ["birds", "birds.model"]),
        (None, ['metadata.name:"birds"'], ["birds"]),
        (None, ["metadata.name:birds*"], ["birds", "birds.model"]),
        (None, ['kind:"model"'], ["birds.model"]),
        (None, ["metadata.labels:(red)"], ["birds", "birds.model"]),
        (None, ["metadata.labels:(red AND big one)"], ["birds"]),
        (None, ["metadata.labels:(re)"], []),
        (None, ['metadata.description:"of palmer"'], ["birds"]),
        (None, ["metadata.updated:[* TO *]"], ["birds", "birds.model"]),
        (None, [f"metadata.updated:[{moment} TO *]"], ["birds", "birds.model"]),
        (None, [f"metadata.updated:[* TO {moment}]", "type:(artifact)"], ["birds"]),
        (None, ["metadata.updated:[* TO 2001-01-01T00:00:00Z]"], []),
        ("%", [], []),
        ("birds", ["type:(model)", 'kind:"model"'], ["birds.model"]),
    ):
        params = [("fq", one) for one in fq] + ([("q", q)] if q else [])
        found = plane.ask("GET", "/-/proj/solr/search/item", params=params)["content"]
        assert sorted(one["name"] for one in found) == names, (q, fq)
    assert {"id", "kind", "project", "name", "type", "status", "key", "metadata"} <= set(found[0])
    for wrong in ("nope", "colour:red", "metadata.updated:[a TO b]", "metadata.updated:x"):
        assert plane.refused("GET", "/-/proj/solr/search/item", 400, params={"fq": wrong})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=st.dictionaries(
        st.sampled_from(["kind", "name", "id", "metadata", "spec", "status", "project"])
        | st.text(),
        anything | st.sampled_from(["artifact", "python", "a"]),
    ),
    plural=st.sampled_from(["artifacts", "functions", "tasks", "runs", "secrets", "triggers"]),
)
def test_whatever_is_sent_is_stored_or_refused_never_an_error_of_ours(
    each_plane: Plane, body: dict, plural: str
) -> None:
    plane = each_plane
    answer = plane.http.post(f"/api/v1/-/proj/{plural}", content=json.dumps(body))
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 200:
        made = json.loads(answer.text)
        again = plane.http.get(f"/api/v1/-/proj/{plural}/{made['id']}")
        assert json.dumps(json.loads(again.text)) == json.dumps(made)
        put = plane.http.put(f"/api/v1/-/proj/{plural}/{made['id']}", content=json.dumps(body))
        assert put.status_code in (200, 400), put.text
