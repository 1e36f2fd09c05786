"""The formats of returned values: which have a JSON form, and what the others are written as."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
import threading
from pathlib import Path
from typing import Any, Callable, NamedTuple

from digitalhub_runtime_python import isolation
from digitalhub_runtime_python.errors import OutputFault

logger = logging.getLogger(__name__)


# --- JSON --------------------------------------------------------------------------------------


class JsonForm(NamedTuple):
    """A value as JSON."""

    value: Any
    """As `json.loads(text)` gives it."""
    text: str

    @property
    def is_container(self) -> bool:
        return isinstance(self.value, (dict, list))


def json_form(value: Any) -> JsonForm | None:
    """The JSON form of a value that has one of its own, None for all others."""
    if _root(value) == "numpy" and getattr(value, "shape", None) == ():
        value = _from_numpy(value)
    if type(value).__name__ in ("NaTType", "NAType") and _root(value) == "pandas":
        value = None
    if value is None or type(value) in _SCALARS:
        return JsonForm(value, json.dumps(value))
    try:
        if isinstance(value, type):
            return None
        if hasattr(value, "model_dump") and "pydantic" in sys.modules:
            built = value.model_dump(mode="json")
        elif isinstance(value, _json_types()) or dataclasses.is_dataclass(value):
            import msgspec  # only here: a run that returns a number does without

            built = msgspec.to_builtins(value, str_keys=True, enc_hook=_json_item)
        else:
            return None
        # json, not msgspec: msgspec writes NaN as null, and a NaN must come back as NaN.
        text = json.dumps(built)
    except Exception:  # noqa: BLE001 - something in it has no JSON form, so the whole has none
        logger.debug("no JSON form for %s", class_name(value), exc_info=True)
        return None
    return JsonForm(json.loads(text), text)


_SCALARS = {str, bool, int, float}


def _json_types() -> tuple[type, ...]:
    import datetime
    import decimal
    import enum
    import uuid

    return (
        dict, list, str, int, float, decimal.Decimal, datetime.date, datetime.time,
        datetime.timedelta, uuid.UUID, enum.Enum,
    )  # fmt: skip


def _json_item(value: Any) -> Any:
    """msgspec's hook for what it does not know."""
    # Classes derived from str, int and float; not str(value), which is the class's own affair.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return float.__float__(value) if isinstance(value, float) else int.__int__(value)
    if _root(value) == "numpy":
        return _from_numpy(value)
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if hasattr(value, "isoformat"):  # pandas' timestamps, pendulum's
        return value.isoformat()
    return value.model_dump(mode="json")


def _from_numpy(value: Any) -> Any:
    # A time with nanoseconds would become a bare integer.
    is_time = getattr(value.dtype, "kind", "") in "mM"
    return (value.astype(str) if is_time else value).tolist()


def _root(value: Any) -> str:
    return str(type(value).__module__).partition(".")[0]


# --- files -------------------------------------------------------------------------------------


def write(value: Any, stem: Path, kind: str | None = None) -> tuple[str, Path]:
    """(the kind that fits it, the file or folder) of a value written at `stem` plus a suffix.

    Args:
        kind: what is declared; a value that is no such thing is made one where that can be done.

    Raises:
        OutputFault: outputs/no-file, it is a path and nothing is there.
        Exception: whatever the library raises that writes it.
    """
    if kind is not None and isinstance(value, str) and _exists(value):
        value = Path(
            value
        )  # a declared kind takes the path of what it stores, as the SDK's log_* do
    if isinstance(value, Path):
        if not value.exists():
            raise OutputFault(
                "outputs/no-file",
                f"Output {stem.name!r} is the path {str(value)!r}, and nothing is there.",
                "Return the path of a file or folder that the function wrote.",
            )
        return "artifact", value.absolute()
    if kind == "table" and isinstance(value, (list, dict)):
        value = _as_table(value)
    for base in type(value).__mro__:
        row = _FORMATS.get(f"{str(base.__module__).partition('.')[0]}.{base.__name__}")
        if row is None:
            continue
        natural, suffix, write_it = row
        path = stem.with_name(stem.name + suffix)
        if write_it(value, path) is not False:
            return natural, path
    form = json_form(value)
    if form is not None:
        path = stem.with_name(stem.name + ".json")
        path.write_text(form.text, "utf-8")
        return "artifact", path
    return "artifact", _pickle(value, stem)


def class_name(value: Any) -> str:
    """A value's class as a reader would look for it."""
    cls = type(value)
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, or with a character that no path has
        return False


def _as_table(value: list[Any] | dict[str, Any]) -> Any:
    """Rows or columns as a pyarrow table."""
    import pyarrow

    return pyarrow.Table.from_pylist(value) if isinstance(value, list) else pyarrow.table(value)


_PICKLING = threading.Lock()


def _pickle(value: Any, stem: Path) -> Path:
    import cloudpickle

    logger.warning(
        "output %r is a %s, for which no format is known: it is stored as a pickle, which only "
        "Python code with the same packages can read",
        stem.name,
        class_name(value),
    )
    path = stem.with_name(stem.name + ".pickle")
    with _PICKLING:  # cloudpickle's list of modules is the whole process's
        # By value: whoever reads the pickle has no module of the user's code.
        own = [m for m in isolation.own_modules() if m.__name__ in sys.modules]
        for module in own:
            cloudpickle.register_pickle_by_value(module)
        try:
            path.write_bytes(cloudpickle.dumps(value))
        finally:
            for module in own:
                cloudpickle.unregister_pickle_by_value(module)
    return path


def _write_bytes(value: Any, path: Path) -> None:
    path.write_bytes(bytes(value))


def _write_pandas(value: Any, path: Path) -> None:
    # index=None keeps an index that holds data and leaves out the default 0…n-1.
    (value.to_frame() if value.ndim == 1 else value).to_parquet(path, engine="pyarrow", index=None)


def _write_polars(value: Any, path: Path) -> None:
    (value.collect() if hasattr(value, "collect") else value).write_parquet(path)


def _write_arrow(value: Any, path: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(value, path)


def _write_numpy(value: Any, path: Path) -> bool:
    if value.dtype.hasobject or hasattr(value, "mask"):
        return False  # .npy would hold a pickle inside, or lose the mask
    with path.open("wb") as file:
        sys.modules["numpy"].save(file, value, allow_pickle=False)
    return True


def _write_figure(value: Any, path: Path) -> None:
    value.savefig(path, format="png", bbox_inches="tight")


def _write_plotly(value: Any, path: Path) -> None:
    value.write_html(path)


def _write_image(value: Any, path: Path) -> None:
    (
        value if value.mode in ("1", "L", "LA", "I", "P", "RGB", "RGBA") else value.convert("RGB")
    ).save(path, format="PNG")


# package.Class, looked up along the value's bases -> (kind, suffix, writer). Names, so that nothing
# is imported that the user did not import; a writer that returns False passes the value on.
_FORMATS: dict[str, tuple[str, str, Callable[[Any, Path], Any]]] = {
    "pandas.DataFrame": ("table", ".parquet", _write_pandas),
    "pandas.Series": ("table", ".parquet", _write_pandas),
    "polars.DataFrame": ("table", ".parquet", _write_polars),
    "polars.LazyFrame": ("table", ".parquet", _write_polars),
    "pyarrow.Table": ("table", ".parquet", _write_arrow),
    "numpy.ndarray": ("artifact", ".npy", _write_numpy),
    "matplotlib.Figure": ("artifact", ".png", _write_figure),
    "plotly.BaseFigure": ("artifact", ".html", _write_plotly),
    "PIL.Image": ("artifact", ".png", _write_image),
    "builtins.bytes": ("artifact", "", _write_bytes),
    "builtins.bytearray": ("artifact", "", _write_bytes),
    "builtins.memoryview": ("artifact", "", _write_bytes),
}


# --- tables ------------------------------------------------------------------------------------

PREVIEW_ROWS = 10
PREVIEW_LIMIT = 64 * 1024
"""Bytes of JSON that a preview may have; the SDK's own limit is the same."""

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

    with pyarrow.parquet.ParquetFile(path) as file:
        columns = [(f.name, str(f.type)) for f in file.schema_arrow]
        batch = next(file.iter_batches(batch_size=PREVIEW_ROWS), None)
        rows = file.metadata.num_rows
    head = batch.to_pydict() if batch is not None else {name: [] for name, _ in columns}
    schema = {"fields": [{"name": n, "type": _field_type(t)} for n, t in columns]}
    preview = {
        "cols": [{"name": n, "value": [_plain(v) for v in head.get(n, [])]} for n, _ in columns],
        "rows": rows,
    }
    if len(json.dumps(preview).encode()) > PREVIEW_LIMIT:
        preview = {"cols": [], "rows": rows}
    return {"schema": schema}, {"preview": preview}


def _field_type(arrow_type: str) -> str:
    if arrow_type.startswith("dictionary"):
        arrow_type = arrow_type.partition("values=")[2]
    return next((t for prefix, t in _FIELD_TYPES if arrow_type.startswith(prefix)), "any")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # a platform's JSON parser need not know NaN
    return value if value is None or type(value) in _SCALARS else str(value)
