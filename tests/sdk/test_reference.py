"""The reference pages have a row for every parameter and method, and no row for what does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from digitalhub_runtime_python.sdk import kinds
from digitalhub_runtime_python.sdk.entities import RunPythonRun
from digitalhub_runtime_python.spec import ACTIONS, PYTHON_VERSIONS

PAGES = Path(__file__).parents[2] / "docs" / "reference"
IDENTITY = {"project", "name", "kind", "uuid", "description", "labels", "embedded"}


def _rows(page: str, heading: str) -> dict[str, list[str]]:
    text = (PAGES / page).read_text("utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [
        re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")
    ]
    return {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}


def test_the_functions_page_names_every_parameter() -> None:
    fields = {name for name in kinds.FUNCTION if name != "source"}
    rows = _rows("function.md", "Parameters")
    assert set(rows) == IDENTITY | fields | set(kinds.SOURCE_PARAMETERS)
    assert all(version in rows["python_version"][1] for version in PYTHON_VERSIONS)


def test_the_tasks_page_names_every_parameter_with_its_action() -> None:
    rows = _rows("task.md", "Parameters")
    by_action = {name: action for action in ACTIONS for name in kinds.ACTION[action]}
    assert set(rows) == {"action"} | set(kinds.TASK) | set(by_action)
    assert {name: row[-1].strip("`") for name, row in rows.items() if row[-1]} == by_action


def test_the_runs_page_names_every_parameter_and_every_method() -> None:
    assert set(_rows("run.md", "Parameters")) == {"wait", "log_info"} | set(kinds.RUN)
    methods = {
        re.split(r"[^a-z]", row.partition("run.")[2])[0] for row in _rows("run.md", "Methods")
    }
    own = {n for n in vars(RunPythonRun) if not n.startswith("_")}
    internal = {"run", "local_execution", "start_local", "spec"}
    assert methods - {"refresh", "status"} == own - internal
