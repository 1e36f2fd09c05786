"""Maps what a function returned to results and stored outputs: docs/reference/outputs.md is this file's table."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Callable

from digitalhub_runtime_python.decorator import OutputDeclaration
from digitalhub_runtime_python.errors import Fault, OutputFault
from digitalhub_runtime_python.spec import RunSpec

logger = logging.getLogger(__name__)

RESULT_LIMIT = 256 * 1024
"""Bytes of JSON that a dict or list may have as a result: the status is read with every list of runs."""

ENTITY_TYPES = {
    "artifact": "artifact",
    "dataitem": "dataitem",
    "table": "dataitem",
    "croissant": "dataitem",
    "iceberg": "dataitem",
    "model": "model",
    "mlflow": "model",
    "sklearn": "model",
    "huggingface": "model",
}
"""Kind of a declared output -> type of the entity that it becomes."""


@dataclass(frozen=True)
class Output:
    """A returned value as a file or folder on disk, ready to be stored as an entity."""

    name: str
    entity_type: str
    """`artifact`, `dataitem` or `model`: the singular of the API's plural."""
    kind: str
    """The entity's kind: `artifact`, `table`, `model`, `mlflow`, …"""
    path: Path
    """A file or a folder; it belongs to the run's workspace and goes with it."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """More of the entity's spec: a table's `schema`, the declaration's `spec_kwargs`."""
    status: Mapping[str, Any] = field(default_factory=dict)
    """More of the entity's status: a table's `preview`."""


@dataclass
class Collected:
    """What became of the returned value."""

    results: dict[str, Any] = field(default_factory=dict)
    """Output name -> JSON value."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Output name -> key of the stored entity."""
    problems: list[Fault] = field(default_factory=list)
    """One for each output that could not be stored."""

    def raise_for_problems(self) -> None:
        """Raise what failed, after everything else has been stored."""
        if len(self.problems) == 1:
            raise self.problems[0]
        if self.problems:
            raise OutputFault(
                "outputs/not-stored",
                f"{len(self.problems)} outputs could not be stored: "
                + " ".join(p.message for p in self.problems),
                "The others were stored.",
            )


def collect(
    value: Any,
    declared: Sequence[OutputDeclaration],
    run: RunSpec,
    store: Callable[[RunSpec, Output], str],
    folder: Path,
) -> Collected:
    """Turn a function's value into results and stored entities.

    Args:
        value: what the function returned; a tuple is several outputs, a list is one unless as many
            names (two or more) as elements are declared.
        declared: what `@handler` recorded.
        run: the run that produced it.
        store: stores one Output and returns its key, a Hub's `store_output`.
        folder: where files are written; the caller's, and the caller's to remove.
    """
    collected = Collected()
    for index, (declaration, item) in enumerate(_named(value, declared)):
        name = declaration["name"]
        try:
            if "kind" not in declaration:
                if (key := _save_entity(item, run)) is not None:
                    collected.outputs[name] = key
                    continue
                fits, result = _as_result(item)
                if fits:
                    collected.results[name] = result
                    continue
            place = folder / str(index)
            place.mkdir(parents=True, exist_ok=True)
            collected.outputs[name] = store(run, _write(declaration, item, place))
        except Fault as fault:
            collected.problems.append(fault)
        except Exception as exc:  # noqa: BLE001 - one output must not lose the others
            logger.debug("output %r failed", name, exc_info=True)
            problem = OutputFault(
                "outputs/not-stored",
                f"Output {name!r} ({_class_name(item)}) could not be stored: {type(exc).__name__}: {exc}.",
                "Return a type of docs/reference/outputs.md, or store it with project.log_artifact().",
            )
            problem.__cause__ = exc
            collected.problems.append(problem)
    return collected


def _named(value: Any, declared: Sequence[OutputDeclaration]) -> list[tuple[dict[str, Any], Any]]:
    """Each returned value with its declaration."""
    entries = [dict(d) if isinstance(d, dict) else {"name": d} for d in declared]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        values = list(value)
    elif isinstance(value, tuple):  # a named tuple brings its own names
        values = list(value)
        entries = entries or [{"name": n} for n in value._fields]  # type: ignore[attr-defined]
    elif isinstance(value, list) and len(entries) == len(value) >= 2:
        values = value
    elif value is None and not entries:
        values = []
    else:
        values = [value]
    if entries and len(entries) != len(values):
        logger.warning(
            "%d outputs are declared and %d values were returned: %s",
            len(entries),
            len(values),
            "the values without a name get one"
            if len(values) > len(entries)
            else "the names without a value are left out",
        )
    taken = {e["name"] for e in entries}
    for index in range(len(entries), len(values)):
        name, n = f"output_{index}", index
        while name in taken:
            n += 1
            name = f"output_{n}"
        taken.add(name)
        entries.append({"name": name})
    return list(zip(entries, values))


def _save_entity(value: Any, run: RunSpec) -> str | None:
    """Save an SDK entity and relate it to the run; its key, or None where value is no entity."""
    if not any(c.__module__.startswith("digitalhub.entities.") for c in type(value).__mro__):
        return None
    relationships = getattr(value.metadata, "relationships", None) or []
    if not any(r.get("type") == "produced_by" and r.get("dest") == run.key for r in relationships):
        value.add_relationship(relation="produced_by", dest=run.key)
    try:
        value.save(update=True)
    except Exception as exc:
        # By name: the SDK is the user's import, not ours.
        if type(exc).__name__ != "EntityNotExistsError":
            raise
        value.save()
    return str(value.key)


# --- results -----------------------------------------------------------------------------------


def _as_result(value: Any) -> tuple[bool, Any]:
    """Whether a value is a result, and its JSON form."""
    fits, built = _as_json(value)
    if fits and isinstance(built, (dict, list)):
        # json, not msgspec: msgspec writes NaN as null, and a NaN must come back as NaN.
        return len(json.dumps(built).encode()) <= RESULT_LIMIT, built
    return fits, built


def _as_json(value: Any) -> tuple[bool, Any]:
    """Whether a value has a JSON form of its own, and that form."""
    if value is None or type(value) in _SCALARS:
        return True, value
    if hasattr(value, "model_dump") and "pydantic" in sys.modules:
        return True, value.model_dump(mode="json")
    if _root(value) == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # a numpy scalar
    if not (
        isinstance(value, _JSON_TYPES) or (is_dataclass(value) and not isinstance(value, type))
    ):
        return False, None
    import msgspec  # only here: a run that returns a number does without

    try:
        return True, msgspec.to_builtins(value, str_keys=True, enc_hook=_json_item)
    except (TypeError, ValueError, RecursionError):
        return False, None


def _json_item(value: Any) -> Any:
    if _root(value) == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError


def _root(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _json_types() -> tuple[type, ...]:
    import datetime
    import decimal
    import enum
    import uuid

    return (
        dict, list, str, int, float, decimal.Decimal, datetime.date, datetime.time,
        datetime.timedelta, uuid.UUID, enum.Enum,
    )  # fmt: skip


_SCALARS = {str, bool, int, float}
_JSON_TYPES = _json_types()


# --- files -------------------------------------------------------------------------------------


def _write(declaration: Mapping[str, Any], value: Any, place: Path) -> Output:
    """Write a value below `place` in the format that fits its type."""
    name = declaration["name"]
    kind = declaration.get("kind")
    if kind is not None and kind not in ENTITY_TYPES:
        raise OutputFault(
            "outputs/kind",
            f"Output {name!r} asks for kind {kind!r}, which is not known.",
            f"Use one of {', '.join(ENTITY_TYPES)}.",
        )
    stem = re.sub(r"[^a-zA-Z0-9._+-]+", "_", name).strip(".") or "output"
    natural, path, spec, status = _written(value, place / stem, forced=kind is not None)
    kind = kind or natural
    if kind != "table":
        spec = {}
    return Output(
        name=stem,
        entity_type=ENTITY_TYPES[kind],
        kind=kind,
        path=path,
        spec={**spec, **(declaration.get("spec_kwargs") or {})},
        status=status if kind == "table" else {},
    )


def _written(
    value: Any, stem: Path, *, forced: bool
) -> tuple[str, Path, dict[str, Any], dict[str, Any]]:
    """(kind, file, spec, status) of a value written at `stem` plus the format's suffix."""
    if forced and isinstance(value, str) and Path(value).exists():
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
        return "artifact", value.absolute(), {}, {}
    for base in type(value).__mro__:
        row = _FORMATS.get(f"{base.__module__.partition('.')[0]}.{base.__name__}")
        if row is None:
            continue
        kind, suffix, write = row
        path = stem.with_name(stem.name + suffix)
        if write(value, path) is False:
            continue
        if kind == "table":
            spec, status = _table(path)
            return kind, path, spec, status
        return kind, path, {}, {}
    fits, built = _as_json(value)
    if fits:
        path = stem.with_name(stem.name + ".json")
        path.write_text(json.dumps(built), "utf-8")
        return "artifact", path, {}, {}
    return "artifact", _pickle(value, stem), {}, {}


def _pickle(value: Any, stem: Path) -> Path:
    import cloudpickle

    logger.warning(
        "output %r is a %s, for which no format is known: it is stored as a pickle, which only "
        "Python code with the same class can read",
        stem.name,
        _class_name(value),
    )
    path = stem.with_name(stem.name + ".pickle")
    module = sys.modules.get(type(value).__module__)
    by_value = module is not None and getattr(module, "__digitalhub_run__", False)
    if by_value:
        # A class of the user's own file: whoever reads the pickle has no such module.
        cloudpickle.register_pickle_by_value(module)
    try:
        path.write_bytes(cloudpickle.dumps(value))
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)
    return path


def _class_name(value: Any) -> str:
    cls = type(value)
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


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
    if value.dtype.hasobject:
        return False  # .npy would hold a pickle inside; the row for anything else says so
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


def _table(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`schema` and `preview` of a parquet file, as the SDK writes them for its own tables."""
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
    if isinstance(value, float) and value != value:
        return None
    return value if value is None or type(value) in _SCALARS else str(value)
