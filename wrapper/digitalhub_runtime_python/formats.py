"""The formats of returned values: which have a JSON form, and what the others are written as."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import GeneratorType
from typing import Any, Callable, NamedTuple

from digitalhub_runtime_python import folders, isolation, tables
from digitalhub_runtime_python.errors import Fault
from digitalhub_runtime_python.json_items import from_numpy, plain, root
from digitalhub_runtime_python.nesting import RESULT, is_deep, may_be_deep

logger = logging.getLogger(__name__)


# --- JSON --------------------------------------------------------------------------------------


class JsonForm(NamedTuple):
    """A value as JSON."""

    text: str

    @property
    def value(self) -> Any:
        """As a reader of the text gets it."""
        return json.loads(self.text)

    @property
    def is_deep(self) -> bool:
        """Whether it is nested so deeply that a platform may not take it within a run."""
        return may_be_deep(self.text, RESULT) and is_deep(self.value, RESULT)

    @property
    def is_container(self) -> bool:
        return self.text[0] in "[{"


def json_form(value: Any) -> JsonForm | None:
    """The JSON form of a value that has one of its own, None for all others."""
    if root(value) == "numpy" and getattr(value, "shape", None) == ():
        value = from_numpy(value)
    if type(value).__name__ in ("NaTType", "NAType") and root(value) == "pandas":
        value = None
    if value is None or type(value) in _SCALARS:
        return JsonForm(json.dumps(value))
    try:
        if isinstance(value, type):
            return None
        if hasattr(value, "model_dump") and "pydantic" in sys.modules:
            built = value.model_dump(mode="json")
        elif isinstance(value, _json_types()) or dataclasses.is_dataclass(value):
            import msgspec  # only here: a run that returns a number does without

            built = msgspec.to_builtins(value, str_keys=True, enc_hook=plain)
            if _lost_keys(value, built):
                return None
        else:
            return None
        # json, not msgspec: msgspec writes NaN as null, and a NaN must come back as NaN.
        return JsonForm(json.dumps(built))
    except Exception:  # noqa: BLE001 - something in it has no JSON form, so the whole has none
        logger.debug("no JSON form for %s", class_name(value), exc_info=True)
        return None


_SCALARS = {str, bool, int, float}


def _lost_keys(value: Any, built: Any) -> bool:
    """Whether two keys of a dict are one in JSON: 1 and "1"."""
    if isinstance(value, dict):
        if len(value) != len(built):
            return True
        return any(_lost_keys(v, b) for v, b in zip(value.values(), built.values()))
    if isinstance(value, (list, tuple)) and isinstance(built, list):
        return any(_lost_keys(v, b) for v, b in zip(value, built))
    return False


def _json_types() -> tuple[type, ...]:
    import datetime
    import decimal
    import enum
    import uuid

    return (
        dict, list, tuple, str, int, float, decimal.Decimal, datetime.date, datetime.time,
        datetime.timedelta, uuid.UUID, enum.Enum,
    )  # fmt: skip


# --- files -------------------------------------------------------------------------------------


def write(
    value: Any, stem: Path, kind: str | None = None, form: JsonForm | None = None
) -> tuple[str, Path]:
    """(the kind that fits it, the file or folder) of a value written at `stem` plus a suffix.

    Args:
        stem: where it goes, `RUN/outputs/0/name`.
        kind: what is declared; a value that is no such thing is made one where that can be done.
        form: the value's JSON, where it is known.

    Raises:
        OutputFault: outputs/no-file and outputs/folder, of a path.
        Exception: whatever the library raises that writes it.
    """
    if kind is not None and isinstance(value, str) and _exists(value):
        value = Path(
            value
        )  # a declared kind takes the path of what it stores, as the SDK's log_* do
    if kind == "table" and isinstance(value, (list, dict)) and not _is_list_of_paths(value):
        value = tables.table_of(value)
    return _write(value, stem, stem.parent.parent.parent, form)


def _write(value: Any, stem: Path, own: Path, form: JsonForm | None = None) -> tuple[str, Path]:
    if isinstance(value, os.PathLike):
        return "artifact", folders.plain(Path(value), stem.name, stem.parent, own)
    if _is_several(value):
        return "artifact", _write_each(value, stem, own)
    why = "for which no format is known"
    for natural, suffix, write_it in _rows(value):
        path = stem.with_name(stem.name + suffix)
        written = write_it(value, path)
        if isinstance(written, Path):  # it lies in a file of its own
            return natural, folders.plain(written, stem.name, stem.parent, own)
        if written is None:
            return natural, path
        why = written
    if form is None:
        form = json_form(value)
    if form is not None:
        path = stem.with_name(stem.name + ".json")
        path.write_text(form.text, "utf-8")
        return "artifact", path
    return "artifact", _pickle(value, stem, why)


def _is_several(value: Any, depth: int = 0) -> bool:
    """Whether a list or dict holds files, images, figures or frames, and else nothing that has no JSON form."""
    if type(value) not in (list, tuple, dict) or depth > 10:
        return False
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        return False
    items = value.values() if isinstance(value, dict) else value
    # Numbers and text first: there may be a million of them.
    own = [
        type(item) not in _SCALARS and (_has_file(item) or _is_several(item, depth + 1))
        for item in items
    ]
    return any(own) and all(is_own or json_form(item) for is_own, item in zip(own, items))


def _items(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else dict(enumerate(value))


def _has_file(value: Any) -> bool:
    """Whether a value is a file, or is written as one that people open."""
    writers = {row[2] for row in _rows(value)} - {_write_text, _write_bytes, _write_numpy}
    return bool(writers) or isinstance(value, os.PathLike)


def _write_each(value: Any, stem: Path, own: Path) -> Path:
    """A folder of what the items are written as: `0.png`, `1.png`, or by their keys; a file under its own name."""
    written, names = [], []
    for index, (key, item) in enumerate(_items(value).items()):
        name = file_name(str(key))
        place = stem.with_name(f"{stem.name}.items") / str(index)
        place.mkdir(parents=True)
        try:
            written.append(_write(item, place / name, own)[1])
        except Fault:
            raise
        except Exception as exc:
            raise ValueError(f"item {key!r} ({class_name(item)}): {exc}") from exc
        names.append(name)
    # The name in a dict is the key's; a list has none, so a file's own is kept.
    return folders.gathered(
        written, stem.name, stem.parent, own, names if isinstance(value, dict) else ()
    )


def file_name(name: str) -> str:
    """A name as one that every file system and store takes."""
    return re.sub(r"[^a-zA-Z0-9._+-]+", "_", name).strip(".")[:200] or "output"


def release(value: Any) -> None:
    """Close what was stored: a file object, a temporary folder, also in a list. The process's own streams stay open."""
    if _is_several(value):
        for item in _items(value).values():
            release(item)
        return
    writers = {row[2] for row in _rows(value)}
    try:
        if _write_folder in writers:
            value.cleanup()
        elif _write_stream in writers and value not in (sys.stdin, sys.stdout, sys.stderr):
            value.close()
    except Exception as exc:  # noqa: BLE001 - it is stored; its close is the class's own affair
        logger.warning("a returned %s was stored and cannot be closed: %s", class_name(value), exc)


def listed(value: Any) -> Any:
    """A generator, or another value that can be read and not stored, as the list of its items."""
    return list(value) if isinstance(value, _ITERATORS) else value


_ITERATORS: tuple[type[Iterable[Any]], ...] = (
    GeneratorType, map, filter, zip, enumerate, reversed, range, itertools.chain, itertools.islice,
    type(iter([])), type(iter(())), type(reversed([])),
    type({}.keys()), type({}.values()), type({}.items()),
)  # fmt: skip


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


def _is_list_of_paths(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    return is_list and all(isinstance(v, os.PathLike) for v in value)


_PICKLING = threading.Lock()


def _pickle(value: Any, stem: Path, why: str) -> Path:
    import cloudpickle

    logger.warning(
        "output %r is a %s, %s: it is stored as a pickle, which only Python code with the same "
        "packages can read",
        stem.name,
        class_name(value),
        why,
    )
    path = stem.with_name(stem.name + ".pickle")
    with _PICKLING:  # cloudpickle's list of modules is the whole process's
        # By value: whoever reads the pickle has no module of the user's code.
        own = [m for m in isolation.own_modules() if m.__name__ in sys.modules]
        for module in own:
            cloudpickle.register_pickle_by_value(module)
        try:
            with path.open("wb") as file:
                cloudpickle.dump(tables.picklable(value), file)
        finally:
            for module in own:
                cloudpickle.unregister_pickle_by_value(module)
    return path


def _rows(value: Any) -> Iterable[tuple[str, str, Callable[[Any, Path], Any]]]:
    """The rows of `_FORMATS` for a value, those of its own class first."""
    names = (f"{str(c.__module__).partition('.')[0]}.{c.__name__}" for c in type(value).__mro__)
    return (_FORMATS[name] for name in names if name in _FORMATS)


def _write_bytes(value: Any, path: Path) -> None:
    path.write_bytes(value if getattr(value, "contiguous", True) else bytes(value))


def _write_text(value: str, path: Path) -> str | None:
    try:
        path.write_bytes(value.encode())  # as it is: no line ending is translated
    except UnicodeEncodeError:
        return "which is not Unicode"  # JSON escapes a half of a character
    return None


def _write_numpy(value: Any, path: Path) -> str | None:
    if value.dtype.hasobject:
        return "of objects, which .npy would hold as a pickle inside"
    if hasattr(value, "mask"):
        return "whose mask .npy would lose"
    with path.open("wb") as file:
        sys.modules["numpy"].save(file, value, allow_pickle=False)
    return None


def _write_stream(value: Any, path: Path) -> Path | str | None:
    """What a file object holds; where it is a file with a name, that file."""
    named = getattr(value, "name", None)
    if type(value).__module__ == "gzip":
        value.close()  # the end of a .gz is written by that alone
    elif not value.closed:
        value.flush()
    if isinstance(named, (str, os.PathLike)) and Path(named).exists():
        return Path(named)
    if value.closed:
        raise ValueError("it was closed before the function returned, and what it held is gone")
    if getattr(
        value, "seekable", lambda: True
    )():  # before 3.11 a SpooledTemporaryFile does not say
        value.seek(0)
    import shutil

    if isinstance(value.read(0), str):
        with path.open("w", encoding="utf-8", newline="") as text:
            shutil.copyfileobj(value, text)
    else:
        with path.open("wb") as file:
            shutil.copyfileobj(value, file)
    return None


def _write_archive(value: Any, path: Path) -> Path | str:
    """The file of a ZipFile or TarFile; its table of contents is written when it is closed."""
    named = getattr(value, "filename", None) or getattr(value, "name", None)
    if named is None or not Path(named).is_file():
        return "without a file of its own"
    value.close()
    return Path(named)


def _write_folder(value: Any, path: Path) -> Path:
    return Path(value.name)  # a TemporaryDirectory


def _write_figure(value: Any, path: Path) -> None:
    figure = (
        value if hasattr(value, "savefig") else value.figure
    )  # what frame.plot() returns is Axes
    figure.savefig(path, format="png", bbox_inches="tight")


def _write_plotly(value: Any, path: Path) -> None:
    value.write_html(path)


def _write_image(value: Any, path: Path) -> str | None:
    if value.mode == "F":
        return "of floats, which .png would round"
    held = value.mode in ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
    frames = getattr(value, "n_frames", 1) > 1
    (value if held else value.convert("RGB")).save(path, format="PNG", save_all=frames)
    return None


# package.Class, looked up along the value's bases -> (kind, suffix, writer). Names, so that nothing
# is imported that the user did not import. A writer returns None, or the path where the value lies,
# or why it cannot write the value, which is then passed on.
_FORMATS: dict[str, tuple[str, str, Callable[[Any, Path], Any]]] = {
    "pandas.DataFrame": ("table", ".parquet", tables.write_pandas),
    "pandas.Series": ("table", ".parquet", tables.write_pandas),
    "polars.DataFrame": ("table", ".parquet", tables.write_polars),
    "polars.LazyFrame": ("table", ".parquet", tables.write_polars),
    "polars.Series": ("table", ".parquet", tables.write_polars),
    "pyarrow.Table": ("table", ".parquet", tables.write_arrow),
    "pyarrow.RecordBatch": ("table", ".parquet", tables.write_arrow),
    "pyarrow.RecordBatchReader": ("table", ".parquet", tables.write_arrow),
    "numpy.ndarray": ("artifact", ".npy", _write_numpy),
    "matplotlib.Figure": ("artifact", ".png", _write_figure),
    "matplotlib.Axes": ("artifact", ".png", _write_figure),
    "plotly.BaseFigure": ("artifact", ".html", _write_plotly),
    "PIL.Image": ("artifact", ".png", _write_image),
    "builtins.str": ("artifact", ".txt", _write_text),
    "builtins.bytes": ("artifact", "", _write_bytes),
    "builtins.bytearray": ("artifact", "", _write_bytes),
    "builtins.memoryview": ("artifact", "", _write_bytes),
    "_io._IOBase": ("artifact", "", _write_stream),
    "tempfile._TemporaryFileWrapper": ("artifact", "", _write_stream),
    "tempfile.SpooledTemporaryFile": ("artifact", "", _write_stream),
    "zipfile.ZipFile": ("artifact", "", _write_archive),
    "tarfile.TarFile": ("artifact", "", _write_archive),
    "tempfile.TemporaryDirectory": ("artifact", "", _write_folder),
}
