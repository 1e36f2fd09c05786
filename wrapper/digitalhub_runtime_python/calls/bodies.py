"""What a request brings for a function's arguments: its query, its form, its JSON, its files; or why it cannot be used."""

from __future__ import annotations

import base64
import collections
import datetime
import io
import typing
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from digitalhub_runtime_python import arguments
from digitalhub_runtime_python.calls.event import RequestEvent, own
from digitalhub_runtime_python.calls.multipart import Part

CLOUD_EVENT = "application/cloudevents+json"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class MalformedBody(Exception):
    """The body is not what the function's arguments are read from; `status` is the answer's."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class Given(NamedTuple):
    """Name -> value, lowest precedence first."""

    texts: arguments.Texts
    """Of the query and of a form."""
    files: arguments.Resolved
    fields: Mapping[str, Any]
    """Of a JSON object body."""


def prepare(event: RequestEvent, limit: int) -> None:
    """Undo what a body was packed in: gzip, deflate, a structured CloudEvent.

    Raises:
        MalformedBody: it is not what its headers say, or is over the limit when it is unpacked.
    """
    if encoding := event.encoding():
        event.unpack(_decoded(event._raw, encoding, limit))
    if event.media_type() == CLOUD_EVENT:
        _open_cloud_event(event)


def given(event: RequestEvent, hints: Mapping[str, Any], *, strict: bool) -> Given:
    """What a request brings for arguments by name.

    Args:
        hints: argument -> its hint, Any where it has none.
        strict: refuse a body that gives no arguments; the function has no event to see it in.
    """
    texts = _gathered(event.query_pairs(), hints)
    media_type = event.media_type()
    if (
        media_type in FORMS and event._raw.lstrip()[:1] != b"{"
    ):  # `curl -d '{…}'` calls everything a form
        parts = event.parts
        texts.update(_gathered([(p.name, p.text()) for p in parts if not p.filename], hints))
        files = _files([p for p in parts if p.filename], hints)
        return Given(arguments.Texts(texts), files, {})
    fields = json_fields(event, strict=strict)
    return Given(arguments.Texts(texts), arguments.Resolved(), fields)


def json_fields(event: RequestEvent, *, strict: bool) -> dict[str, Any]:
    """The fields of a JSON object body; none where there is no body, or the function sees the event."""
    body: Any = None
    raw = event._raw
    if not raw and type(own(event).get("body")) is dict:
        body = event.body  # the data of a structured CloudEvent that the processor took apart
    elif event.is_json():
        body = event.body  # the bytes, where they are not JSON
    elif event.media_type().endswith("+json") or raw.lstrip()[:1] == b"{":
        body = raw  # `curl -d '{…}'` calls everything a form
    elif raw and strict:
        said = event.media_type() or "no content type"
        raise MalformedBody(
            f"The body is {said}; the function's arguments are read from a JSON object "
            "(application/json) or a form (multipart/form-data, application/x-www-form-urlencoded).",
            415,
        )
    if isinstance(body, bytes) and body:
        try:
            body = event.json_body()
        except ValueError as exc:
            if strict:
                raise MalformedBody(f"The body is not JSON: {exc}.") from None
    if type(body) is dict:
        return body
    if strict and body is not None and body != b"":
        raise NoObject(_KINDS.get(type(body), "value"))
    if strict and raw.strip() == b"null":
        raise NoObject("null")
    return {}


class NoObject(Exception):
    """The body is JSON, and no object."""


_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean"}


def _gathered(pairs: list[tuple[str, str]], hints: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> its text, or its texts where the argument is a list, or where there are several."""
    found: dict[str, list[str]] = {}
    for name, text in pairs:
        found.setdefault(name, []).append(text)
    return {name: _one_or_list(texts, hints.get(name, Any)) for name, texts in found.items()}


def _one_or_list(texts: list[str], hint: Any) -> Any:
    if len(texts) > 1:
        return texts
    # A list of one; `ids=[1,2]` is read as JSON.
    return texts if takes_list(hint) and not texts[0].lstrip().startswith("[") else texts[0]


def takes_list(hint: Any) -> bool:
    """Whether an argument is a list: `List[int]`, `Optional[Set[str]]`, `Sequence[Path]`."""
    origin = typing.get_origin(hint) or hint
    if origin in _LISTS:
        return True
    is_choice = origin is typing.Union or getattr(origin, "__name__", "") in (
        "UnionType",
        "Annotated",
    )
    return is_choice and any(takes_list(part) for part in typing.get_args(hint))


_LISTS = frozenset(
    typing.get_origin(form) or form
    for form in (
        list, set, frozenset, tuple, typing.Sequence, typing.MutableSequence, typing.Collection,
        typing.Iterable, typing.AbstractSet, typing.MutableSet, collections.deque,
    )
)  # fmt: skip


# --- files ---------------------------------------------------------------------------------------


def _files(parts: list[Part], hints: Mapping[str, Any]) -> arguments.Resolved:
    found: dict[str, list[Any]] = {}
    for part in parts:
        found.setdefault(part.name, []).append(_file_as(part, hints.get(part.name, Any)))
    return arguments.Resolved(
        {n: v if takes_list(hints.get(n, Any)) or len(v) > 1 else v[0] for n, v in found.items()}
    )


def _file_as(part: Part, hint: Any) -> Any:
    """An uploaded file as the hint has it; a Part where it says nothing."""
    for wanted in arguments.parts_of(hint):
        if wanted in (Any, object, Part):
            return part
        if wanted in (bytes, bytearray, memoryview):
            return wanted(part.body)
        if wanted is str:
            return part.text()
        if wanted in (io.BytesIO, io.BufferedIOBase, typing.BinaryIO, typing.IO):
            return part.file
        if (
            f"{getattr(wanted, '__module__', '')}.{getattr(wanted, '__name__', '')}"
            == "PIL.Image.Image"
        ):
            return _image(part)
    from digitalhub_runtime_python.convert import type_name

    raise MalformedBody(
        f"The form's {part.name!r} is a file, and the argument expects {type_name(hint)}; a file is "
        "given to bytes, str, BinaryIO, PIL.Image.Image, and to an argument without a hint.",
        422,
    )


def _image(part: Part) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(part.file)
        image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as exc:
        raise MalformedBody(f"The form's {part.name!r} is not an image: {exc}.", 422) from exc
    return image


# --- what a body is packed in ----------------------------------------------------------------------


def _decoded(raw: bytes, encoding: str, limit: int) -> bytes:
    """A body without its content encodings, the outermost of which is last."""
    names = [name.strip().lower() for name in encoding.split(",") if name.strip()]
    for name in reversed(names):
        if name == "identity":
            continue
        if name not in ("gzip", "x-gzip", "deflate"):
            raise MalformedBody(
                f"The body's content encoding {name!r} is not known; use gzip or deflate.", 415
            )
        raw = _inflated(raw, name, limit)
    return raw


def _inflated(raw: bytes, name: str, limit: int) -> bytes:
    # "deflate" is zlib's format to the standard, and bare to some clients.
    forms = (15, -15) if name == "deflate" else (31,)
    for form in forms:
        try:
            return b"".join(_members(raw, form, limit))
        except zlib.error as exc:
            problem = exc
    raise MalformedBody(f"The body is not {name}: {problem}.")


def _members(raw: bytes, form: int, limit: int) -> Iterator[bytes]:
    left = limit
    while raw:
        decoder = zlib.decompressobj(form)
        part = decoder.decompress(raw, left + 1)
        left -= len(part)
        if left < 0:
            raise MalformedBody(f"The unpacked body is over the limit of {limit} bytes.", 413)
        if not decoder.eof:
            raise zlib.error("it is cut off")
        yield part
        raw = decoder.unused_data


def _open_cloud_event(event: RequestEvent) -> None:
    """Set body, id, type, source and time from a CloudEvent in structured mode."""
    if not event._raw:
        return
    try:
        found = event.json_body()
        if type(found) is not dict or not all(type(found.get(n)) is str for n in _REQUIRED):
            raise ValueError(f"it has no {', '.join(_REQUIRED)}")
        data = (
            base64.b64decode(found["data_base64"]) if "data_base64" in found else found.get("data")
        )
        moment = _moment(found["time"]) if "time" in found else None
    except (ValueError, TypeError) as exc:
        raise MalformedBody(f"The body is not a CloudEvent: {exc}.") from None
    event.open_envelope(found, data, moment)


_REQUIRED = ("specversion", "id", "type", "source")


def _moment(text: str) -> datetime.datetime:
    from digitalhub_runtime_python.hints.dates import moment_from

    moment = moment_from(text)
    if moment.tzinfo is not None:  # naive and UTC, as the SDK's own
        moment = moment.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return moment
