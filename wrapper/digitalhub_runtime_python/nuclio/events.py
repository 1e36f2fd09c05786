"""Reads what the processor sends: msgpack, its text decoded or raw, as the serving engine's events."""

from __future__ import annotations

import contextlib
import datetime
import random
import struct
from typing import Any

import msgspec
import nuclio_sdk

from digitalhub_runtime_python.calls.event import Headers, RequestEvent, own
from digitalhub_runtime_python.nesting import may_be_deep

_EPOCH = datetime.datetime(1970, 1, 1)
_triggers: dict[tuple[Any, Any], Any] = {}
_decode = msgspec.msgpack.Decoder().decode
_decode_json = msgspec.json.Decoder().decode


class ProcessorEvent(RequestEvent):
    """An event of any of the processor's triggers; in raw mode its texts are bytes.

    Args:
        data: what the processor sent, its keys as text.

    Raises:
        KeyError: it lacks what every event has.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        body, trigger = data.pop("body"), data.pop("trigger")
        mine = own(self)
        mine["_seconds"] = data.pop("timestamp", 0)
        mine["_headers"] = data.pop("headers", None)
        data.pop("content-type", None)  # the same as content_type
        mine.update(data)
        mine["trigger"] = _trigger(trigger)
        mine["fields"] = mine.get("fields") or {}
        mine["path"] = mine.get("path") or "/"
        if body is None or isinstance(body, bytes):
            mine["_raw"] = body or b""
        else:
            mine["_raw"], mine["body"] = b"", body  # the data of a structured CloudEvent

    def __getattr__(self, name: str) -> Any:
        if name == "headers":
            given = self._headers or {}
            value: Any = Headers(given) if not _is_raw(given) else given
        elif name == "timestamp":
            value = _EPOCH + datetime.timedelta(seconds=self._seconds)
        elif (
            name == "body"
            and self.content_type == "application/json"
            and not may_be_deep(self._raw)
        ):
            try:
                value = _decode_json(self._raw)  # what is usual, in a third of the time
            except (msgspec.DecodeError, UnicodeDecodeError):
                return super().__getattr__(name)
        elif name == "body" and _of_bytes(self.content_type):
            value = _raw_body(self)
        else:
            return super().__getattr__(name)
        own(self)[name] = value
        return value

    def is_json(self) -> bool:
        given: Any = self.content_type
        if given.__class__ is bytes:
            return given.partition(b";")[0].strip().lower() == b"application/json"
        return given is not None and super().is_json()

    def media_type(self) -> str:
        given: Any = self.content_type
        text = given.decode("latin-1") if given.__class__ is bytes else given or ""
        return str(text).partition(";")[0].strip().lower()

    def encoding(self) -> str:
        given = self._headers
        if not given or not self._raw or _is_raw(given):
            return ""
        return str(given.get("Content-Encoding") or "")

    def query_pairs(self) -> list[tuple[str, str]]:
        given = self.fields
        if not given or _is_raw(given):
            return []
        return [(str(name), str(value)) for name, value in given.items()]

    def accepts(self, media_type: str) -> bool:
        return not _is_raw(self._headers or {}) and super().accepts(media_type)


class Reader:
    """Reads events; remembers the last id, since some processors give all events of a worker one."""

    def __init__(self, decode_strings: bool) -> None:
        self._raw = not decode_strings
        self._last_id: Any = None

    def read(self, frame: bytes) -> Any:
        """An event, or a list of them for a batch.

        Raises:
            ValueError: the frame is not msgpack, or no event.
        """
        try:
            data = unpack(frame, None) if self._raw else _decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
            data = unpack(frame, "utf-8")  # msgspec takes valid UTF-8 only
        try:
            if data.__class__ is list:
                return [self._event(item) for item in data]
            event = self._event(data)
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise ValueError(f"the processor sent no event: {exc!r}") from exc
        if (
            event.id and event.id == self._last_id and not event.version
        ):  # a CloudEvent has its own, also again
            event.id = _new_id().encode() if self._raw else _new_id()
        else:
            self._last_id = event.id
        return event

    def _event(self, data: dict[Any, Any]) -> ProcessorEvent:
        if self._raw:
            data = {key.decode(): value for key, value in data.items()}
        return ProcessorEvent(data)


def _raw_body(event: ProcessorEvent) -> Any:
    if event._raw and event.is_json():
        with contextlib.suppress(ValueError):
            return event.json_body()
    return event._raw


def _of_bytes(value: Any) -> bool:
    return isinstance(value, bytes)


def _is_raw(mapping: dict[Any, Any]) -> bool:
    return next(iter(mapping), "").__class__ is bytes


def _trigger(data: dict[Any, Any]) -> Any:
    key = tuple(data.values())
    known = _triggers.get(key)
    if known is None:
        named = {k.decode() if isinstance(k, bytes) else k: v for k, v in data.items()}
        known = nuclio_sdk.TriggerInfo(named["kind"], named["name"])
        if len(_triggers) < 100:  # a CloudEvent's source is among them, and clients choose it
            _triggers[key] = known
    return known


def _new_id() -> str:
    # Not uuid.uuid4(): its random bytes are a system call for each event.
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def unpack(frame: bytes, text: str | None) -> Any:
    """One msgpack value, its strings as bytes (text=None) or as text.

    What is not UTF-8 becomes text as HTTP has it, Latin-1.

    Raises:
        ValueError: it is not msgpack.
    """
    try:
        value, end = _unpack(memoryview(frame), 0, text)
    except (struct.error, IndexError, TypeError, RecursionError) as exc:
        raise ValueError(f"the event is not msgpack: {exc}") from exc
    if end != len(frame):
        raise ValueError(f"the event is not msgpack: {len(frame) - end} bytes are left over")
    return value


_NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}  # fmt: skip
_SIZES = {0xC4: ("bin", ">B"), 0xC5: ("bin", ">H"), 0xC6: ("bin", ">I"), 0xD9: ("str", ">B"), 0xDA: ("str", ">H"), 0xDB: ("str", ">I"), 0xDC: ("array", ">H"), 0xDD: ("array", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I")}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def _unpack(data: memoryview, at: int, text: str | None) -> tuple[Any, int]:
    code = data[at]
    at += 1
    if code < 0x80 or code >= 0xE0:
        return (code if code < 0x80 else code - 256), at
    if code in _CONSTANTS:
        return _CONSTANTS[code], at
    if code in _NUMBERS:
        form = _NUMBERS[code]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if code < 0xA0:
        kind, size = ("map" if code < 0x90 else "array"), code & 15
    elif code < 0xC0:
        kind, size = "str", code & 31
    elif code in _SIZES:
        kind, form = _SIZES[code]
        size = struct.unpack_from(form, data, at)[0]
        at += struct.calcsize(form)
    else:
        raise ValueError(f"the event is not msgpack: type 0x{code:02x}")
    if kind in ("bin", "str"):
        if at + size > len(data):
            raise ValueError("the event is not msgpack: it is cut off")
        value = bytes(data[at : at + size])
        return (_text(value) if text and kind == "str" else value), at + size
    items = []
    for _ in range(size * (2 if kind == "map" else 1)):
        item, at = _unpack(data, at, text)
        items.append(item)
    return (dict(zip(items[::2], items[1::2])) if kind == "map" else items), at


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
