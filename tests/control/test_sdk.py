"""The unmodified SDK of this environment (0.14 on Python 3.9, 0.15 above) against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from serving import Process, server_process

SCRIPTS = Path(__file__).parent / "scripts"


def drive(server: Process, folder: Path, script: str) -> dict[str, Any]:
    """Run a script in a fresh folder with a fresh HOME; what it printed."""
    home, work = folder / "user", folder / "work"
    home.mkdir()
    work.mkdir()
    project = f"p-{uuid.uuid4().hex[:12]}"
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), project],
        env=server.client_env(home),
        cwd=work,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.rpartition("@@")[2])
    seen["project"] = project
    return seen


def test_projects_artifacts_dataitems_models_secrets_and_search_work(
    server: Process, tmp_path: Path
) -> None:
    seen = drive(server, tmp_path, "entities.py")
    project = seen["project"]
    assert seen["created"] == seen["again"] == f"store://{project}"
    assert seen["listed"] is True
    assert seen["duplicate"] == "EntityAlreadyExistsError"
    assert seen["artifact_path"].startswith(f"s3://digitalhub/{project}/artifact/note/")
    assert seen["downloaded"] == "hello"
    assert seen["artifact_state"] in ("READY", "CREATED")
    assert seen["latest"] is True and seen["versions"] == 2 and seen["listed_artifacts"] == 1
    assert seen["frame"] == [[1, 2, 3], 1]
    assert seen["metrics"] == {"loss": [0.5, 0.25], "accuracy": 0.75}
    assert seen["secret"] == "s3cr3t-välue" and seen["secret_changed"] == "other"
    assert seen["search_label"] == ["labelled"] and seen["search_label_none"] == []
    assert seen["search_name"] == ["note", "note"]
    assert seen["search_words"] == ["labelled"]
    assert seen["search_types"] == ["model", "table"]
    assert seen["missing"] == "EntityNotExistsError"


def test_a_list_longer_than_a_page_comes_complete_and_newest_first(
    server: Process, tmp_path: Path
) -> None:
    seen = drive(server, tmp_path, "pages.py")
    assert seen["names"] == [f"a{number}" for number in reversed(range(60))]


def test_a_project_is_exported_deleted_imported_and_loaded(server: Process, tmp_path: Path) -> None:
    seen = drive(server, tmp_path, "export.py")
    assert seen["exported"] and seen["project_file"] and seen["gone"]
    assert seen["artifacts"] == ["data"] and seen["same_id"]
    assert seen["duplicate"] == "EntityError" and seen["moved"]
    assert seen["after_delete"] == []
    # load_ of what does not exist creates it, of what does exist updates it.
    assert seen["loaded"] == seen["loaded_again"] == "data" and seen["after_load"] == ["data"]
    assert seen["project_loaded"] == seen["project"]


def test_120_megabytes_and_folders_go_up_and_come_down_unchanged(
    server: Process, tmp_path: Path
) -> None:
    seen = drive(server, tmp_path, "files.py")
    assert seen["same"] is True
    assert seen["files"] == sorted(f"{number}.txt" for number in range(12))


def test_functions_local_runs_and_their_exports_work(server: Process, tmp_path: Path) -> None:
    seen = drive(server, tmp_path, "functions.py")
    assert seen["state"] == "COMPLETED" and seen["nan"] == "nan"
    assert seen["runs"] == ["COMPLETED", "ERROR"] and "no good" in seen["error"][0]
    assert seen["of_function"] == 1 and seen["tasks"] == 2
    assert seen["after_cascade"] == [1, 1]
    assert seen["imported"] and seen["loaded"]
    assert "bad_name" in seen


def test_a_run_uses_the_sdk_with_its_own_token_and_reaches_no_other_project(tmp_path: Path) -> None:
    with server_process(tmp_path / "home", DHPY_USER="ada", DHPY_PASSWORD="s3cret") as server:
        seen = drive(server, tmp_path, "nested.py")
    assert seen["state"] == "COMPLETED", seen
    result = seen["result"]
    assert (result["child"], result["note"], result["secret"]) == (2, "from a run", "own")
    assert result["other"] not in ("all of it", "AttributeError", "NameError"), result
