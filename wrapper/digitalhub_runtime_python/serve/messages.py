"""What a request's head says, and the first lines of an answer: RFC 9112 and 9110, where the parser leaves it to us.

Pure; `tests/serve/test_serve_messages.py` is its table.
"""

from __future__ import annotations

import re
import urllib.parse

from digitalhub_runtime_python.calls import problems

# A name or an address, and a port. What else stands in Host is not one.
_HOST = rb"(?:\[[0-9A-Za-z:.%_~-]*\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?"
_is_host = re.compile(_HOST).fullmatch
_absolute = re.compile(
    rb"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@\[\]]*@)?" + _HOST + rb"(/[^?#]*)?(?:\?([^#]*))?(?:#.*)?"
).fullmatch


class _Lines(dict):  # type: ignore[type-arg]
    def __missing__(self, status: int) -> bytes:
        line = self[status] = f"HTTP/1.1 {status} {problems.title(status)}\r\n".encode()
        return line


STATUS_LINES: dict[int, bytes] = _Lines()
"""Status -> the first line of its answer, line break included."""


class BadMessage(Exception):
    """What a client sent cannot be taken as a request.

    Attributes:
        status: of the answer.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def split_target(method: str, target: bytes) -> tuple[str, bytes]:
    """The path, decoded, and the query of a request's target.

    Raises:
        BadMessage: it has none of the forms that a request for a resource has.
    """
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        if b"#" in target:
            path, query = path.partition(b"#")[0], query.partition(b"#")[0]
    elif match := _absolute(target):
        path, query = match[1] or b"/", match[2] or b""
    elif target == b"*" and method == "OPTIONS":
        path, query = target, b""
    else:
        raise BadMessage(400, "The request's target is not a path.")
    text = path.decode("ascii", "replace")
    return (urllib.parse.unquote(text) if "%" in text else text), query


def is_host(value: bytes) -> bool:
    """Whether a Host header's value is a name or an address, with or without a port."""
    return _is_host(value) is not None


def is_foreign(headers: list[tuple[bytes, bytes]], *, any_name: bool = False) -> bool:
    """Whether a browser sent this for a page of another site.

    `Origin` and `Sec-Fetch-Site` tell on requests across sites; a name in `Host` that is not of this machine
    tells on a site whose name was made to lead here (DNS rebinding), which an address cannot be.

    Args:
        any_name: Host may be any name.
    """
    given = dict(headers)
    host = given.get(b"host", b"").lower()
    if given.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
        return True
    origin = given.get(b"origin")
    if origin is not None and origin.lower().partition(b"://")[2] != host:
        return True
    name = host.rpartition(b":")[0] if re.search(rb":[0-9]*$", host) else host
    is_local = not name or name.startswith(b"[") or _is_address(name) or name in _LOCAL
    return not is_local and not name.endswith(b".localhost") and not any_name


_is_address = re.compile(rb"(?:[0-9]{1,3}\.){3}[0-9]{1,3}").fullmatch
_LOCAL = (b"localhost", b"localhost.")


def read_length(value: bytes) -> int:
    """A Content-Length.

    Raises:
        BadMessage: it is not a number, or one that nobody means.
    """
    if not value.isdigit() or len(value) >= 20:
        raise BadMessage(400, "The request's Content-Length is not a number.")
    return int(value)


def check_coding(codings: list[bytes], version: str) -> None:
    """See that a body comes in chunks and nothing else.

    Raises:
        BadMessage: it has no end, is compressed as well, or HTTP/1.0, which has no chunks.
    """
    if version == "1.0":
        raise BadMessage(400, "HTTP/1.0 has no Transfer-Encoding.")
    names = [name for value in codings for part in value.split(b",") if (name := part.strip().lower())]  # fmt: skip
    if names.count(b"chunked") != 1 or names[-1] != b"chunked":
        raise BadMessage(400, "The request's Transfer-Encoding does not end with chunked.")
    if len(names) > 1:
        raise BadMessage(
            501, "The request's Transfer-Encoding is not understood: send it in chunks alone."
        )


def quoted(line: bytes) -> bytes:
    """A request line, or a part of one, whose bytes beyond ASCII are percent-encoded."""
    return b"".join(bytes((b,)) if b < 128 else b"%%%02X" % b for b in line)
