"""Every folder of tests/cases/job_* gives what its expected.json says, in each way a job can be executed."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from casebook import Case, Found, cases, compare
from servers.control_plane import ControlPlane
from walking import PATIENCE, results, run_entity, run_process, walk

from digitalhub_runtime_python.hub import files
from digitalhub_runtime_python.settings import Settings

# Code that users write warns; that is for them to read, and fails nothing.
pytestmark = pytest.mark.filterwarnings("default")

ALL = list(cases())

# Folders whose runs meet the platform at their beginning and end alone: one or two of each there.
FAR_FROM_THE_PLATFORM = (
    "job_broken",
    "job_errors",
    "job_handlers",
    "job_hints",
    "job_modules",
    "job_names",
)


def of(driver: str, hub: str) -> list[Any]:
    chosen = [case for case in ALL if case.allows(driver, hub)]
    if hub == "core":
        far = [[c for c in chosen if c.folder.name == name][2:] for name in FAR_FROM_THE_PLATFORM]
        chosen = [case for case in chosen if not any(case in rest for rest in far)]
    return [pytest.param(case, id=case.id) for case in chosen]


def entity_of(case: Case, code: Path, **inputs: Any) -> dict[str, Any]:
    return run_entity(handler=case.spec["handler"], **case.run_spec(code), **inputs)


@pytest.mark.parametrize("case", of("here", "offline"))
def test_a_case_gives_what_it_says_in_this_process(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    case.skip_what_is_absent()
    code = case.copy(tmp_path)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    inputs = case.inputs(lambda name, file: str(code / file))
    before = list(sys.path), set(sys.modules)
    outcome = walk(tmp_path, inputs=inputs, **case.run_spec(code), handler=case.spec["handler"])
    assert sys.path == before[0]
    left = [
        n for n in set(sys.modules) - before[1] if n in ("main", "helper", "pkg", "src", "tools")
    ]
    assert not left, "modules of the run are still there"
    stored = {name: Path(path) for name, path in outcome.status.get("outputs", {}).items()}
    log = caplog.text + str(outcome.status.get("error", {}).get("traceback"))
    case.check_untouched(code)
    compare(case, Found(outcome.exit_status, outcome.status, log, {"RUN_ID": "run1"}, stored, {}))


@pytest.mark.parametrize("case", of("process", "offline"))
def test_a_case_gives_what_it_says_in_a_process_of_its_own(case: Case, tmp_path: Path) -> None:
    case.skip_what_is_absent()
    code = case.copy(tmp_path)
    inputs = case.inputs(lambda name, file: str(code / file))
    done = run_process(tmp_path / "job", entity_of(case, code, inputs=inputs))
    stored = {name: Path(path) for name, path in done.status.get("outputs", {}).items()}
    log = done.stderr + done.stdout
    case.check_untouched(code)
    compare(case, Found(done.exit_status, done.status, log, {"RUN_ID": "run1"}, stored, {}))


@pytest.mark.parametrize("case", of("process", "core"))
def test_a_case_gives_what_it_says_on_the_control_plane(
    case: Case, tmp_path: Path, control_plane: ControlPlane, project: str
) -> None:
    case.skip_what_is_absent()
    code = case.copy(tmp_path)
    inputs = case.inputs(lambda name, file: _log_input(control_plane, project, name, code / file))
    run = _create_run(control_plane, project, case.run_spec(code), inputs)
    environ = {
        **control_plane.environ,
        "PROJECT_NAME": project,
        "RUN_ID": run["id"],
        "DHPY_WORKSPACE": str(tmp_path / "work"),
        **{env["name"]: env["value"] for env in case.spec.get("envs", [])},
    }
    done = subprocess.run(
        [sys.executable, "-m", "digitalhub_runtime_python", "job"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )
    status = control_plane.ask("GET", f"/-/{project}/runs/{run['id']}")["status"]
    assert status["state"] == run["status"]["state"], "the state belongs to whoever watches"
    entities = {
        name: _entity(control_plane, project, key)
        for name, key in status.get("outputs", {}).items()
    }
    settings = Settings.from_env(environ)
    stored = {
        name: files.load(entity["spec"]["path"], "path", settings, tmp_path / "stored" / name)
        for name, entity in entities.items()
    }
    replaced = {"RUN_ID": run["id"], "PROJECT": project}
    log = done.stderr + done.stdout
    case.check_untouched(code)
    compare(case, Found(done.returncode, status, log, replaced, stored, entities))


@pytest.fixture(scope="module")
def project(control_plane: ControlPlane) -> str:
    return control_plane.project(f"cases-{uuid.uuid4().hex[:8]}")


def _create_run(
    plane: ControlPlane, project: str, spec: dict[str, Any], inputs: Mapping[str, str]
) -> dict[str, Any]:
    """A run that the control plane leaves alone: its process is ours."""
    version = "PYTHON{}_{}".format(*sys.version_info)
    function = plane.ask(
        "POST",
        f"/-/{project}/functions",
        {
            "kind": "python",
            "name": f"f-{uuid.uuid4().hex[:8]}",
            "spec": {"python_version": version, "source": spec["source"]},
        },
    )
    reference = f"python://{project}/{function['name']}:{function['id']}"
    task = plane.ask(
        "POST", f"/-/{project}/tasks", {"kind": "python+job", "spec": {"function": reference}}
    )
    own = {
        **spec,
        "task": f"python+job://{project}/{task['id']}",
        "function": reference,
        "python_version": version,
        "inputs": inputs,
        "local_execution": True,
    }
    body = {"kind": "python+job:run", "spec": {"parameters": {}, "init_parameters": {}, **own}}
    created: dict[str, Any] = plane.ask("POST", f"/-/{project}/runs", body)
    return created


def _log_input(plane: ControlPlane, project: str, name: str, file: Path) -> str:
    body = {"kind": "artifact", "name": name, "spec": {"path": str(file)}}
    entity = plane.ask("POST", f"/-/{project}/artifacts", body)
    return f"store://{project}/artifact/artifact/{name}:{entity['id']}"


def _entity(plane: ControlPlane, project: str, key: str) -> dict[str, Any]:
    _, entity_type, _, last = key[len("store://") :].split("/")
    found: dict[str, Any] = plane.ask(
        "GET", f"/-/{project}/{entity_type}s/{last.rpartition(':')[2]}"
    )
    return found


def test_the_cases_cover_every_exit_status_that_a_job_without_a_platform_can_have() -> None:
    covered = {case.expected.get("exit_status", 0) for case in ALL}
    assert covered >= {0, 1, 11, 12, 13, 14, 130}


def test_a_case_leaves_nothing_in_its_folder(tmp_path: Path) -> None:
    case = next(c for c in ALL if c.id == "modules-package")
    code = case.copy(tmp_path)
    before = sorted(code.rglob("*"))
    results(walk(tmp_path, handler=case.spec["handler"], **case.run_spec(code)))
    assert sorted(code.rglob("*")) == before
    assert json.dumps([str(p) for p in before])
