"""Reads a frame from a file or a folder of files, for every hub: the SDK's own table of file types."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

ENGINES = ("pandas", "polars")

_READERS = {
    "csv": "read_csv",
    "parquet": "read_parquet",
    "json": "read_json",
    "xls": "read_excel",
    "xlsx": "read_excel",
    "txt": "read_csv",
    "file": "read_csv",
}
"""Extension -> the name of what reads it, in pandas and in polars."""


def read_frame(
    path: Path, file_format: str | None = None, engine: str = "pandas", **options: Any
) -> Any:
    """The frame that is in a file, or in all files of a folder.

    Args:
        file_format: an extension of the table above; None takes the file's own.
        engine: `pandas` or `polars`.
        options: of the library's function: `sep`, `usecols`, …

    Raises:
        ValueError: the extension or the engine is not known; names it and those that are.
    """
    if engine not in ENGINES:
        raise ValueError(
            f"unsupported dataframe engine: {engine!r}. Supported: {', '.join(ENGINES)}"
        )
    library: Any = importlib.import_module(engine)
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"the folder {path.name!r} has no file to read a frame from")
    kinds = [_kind(file, file_format) for file in files]
    if path.is_dir() and set(kinds) == {"parquet"}:
        files, kinds = [path], ["parquet"]  # as one: folders in it may be values of a column
    frames = [_read(library, file, kind, dict(options)) for file, kind in zip(files, kinds)]
    if len(frames) == 1:
        return frames[0]
    return (
        library.concat(frames, ignore_index=True) if engine == "pandas" else library.concat(frames)
    )


def read_polars(path: Path) -> Any:
    """A polars frame from the same files."""
    return read_frame(path, engine="polars")


def _read(library: Any, file: Path, kind: str, options: dict[str, Any]) -> Any:
    # read_parquet knows no such option, and the SDK allows it for all.
    limit = options.pop("nrows", None) if kind == "parquet" else None
    frame = getattr(library, _READERS[kind])(file, **options)
    return frame if limit is None else frame.head(limit)


def _kind(file: Path, file_format: str | None) -> str:
    kind = (file_format or file.suffix).lower().lstrip(".")
    if kind not in _READERS:
        named = f"unsupported extension {kind!r}" if kind else "no extension"
        raise ValueError(
            f"{file.name!r} has {named} for reading a frame; supported are "
            f"{', '.join(_READERS)}, and as_df(file_format=…) says which it is"
        )
    return kind


def _files(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return [p for p in found if not p.name.startswith((".", "_"))]
