"""One suite over every hub: a run finds the same things on the platform, offline, and in the SDK's process."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest
from servers.control_plane import ControlPlane
from walking import run_entity

from digitalhub_runtime_python.errors import ArgumentFault, Fault, OutputFault, PlatformFault
from digitalhub_runtime_python.hub import Hub, files
from digitalhub_runtime_python.hub.core import CoreHub
from digitalhub_runtime_python.hub.offline import OfflineHub
from digitalhub_runtime_python.lifecycle import run_job
from digitalhub_runtime_python.outputs import Output
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.spec import RunSpec

# What boto3, the SDK's client of S3, has to say of Python 3.9.
pytestmark = pytest.mark.filterwarnings("ignore:Boto3 will no longer support Python")


@dataclass
class Stage:
    """A hub with a run on it, and what stands behind it."""

    name: str
    hub: Hub
    settings: Settings
    put: Callable[[str, str, Path], str]
    """Store a local file or folder under (type, kind); its key."""
    content: Callable[[str], Path]
    """A local copy of what is stored under a key."""
    entity: Callable[[str], Mapping[str, Any]]
    """The entity under a key; {} where there are none."""
    status: Callable[[], Mapping[str, Any]]
    """What was reported."""


def offline(tmp_path: Path, request: pytest.FixtureRequest, run: dict[str, Any]) -> Stage:
    hub = OfflineHub(RunSpec.from_entity(run), tmp_path / "stored")
    return Stage(
        "offline",
        hub,
        Settings.from_env({"DHPY_WORKSPACE": str(tmp_path)}),
        put=lambda entity_type, kind, path: str(path),
        content=Path,
        entity=lambda key: {},
        status=lambda: hub.status,
    )


def core(tmp_path: Path, request: pytest.FixtureRequest, run: dict[str, Any]) -> Stage:
    plane: ControlPlane = request.getfixturevalue("control_plane")
    project = plane.project(f"hubs-{uuid.uuid4().hex[:8]}")
    stored = _store_run(plane, project, run)
    environ = {**plane.environ, "PROJECT_NAME": project, "RUN_ID": stored["id"]}
    settings = Settings.from_env({**environ, "DHPY_WORKSPACE": str(tmp_path)})

    def put(entity_type: str, kind: str, path: Path) -> str:
        place = f"s3://digitalhub/{project}/{uuid.uuid4().hex}/"
        uri = place if path.is_dir() else place + path.name
        files.upload(path, uri, settings)
        entity = {"kind": kind, "name": "input", "spec": {"path": uri}}
        created = plane.ask("POST", f"/-/{project}/{entity_type}s", entity)
        return f"store://{project}/{entity_type}/{kind}/input:{created['id']}"

    def entity(key: str) -> dict[str, Any]:
        _, entity_type, _, last = key[len("store://") :].split("/")
        found: dict[str, Any] = plane.ask(
            "GET", f"/-/{project}/{entity_type}s/{last.rpartition(':')[2]}"
        )
        return found

    return Stage(
        "core",
        CoreHub(settings),
        settings,
        put=put,
        content=lambda key: files.load(
            entity(key)["spec"]["path"], "path", settings, tmp_path / uuid.uuid4().hex
        ),
        entity=entity,
        status=lambda: plane.ask("GET", f"/-/{project}/runs/{stored['id']}")["status"],
    )


def sdk(tmp_path: Path, request: pytest.FixtureRequest, run: dict[str, Any]) -> Stage:
    stage = core(tmp_path, request, run)
    plane: ControlPlane = request.getfixturevalue("sdk_plane")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in plane.environ.items():
        if name.startswith(("DH", "AWS_", "NO_PROXY")):
            monkeypatch.setenv(name, value)
    from digitalhub_runtime_python.sdk.hub import SdkHub
    from digitalhub_runtime_python.sdk.session import open_session

    _, the_run = open_session(stage.settings.project, stage.settings.run_id)
    hub = SdkHub(the_run)
    return Stage(
        "sdk", hub, stage.settings, stage.put, stage.content, stage.entity, lambda: hub.status
    )


@pytest.fixture(scope="session")
def sdk_plane(control_plane: ControlPlane) -> ControlPlane:
    """The platform that the SDK in this process is for: it can have only one."""
    if "digitalhub" in sys.modules and sys.version_info < (3, 10):
        # 0.14 reads the environment when it is imported, 0.15 when it is first used.
        pytest.skip("the SDK is imported already, for another platform")
    return control_plane


STAGES = {"offline": offline, "core": core, "sdk": sdk}
PLATFORMS = ("core", "sdk")
RUN = run_entity(
    "def f(n): return n", parameters={"n": 1, "text": "ä"}, init_parameters={"a": None}
)


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return STAGES[request.param](tmp_path, request, RUN)


def _store_run(plane: ControlPlane, project: str, run: dict[str, Any]) -> dict[str, Any]:
    version = "PYTHON{}_{}".format(*sys.version_info)
    spec = {"python_version": version, "source": run["spec"]["source"]}
    function = {"kind": "python", "name": "fn", "spec": spec}
    function = plane.ask("POST", f"/-/{project}/functions", function)
    reference = f"python://{project}/fn:{function['id']}"
    task = {"kind": "python+job", "spec": {"function": reference}}
    task = plane.ask("POST", f"/-/{project}/tasks", task)
    more = {
        "task": f"python+job://{project}/{task['id']}",
        "function": reference,
        "local_execution": True,  # the control plane leaves it to us
    }
    body = {"kind": run["kind"], "spec": {**run["spec"], **more}}
    created: dict[str, Any] = plane.ask("POST", f"/-/{project}/runs", body)
    return created


def run_of(stage: Stage) -> RunSpec:
    return stage.hub.load_run()


def stored(stage: Stage, path: Path, **changes: Any) -> str:
    output = {"name": "out", "entity_type": "artifact", "kind": "artifact", "path": path}
    return stage.hub.store_output(run_of(stage), Output(**{**output, **changes}))


def file(folder: Path, name: str = "data.txt", text: str = "content") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, "utf-8")
    return folder / name


# --- the run ---------------------------------------------------------------------------------------


def test_the_run_is_what_was_stored(stage: Stage) -> None:
    run = run_of(stage)
    assert run.action == "job"
    assert dict(run.parameters) == {"n": 1, "text": "ä"}
    assert dict(run.init_parameters) == {"a": None}
    assert run.source.handler == "f"
    assert run.source.code == "def f(n): return n"
    assert run.project and run.id


# --- inputs ----------------------------------------------------------------------------------------


def test_an_input_file_becomes_a_path(stage: Stage, tmp_path: Path) -> None:
    key = stage.put("artifact", "artifact", file(tmp_path / "in", text="grüße"))
    path = stage.hub.resolve_input(key, "path", tmp_path / "run")
    assert isinstance(path, Path)
    assert path.name == "data.txt"
    assert path.read_text("utf-8") == "grüße"


def test_an_input_folder_becomes_a_path(stage: Stage, tmp_path: Path) -> None:
    file(tmp_path / "in", "one.txt", "1")
    file(tmp_path / "in" / "deeper", "two.txt", "2")
    key = stage.put("artifact", "artifact", tmp_path / "in")
    path = stage.hub.resolve_input(key, "path", tmp_path / "run")
    found = {p.relative_to(path).as_posix(): p.read_text() for p in path.rglob("*.txt")}
    assert found == {"one.txt": "1", "deeper/two.txt": "2"}


@pytest.mark.parametrize("form", ["frame", "polars"])
def test_an_input_table_becomes_a_frame(stage: Stage, tmp_path: Path, form: str) -> None:
    import pandas

    (tmp_path / "in").mkdir()
    for name, write in (("t.parquet", "to_parquet"), ("t.csv", "to_csv")):
        path = tmp_path / "in" / name
        options = {} if name.endswith("parquet") else {"index": False}
        getattr(pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]}), write)(path, **options)
        frame = stage.hub.resolve_input(
            stage.put("dataitem", "table", path), form, tmp_path / "run" / name
        )
        assert type(frame).__module__.partition(".")[0] == ("pandas" if form == "frame" else form)
        assert list(frame["a"]) == [1, 2]
        assert list(frame["b"]) == ["x", "y"]


def test_an_input_that_is_not_there_is_named(stage: Stage) -> None:
    missing = "store://proj/artifact/artifact/none:00000000000000000000000000000000"
    for form in ("path", "frame"):
        with pytest.raises(Fault) as caught:
            stage.hub.resolve_input(missing, form, Path("never"))
        assert isinstance(caught.value, (ArgumentFault, PlatformFault))
        assert "none" in caught.value.message


@pytest.mark.parametrize("key", ["no such key", "", "store://", "store://a/b", "\0", "../.."])
def test_an_input_that_is_no_key_is_a_fault(stage: Stage, key: str) -> None:
    if stage.name == "offline" and key in ("", "../.."):
        pytest.skip("a path like any other")
    with pytest.raises(ArgumentFault) as caught:
        stage.hub.resolve_input(key, "path", Path("never"))
    assert caught.value.code == "arguments/input"
    assert repr(key) in caught.value.message


# --- outputs ---------------------------------------------------------------------------------------


def test_an_output_file_is_stored_as_it_is(stage: Stage, tmp_path: Path) -> None:
    key = stored(stage, file(tmp_path / "out", text="grüße"))
    path = stage.content(key)
    assert path.name == "data.txt"
    assert path.read_text("utf-8") == "grüße"
    if stage.name in PLATFORMS:
        entity = stage.entity(key)
        assert entity["name"] == "out"
        assert entity["status"]["state"] == "READY"
        (info,) = entity["status"]["files"]
        assert info["path"] == info["name"] == "data.txt"
        assert info["size"] == 7
        assert info["hash"].startswith("md5:")
        assert info["content_type"] == "text/plain"


def test_an_output_folder_is_stored_with_all_that_is_in_it(stage: Stage, tmp_path: Path) -> None:
    file(tmp_path / "out", "one.txt", "1")
    file(tmp_path / "out" / "deeper", "two.txt", "2")
    path = stage.content(stored(stage, tmp_path / "out"))
    found = {p.relative_to(path).as_posix(): p.read_text() for p in path.rglob("*.txt")}
    assert found == {"one.txt": "1", "deeper/two.txt": "2"}


def test_an_empty_file_is_stored(stage: Stage, tmp_path: Path) -> None:
    assert stage.content(stored(stage, file(tmp_path / "out", text=""))).read_bytes() == b""


def test_outputs_whose_files_have_one_name_are_kept_apart(stage: Stage, tmp_path: Path) -> None:
    keys = [
        stored(stage, file(tmp_path / side, text=side), name=side) for side in ("left", "right")
    ]
    assert [stage.content(key).read_text() for key in keys] == ["left", "right"]


def test_an_output_is_related_to_its_run(stage: Stage, tmp_path: Path) -> None:
    if stage.name not in PLATFORMS:
        pytest.skip("no entities there")
    entity = stage.entity(stored(stage, file(tmp_path / "out")))
    relations = [(r["type"], r["dest"]) for r in entity["metadata"]["relationships"]]
    assert relations == [("produced_by", run_of(stage).key)]


def test_an_output_has_the_kind_spec_and_status_that_are_asked_for(
    stage: Stage, tmp_path: Path
) -> None:
    if stage.name not in PLATFORMS:
        pytest.skip("no entities there")
    schema = {"fields": [{"name": "a", "type": "integer"}]}
    preview = {"cols": [{"name": "a", "value": [1]}], "rows": 1}
    key = stored(
        stage,
        file(tmp_path / "out", "t.csv", "a\n1\n"),
        entity_type="dataitem",
        kind="table",
        spec={"schema": schema},
        status={"preview": preview},
    )
    entity = stage.entity(key)
    assert (entity["kind"], entity["spec"]["schema"]) == ("table", schema)
    assert entity["status"]["preview"] == preview
    model = stored(
        stage, file(tmp_path / "m"), entity_type="model", kind="model", spec={"framework": "x"}
    )
    assert stage.entity(model)["spec"]["framework"] == "x"


def test_an_output_that_is_gone_is_named(stage: Stage, tmp_path: Path) -> None:
    try:
        stored(stage, tmp_path / "gone.txt", name="lost")
    except OutputFault as fault:
        assert "'lost'" in fault.message
    except OSError:
        assert stage.name == "offline", "the walk names it"
    else:
        pytest.fail("it was stored")


def test_an_output_without_a_place_to_store_it_is_refused(tmp_path: Path) -> None:
    hub = OfflineHub(RunSpec.from_entity(RUN), None)
    output = Output("out", "artifact", "artifact", file(tmp_path))
    with pytest.raises(PlatformFault) as caught:
        hub.store_output(hub.load_run(), output)
    assert "no place to store it" in caught.value.message


# --- the report ------------------------------------------------------------------------------------


def test_what_is_reported_is_there(stage: Stage) -> None:
    stage.hub.report({"results": {"a": 1}, "outputs": {"o": "key"}, "source": {"revision": "r"}})
    stage.hub.report({"error": {"type": "ValueError", "message": "ä"}})
    status = stage.status()
    assert status["results"] == {"a": 1}
    assert status["outputs"] == {"o": "key"}
    assert status["source"] == {"revision": "r"}
    assert status["error"] == {"type": "ValueError", "message": "ä"}


def test_numbers_that_are_none_survive_a_report(stage: Stage) -> None:
    stage.hub.report({"results": {"nan": float("nan"), "inf": float("-inf"), "big": 2**70}})
    found = json.dumps(stage.status()["results"])
    assert found == '{"nan": NaN, "inf": -Infinity, "big": 1180591620717411303424}'


def test_the_state_is_left_to_whoever_watches(stage: Stage) -> None:
    before = stage.status().get("state")
    stage.hub.report({"results": {}, "state": "COMPLETED"})
    if stage.name == "core":
        assert stage.status()["state"] == before


def test_how_far_a_run_is_does_not_touch_what_is_reported(stage: Stage) -> None:
    pause = stage.hub.progress({"done": 1, "total": 2, "text": "ä"})
    assert 0 < pause < 60
    if stage.name == "core":
        assert stage.status()["progress"] == {"done": 1, "total": 2, "text": "ä"}
    stage.hub.report({"results": {"a": 1}, "error": {"type": "E"}})
    stage.hub.progress({"done": 2, "total": 2})
    assert stage.status()["results"] == {"a": 1} and stage.status()["error"] == {"type": "E"}


def test_a_whole_run_is_walked_on_it(stage: Stage) -> None:
    entity = {"n": 1, "text": "ä"}
    run = run_of(stage)
    assert dict(run.parameters) == entity
    outcome = run_job(stage.hub, stage.settings)
    # RUN passes `text`, which f does not take.
    assert outcome.exit_status == 12
    assert "'text' is unknown" in stage.status()["error"]["message"]


def test_the_platforms_objects_are_there_only_with_a_platform(stage: Stage) -> None:
    if stage.name in PLATFORMS:
        pytest.importorskip("digitalhub")
        if stage.name == "core":
            pytest.skip("needs a process of its own: tests/cases/job_reserved")
        assert stage.hub.project().name == stage.settings.project
        assert stage.hub.run().id == stage.settings.run_id
        return
    for ask in (stage.hub.project, stage.hub.run):
        with pytest.raises(PlatformFault) as caught:
            ask()
        assert caught.value.code == "platform/none"
        assert "dhpy up" in caught.value.hint


# --- offline alone ---------------------------------------------------------------------------------


def test_offline_a_folder_that_holds_the_outputs_folder_is_copied_without_it(
    tmp_path: Path,
) -> None:
    file(tmp_path, "a.txt")
    hub = OfflineHub(RunSpec.from_entity(RUN), tmp_path / "outputs")
    hub.store_output(hub.load_run(), Output("first", "artifact", "artifact", file(tmp_path / "x")))
    key = hub.store_output(hub.load_run(), Output("all", "artifact", "artifact", tmp_path))
    found = sorted(p.relative_to(key).as_posix() for p in Path(key).rglob("*") if p.is_file())
    assert found == ["a.txt", "x/data.txt"]


def test_offline_what_was_written_where_it_belongs_stays_there(tmp_path: Path) -> None:
    place = file(tmp_path / "outputs")
    hub = OfflineHub(RunSpec.from_entity(RUN), tmp_path / "outputs")
    key = hub.store_output(hub.load_run(), Output("o", "artifact", "artifact", place))
    assert Path(key).read_text() == "content"


def test_offline_an_output_called_status_does_not_overwrite_the_status(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    hub = OfflineHub(RunSpec.from_entity(RUN), folder, folder / "status.json")
    path = file(tmp_path / "made", "status.json", "{}")
    key = hub.store_output(hub.load_run(), Output("status", "artifact", "artifact", path))
    hub.report({"outputs": {"status": key}})
    assert Path(key).name == "status-2.json"
    assert json.loads((folder / "status.json").read_text()) == {"outputs": {"status": key}}


def test_offline_a_status_that_cannot_be_written_is_in_the_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "status.json"
    hub = OfflineHub(RunSpec.from_entity(RUN), tmp_path, place)
    outcome = run_job(hub, Settings.from_env({"DHPY_WORKSPACE": str(tmp_path)}))
    assert outcome.undelivered is not None
    assert outcome.undelivered.code == "platform/report"
    assert str(place) in outcome.undelivered.message


# --- Core alone ------------------------------------------------------------------------------------


def test_core_an_input_is_found_by_its_name_alone(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    stage = core(tmp_path, request, RUN)
    stage.put("artifact", "artifact", file(tmp_path / "in", text="first"))
    key = stage.put("artifact", "artifact", file(tmp_path / "in", text="latest"))
    path = stage.hub.resolve_input(key.rpartition(":")[0], "path", tmp_path / "run")
    assert path.read_text() == "latest"


def test_core_an_entity_without_a_path_or_content_is_named(
    tmp_path: Path, request: pytest.FixtureRequest, control_plane: ControlPlane
) -> None:
    stage = core(tmp_path, request, RUN)
    project = stage.settings.project
    for path, said in (
        (None, "has no path"),
        ("s3://digitalhub/nothing/here.txt", "s3://digitalhub/nothing/here.txt does not exist"),
    ):
        entity = {"kind": "artifact", "name": "bare", "spec": {"path": path} if path else {}}
        created = control_plane.ask("POST", f"/-/{project}/artifacts", entity)
        with pytest.raises(ArgumentFault) as caught:
            stage.hub.resolve_input(
                f"store://{project}/artifact/artifact/bare:{created['id']}", "path", Path("never")
            )
        assert said in caught.value.message


def test_core_an_upload_that_fails_is_named_and_its_entity_says_so(
    tmp_path: Path, request: pytest.FixtureRequest, control_plane: ControlPlane
) -> None:
    stage = core(tmp_path, request, RUN)
    broken = Settings.from_env(
        {**stage.settings.environ, "AWS_ENDPOINT_URL": f"{control_plane.url}/nowhere"}
    )
    hub = CoreHub(broken)
    with pytest.raises(OutputFault) as caught:
        hub.store_output(
            hub.load_run(), Output("out", "artifact", "artifact", file(tmp_path / "out"))
        )
    assert caught.value.code == "outputs/upload"
    assert "Output 'out' could not be uploaded to s3://" in caught.value.message
    listed = control_plane.ask("GET", f"/-/{stage.settings.project}/artifacts")["content"]
    assert [(e["name"], e["status"]["state"]) for e in listed] == [("out", "ERROR")]
