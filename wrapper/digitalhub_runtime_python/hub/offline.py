"""A hub with no platform: the run comes from a value or a file, everything it makes goes to a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from digitalhub_runtime_python.errors import ArgumentFault, PlatformFault, UsageFault
from digitalhub_runtime_python.outputs import Output
from digitalhub_runtime_python.spec import RunSpec


class OfflineHub:
    """Keeps a run's outputs in `folder` and its status in `status` (and in `folder/status.json`).

    Args:
        run: the run, or a file with its JSON.
        folder: where outputs go; made when the first one is stored. None: outputs are refused.
    """

    def __init__(self, run: RunSpec | Path, folder: Path | None) -> None:
        self._run = run
        self.folder = folder
        self.status: dict[str, Any] = {}

    def load_run(self) -> RunSpec:
        if isinstance(self._run, RunSpec):
            return self._run
        try:
            entity = json.loads(self._run.read_text("utf-8"))
        except OSError as exc:
            raise UsageFault(
                "usage/run-file", f"The run file {self._run} cannot be read: {exc.strerror}.", ""
            ) from exc
        except ValueError as exc:
            raise UsageFault(
                "usage/run-file", f"The run file {self._run} is not JSON: {exc}.", ""
            ) from exc
        return RunSpec.from_entity(entity)

    def resolve_input(self, key: str, form: str) -> Any:
        """A local path in place of an entity's key: a path, or the frame that is in that file."""
        path = Path(str(key))
        if not path.exists():
            raise ArgumentFault(
                "arguments/input",
                f"The input {key!r} is no file or folder, and this run has no platform to ask.",
                "Without a platform, inputs are local paths.",
            )
        if form == "frame":
            return read_frame(path)
        if form == "polars":
            import polars

            return polars.read_csv(path) if path.suffix == ".csv" else polars.read_parquet(path)
        return path

    def store_output(self, run: RunSpec, output: Output) -> str:
        if self.folder is None:
            raise PlatformFault(
                "platform/none",
                f"Output {output.name!r} is a file, and there is no place to store it.",
                "Name a folder for outputs, or run it on a platform.",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / output.path.name
        if output.path.is_dir():
            shutil.copytree(output.path, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(output.path, target)
        return str(target)

    def report(self, status: Mapping[str, Any]) -> None:
        self.status.update(status)
        if self.folder is not None and self.folder.exists():
            (self.folder / "status.json").write_text(json.dumps(self.status, indent=2), "utf-8")

    def project(self) -> Any:
        raise _no_platform("project")

    def run(self) -> Any:
        raise _no_platform("run")


def read_frame(path: Path) -> Any:
    """A pandas frame from a parquet, CSV or JSON file, or from a folder of parquet files."""
    import importlib

    pandas: Any = importlib.import_module("pandas")
    readers = {".csv": pandas.read_csv, ".json": pandas.read_json}
    return readers.get(path.suffix.lower(), pandas.read_parquet)(path)


def _no_platform(name: str) -> PlatformFault:
    return PlatformFault(
        "platform/none",
        f"The function asks for {name!r}, and this run has no platform.",
        "Start one with `dhpy up`, or leave the argument out.",
    )
