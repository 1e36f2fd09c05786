"""Returned values that are a document of their own: images, figures, files, and frames in the form a client asks for.

`replaced` is read first. Libraries are known by their classes' names: nothing is imported that the user
did not import, but what writes the form that was asked for.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

import nuclio_sdk

from digitalhub_runtime_python.errors import OutputFault

JSON = "application/json"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"
_BYTES = "application/octet-stream"
_FILESTREAM = "X-nuclio-filestream-path"
# The first bytes of what is often written into a buffer that has no name.
_SIGNS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"), (b"%PDF-", "application/pdf"), (b"PAR1", PARQUET), (b"PK\x03\x04", "application/zip"),
)  # fmt: skip


class Form(NamedTuple):
    """A media type that a value can be sent as."""

    media_type: str
    write: Callable[[Any], bytes] | None
    """None: the way that it is encoded anyway."""
    needs: str = ""
    """The module that has to be installed for it."""


def replaced(value: Any, accept: str, *, whole: bool = False) -> Any:
    """A returned value, or a Response with the document that it is; also within a Response or `(status, value)`.

    Args:
        accept: the request's `Accept`; empty for none.
        whole: read files now, where nothing streams them.

    Raises:
        OutputFault: a file object is closed, or the value cannot be written in that form.
    """
    if isinstance(value, nuclio_sdk.Response):
        # As replies read it: a header goes before the type that a Response has by default.
        headers = {str(name).lower(): text for name, text in (value.headers or {}).items()}
        kind = value.content_type
        if kind in (None, "", "text/plain"):
            kind = headers.get("content-type")
        own = isinstance(kind, str) and kind not in ("", "text/plain")
        made = _document(value.body, kind if own else accept, whole, own)
        if made is None:
            return value
        headers = {**(made.headers or {}), **(value.headers or {})}
        content_type = kind if own else made.content_type
        status = made.status_code if made.status_code == 406 else value.status_code
        return nuclio_sdk.Response(headers, made.body, content_type, status)
    if type(value) is tuple and len(value) == 2 and type(value[0]) is int:
        made = _document(value[1], accept, whole, False) if 200 <= value[0] <= 599 else None
        if made is None:
            return value
        if made.status_code != 406:
            made.status_code = value[0]
        return made  # not within a tuple: whoever streams files looks at Responses alone
    made = _document(value, accept, whole, False)
    return value if made is None else made


def preferred(accept: str, offered: Sequence[str]) -> str | None:
    """The media type that fits an `Accept` header best, by RFC 9110, 12.5.1; None where it takes none of them.

    Of those that it takes equally the first one offered.
    """
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    if not ranges:
        return offered[0]
    quality = {one: max((r for r in ranges if _fits(r[0], one)), key=lambda r: r[1], default=("", 0, 0.0))[2] for one in offered}  # fmt: skip
    best = max(quality.values())
    return next(one for one in offered if quality[one] == best) if best > 0 else None


def _range(part: str) -> tuple[str, int, float]:
    """(media range, how exact it is, quality)."""
    name, *parameters = (word.strip() for word in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, text = parameter.partition("=")
        if key.strip().lower() == "q":
            try:
                quality = min(max(float(text.strip()), 0.0), 1.0)
            except ValueError:
                quality = 0.0
    name = name.lower()
    return name, 0 if name in ("*/*", "*") else 1 if name.endswith("/*") else 2, quality


def _fits(wanted: str, offered: str) -> bool:
    if wanted in ("*/*", "*", offered) or offered in _ALIASES.get(wanted, ()):
        return True
    return wanted.endswith("/*") and offered.startswith(wanted[:-1])


def _document(value: Any, accept: str, whole: bool, given: bool) -> Any:
    """The Response for a value that is a document, None for all others.

    Args:
        given: `accept` is the type that the function gave itself: what fits nothing is then its own affair.
    """
    if isinstance(value, os.PathLike):
        return _file(Path(value), whole)
    if isinstance(value, io.IOBase) or type(value).__name__ in ("_TemporaryFileWrapper", "SpooledTemporaryFile"):  # fmt: skip
        return _stream(value, whole)
    forms = _forms(value)
    if not forms:
        return None
    forms = [form for form in forms if not form.needs or form.needs in sys.modules or importlib.util.find_spec(form.needs)]  # fmt: skip
    offered = [form.media_type for form in forms]
    chosen = preferred(accept, offered)
    if chosen is None and given:
        chosen = offered[0]
    if chosen is None:
        text = f"The function returned a {type(value).__name__}, which can be sent as {', '.join(offered)}; the request accepts {accept[:200]}.\n"
        return nuclio_sdk.Response({"Vary": "Accept"}, text, "text/plain", 406)
    form = forms[offered.index(chosen)]
    headers = {"Vary": "Accept"} if len(forms) > 1 else {}
    if form.write is None:
        return nuclio_sdk.Response(headers, value, "text/plain", 200) if headers and not given else None  # fmt: skip
    try:
        return nuclio_sdk.Response(headers, form.write(value), chosen, 200)
    except Exception as exc:
        raise OutputFault(
            "outputs/not-encodable",
            f"The function returned a {type(value).__name__} that cannot be sent as {chosen}: {exc}.",
            "Ask for another type with the header Accept, or return something that it can hold.",
        ) from exc


def _file(path: Path, whole: bool) -> Any:
    if not path.is_file():
        return None
    kind = _named(path.name)
    if whole:
        return nuclio_sdk.Response({}, path.read_bytes(), kind, 200)
    return nuclio_sdk.Response({_FILESTREAM: str(path)}, None, kind, 200)


def _stream(value: Any, whole: bool) -> Any:
    """What a file object holds, from its beginning where it has one; a file with a name is that file."""
    named = getattr(value, "name", None)
    if value.closed and not (isinstance(named, (str, os.PathLike)) and Path(named).is_file()):
        raise OutputFault(
            "outputs/not-encodable",
            "The function returned a file object that is closed.",
            "Return it open, or what it holds.",
        )
    if type(value).__module__ == "gzip" and getattr(value, "writable", _yes)():
        value.close()  # the end of a .gz is written by that alone
    if not value.closed and getattr(value, "writable", _yes)():
        value.flush()
    if isinstance(named, (str, os.PathLike)) and Path(named).is_file():
        # Its name may go with the object, which nobody keeps while it is sent.
        found = _file(Path(named), whole or type(value).__name__ == "_TemporaryFileWrapper")
        value.close()
        return found
    if getattr(value, "seekable", _yes)():
        value.seek(0)
    data = value.read()
    value.close()
    if isinstance(data, str):
        return nuclio_sdk.Response({}, data.encode("utf-8", "surrogatepass"), "text/plain; charset=utf-8", 200)  # fmt: skip
    kind = next((kind for sign, kind in _SIGNS if data.startswith(sign)), _BYTES)
    return nuclio_sdk.Response({}, data, kind, 200)


def _yes() -> bool:
    """Before Python 3.11 a SpooledTemporaryFile does not say that it can be written and sought in."""
    return True


def _named(name: str) -> str:
    """The type of a file of that name; text is sent as UTF-8, what is compressed as it is."""
    import mimetypes  # here: most services send no file

    kind, compression = mimetypes.guess_type(name)
    if compression:
        return "application/gzip" if compression == "gzip" else _BYTES
    if kind is None:
        return PARQUET if name.endswith(".parquet") else _BYTES
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


# --- what each class can be sent as ------------------------------------------------------------


def types_of(cls: Any) -> list[str]:
    """The media types that a value of this class can be sent as; none where it is no document."""
    return [form.media_type for form in _class_forms(cls)] if isinstance(cls, type) else []


def _forms(value: Any) -> Sequence[Form]:
    return _class_forms(type(value))


def _class_forms(of: type) -> Sequence[Form]:
    for cls in of.__mro__:
        name = f"{str(cls.__module__).partition('.')[0]}.{cls.__name__}"
        if name in _FORMS:
            return _FORMS[name]
    return ()


def _image(kind: str) -> Callable[[Any], bytes]:
    def write(value: Any) -> bytes:
        held = ("L", "RGB", "CMYK") if kind == "JPEG" else ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")  # fmt: skip
        frames = {"save_all": True} if getattr(value, "n_frames", 1) > 1 and kind != "JPEG" else {}
        buffer = io.BytesIO()
        (value if value.mode in held else value.convert("RGB")).save(buffer, format=kind, **frames)
        return buffer.getvalue()

    return write


def _figure(kind: str) -> Callable[[Any], bytes]:
    def write(value: Any) -> bytes:
        buffer = io.BytesIO()
        figure = (
            value if hasattr(value, "savefig") else value.figure
        )  # what frame.plot() returns is Axes
        figure.savefig(buffer, format=kind, bbox_inches="tight")
        return buffer.getvalue()

    return write


def _csv(value: Any) -> bytes:
    if type(value).__module__.startswith("pandas"):
        frame = value.to_frame() if value.ndim == 1 else value
        # An index that only counts the rows is left out, as in Parquet.
        counted = type(frame.index).__name__ == "RangeIndex" and frame.index.name is None
        return str(frame.to_csv(index=not counted)).encode()
    if type(value).__module__.startswith("polars"):
        return str(_polars(value).write_csv()).encode()
    import pyarrow.csv

    buffer = io.BytesIO()
    pyarrow.csv.write_csv(_arrow(value), buffer)
    return buffer.getvalue()


def _parquet(value: Any) -> bytes:
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(_arrow(value), buffer)
    return buffer.getvalue()


def _arrow_stream(value: Any) -> bytes:
    import pyarrow

    table = _arrow(value)
    buffer = io.BytesIO()
    with pyarrow.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def _arrow(value: Any) -> Any:
    import pyarrow

    if type(value).__module__.startswith("pandas"):
        frame = value.to_frame() if value.ndim == 1 else value
        return pyarrow.Table.from_pandas(frame, preserve_index=None)
    if type(value).__module__.startswith("polars"):
        return _polars(value).to_arrow()
    if hasattr(value, "read_all"):
        return value.read_all()
    return value if hasattr(value, "to_batches") else pyarrow.Table.from_batches([value])


def _polars(value: Any) -> Any:
    value = value.collect() if hasattr(value, "collect") else value
    return value if hasattr(value, "write_csv") else value.to_frame()


def _npy(value: Any) -> bytes:
    if value.dtype.hasobject:
        raise TypeError("its items are Python objects")
    buffer = io.BytesIO()
    sys.modules["numpy"].save(buffer, value, allow_pickle=False)
    return buffer.getvalue()


_FRAME = (
    Form(JSON, None), Form("text/csv", _csv), Form(PARQUET, _parquet, "pyarrow"), Form(ARROW, _arrow_stream, "pyarrow"),
)  # fmt: skip
_FORMS: dict[str, tuple[Form, ...]] = {
    **dict.fromkeys(
        ("pandas.DataFrame", "pandas.Series", "polars.DataFrame", "polars.LazyFrame", "polars.Series",
         "pyarrow.Table", "pyarrow.RecordBatch", "pyarrow.RecordBatchReader"), _FRAME,
    ),
    "numpy.ndarray": (Form(JSON, None), Form("application/x-npy", _npy)),
    "PIL.Image": (Form("image/png", _image("PNG")), Form("image/jpeg", _image("JPEG")), Form("image/webp", _image("WEBP"))),
    **dict.fromkeys(("matplotlib.Figure", "matplotlib.Axes"), (Form("image/png", _figure("png")), Form("image/svg+xml", _figure("svg")), Form("application/pdf", _figure("pdf")))),
    "plotly.BaseFigure": (Form("text/html", lambda value: str(value.to_html()).encode()), Form(JSON, lambda value: str(value.to_json()).encode())),
}  # fmt: skip
_ALIASES = {
    "application/parquet": (PARQUET,), "application/x-parquet": (PARQUET,),
    "application/vnd.apache.arrow": (ARROW,), "application/arrow": (ARROW,), "application/x-npy": ("application/x-npy",),
    "image/jpg": ("image/jpeg",), "text/json": (JSON,),
}  # fmt: skip
