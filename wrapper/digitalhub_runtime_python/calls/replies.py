"""Turns what a handler returned into a response: docs/reference/serving.md is this file's table."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable

import nuclio_sdk

from digitalhub_runtime_python.calls import problems
from digitalhub_runtime_python.calls.encoding import (
    encode_chunk,
    encode_event,
    encode_json,
    encode_text,
    is_frame,
    records,
)
from digitalhub_runtime_python.errors import OutputFault
from digitalhub_runtime_python.json_items import root

JSON = "application/json"
TEXT = "text/plain"


class Reply:
    """A response: complete with `body`, or the start of one whose chunks `stream` gives."""

    __slots__ = ("body", "encode", "headers", "status", "stream")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.stream: Any = None
        """An iterator or async iterator of raw chunks; `body` is then the first of them, encoded."""
        self.encode: Callable[[Any], bytes] = encode_chunk


def to_reply(value: Any, event_id: Callable[[], str]) -> Reply:
    """The response for a value; `event_id` says which of a batch of responses is meant.

    Raises:
        OutputFault: the value, or a header, cannot be sent.
    """
    convert = _BY_TYPE.get(type(value))
    if convert is not None:
        return convert(value)
    if isinstance(value, list):
        return _list(value, event_id)
    for base, convert in _BY_BASE:
        if isinstance(value, base):
            return convert(value)
    return _other(value)


def problem_reply(status: int, detail: str, **more: Any) -> Reply:
    body = problems.problem(status, detail, **more)
    return Reply(status, _head(problems.CONTENT_TYPE, body), body)


def is_stream(value: Any) -> bool:
    """Whether a value, or the body of a Response, is a generator."""
    if isinstance(value, nuclio_sdk.Response):
        value = value.body
    return inspect.isgenerator(value) or inspect.isasyncgen(value)


# --- one converter per row of the table --------------------------------------------------------


def _head(content_type: bytes, body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]


def _none(value: None) -> Reply:
    return Reply(204, [])


def _text(value: str) -> Reply:
    body = encode_text(value)
    return Reply(200, _head(_text_type(value), body), body)


def _text_type(value: str) -> bytes:
    # Without a charset clients read text/plain as Latin-1; plain ASCII stays as Nuclio sends it.
    return b"text/plain" if value.isascii() else b"text/plain; charset=utf-8"


def _bytes(value: Any) -> Reply:
    body = bytes(value)
    return Reply(200, _head(b"text/plain", body), body)


def _number(value: Any) -> Reply:
    body = str(value).encode()
    return Reply(200, _head(b"text/plain", body), body)


def _json(value: Any) -> Reply:
    body = encode_json(value)
    return Reply(200, _head(b"application/json", body), body)


def _list(value: list[Any], event_id: Callable[[], str]) -> Reply:
    """A JSON array, or, where its elements are Responses, the one for this event."""
    if not value or not all(isinstance(item, nuclio_sdk.Response) for item in value):
        return _json(value)
    wanted = event_id()
    for response in value:
        if response.event_id == wanted or (len(value) == 1 and response.event_id is None):
            return _response(response)
    raise OutputFault(
        "outputs/no-response",
        f"The function returned {len(value)} Responses, and none has this event's id.",
        "Set event_id=event.id on each Response of a batch.",
    )


def _tuple(value: tuple[Any, ...]) -> Reply:
    """`(status, body)`; any other tuple is a JSON array."""
    if len(value) != 2 or type(value[0]) is bool or not isinstance(value[0], int):
        return _json(value)
    status, body = int(value[0]), value[1]
    if not 200 <= status <= 599 or hasattr(value, "_fields"):
        return _json(value)
    if isinstance(body, nuclio_sdk.Response):
        reply = _response(body)
    elif body is None or isinstance(body, (int, float, list)):
        reply = _json(body)
    else:
        reply = to_reply(body, str)
    return _with_status(reply, status)


def _response(response: Any) -> Reply:
    body, content_type = response.body, response.content_type or TEXT
    if isinstance(body, dict):
        content_type = content_type if "json" in content_type else JSON
        raw = encode_json(body)
    elif isinstance(body, (str, bytes, bytearray, memoryview)):
        raw = encode_text(body) if isinstance(body, str) else bytes(body)
        if isinstance(body, str) and content_type == TEXT:
            content_type = _text_type(body).decode()
    elif body is None:
        raw = b""
    else:
        inner = _json(body) if isinstance(body, tuple) else to_reply(body, str)
        raw = inner.body
        if content_type == TEXT:
            content_type = dict(inner.headers).get(b"content-type", b"text/plain").decode()
    headers = _response_headers(response.headers or {}, content_type)
    headers.append((b"content-length", b"%d" % len(raw)))
    return _with_status(Reply(200, headers, raw), status_of(response.status_code))


def _with_status(reply: Reply, status: int) -> Reply:
    reply.status = status
    if status in (204, 304) and reply.stream is None:
        # These have no body, whatever was returned; one would be read as the next response.
        hidden = (b"content-type", b"content-length")
        reply.headers = [h for h in reply.headers if h[0] not in hidden]
        reply.body = b""
    return reply


def _other(value: Any) -> Reply:
    """JSON where there is a form for it, else the value's text."""
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise OutputFault(
            "outputs/stream",
            "The function returned a generator inside another value.",
            "Return the generator itself, or Response(body=generator).",
        )
    if is_frame(value):
        try:
            rows = records(value)  # once: what is still to be read is read once
        except ValueError as exc:
            raise OutputFault(
                "outputs/not-encodable",
                f"The function returned a {type(value).__name__} that has no JSON form: {exc}.",
                "Ask for text/csv with the header Accept, or return other columns.",
            ) from exc
        return _json(rows)
    if root(value) == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        if hasattr(value, "mask") or value.dtype.kind in "mM":
            return _json(value)
        return to_reply(value.item(), str)
    try:
        return _json(value)
    except OutputFault:
        return _text(str(value))


# --- headers -----------------------------------------------------------------------------------


_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# These are the server's: two lengths, or a length and chunks, would let one response hide another.
_OURS = (b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade")


def _response_headers(given: Any, content_type: str) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = []
    for name, value in given.items() if hasattr(given, "items") else given:
        for item in value if isinstance(value, (list, tuple)) else (value,):
            raw = _header(name, item)
            if raw[0] == b"content-type":
                # Nuclio drops it for text/plain; a type that was asked for goes before one that was not.
                content_type = raw[1].decode("latin-1") if content_type == TEXT else content_type
            elif raw[0] not in _OURS:
                headers.append(raw)
    headers.append(_header("content-type", content_type))
    return headers


def _header(name: Any, value: Any) -> tuple[bytes, bytes]:
    text = value if isinstance(value, (str, bytes)) else str(value)
    try:
        raw_name = (name if isinstance(name, bytes) else str(name).encode("ascii")).lower()
        raw = text if isinstance(text, bytes) else _latin_or_utf8(text)
    except UnicodeError:
        raw_name = raw = b""
    if not _NAME.fullmatch(raw_name) or _BAD_VALUE.search(raw):
        raise OutputFault(
            "outputs/header",
            f"The function returned a header {str(name)[:60]!r} that cannot be sent.",
            "Header names are ASCII without spaces; values have no line breaks.",
        )
    return raw_name, raw.strip()


def _latin_or_utf8(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def status_of(value: Any) -> int:
    """A Response's status_code as an int from 200 to 599; None is 200.

    Raises:
        OutputFault: it is not one.
    """
    try:
        status = 200 if value is None else int(value)
    except (TypeError, ValueError):
        status = 0
    if not 200 <= status <= 599:
        raise OutputFault(
            "outputs/status",
            f"The function returned the status {value!r}.",
            "Return an int from 200 to 599.",
        )
    return status


# --- streams -----------------------------------------------------------------------------------


def start_stream(first: Any, response: Any, events: bool) -> Reply:
    """The start of a streamed response, decided by its first chunk.

    Args:
        first: the first chunk; a Response sets status, headers and content type.
        response: the Response whose body the generator is, or None.
        events: the client asked for server-sent events.
    """
    if response is None and isinstance(first, nuclio_sdk.Response):
        response, first = first, first.body
    content_type = (response.content_type if response is not None else None) or TEXT
    headers = _response_headers(response.headers if response is not None else {}, content_type)
    content_type = headers[-1][1].decode("latin-1")
    if content_type == TEXT:
        if events:
            content_type = "text/event-stream"
        elif isinstance(first, (dict, list)):
            content_type = "application/x-ndjson"
        elif isinstance(first, str):
            content_type = "text/plain; charset=utf-8"
        headers[-1] = (b"content-type", content_type.encode("latin-1"))
    reply = Reply(status_of(response.status_code if response is not None else 200), headers)
    reply.encode = encode_chunk
    if content_type.startswith("text/event-stream"):
        reply.encode = encode_event
        # Proxies hold back what they may cache, or buffer it; either would stop the events.
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    reply.body = reply.encode(first) if first is not None else b""
    return reply


def file_chunks(path: Path, delete: bool) -> Iterable[bytes]:
    """A file's content; the file is removed at the end where `delete` is set."""
    try:
        with path.open("rb") as file:
            while chunk := file.read(256 * 1024):
                yield chunk
    finally:
        if delete:
            path.unlink(missing_ok=True)


_BY_TYPE: dict[type, Callable[[Any], Reply]] = {
    dict: _json,
    str: _text,
    bytes: _bytes,
    type(None): _none,
    int: _number,
    float: _number,
    bool: _number,
    tuple: _tuple,
    nuclio_sdk.Response: _response,
}
SIMPLE = {t: _BY_TYPE[t] for t in (dict, str, bytes, type(None), int, float, bool)}
"""Types of values that are a response whatever the function declares: most are one of these."""

_BY_BASE: tuple[tuple[Any, Callable[[Any], Reply]], ...] = (
    (nuclio_sdk.Response, _response),
    (dict, _json),
    (str, _text),
    ((bytes, bytearray, memoryview), _bytes),
    (tuple, _tuple),
)
