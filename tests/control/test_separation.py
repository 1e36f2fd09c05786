"""What a run may reach: its own project, with a token and S3 keys that are worth nothing once it has ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Plane, run_of, serving, settings_in
from test_access import LOCK
from test_s3 import boto, refused

from digitalhub_python_control.api.app import create_app
from digitalhub_python_control.clientenv import Credentials
from digitalhub_python_control.running.launch import run_environment
from digitalhub_python_control.store.tokens import credentials_of
from digitalhub_runtime_python.spec import RunSpec


@dataclass
class Two:
    """Two projects, each with something of every type, and a run in `alpha`."""

    plane: Plane
    runs: dict[str, dict[str, Any]]
    own: Credentials
    http: httpx.Client

    def ask(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.own.token}"}
        return self.http.request(method, path, headers=headers, **kwargs)


@pytest.fixture(params=["open", "with credentials"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Two]:
    is_open = request.param == "open"
    settings = settings_in(tmp_path / "home", **({} if is_open else LOCK))
    auth = {} if is_open else {"auth": (LOCK["user"], LOCK["password"])}
    with serving(settings, **auth) as plane:
        runs = {}
        for project in ("alpha", "beta", "alpha2"):
            plane.project(project)
            plane.ask("PUT", f"/-/{project}/secrets/data", json={"key": f"secret of {project}"})
            plane.create("artifacts", project, kind="artifact", name="a", id="same")
            task = plane.task(plane.function(project=project))
            runs[project] = plane.run(task)
        with httpx.Client(base_url=plane.settings.url) as http:
            yield Two(plane, runs, credentials(plane, runs["alpha"]), http)


def credentials(plane: Plane, run: dict[str, Any]) -> Credentials:
    record = plane.store.get_run_record(run["project"], run["id"])
    assert record is not None
    return credentials_of(record, plane.store)


def test_no_route_of_another_project_or_of_the_platform_is_open_to_a_run(two: Two) -> None:
    """Every row of the table of routes, so that one which is added is asked too."""
    before = two.plane.ask("GET", "/-/beta/secrets/data?keys=key")
    mine = {"/health", "/api/auth", "/.well-known/configuration"}
    asked = 0
    for route in create_app(two.plane.settings, two.plane.store).routes:
        if route.path in mine or route.path.startswith("/s3"):  # type: ignore[attr-defined]
            continue
        for project in ("beta", "alpha2", "ALPHA", "alpha%2F..%2Fbeta", "none"):
            identity = two.runs["beta"]["id"] if "runs" in route.path else "same"  # type: ignore[attr-defined]
            path = route.path.format(project=project, id=identity, name="a")  # type: ignore[attr-defined]
            for method in route.methods:  # type: ignore[attr-defined]
                body = {} if method in ("GET", "HEAD", "DELETE") else {"json": {"name": "evil"}}
                answer = two.ask(method, f"{path}?name=a&keys=key&cascade=true", **body)
                assert answer.status_code in (403, 404), (method, path, answer.text)
                assert "secret of" not in answer.text
                asked += 1
    assert asked > 400
    assert two.plane.ask("GET", "/-/beta/secrets/data?keys=key") == before
    assert two.plane.ask("GET", "/-/beta/artifacts/same")["name"] == "a"
    assert {p["name"] for p in two.plane.ask("GET", "/projects")["content"]} == {
        "alpha", "beta", "alpha2",
    }  # fmt: skip


def test_a_run_may_do_in_its_project_what_the_sdk_does(two: Two) -> None:
    run = two.runs["alpha"]
    assert two.ask("GET", "/api/v1/projects/alpha").status_code == 200
    found = two.ask("GET", "/api/v1/-/alpha/secrets/data?keys=key").json()
    assert found == {"key": "secret of alpha"}
    made = two.ask("POST", "/api/v1/-/alpha/models", json={"kind": "model", "name": "m"})
    assert made.status_code == 200 and made.json()["user"] == run["user"]
    report = two.ask("PUT", f"/api/v1/-/alpha/runs/{run['id']}", json={**run, "status": {"results": {"x": 1}}})  # fmt: skip
    assert report.status_code == 200 and report.json()["status"]["results"] == {"x": 1}
    task = two.plane.task(two.plane.function("g", project="alpha"))
    child = two.ask("POST", "/api/v1/-/alpha/runs", json=run_of(task))
    assert child.status_code == 200
    assert two.ask("GET", f"/api/v1/-/alpha/runs/{child.json()['id']}").status_code == 200
    assert two.ask("POST", f"/api/v1/-/alpha/runs/{child.json()['id']}/stop").status_code == 200


def test_a_run_neither_deletes_its_project_nor_writes_what_another_run_reports(two: Two) -> None:
    assert two.ask("DELETE", "/api/v1/projects/alpha").status_code == 403
    task = two.plane.task(two.plane.function("g", project="alpha"))
    other = two.plane.run(task)
    path = f"/api/v1/-/alpha/runs/{other['id']}"
    assert two.ask("PUT", path, json={"status": {"results": {"x": 1}}}).status_code == 403
    assert "results" not in two.plane.ask("GET", f"/-/alpha/runs/{other['id']}")["status"]
    local = two.ask("POST", "/api/v1/-/alpha/runs", json=run_of(task, local_execution=True)).json()
    own = two.ask("PUT", f"/api/v1/-/alpha/runs/{local['id']}", json={**local, "status": {"state": "RUNNING"}})  # fmt: skip
    assert own.status_code == 200


@pytest.mark.parametrize("state", ["COMPLETED", "ERROR", "STOPPED"])
def test_a_token_is_worth_nothing_once_its_run_has_ended(two: Two, state: str) -> None:
    client = boto(two.plane, two.own.s3_access_key, two.own.s3_secret_key)
    client.put_object(Bucket="bkt", Key="alpha/x", Body=b"x")
    for one in ("PENDING", "RUNNING", state):
        assert two.plane.store.move_run("alpha", two.runs["alpha"]["id"], one)
    assert two.ask("GET", "/api/v1/projects/alpha").status_code == 401
    assert refused(client.get_object, Bucket="bkt", Key="alpha/x")[0] == 403


def test_a_run_of_the_same_name_that_is_made_later_has_another_token(two: Two) -> None:
    old, run = two.own, two.runs["alpha"]
    two.plane.store.delete_run("alpha", run["id"])
    two.plane.create("runs", "alpha", **{**run_of(two.plane.task(two.plane.function("g", project="alpha"))), "id": run["id"]})  # fmt: skip
    assert credentials(two.plane, run).token != old.token
    assert two.ask("GET", "/api/v1/projects/alpha").status_code == 401


def test_no_other_token_passes_for_one_of_a_run(two: Two) -> None:
    real, beta = two.own.token, credentials(two.plane, two.runs["beta"]).token
    signature = real.rpartition(".")[2]
    wrong = [
        real[:-1], real + "x", real.rpartition(".")[0] + ".", "run.", "run..", "run.alpha", "run.alpha..",
        beta.rpartition(".")[0] + "." + signature, real.replace("alpha", "beta"), f"run.alpha.none.{signature}",
        "run.\0.x.y", two.own.s3_secret_key, f"{two.own.s3_access_key}.{two.own.s3_secret_key}",
    ]  # fmt: skip
    for token in wrong:
        headers = {"Authorization": f"Bearer {token}"} if token.isprintable() else {}
        answer = two.http.get("/api/v1/projects/alpha", headers=headers)
        is_open = not two.plane.settings.needs_credentials
        passes = is_open and not (headers and token.startswith("run."))
        assert answer.status_code == (200 if passes else 401), token


def test_the_s3_keys_of_a_run_reach_what_lies_below_its_project_and_no_more(two: Two) -> None:
    owner = boto(two.plane, LOCK["s3_access_key"], LOCK["s3_secret_key"])
    for key in ("alpha/x", "beta/x", "alpha2/x", "x"):
        owner.put_object(Bucket="bkt", Key=key, Body=key.encode())
    client = boto(two.plane, two.own.s3_access_key, two.own.s3_secret_key)
    assert client.get_object(Bucket="bkt", Key="alpha/x")["Body"].read() == b"alpha/x"
    client.head_bucket(Bucket="bkt")
    found = client.list_objects_v2(Bucket="bkt", Prefix="alpha/")["Contents"]
    assert [one["Key"] for one in found] == ["alpha/x"]
    client.copy_object(Bucket="bkt", Key="alpha/y", CopySource={"Bucket": "bkt", "Key": "alpha/x"})
    client.delete_object(Bucket="bkt", Key="alpha/y")
    foreign = {"Bucket": "bkt", "Key": "beta/x"}
    for key in ("beta/x", "alpha2/x", "x", "alpha", "/alpha/x", "../alpha/x", "alpha/../beta/x"):
        if not key.startswith("alpha/"):
            for call in (client.get_object, client.head_object, client.delete_object):
                assert refused(call, Bucket="bkt", Key=key)[0] == 403, key
            assert refused(client.put_object, Bucket="bkt", Key=key, Body=b"")[0] == 403
            assert refused(client.create_multipart_upload, Bucket="bkt", Key=key)[0] == 403
    assert refused(client.copy_object, Bucket="bkt", Key="alpha/z", CopySource=foreign)[0] == 403
    for prefix in ("", "alpha", "b", "beta/", "alpha2/"):
        assert refused(client.list_objects_v2, Bucket="bkt", Prefix=prefix)[0] == 403, prefix
        assert refused(client.list_objects, Bucket="bkt", Prefix=prefix)[0] == 403, prefix
    assert refused(client.list_buckets)[0] == 403
    both = {"Objects": [{"Key": "alpha/x"}, {"Key": "beta/x"}]}
    assert refused(client.delete_objects, Bucket="bkt", Delete=both)[0] == 403
    upload = owner.create_multipart_upload(**foreign)["UploadId"]
    part = {"Bucket": "bkt", "Key": "alpha/z", "UploadId": upload, "PartNumber": 1, "Body": b"x"}
    assert refused(client.upload_part, **part)[0] == 404
    for key in ("alpha/x", "beta/x", "alpha2/x", "x"):
        assert owner.get_object(Bucket="bkt", Key=key)["Body"].read() == key.encode()
    stolen = boto(two.plane, credentials(two.plane, two.runs["beta"]).s3_access_key, two.own.s3_secret_key)  # fmt: skip
    assert refused(stolen.get_object, **foreign)[0] == 403


def test_a_run_is_given_its_own_credentials_and_none_of_the_servers(two: Two) -> None:
    record = two.plane.store.get_run_record("alpha", two.runs["alpha"]["id"])
    assert record is not None
    spec = RunSpec.from_entity(record.entity)
    env = run_environment(record, spec, two.plane.store, two.plane.settings)
    assert env["DHCORE_ACCESS_TOKEN"] == two.own.token
    assert env["AWS_ACCESS_KEY_ID"] == two.own.s3_access_key
    assert not env.keys() & {"DHCORE_USER", "DHCORE_PASSWORD", "DHPY_TOKEN", "DHPY_PASSWORD"}
    assert not set(LOCK.values()) & set(env.values())


def test_a_token_is_not_in_the_database_nor_printed(two: Two) -> None:
    secret = two.own.token.rpartition(".")[2]
    two.ask("GET", "/api/v1/projects/alpha")
    kept = b"".join(p.read_bytes() for p in two.plane.settings.home.rglob("*") if p.is_file())
    for value in (secret, two.own.s3_secret_key):
        assert value.encode() not in kept
        assert value not in repr(two.own)
    assert re.fullmatch(r"[\w.-]+", two.own.token)
