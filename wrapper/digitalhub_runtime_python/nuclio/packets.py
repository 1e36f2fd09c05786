"""A reply of the serving engine as the lines that Nuclio's processor reads."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from itertools import product
from typing import Any

import msgspec

from digitalhub_runtime_python.calls.event import canonical_name
from digitalhub_runtime_python.calls.replies import Reply

NO_ACK = b"x-nuclio-stream-no-ack"
"""Keeps an event from being acknowledged."""
DISCARDED = b"x-nuclio-stream-event-discarded"
"""An event was not handed to the function; processors of 1.17 send it again."""
START = b"s\n"
STREAM_END = b"e\n"
_pack = msgspec.json.Encoder().encode


def answer(reply: Reply, prefix: str = "r") -> bytes:
    """`r` and the reply; `c` in place of `r` starts a stream."""
    return b"%s%s\n" % (prefix.encode(), _pack(_envelope(reply)))


def batch(replies: Iterable[tuple[Any, Reply]]) -> bytes:
    """The replies to a batch, each with the id of its event (bytes in raw mode)."""
    return b"r%s\n" % _pack(
        [
            {**_envelope(reply), "event_id": id_.decode() if isinstance(id_, bytes) else id_}
            for id_, reply in replies
        ]
    )


def metric(seconds: float) -> bytes:
    """How long the handler took; the processor refuses 0."""
    return b'm{"duration":%.9f}\n' % max(seconds, 1e-9)


def chunk(raw: bytes) -> bytes:
    """One further chunk of a stream."""
    return b"b%s\n" % base64.b64encode(raw)


def control(message: dict[str, Any]) -> bytes:
    """A line for the control socket."""
    return _pack(message) + b"\n"


def _envelope(reply: Reply) -> dict[str, Any]:
    content_type = ""
    headers: dict[str, Any] = {}
    for raw_name, raw_value in reply.headers:
        if raw_name == b"content-type":
            content_type = raw_value.decode("latin-1")
        elif raw_name in (NO_ACK, DISCARDED):
            # A boolean under the processor's very spelling, or it acknowledges what is then lost; until 1.12
            # that was the SDK's, in lower case. What is not text it does not send to a client.
            name = raw_name.decode()
            headers[name] = headers[canonical_name(name)] = raw_value.lower() in (b"true", b"1")
        elif raw_name != b"content-length":  # the processor's to say
            _add(headers, raw_name.decode("latin-1"), raw_value.decode("latin-1"))
    try:
        body, encoding = reply.body.decode(), "text"
    except UnicodeDecodeError:
        body, encoding = base64.b64encode(reply.body).decode("ascii"), "base64"
    return {
        "status_code": reply.status,
        "content_type": content_type,
        "body": body,
        "body_encoding": encoding,
        "headers": headers,
    }


def _add(headers: dict[str, Any], name: str, value: str) -> None:
    """Add a header to a JSON object, where a name can be there once only."""
    if name not in headers:
        headers[name] = value
    elif name != "set-cookie":
        headers[name] = f"{headers[name]}, {value}"
    else:
        # A list of cookies is not a cookie. The processor adds one for each spelling of the name.
        headers[next(s for s in _spellings(name) if s not in headers)] = value


def _spellings(name: str) -> Iterable[str]:
    return ("".join(letters) for letters in product(*((c, c.upper()) for c in name)))
