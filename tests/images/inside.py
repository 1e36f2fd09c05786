"""Runs cases inside a container, as its entry point would, and prints what became of each as JSON.

python3 inside.py [--fork] CASES-FOLDER NAME…     NAME is folder/case

With --fork, a case is a copy of one process that has the runtime loaded: a fifth of the time, and the same
but for the interpreter's own start.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WORK = Path("/shared/cases")
ENTRY = ["python3", "--check-hash-based-pycs", "never", "-m", "digitalhub_runtime_python", "job"]
"""What process 1 was started with, argument by argument, but for its init process."""


def main() -> None:
    forks = sys.argv[1] == "--fork"
    place, *names = sys.argv[1 + forks :]
    root, start = Path(place), forked if forks else started
    found: dict[str, Any] = {}
    for name in names:
        folder, _, case = name.partition("/")
        spec = json.loads((root / folder / "run.json").read_text("utf-8"))[case]
        found[name] = run(root / folder, spec, start)
    print(json.dumps(found))


def run(folder: Path, case: dict[str, Any], start: Any) -> dict[str, Any]:
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    # Without a platform, inputs are files: those of the case.
    inputs = {k: _placed(v, folder) for k, v in case.get("inputs", {}).items()}
    entity = {
        "id": "RUN_ID",
        "project": "proj",
        "kind": "python+job:run",
        "spec": {
            "function": "python://proj/fn:1",
            "source": {
                "source": str(folder),
                "handler": case["handler"],
                "init_function": case.get("init_function"),
            },
            "inputs": inputs,
            **{k: case[k] for k in ("parameters", "init_parameters", "envs") if k in case},
        },
    }
    (WORK / "run.json").write_text(json.dumps(entity), "utf-8")
    env = {**os.environ, "DHPY_RUN_FILE": str(WORK / "run.json"), "DHPY_WORKSPACE": str(WORK)}
    exit_status, stderr = start(env)
    place = WORK / "outputs" / "status.json"
    status = json.loads(place.read_text("utf-8")) if place.exists() else {}
    return {"exit_status": exit_status, "status": status, "stderr": stderr[-2000:]}


def _placed(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_placed(one, folder) for one in value]
    if isinstance(value, dict):
        return {key: _placed(one, folder) for key, one in value.items()}
    return str(folder / value)


def started(env: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(ENTRY, env=env, cwd=WORK, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


def forked(env: dict[str, str]) -> tuple[int, str]:
    # What every run needs; what only some do must be loaded by those.
    from digitalhub_runtime_python import entry, formats, lifecycle, outputs  # noqa: F401
    from digitalhub_runtime_python.hub import offline  # noqa: F401
    from digitalhub_runtime_python.sources import inline, local  # noqa: F401

    with tempfile.TemporaryFile() as stderr:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(0, 1)
            os.dup2(stderr.fileno(), 2)
            os.environ.clear()
            os.environ.update(env)
            os.chdir(WORK)
            sys.path[0] = str(WORK)
            sys.argv = [str(entry.__file__), "job"]
            sys.exit(entry.main(["job"]))
        _, status = os.waitpid(child, 0)
        stderr.seek(0)
        text = stderr.read().decode("utf-8", "replace")
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), text


if __name__ == "__main__":
    main()
