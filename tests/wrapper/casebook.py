"""Reads tests/cases/job_*: folders that a user could have written, each with what its runs must give.

`run.json`: variant -> the run's spec (`handler` and `init_function` belong to its source), and
`requires` (packages), `min_python`, `hubs` and `drivers` for a variant that is not for all of them.
`expected.json`: variant -> `exit_status` (0), `results`, `result_names`, `outputs`, `error`, `log`
and `log_lacks` (texts on standard error or output); what is not named is not compared.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

CASES = Path(__file__).parent.parent / "cases"


@dataclass(frozen=True)
class Case:
    """One run of one folder."""

    folder: Path
    variant: str
    spec: dict[str, Any]
    expected: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.folder.name[4:]}-{self.variant}"

    def allows(self, driver: str, hub: str) -> bool:
        return driver in self.spec.get("drivers", [driver]) and hub in self.spec.get("hubs", [hub])

    def skip_what_is_absent(self) -> None:
        for package in self.spec.get("requires", []):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
        if sys.version_info < tuple(self.spec.get("min_python", ())):
            pytest.skip(f"needs Python {self.spec['min_python']}")

    def run_spec(self, code: Path) -> dict[str, Any]:
        """The run's spec, of a function whose code is the folder `code`, a copy of the case's."""
        own = ("handler", "init_function", "requires", "min_python", "hubs", "drivers", "inputs")
        source = {"source": str(code), "handler": self.spec["handler"]}
        if "init_function" in self.spec:
            source["init_function"] = self.spec["init_function"]
        spec = {k: v for k, v in self.spec.items() if k not in own}
        return {"function": "python://proj/fn:1", "source": source, **spec}

    def inputs(self, stored: Callable[[str, str], str]) -> dict[str, Any]:
        """The run's inputs; `stored` gives the key of a file of the folder."""

        def one(name: str, value: Any) -> Any:
            if isinstance(value, list):
                return [one(name, item) for item in value]
            if isinstance(value, dict):
                return {key: one(name, item) for key, item in value.items()}
            return stored(name, value)

        return {name: one(name, value) for name, value in self.spec.get("inputs", {}).items()}

    def check_untouched(self, code: Path) -> None:
        """Whatever the function did to its inputs, the user's files are as they were."""
        for name in set(_leaves(self.spec.get("inputs", {}))):
            for file in [
                p for p in [self.folder / name, *(self.folder / name).rglob("*")] if p.is_file()
            ]:
                own = code / file.relative_to(self.folder)
                assert own.read_bytes() == file.read_bytes(), own

    def copy(self, folder: Path) -> Path:
        target = folder / "code"
        shutil.copytree(self.folder, target, ignore=shutil.ignore_patterns("*.json", "__pycache__"))
        return target


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value:
        if not isinstance(value, str):
            yield from _leaves(item)


def cases() -> Iterator[Case]:
    for folder in sorted(CASES.glob("job_*")):
        runs = json.loads((folder / "run.json").read_text("utf-8"))
        expected = json.loads((folder / "expected.json").read_text("utf-8"))
        assert runs.keys() == expected.keys(), folder
        for variant, spec in runs.items():
            yield Case(folder, variant, spec, expected[variant])


@dataclass
class Found:
    """What a run gave."""

    exit_status: int
    status: Mapping[str, Any]
    log: str
    replaced: Mapping[str, str]
    """Text in expected.json -> what stands for it in this run."""
    files: Mapping[str, Path]
    """Output name -> its file or folder on disk."""
    entities: Mapping[str, Mapping[str, Any]]
    """Output name -> its entity, where there is a platform."""


def compare(case: Case, found: Found) -> None:
    expected = json.loads(_replaced(json.dumps(case.expected), found.replaced))
    told = json.dumps(found.status, indent=2) + found.log
    assert found.exit_status == expected.get("exit_status", 0), told
    if "results" in expected:
        # As text: NaN is not equal to itself.
        assert _text(found.status.get("results")) == _text(expected["results"])
    if "result_names" in expected:
        assert list(found.status["results"]) == expected["result_names"]
    if "error" in expected:
        _compare_error(expected["error"], dict(found.status["error"]), case.folder)
    else:
        assert "error" not in found.status, told
    assert set(found.files) == set(expected.get("outputs", {})) or "error" in expected, told
    for name, description in expected.get("outputs", {}).items():
        _compare_output(description, found.files[name], found.entities.get(name))
    for text in expected.get("log", []):
        assert text in found.log
    for text in expected.get("log_lacks", []):
        assert text not in found.log


def _compare_error(expected: dict[str, Any], error: dict[str, Any], folder: Path) -> None:
    for key, value in expected.items():
        if key == "message":
            for text in [value] if isinstance(value, str) else value:
                assert text.strip("…") in error["message"], error
        elif key == "at":  # a part of the line that it points to
            lines = (folder / error["file"]).read_text("utf-8").splitlines()
            assert value in lines[error["line"] - 1], error
        elif key == "traceback":
            for text in value:
                assert text in error["traceback"]
        elif key == "traceback_lacks":
            for text in value:
                assert text not in error["traceback"]
        else:
            assert error.get(key) == value, error
    trace = error.get("traceback", "")
    assert "digitalhub_runtime_python/" not in trace, trace
    assert "importlib" not in trace, trace
    assert len(error["message"]) <= 4001


def _compare_output(expected: dict[str, Any], path: Path, entity: Mapping[str, Any] | None) -> None:
    if "file" in expected:
        assert path.name == expected["file"]
    if "folder" in expected:
        found = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        assert found == expected["folder"]
    if "size" in expected:
        assert path.stat().st_size == expected["size"]
    if "text" in expected:
        assert path.read_text("utf-8") == expected["text"]
    if "bytes" in expected:
        assert path.read_bytes().hex() == expected["bytes"]
    if "starts" in expected:
        assert path.read_bytes().hex().startswith(expected["starts"])
    if "json" in expected:
        assert json.loads(path.read_text("utf-8")) == expected["json"]
    if "rows" in expected:
        import pyarrow.parquet

        assert pyarrow.parquet.read_metadata(path).num_rows == expected["rows"]
    if "unpickled" in expected:
        _check_pickle(path, expected["unpickled"])
    if entity is not None:
        _compare_entity(expected, entity)


def _compare_entity(expected: dict[str, Any], entity: Mapping[str, Any]) -> None:
    assert entity["kind"] == expected.get("kind", "artifact")
    assert entity["status"]["state"] == "READY"
    assert entity["metadata"]["relationships"][0]["type"] == "produced_by"
    assert all(f["size"] >= 0 and f["hash"].startswith("md5:") for f in entity["status"]["files"])
    for key, value in expected.get("spec", {}).items():
        assert entity["spec"][key] == value
    if "columns" in expected:
        fields = entity["spec"]["schema"]["fields"]
        assert {f["name"]: f["type"] for f in fields} == expected["columns"]
        preview = entity["status"]["preview"]
        assert preview["rows"] == expected["rows"]
        assert [c["name"] for c in preview["cols"]] == list(expected["columns"])


def _check_pickle(path: Path, expression: str) -> None:
    """In a process that has none of the user's modules."""
    code = f"import pickle, sys; value = pickle.load(open(sys.argv[1], 'rb')); assert {expression}"
    subprocess.run([sys.executable, "-I", "-c", code, str(path)], check=True, cwd=path.parent)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _replaced(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f'"{name}"', json.dumps(value))
    return text
