"""Walks a run in this process or in one of its own: what the tests of the walk share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digitalhub_runtime_python.ending import Ending
from digitalhub_runtime_python.hub.offline import OfflineHub
from digitalhub_runtime_python.lifecycle import run_job
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.spec import RunSpec

PATIENCE = 60
"""Seconds after which a process that should have ended is taken for stuck."""


def run_entity(code: str | None = None, handler: str = "f", **spec: Any) -> dict[str, Any]:
    """A run's JSON as the platform has it, of a function whose code stands in it."""
    source: dict[str, Any] = {"handler": handler}
    if code is not None:
        source["code"] = textwrap.dedent(code)
    source.update(spec.pop("source", {}))
    return {
        "id": "run1",
        "project": "proj",
        "kind": "python+job:run",
        "spec": {"function": "python://proj/fn:1", "source": source, **spec},
        "status": {"state": "RUNNING"},
    }


def walk(
    folder: Path,
    code: str | None = None,
    handler: str = "f",
    *,
    environ: Mapping[str, str] | None = None,
    module_name: str = "",
    **spec: Any,
) -> Ending:
    """Walk a run in this process, offline; outputs go to `folder/stored`."""
    entity = run_entity(code, handler, **spec)
    hub = OfflineHub(RunSpec.from_entity(entity), folder / "stored")
    settings = Settings.from_env({"DHPY_WORKSPACE": str(folder / "work"), **(environ or {})})
    outcome = run_job(hub, settings, module_name=module_name)
    assert not list((folder / "work").glob("dhpy-*")), "the run left its folder behind"
    return outcome


def results(outcome: Ending) -> dict[str, Any]:
    """The results of a run that has to have ended well."""
    assert outcome.error is None, outcome.status.get("error")
    return dict(outcome.status["results"])


def failure(outcome: Ending) -> dict[str, Any]:
    """The error of a run that has to have failed."""
    assert outcome.error is not None, outcome.status
    return dict(outcome.status["error"])


@dataclass
class Done:
    """A process that has ended."""

    exit_status: int
    stdout: str
    stderr: str
    status: dict[str, Any]
    """What it reported."""


def job_environ(folder: Path, **environ: str) -> dict[str, str]:
    """The environment of a job's process: this machine's own settings left out."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DH", "AWS_", "S3_"))}
    return {**own, "DHPY_WORKSPACE": str(folder / "work"), **environ}


def start_job(folder: Path, entity: Mapping[str, Any], **environ: str) -> subprocess.Popen[str]:
    """`python -m digitalhub_runtime_python job` with the run in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "run-entity.json"
    file.write_text(json.dumps(entity), "utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "digitalhub_runtime_python", "job"],
        env=job_environ(folder, DHPY_RUN_FILE=str(file), **environ),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_job(process: subprocess.Popen[str], folder: Path) -> Done:
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    place = folder / "work" / "outputs" / "status.json"
    status = json.loads(place.read_text("utf-8")) if place.exists() else {}
    return Done(process.returncode, stdout, stderr, status)


def run_process(folder: Path, entity: Mapping[str, Any], **environ: str) -> Done:
    """The same, to its end."""
    return finish_job(start_job(folder, entity, **environ), folder)
