"""Runs cases inside a container, as its entry point would, and prints what became of each as JSON.

python3 inside.py CASES-FOLDER NAME…     NAME is folder/case
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

WORK = Path("/shared/cases")


def main() -> None:
    root = Path(sys.argv[1])
    found: dict[str, Any] = {}
    for name in sys.argv[2:]:
        folder, _, case = name.partition("/")
        spec = json.loads((root / folder / "run.json").read_text("utf-8"))[case]
        found[name] = run(root / folder, spec)
    print(json.dumps(found))


def run(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    # Without a platform, inputs are files: those of the case.
    inputs = {k: str(folder / v) for k, v in case.get("inputs", {}).items()}
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
    # What process 1 was started with, argument by argument, but for its init process.
    entry = [
        "python3",
        "--check-hash-based-pycs",
        "never",
        "-m",
        "digitalhub_runtime_python",
        "job",
    ]
    done = subprocess.run(entry, env=env, cwd=WORK, capture_output=True, text=True, timeout=120)
    place = WORK / "outputs" / "status.json"
    status = json.loads(place.read_text("utf-8")) if place.exists() else {}
    return {"exit_status": done.returncode, "status": status, "stderr": done.stderr[-2000:]}


if __name__ == "__main__":
    main()
