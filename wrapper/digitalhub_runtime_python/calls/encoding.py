"""Values as bytes: text, JSON, the chunks of a stream, server-sent events."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec
import nuclio_sdk

from digitalhub_runtime_python.errors import OutputFault
from digitalhub_runtime_python.json_items import plain, root


def encode_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise OutputFault(
            "outputs/not-encodable",
            f"The function returned text that is not Unicode: {exc.reason} at {exc.start}.",
            "Decode bytes with errors='replace', or return them as bytes.",
        ) from exc


def encode_json(value: Any) -> bytes:
    """A value as JSON; NaN and infinities become strings, as Nuclio writes them.

    Raises:
        OutputFault: something in it has no JSON form; the message names its class.
    """
    try:
        raw = _encode(value)
        # msgspec writes them as null, silently; a null is rare enough to go and look.
        if b"null" in raw and has_nonfinite(value):
            raw = _encode(spelled(msgspec.to_builtins(value, str_keys=True, enc_hook=_item)))
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        try:
            return json.dumps(value, allow_nan=False).encode()  # integers of any size
        except (TypeError, ValueError, OverflowError, RecursionError):
            raise OutputFault(
                "outputs/not-encodable",
                f"The function returned a {type(value).__name__} that has no JSON form: {exc}.",
                "Return text, bytes, numbers, lists and dicts of those, or a Response.",
            ) from exc
    return raw


def _item(value: Any) -> Any:
    """msgspec's hook: frames as rows, and text for what has no value in JSON but is read by people."""
    if isinstance(value, complex):
        return str(value)
    if is_frame(value):
        return records(value)
    try:
        return plain(value)
    except TypeError:
        if root(value) == "pyarrow" and (hasattr(value, "to_pylist") or hasattr(value, "as_py")):
            return value.to_pylist() if hasattr(value, "to_pylist") else value.as_py()
        if root(value) in ("pandas", "polars", "pyarrow"):
            return str(value)
        raise


_encode = msgspec.json.Encoder(enc_hook=_item).encode


def has_nonfinite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(has_nonfinite(v) for v in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(has_nonfinite(v) for v in value)
    # A dataclass, an array: only its plain form tells.
    return value is not None and not isinstance(value, (str, int, bytes))


def spelled(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {k: spelled(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [spelled(v) for v in value]
    return value


def is_frame(value: Any) -> bool:
    """Whether a value is a frame or series of pandas, polars or pyarrow, one that is still to be read included."""
    known = root(value) in ("pandas", "polars", "pyarrow")
    return known and any(hasattr(value, name) for name in ("shape", "collect", "read_all"))


def records(value: Any) -> Any:
    """A frame as a list of objects, one per row; a series as a list."""
    if root(value) == "pandas" and not hasattr(value, "to_json"):  # an Index, a column's array
        return value.tolist()
    if root(value) == "pandas":
        try:
            return json.loads(value.to_json(orient="records", date_format="iso"))
        except (
            ValueError,
            OverflowError,
        ):  # periods, and what else pandas, old or new, has no JSON for
            return _rows(value)
    if root(value) == "polars":
        value = value.collect() if hasattr(value, "collect") else value
        return value.to_dicts() if hasattr(value, "to_dicts") else value.to_list()
    value = value.read_all() if hasattr(value, "read_all") else value
    return value.to_pylist() if hasattr(value, "to_pylist") else str(value)


def _rows(value: Any) -> Any:
    """A pandas frame or series by its items, each of which has the JSON that it has elsewhere."""
    if value.ndim == 1:
        return value.tolist()
    names = [str(name) for name in value.columns]
    if len(set(names)) < len(names):
        raise ValueError("two of its columns have one name")
    return [dict(zip(names, row)) for row in value.itertuples(index=False, name=None)]


def encode_chunk(chunk: Any) -> bytes:
    """A chunk of a stream: text and bytes as they are, anything else as a line of JSON."""
    if isinstance(chunk, nuclio_sdk.Response):
        chunk = chunk.body
    if isinstance(chunk, str):
        return encode_text(chunk)
    if isinstance(chunk, (bytes, bytearray, memoryview)):
        return bytes(chunk)
    if isinstance(chunk, (int, float)):
        return str(chunk).encode()
    return encode_json(chunk) + b"\n"


def encode_event(chunk: Any) -> bytes:
    """A chunk as a server-sent event.

    Bytes, and text that already ends with an empty line, go as they are. A dict of `data` and any
    of `event`, `id` and `retry` is one event with those fields; anything else is its data.
    """
    if isinstance(chunk, nuclio_sdk.Response):
        chunk = chunk.body
    if isinstance(chunk, (bytes, bytearray, memoryview)):
        return bytes(chunk)
    if isinstance(chunk, str) and chunk.endswith("\n\n"):
        return encode_text(chunk)
    fields: dict[str, Any] = {"data": chunk}
    if isinstance(chunk, dict) and "data" in chunk and chunk.keys() <= _EVENT_FIELDS:
        fields = chunk
    lines: list[str] = []
    for name, value in fields.items():
        text = value if isinstance(value, str) else encode_json(value).decode()
        # A line break would end the field, and whoever wrote the value could add fields of their own.
        parts = re.split("\r\n|\r|\n", text)
        lines += [f"{name}: {part}" for part in (parts if name == "data" else parts[:1])]
    return encode_text("\n".join(lines) + "\n\n")


_EVENT_FIELDS = {"data", "event", "id", "retry"}
