"""The job cases of tests/cases, run inside a container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from parts import ROOT, docker

CASES = ROOT / "tests" / "cases"
LOCKED_DOWN = ("--read-only", "--tmpfs", "/shared:mode=1777", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # fmt: skip
# What a case may ask for, and which flavour has it.
USERS = {
    "its own user": ("--user", "8877:8877"),
    # OpenShift gives a container a uid that no image has heard of, in the group 0.
    "an arbitrary user": ("--user", "1234567:0"),
}
HAS = {"slim": set(), "full": {"pandas", "pyarrow", "numpy", "pydantic"}}


def cases_for(python: str, flavour: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    found = []
    for folder in sorted(CASES.glob("job_*")):
        runs = json.loads((folder / "run.json").read_text("utf-8"))
        expected = json.loads((folder / "expected.json").read_text("utf-8"))
        for name, case in runs.items():
            minimum = tuple(case.get("min_python", (3, 9)))
            needs = case.get("requires", [])
            needs = {needs} if isinstance(needs, str) else set(needs)
            runs_here = (
                needs <= HAS[flavour]
                and "offline" in case.get("hubs", ["offline"])
                and "process" in case.get("drivers", ["process"])
                and tuple(map(int, python.split("."))) >= minimum
            )
            if runs_here:
                found.append((f"{folder.name}/{name}", case, expected[name]))
    return found


def run_cases(image: str, names: list[str], *options: str, forked: bool = False) -> dict[str, Any]:
    """What becomes of cases in one container; `forked`: see inside.py."""
    mounts = ["-v", f"{CASES}:/cases:ro", "-v", f"{Path(__file__).with_name('inside.py')}:/inside.py:ro"]  # fmt: skip
    command = ["run", "--rm", *LOCKED_DOWN, *mounts, *options, "--entrypoint", "python3", image]
    done = docker(*command, "/inside.py", *(["--fork"] if forked else []), "/cases", *names)
    return dict(json.loads(done.stdout))


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    status = found["status"]
    wrong = []
    if found["exit_status"] != expected.get("exit_status", 0):
        wrong.append(f"exit {found['exit_status']}: {found['stderr'][-600:]}")
    if "results" in expected and status.get("results", {}) != expected["results"]:
        wrong.append(f"results {status.get('results')} instead of {expected['results']}")
    if "outputs" in expected and set(status.get("outputs", {})) != set(expected["outputs"]):
        wrong.append(f"outputs {sorted(status.get('outputs', {}))}")
    error = expected.get("error", {})
    for key in ("type", "code"):
        if key in error and status.get("error", {}).get(key) != error[key]:
            wrong.append(f"error {status.get('error')} instead of {error}")
    return wrong
