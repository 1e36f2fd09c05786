"""Reads a frame from a file or a folder of files, for every hub."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any


def read_frame(path: Path) -> Any:
    """A pandas frame from a parquet, CSV or JSON file, or from a folder of parquet files."""
    pandas: Any = importlib.import_module("pandas")
    readers = {".csv": pandas.read_csv, ".json": pandas.read_json}
    return readers.get(path.suffix.lower(), pandas.read_parquet)(path)


def read_polars(path: Path) -> Any:
    """A polars frame from the same files."""
    polars: Any = importlib.import_module("polars")
    readers = {".csv": polars.read_csv, ".json": polars.read_json}
    return readers.get(path.suffix.lower(), polars.read_parquet)(path)
