"""The event of a request: nuclio_sdk's Event, whose parts are made when they are read.

Most handlers read two or three of its nineteen attributes; making all of them takes as long as
the rest of a request.
"""

from __future__ import annotations

import datetime
import json
import logging
import posixpath
import time
import urllib.parse
import uuid
from typing import Any, Callable

import msgspec
import nuclio_sdk

from digitalhub_runtime_python.nesting import check_depth, may_be_deep, read_json

logger = logging.getLogger(__name__)

TRIGGER = nuclio_sdk.TriggerInfo("http", "http")

_decode = msgspec.json.Decoder().decode


class RequestEvent(nuclio_sdk.Event):  # type: ignore[misc]
    """What a handler is given of a request, with the values that Nuclio's HTTP trigger sets.

    Besides Nuclio's attributes: `form` (name -> text), `files` (name -> Part) and `parts` of a
    multipart or urlencoded body.
    """

    # The same for every request of an HTTP trigger.
    trigger = TRIGGER
    url = ""
    shard_id = -1
    num_shards = 0
    type = ""
    type_version = ""
    version = ""
    last_in_batch = False
    offset = 0
    topic = ""

    # Event.__init__ sets all of it; here what is not read is not made.
    def __init__(self, scope: Any, raw: bytes, content_type: str = "") -> None:
        self._scope = scope
        self._raw = raw
        self._received = time.time()
        self.method = scope["method"]
        self.content_type = content_type

    def __getattr__(self, name: str) -> Any:
        # Called only for what is not there yet: what the handler assigns wins, and stays.
        make = _MAKERS.get(name)
        if make is None:
            raise AttributeError(f"the event has no attribute {name!r}")
        value = make(self)
        own(self)[name] = value
        return value

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        """What `vars` and `dir` see: everything, as with Nuclio's event."""
        self._make_all()
        return own(self)

    def json_body(self) -> Any:
        """The body as JSON, whatever its content type says.

        Raises:
            ValueError: it is not JSON.
        """
        return decode_json(self._raw)

    def is_json(self) -> bool:
        """Whether the content type says that the body is JSON."""
        return self.content_type[:16].lower() == "application/json" and (
            self.content_type[16:17] in _AFTER_TYPE
        )

    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.content_type.partition(";")[0].strip().lower()

    def encoding(self) -> str:
        """The content encoding of a body; empty for none."""
        if self._raw:
            for name, value in self._scope["headers"]:
                if name == b"content-encoding":
                    return str(value.decode("latin-1"))
        return ""

    def query_pairs(self) -> list[tuple[str, str]]:
        """Name and text of each field of the query, repeated ones too."""
        query = self._scope["query_string"]
        if not query:
            return []
        return urllib.parse.parse_qsl(query.decode("latin-1"), keep_blank_values=True)

    def unpack(self, raw: bytes) -> None:
        """Take another body: what this one was packed in is gone, and its header with it."""
        self._raw = raw
        own(self).pop("body", None)
        self.headers.pop("Content-Encoding", None)

    def open_envelope(
        self, envelope: dict[str, Any], data: Any, moment: datetime.datetime | None
    ) -> None:
        """Be the event that a structured CloudEvent describes."""
        self.content_type = envelope.get("datacontenttype") or "application/json"
        raw = data if isinstance(data, (bytes, str)) else json.dumps(data)
        if data is None:
            raw = b""
        elif isinstance(data, str) and self.is_json():
            raw = json.dumps(data)
        self._raw = raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass")
        own(self)["body"] = self._raw if data is None else data
        self.id, self.type, self.source = envelope["id"], envelope["type"], envelope["source"]
        self.type_version = str(envelope.get("dataschema") or "")
        self.version = envelope["specversion"]
        if moment is not None:
            self.timestamp = moment

    @property
    def accepted(self) -> str:
        """The request's `Accept`; empty for none."""
        given = self.headers.get("Accept", "")
        return given.decode("latin-1") if isinstance(given, bytes) else str(given)

    def accepts(self, media_type: str) -> bool:
        return media_type in self.accepted

    def to_json(self) -> str:
        return str(super().to_json())  # of vars(self)

    def __getstate__(self) -> dict[str, Any]:
        # The request's scope holds its connection, which cannot be copied or pickled.
        return {k: v for k, v in vars(self).items() if k != "_scope"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        own(self).update(state)

    def _make_all(self) -> None:
        mine = own(self)
        for name in (*_SHOWN, *_CONSTANT):
            if name not in mine:
                mine[name] = getattr(self, name)


own: Callable[[Any], dict[str, Any]] = nuclio_sdk.Event.__dict__["__dict__"].__get__
"""An event's attributes as far as they are made."""


class Headers(dict):  # type: ignore[type-arg]
    """Header name as it came (from HTTP as Go writes it, `X-Foo-Bar`) -> value; looked up in whatever case."""

    def _known(self, key: Any) -> Any:
        """The spelling that is there; the key itself for none."""
        if key.__class__ is not str or dict.__contains__(self, key):
            return key
        canonical = canonical_name(key)
        if dict.__contains__(self, canonical):
            return canonical
        folded = key.lower()
        return next((n for n in self if n.__class__ is str and n.lower() == folded), key)

    def __missing__(self, key: Any) -> Any:
        known = self._known(key)
        if known is key:
            raise KeyError(key)
        return dict.__getitem__(self, known)

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, self._known(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        dict.__setitem__(self, self._known(key), value)

    def __delitem__(self, key: Any) -> None:
        dict.__delitem__(self, self._known(key))

    def get(self, key: Any, default: Any = None) -> Any:
        return dict.get(self, self._known(key), default)

    def pop(self, key: Any, *default: Any) -> Any:
        return dict.pop(self, self._known(key), *default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        return dict.setdefault(self, self._known(key), default)

    def update(self, *others: Any, **more: Any) -> None:
        for key, value in dict(*others, **more).items():
            self[key] = value

    def __ior__(self, other: Any) -> Headers:  # type: ignore[misc]
        self.update(other)
        return self

    def copy(self) -> Headers:
        return Headers(self)


def canonical_name(name: str) -> str:
    """`content-type` as `Content-Type`."""
    return "-".join(part.capitalize() for part in name.split("-"))


def decode_json(raw: bytes) -> Any:
    """JSON from bytes.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Python's parser also takes NaN, Infinity and UTF-16, which older clients send.
        return read_json(raw)
    if may_be_deep(raw):
        check_depth(value)
    return value


def _body(event: RequestEvent) -> Any:
    raw = event._raw
    if not raw or not event.is_json():
        return raw
    charset = event.content_type.lower().partition("charset=")[2].partition(";")[0].strip(' "')
    try:
        if charset and charset not in ("utf-8", "utf8"):
            return read_json(raw.decode(charset))
        return decode_json(raw)
    except (ValueError, LookupError) as exc:
        # As Nuclio does: the handler gets the bytes.
        logger.info("event %s: the body is not JSON: %s", event.id, exc)
        return raw


def _headers(event: RequestEvent) -> Headers:
    headers = Headers()
    for raw_name, raw_value in event._scope["headers"]:
        name = _names.get(raw_name)
        if name is None:
            name = canonical_name(raw_name.decode("latin-1"))
            if len(_names) < 1000:  # clients choose the names
                _names[raw_name] = name
        value = raw_value.decode("latin-1")
        if name == "Cookie" and dict.__contains__(headers, name):
            value = f"{dict.__getitem__(headers, name)}; {value}"
        dict.__setitem__(headers, name, value)
    return headers


def _path(event: RequestEvent) -> str:
    path = str(event._scope["path"])
    if "//" in path or "/." in path:
        normal = "/" + posixpath.normpath(path).lstrip("/")
        # A path that names a folder keeps its slash: /a/b/../ is /a/.
        return normal + "/" if path.endswith(("/", "/.", "/..")) and normal != "/" else normal
    return path or "/"


def _fields(event: RequestEvent) -> dict[str, str]:
    query = event._scope["query_string"].decode("latin-1")
    return dict(urllib.parse.parse_qsl(query, keep_blank_values=True)) if query else {}


def _timestamp(event: RequestEvent) -> datetime.datetime:
    # Naive and UTC, as the SDK's own.
    moment = datetime.datetime.fromtimestamp(event._received, datetime.timezone.utc)
    return moment.replace(tzinfo=None)


def _parts(event: RequestEvent) -> Any:
    from digitalhub_runtime_python.calls import multipart  # few functions take forms

    return multipart.parse(event.content_type, event._raw)


_names: dict[bytes, str] = {}
_AFTER_TYPE = ("", ";", " ")
_MAKERS: dict[str, Callable[[RequestEvent], Any]] = {
    "body": _body,
    "headers": _headers,
    "fields": _fields,
    "path": _path,
    "id": lambda event: str(uuid.uuid4()),
    "size": lambda event: len(event._raw),
    "timestamp": _timestamp,
    "parts": _parts,
    "form": lambda event: {p.name: p.text() for p in event.parts if not p.filename},
    "files": lambda event: {p.name: p for p in event.parts if p.filename},
}
_SHOWN = ("body", "content_type", "headers", "fields", "path", "id", "size", "timestamp", "method")
_CONSTANT = (
    "trigger", "url", "shard_id", "num_shards", "type", "type_version", "version",
    "last_in_batch", "offset", "topic",
)  # fmt: skip
