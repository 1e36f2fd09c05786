"""A hub with no platform: the run comes from a value or a file, everything it makes goes to a folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from digitalhub_runtime_python.errors import ArgumentFault, PlatformFault, UsageFault
from digitalhub_runtime_python.frames import read_frame, read_polars
from digitalhub_runtime_python.outputs import Output
from digitalhub_runtime_python.spec import RunSpec


class OfflineHub:
    """Keeps a run's outputs in `folder` and its status in `status`.

    Args:
        run: the run, or a file with its JSON.
        folder: where outputs go; made when the first one is stored. None: outputs are refused.
        status_file: where the status is written as JSON, too; None: nowhere.
    """

    def __init__(
        self, run: RunSpec | Path, folder: Path | None, status_file: Path | None = None
    ) -> None:
        self._run = run
        self._stored = {status_file.name} if status_file is not None else set()
        self.folder = folder
        self.status_file = status_file
        self.status: dict[str, Any] = {}

    def load_run(self) -> RunSpec:
        if isinstance(self._run, RunSpec):
            return self._run
        try:
            entity = json.loads(self._run.read_text("utf-8"))
        except OSError as exc:
            raise UsageFault(
                "usage/run-file",
                f"The run file {self._run} cannot be read: {exc.strerror}.",
                "Set DHPY_RUN_FILE to the JSON of a run.",
            ) from exc
        except ValueError as exc:
            raise UsageFault(
                "usage/run-file",
                f"The run file {self._run} is not JSON: {exc}.",
                "Set DHPY_RUN_FILE to the JSON of a run.",
            ) from exc
        return RunSpec.from_entity(entity)

    def resolve_input(self, key: str, form: str) -> Any:
        """A local path in place of an entity's key: a LocalFile, a path, or the frame that is in that file."""
        path = Path(str(key))
        if not isinstance(key, str) or "\0" in key or not path.exists():
            raise ArgumentFault(
                "arguments/input",
                f"The input {key!r} is no file or folder, and this run has no platform to ask.",
                "Without a platform, inputs are local paths.",
            )
        if form == "frame":
            return read_frame(path)
        if form == "entity":
            return LocalFile(path)
        return read_polars(path) if form == "polars" else path

    def store_output(self, run: RunSpec, output: Output) -> str:
        if self.folder is None:
            raise PlatformFault(
                "platform/none",
                f"Output {output.name!r} is a file, and there is no place to store it.",
                "Name a folder for outputs, or run it on a platform.",
            )
        target = self.folder / self._free_name(output)
        if target.absolute() == output.path:
            return str(target)  # the function wrote it where it belongs
        self.folder.mkdir(parents=True, exist_ok=True)
        if output.path.is_dir():
            own = self.folder.absolute()  # it may lie in the folder that is stored
            shutil.copytree(
                output.path,
                target,
                ignore=lambda place, names: [n for n in names if Path(place, n) == own],
                dirs_exist_ok=True,
            )
        else:
            shutil.copyfile(output.path, target)
        return str(target)

    def _free_name(self, output: Output) -> str:
        """The file's own name; two outputs of a run may be files of one name in two folders."""
        name, n = output.path.name, 1
        while name in self._stored:
            n += 1
            name = f"{output.path.stem}-{n}{output.path.suffix}"
        self._stored.add(name)
        return name

    def report(self, status: Mapping[str, Any]) -> None:
        self.status.update(status)
        if self.status_file is None:
            return
        text = json.dumps(self.status, indent=2)
        try:
            self.status_file.parent.mkdir(parents=True, exist_ok=True)
            self.status_file.write_text(text, "utf-8")
        except OSError as exc:
            raise PlatformFault(
                "platform/report",
                f"The status cannot be written to {self.status_file}: {exc.strerror}. It is {text}",
                "Free some space there, or set DHPY_WORKSPACE to another folder.",
            ) from exc

    def project(self) -> Any:
        raise _no_platform("project")

    def run(self) -> Any:
        raise _no_platform("run")


class LocalFile(os.PathLike[str]):
    """A local file or folder with the methods by which a function reads an entity of the SDK.

    So a function that says `data.as_df()` runs as it is where there is no platform.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self.key = str(path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"LocalFile({str(self.path)!r})"

    def as_df(self, engine: str = "pandas", **_: Any) -> Any:
        """The frame that is in the file; `engine` is `pandas` or `polars`."""
        return read_polars(self.path) if engine == "polars" else read_frame(self.path)

    def as_file(self) -> str:
        """The path, as text."""
        return str(self.path)

    def download(self, *_: Any, **__: Any) -> str:
        """The path, as text: it is here already."""
        return str(self.path)


def _no_platform(name: str) -> PlatformFault:
    return PlatformFault(
        "platform/none",
        f"The function asks for {name!r}, and this run has no platform.",
        "Start one with `dhpy up`, or leave the argument out.",
    )
