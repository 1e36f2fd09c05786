"""Forms and file uploads: the parts of a multipart or urlencoded body."""

from __future__ import annotations

import io
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

import nuclio_sdk

MAX_PARTS = 1000


@dataclass
class Part:
    """One part of a form: a field, or a file where it has a filename."""

    name: str
    body: bytes = field(repr=False)
    filename: str = ""
    content_type: str = ""

    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def file(self) -> io.BytesIO:
        """The body as a file to read, for libraries that take one."""
        return io.BytesIO(self.body)


def parse(content_type: str, raw: bytes) -> list[Part]:
    """The parts of a form; none for a body that is not a form.

    Raises:
        nuclio_sdk.ExceptionWithResponse: the body is not what its content type says; answered with 400.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-www-form-urlencoded":
        pairs = urllib.parse.parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True)
        return [Part(name, value.encode()) for name, value in pairs]
    if media_type != "multipart/form-data":
        return []
    from python_multipart.multipart import parse_options_header

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise _refused("its content type names no boundary")
    return _multipart(boundary, raw)


def _multipart(boundary: bytes, raw: bytes) -> list[Part]:
    from python_multipart.exceptions import MultipartParseError
    from python_multipart.multipart import MultipartParser, parse_options_header

    parts: list[Part] = []
    headers: dict[str, bytes] = {}
    name, value, body = bytearray(), bytearray(), bytearray()
    ended: list[bool] = []

    def begin() -> None:
        headers.clear()
        body.clear()

    def end_header() -> None:
        headers[name.decode("latin-1").lower()] = bytes(value)
        name.clear()
        value.clear()

    def end_part() -> None:
        options = parse_options_header(headers.get("content-disposition", b""))[1]
        parts.append(
            Part(
                _text(options.get(b"name", b"")),
                bytes(body),
                _text(options.get(b"filename", b"")),
                headers.get("content-type", b"").decode("latin-1"),
            )
        )
        if len(parts) > MAX_PARTS:
            raise _refused(f"it has more than {MAX_PARTS} parts")

    callbacks: Any = {
        "on_part_begin": begin,
        "on_header_field": lambda data, start, end: name.extend(data[start:end]),
        "on_header_value": lambda data, start, end: value.extend(data[start:end]),
        "on_header_end": end_header,
        "on_part_data": lambda data, start, end: body.extend(data[start:end]),
        "on_part_end": end_part,
        "on_end": lambda: ended.append(True),
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(raw)
        parser.finalize()
    except MultipartParseError as exc:
        raise _refused(str(exc)) from exc
    if not ended:
        raise _refused("it ends before its last boundary")
    return parts


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _refused(why: str) -> Exception:
    error: Exception = nuclio_sdk.ExceptionWithResponse(
        400, f"The body is not a multipart form: {why}.\n"
    )
    return error
