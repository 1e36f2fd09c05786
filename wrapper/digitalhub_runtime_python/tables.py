"""Frames as Parquet files, and what a platform is told of them.

A frame that Parquet cannot hold is not lost: its writer says why, and the caller stores it otherwise.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

logger = logging.getLogger(__name__)


def write_pandas(value: Any, path: Path) -> str | None:
    with _storable_attrs(value, path.stem):
        frame = value.to_frame() if value.ndim == 1 else value
        # index=None keeps an index that holds data and leaves out the default 0…n-1.
        return _write(lambda: frame.to_parquet(path, engine="pyarrow", index=None), path)


def write_polars(value: Any, path: Path) -> str | None:
    if hasattr(value, "collect"):
        value = value.collect()  # what the user's own query raises is no matter of Parquet's
    if not hasattr(value, "write_parquet"):
        value = value.to_frame()
    return _write(lambda: value.write_parquet(path), path)


def write_arrow(value: Any, path: Path) -> str | None:
    import pyarrow.parquet

    if hasattr(value, "read_all"):
        value = value.read_all()
    if not hasattr(value, "to_batches"):
        value = pyarrow.Table.from_batches([value])
    return _write(lambda: pyarrow.parquet.write_table(value, path), path)


def picklable(value: Any) -> Any:
    """A frame as what can be pickled: polars cannot pickle Python objects, their columns can."""
    if not type(value).__module__.startswith("polars.") or not hasattr(value, "dtypes"):
        return value
    return value.to_dict(as_series=False) if "Object" in map(str, value.dtypes) else value


def table_of(value: list[Any] | dict[str, Any]) -> Any:
    """Rows or columns as a pyarrow table."""
    import pyarrow

    return pyarrow.Table.from_pylist(value) if isinstance(value, list) else pyarrow.table(value)


def _write(write: Callable[[], Any], path: Path) -> str | None:
    """Why Parquet cannot hold what `write` writes, None where it can."""
    try:
        write()
    except BaseException as exc:
        path.unlink(missing_ok=True)
        # polars panics, with a class that is not an Exception, on columns of Python objects.
        refused = isinstance(exc, Exception) or type(exc).__name__ == "PanicException"
        if not refused or isinstance(exc, (OSError, MemoryError)):
            raise
        words = str(exc).strip().partition("\n")[0]
        return f"which Parquet cannot hold ({type(exc).__name__}: {words[:200]})"
    return None


@contextlib.contextmanager
def _storable_attrs(value: Any, name: str) -> Iterator[None]:
    """Without those of a frame's `attrs` that are not JSON: pandas would store none of it for them."""
    attrs = getattr(value, "attrs", None) or {}
    lost = [key for key, item in attrs.items() if not _is_json({key: item})]
    if lost:
        logger.warning(
            "output %r: of the frame's attrs, %s cannot be stored, for they have no JSON form",
            name,
            ", ".join(repr(key) for key in lost),
        )
        value.attrs = {key: item for key, item in attrs.items() if key not in lost}
    try:
        yield
    finally:
        if lost:
            value.attrs = attrs


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


# --- what a platform is told -------------------------------------------------------------------

PREVIEW_ROWS = 10
PREVIEW_LIMIT = 64 * 1024
"""Bytes of JSON that a preview may have; the SDK's own limit is the same."""
SCHEMA_LIMIT = 256 * 1024
"""Bytes of JSON that a schema may have: 5,000 columns, and a platform reads it with every list."""

_FIELD_TYPES = (
    ("int", "integer"), ("uint", "integer"), ("float", "number"), ("double", "number"),
    ("halffloat", "number"), ("decimal", "number"), ("bool", "boolean"), ("string", "string"),
    ("large_string", "string"), ("timestamp", "datetime"), ("date", "date"), ("time", "time"),
    ("duration", "duration"), ("list", "array"), ("large_list", "array"), ("struct", "object"),
)  # fmt: skip


def describe_table(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(spec, status) with a parquet file's `schema` and `preview`, as the SDK writes them; else nothing."""
    if path.suffix != ".parquet" or not path.is_file():
        return {}, {}
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = [(f.name, str(f.type)) for f in file.schema_arrow]
            rows = file.metadata.num_rows
            head = _head(file, columns)
    except Exception as exc:  # noqa: BLE001 - a file of the user's that is not Parquet, whatever its name
        logger.warning("%s cannot be read as Parquet: %s", path.name, exc)
        return {}, {}
    schema = {"fields": [{"name": n, "type": _field_type(t)} for n, t in columns]}
    preview = {"cols": head, "rows": rows}
    if len(json.dumps(preview)) > PREVIEW_LIMIT:
        preview = {"cols": [], "rows": rows}
    spec = {"schema": schema} if len(json.dumps(schema)) <= SCHEMA_LIMIT else {}
    return spec, {"preview": preview}


def _head(file: Any, columns: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """The first rows, by column; none where a value is not a Python object (the year 300000, say)."""
    try:
        batch = next(file.iter_batches(batch_size=PREVIEW_ROWS), None)
        values = (
            [c.to_pylist() for c in batch.columns] if batch is not None else [[]] * len(columns)
        )
        return [
            {"name": name, "value": [_plain(v) for v in column]}
            for (name, _), column in zip(columns, values)
        ]
    except Exception as exc:  # noqa: BLE001
        logger.debug("no preview: %s", exc)
        return []


def _field_type(arrow_type: str) -> str:
    if arrow_type.startswith("dictionary"):
        arrow_type = arrow_type.partition("values=")[2]
    return next((t for prefix, t in _FIELD_TYPES if arrow_type.startswith(prefix)), "any")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # a platform's JSON parser need not know NaN
    return value if value is None or type(value) in (str, bool, int, float) else str(value)
