"""A hub with no platform: the run comes from a value or a file, everything it makes goes to a folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

from digitalhub_runtime_python import copies
from digitalhub_runtime_python.errors import ArgumentFault, PlatformFault, UsageFault
from digitalhub_runtime_python.frames import read_frame
from digitalhub_runtime_python.hub import files
from digitalhub_runtime_python.hub.files import local_path
from digitalhub_runtime_python.nesting import read_json
from digitalhub_runtime_python.outputs import Output
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.spec import RunSpec


class OfflineHub:
    """Keeps a run's outputs in `folder` and its status in `status`.

    Args:
        run: the run, or a file with its JSON.
        folder: where outputs go; made when the first one is stored. None: outputs are refused.
        status_file: where the status is written as JSON, too; None: nowhere.
        on_progress: shows how far the run is; None: that is in the status at its end alone.
    """

    def __init__(
        self,
        run: RunSpec | Path,
        folder: Path | None,
        status_file: Path | None = None,
        on_progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._run = run
        self._stored = {status_file.name} if status_file is not None else set()
        # A run's working folder is its code's, and these belong to whoever started it.
        self._started_in = Path.cwd()
        self.folder = folder
        self._place = folder.absolute() if folder is not None else None
        self.status_file = status_file
        self._on_progress = on_progress
        self.status: dict[str, Any] = {}

    def load_run(self) -> RunSpec:
        if isinstance(self._run, RunSpec):
            return self._run
        try:
            entity = read_json(self._run.read_text("utf-8"))
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
        return RunSpec.from_entity(entity, own=True)

    def resolve_input(self, key: str, form: str, folder: Path) -> Any:
        """A local path in place of an entity's key: a LocalFile, a copy, or the frame that is in that file."""
        path = local_path(key) if isinstance(key, str) and "\0" not in key else None
        path = self._started_in / path.expanduser() if path is not None else None
        if path is None or not path.exists():
            raise ArgumentFault(
                "arguments/input",
                f"The input {key!r} is not a file or folder, and this run has no platform to ask.",
                "Without a platform, inputs are local paths.",
            )
        if form == "entity":
            return LocalFile(path, folder)
        return files.load(str(path), form, Settings(), folder)

    def store_output(self, run: RunSpec, output: Output) -> str:
        if self.folder is None or self._place is None:
            raise PlatformFault(
                "platform/none",
                f"Output {output.name!r} is a file, and there is no place to store it.",
                "Name a folder for outputs, or run it on a platform.",
            )
        name = self._free_name(output)
        target, own = self._place / name, self._place
        if target != output.path:  # else the function wrote it where it belongs
            own.mkdir(parents=True, exist_ok=True)
            if output.path.is_dir():
                shutil.copytree(
                    output.path,
                    target,
                    # It may lie in the folder that is stored.
                    ignore=lambda place, names: [n for n in names if Path(place, n) == own],
                    copy_function=copies.copy_file,
                    dirs_exist_ok=True,
                )
            else:
                copies.copy_file(output.path, target)
        return str(self.folder / name)

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

    def progress(self, value: Mapping[str, Any]) -> float:
        if self._on_progress is not None:
            self._on_progress(value)
        return 0.2

    def project(self) -> Any:
        raise _no_platform("project")

    def run(self) -> Any:
        raise _no_platform("run")


class LocalFile(os.PathLike[str]):
    """A local file or folder with the methods by which a function reads an entity of the SDK.

    So a function that says `data.as_df()` runs as it is where there is no platform. Whatever it
    gives a path of is a copy in the run's folder.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self._original = path
        self._folder = folder
        self._copies = 0
        self.name = path.stem
        self.key = str(path)

    @property
    def path(self) -> Path:
        """A copy of the file, made when it is first asked for."""
        own = self._folder / "path" / self._original.name
        return own if own.exists() else copies.copy(self._original, own.parent)

    @property
    def spec(self) -> Any:
        """The entity's spec, of which there is the path."""
        return SimpleNamespace(path=str(self.path))

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"LocalFile({str(self._original)!r})"

    def as_df(self, file_format: str | None = None, engine: str = "pandas", **options: Any) -> Any:
        """The frame that is in the file; see `frames.read_frame`."""
        return read_frame(self._original, file_format, engine or "pandas", **options)

    def as_file(self) -> str:
        """The path of a new copy, as text."""
        return self.download()

    def download(self, destination: str | None = None, overwrite: bool = False) -> str:
        """Copy it to a file (where the name has an extension) or into a folder; the path, as text.

        Args:
            destination: by default a new folder of the run's own.

        Raises:
            FileExistsError: something is there, and `overwrite` is not set.
        """
        if destination is None:
            self._copies += 1
            destination = str(self._folder / str(self._copies))
        into = Path(destination)
        if self._original.is_dir():
            found = copies.files_of(self._original)
            pairs = [(file, into / relative) for file, relative in found]
        else:
            pairs = [(self._original, into if into.suffix else into / self._original.name)]
        for _, target in pairs:
            if target.exists() and not overwrite:
                raise FileExistsError(f"Destination {target} already exists.")
        for file, target in pairs:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and target.samefile(file):
                continue  # it is where it is wanted
            target.unlink(missing_ok=True)  # a link there leads to what is not ours
            copies.copy_file(file, target)
        return str(pairs[0][1] if len(pairs) == 1 else into)


def _no_platform(name: str) -> PlatformFault:
    return PlatformFault(
        "platform/none",
        f"The function asks for {name!r}, and this run has no platform.",
        "Start one with `dhpy up`, or leave the argument out.",
    )
