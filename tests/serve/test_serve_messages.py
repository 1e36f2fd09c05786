"""What is a request and what is not: RFC 9112 and 9110 as a table, on the protocol itself with a transport that only records."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitalhub_runtime_python.serve.exchange import Exchange, Shared
from digitalhub_runtime_python.serve.messages import BadMessage, is_host, split_target
from digitalhub_runtime_python.serve.patience import waited_for
from digitalhub_runtime_python.serve.protocol import Connection
from digitalhub_runtime_python.settings import ServeSettings


class Wire:
    """The transport of a connection: what was written, and whether it goes on."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = write_eof = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Echo:
    """Answers with what it has understood."""

    streams = False

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes, bytes]] = []

    def begin(self, exchange: Exchange) -> None: ...
    def grow(self, exchange: Exchange) -> None: ...
    def lost(self, exchange: Exchange) -> None: ...
    def writable(self, exchange: Exchange) -> None: ...
    def finish(self, exchange: Exchange, reply: Any) -> None: ...

    def respond(self, exchange: Exchange) -> None:
        try:
            path, query = split_target(exchange.method, exchange.target)
        except BadMessage as exc:
            exchange.refuse(exc.status, str(exc))
            return
        self.seen.append((exchange.method, path, query, exchange.body()))
        exchange.answer(200, [(b"content-length", b"2")], b"OK")


def spoken(*parts: bytes) -> tuple[list[int], list[tuple[str, str, bytes, bytes]], Wire]:
    """The statuses of the answers, what was understood, and the wire."""
    endpoint, wire = Echo(), Wire()
    connection = Connection(Shared(ServeSettings(), lambda status, seconds: None), endpoint)
    connection.connection_made(wire)
    for part in parts:
        connection.data_received(part)
    statuses = [int(s) for s in re.findall(rb"HTTP/1\.1 (\d{3}) ", wire.written)]
    return statuses, endpoint.seen, wire


def head(line: str = "GET / HTTP/1.1", *headers: str, host: bool = True) -> bytes:
    lines = [line, *(["Host: x"] if host else []), *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(*headers: str) -> bytes:
    return head("POST / HTTP/1.1", *headers)


CHUNKS = post("Transfer-Encoding: chunked")
GOOD = {
    "blanks around a value": (post("Content-Length: \t 3 \t") + b"abc", "/", b"", b"abc"),
    "a length with a trailing blank": (post("Content-Length: 3 ") + b"abc", "/", b"", b"abc"),
    "a length with a trailing tab": (post("Content-Length: 3\t") + b"abc", "/", b"", b"abc"),
    "a length with zeros before it": (post("Content-Length: 0003") + b"abc", "/", b"", b"abc"),
    "no blank after the colon": (post("Content-Length:3") + b"abc", "/", b"", b"abc"),
    "a header without a value": (head("GET / HTTP/1.1", "X:"), "/", b"", b""),
    "a header of other letters": (head("GET / HTTP/1.1", "X: \xe9\xff"), "/", b"", b""),
    "empty lines before a request": (b"\r\n\r\n" + head(), "/", b"", b""),
    "a query": (head("GET /a?b=c&d HTTP/1.1"), "/a", b"b=c&d", b""),
    "a query with another question mark": (head("GET /a?b?c HTTP/1.1"), "/a", b"b?c", b""),
    "an empty query": (head("GET /a? HTTP/1.1"), "/a", b"", b""),
    "percent-encoding": (head("GET /a%20b%2Fc%C3%A9 HTTP/1.1"), "/a b/cé", b"", b""),
    "what is not a percent-encoding": (head("GET /100%zz HTTP/1.1"), "/100%zz", b"", b""),
    "an absolute target": (head("GET http://x/a?b HTTP/1.1"), "/a", b"b", b""),
    "an absolute target without a path": (head("GET http://x HTTP/1.1"), "/", b"", b""),
    "an absolute target with a query alone": (head("GET http://x?a=b HTTP/1.1"), "/", b"a=b", b""),
    "an absolute target with a port": (head("GET http://x:80/a HTTP/1.1"), "/a", b"", b""),
    "an absolute target with an address": (head("GET http://[::1]:80/a HTTP/1.1"), "/a", b"", b""),
    "an absolute target of another kind": (head("GET HTTPS://user@x/a HTTP/1.1"), "/a", b"", b""),
    "an asterisk": (head("OPTIONS * HTTP/1.1"), "*", b"", b""),
    "two slashes": (head("GET //a HTTP/1.1"), "//a", b"", b""),
    "raw UTF-8": ("GET /é€😀?ü=ß HTTP/1.1\r\nHost: x\r\n\r\n".encode(), "/é€😀", b"%C3%BC=%C3%9F", b""),
    "an empty Host": (head(host=False) [:-2] + b"Host:\r\n\r\n", "/", b"", b""),
    "an address as Host": (head(host=False)[:-2] + b"Host: [::1]:8080\r\n\r\n", "/", b"", b""),
    "chunks": (CHUNKS + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "/", b"", b"abcde"),
    "chunks in capitals": (post("Transfer-Encoding: CHUNKED") + b"A\r\n0123456789\r\n0\r\n\r\n", "/", b"", b"0123456789"),
    "chunks with blanks": (post("Transfer-Encoding: \tchunked ") + b"0\r\n\r\n", "/", b"", b""),
    "a list with an empty element": (post("Transfer-Encoding: ,chunked") + b"0\r\n\r\n", "/", b"", b""),
    "a chunk's size with zeros": (CHUNKS + b"0003\r\nabc\r\n000\r\n\r\n", "/", b"", b"abc"),
    "extensions": (CHUNKS + b'3;a;b=c;d="e f"\r\nabc\r\n0;x\r\n\r\n', "/", b"", b"abc"),
    "trailers": (CHUNKS + b"3\r\nabc\r\n0\r\nA: b\r\nHost: y\r\n\r\n", "/", b"", b"abc"),
    "HTTP/1.0 without Host": (head("GET / HTTP/1.0", host=False), "/", b"", b""),
    "HTTP/1.0 that expects": (head("POST / HTTP/1.0", "Expect: 100-continue", "Content-Length: 1") + b"a", "/", b"", b"a"),
}  # fmt: skip
BAD = {
    "no Host": (head(host=False), 400),
    "two Hosts": (head("GET / HTTP/1.1", "Host: x"), 400),
    "two Hosts that differ": (head("GET / HTTP/1.1", "host: y"), 400),
    "two Hosts in HTTP/1.0": (head("GET / HTTP/1.0", "Host: x"), 400),
    "no Host in an absolute target": (head("GET http://x/ HTTP/1.1", host=False), 400),
    "a Host with a path": (head("GET / HTTP/1.1", "Host: x/y", host=False), 400),
    "a Host with a user": (head("GET / HTTP/1.1", "Host: a@x", host=False), 400),
    "a Host of several": (head("GET / HTTP/1.1", "Host: x, y", host=False), 400),
    "a Host with a blank": (head("GET / HTTP/1.1", "Host: x y", host=False), 400),
    "a Host with a port that is not a number": (head("GET / HTTP/1.1", "Host: x:http", host=False), 400),
    "a length in hexadecimal": (post("Content-Length: 0x3"), 400),
    "a length with a sign": (post("Content-Length: +3"), 400),
    "a negative length": (post("Content-Length: -3"), 400),
    "a length with an underscore": (post("Content-Length: 1_0"), 400),
    "a length of other digits": (post("Content-Length: \xb3"), 400),
    "an empty length": (post("Content-Length:"), 400),
    "a length with a comma": (post("Content-Length: 3, 3"), 400),
    "a length with a blank inside": (post("Content-Length: 3 3"), 400),
    "the same length twice": (post("Content-Length: 3", "Content-Length: 3"), 400),
    "two lengths": (post("Content-Length: 3", "Content-Length: 4"), 400),
    "a length that no number has": (post("Content-Length: " + "9" * 30), 400),
    "a length and chunks": (post("Content-Length: 3", "Transfer-Encoding: chunked"), 400),
    "chunks and a length": (post("Transfer-Encoding: chunked", "Content-Length: 3"), 400),
    "chunks twice": (post("Transfer-Encoding: chunked, chunked"), 400),
    "chunks twice in two headers": (post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
    "chunks that are not last": (post("Transfer-Encoding: chunked, gzip"), 400),
    "a coding that is not chunks": (post("Transfer-Encoding: gzip"), 400),
    "the identity": (post("Transfer-Encoding: identity"), 400),
    "chunks with a parameter": (post("Transfer-Encoding: chunked;q=1"), 400),
    "no coding": (post("Transfer-Encoding: xchunked"), 400),
    "chunks behind a vertical tab": (post("Transfer-Encoding: \x0bchunked"), 400),
    "compressed chunks": (post("Transfer-Encoding: gzip, chunked"), 501),
    "compressed chunks in two headers": (post("Transfer-Encoding: gzip", "Transfer-Encoding: chunked"), 501),
    "chunks in HTTP/1.0": (head("POST / HTTP/1.0", "Transfer-Encoding: chunked"), 400),
    "a chunk's size with 0x": (CHUNKS + b"0x5\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk's size with a sign": (CHUNKS + b"+5\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk's negative size": (CHUNKS + b"-5\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk's size with an underscore": (CHUNKS + b"1_0\r\n0123456789012345\r\n0\r\n\r\n", 400),
    "a chunk's size behind a blank": (CHUNKS + b" 5\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk's size before a blank": (CHUNKS + b"5 \r\nhello\r\n0\r\n\r\n", 400),
    "a chunk's size with an L": (CHUNKS + b"5L\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk's size that no number has": (CHUNKS + b"f" * 17 + b"\r\n", 400),
    "a chunk without a size": (CHUNKS + b"\r\nhello\r\n", 400),
    "a chunk's size before a line feed alone": (CHUNKS + b"5\nhello\r\n0\r\n\r\n", 400),
    "a chunk that is longer than its size": (CHUNKS + b"2\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk before a line feed alone": (CHUNKS + b"5\r\nhello\n0\r\n\r\n", 400),
    "an extension with a zero byte": (CHUNKS + b"5;\x00\r\nhello\r\n0\r\n\r\n", 400),
    "a line feed in an extension": (CHUNKS + b"5;a\nhello\r\n0\r\n\r\n", 400),
    "a trailer with a bare line feed": (CHUNKS + b"0\r\nA: b\nB: c\r\n\r\n", 400),
    "line feeds alone": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "a carriage return in a value": (head("GET / HTTP/1.1", "A: b\rC: d"), 400),
    "a zero byte in a value": (head("GET / HTTP/1.1", "A: b\x00c"), 400),
    "a control character in a value": (head("GET / HTTP/1.1", "A: b\x01c"), 400),
    "a folded line": (head("GET / HTTP/1.1", "A: b\r\n c"), 400),
    "a blank before the first header": (head("GET / HTTP/1.1", " A: b"), 400),
    "a blank before the colon": (head("GET / HTTP/1.1", "A : b"), 400),
    "a header without a name": (head("GET / HTTP/1.1", ": b"), 400),
    "a header without a colon": (head("GET / HTTP/1.1", "A b"), 400),
    "a name of other letters": (head("GET / HTTP/1.1", "A\xe9: b"), 400),
    "a name with a bracket": (head("GET / HTTP/1.1", "A(b: c"), 400),
    "a method in small letters": (head("get / HTTP/1.1"), 400),
    "a method that is not one": (head("GRAB / HTTP/1.1"), 400),
    "no target": (head("GET HTTP/1.1"), 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "a version in small letters": (head("GET / http/1.1"), 400),
    "HTTP/0.9": (head("GET / HTTP/0.9"), 400),
    "HTTP/2.0": (head("GET / HTTP/2.0"), 400),
    "HTTP/1.11": (head("GET / HTTP/1.11"), 400),
    "a target that is not a path": (head("GET a HTTP/1.1"), 400),
    "an asterisk for GET": (head("GET * HTTP/1.1"), 400),
    "an authority": (head("GET x:80 HTTP/1.1"), 400),
    "an address that does not end": (head("GET http://[::1 HTTP/1.1"), 400),
    "a tunnel": (head("CONNECT x:443 HTTP/1.1"), 400),
    "a control character in a target": (head("GET /a\x01 HTTP/1.1"), 400),
    "a tab in a target": (head("GET /a\tb HTTP/1.1"), 400),
    "a blank in a target": (head("GET /a b HTTP/1.1"), 400),
    "a target that is not UTF-8": (b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_conforms_is_understood(name: str) -> None:
    data, path, query, body = GOOD[name]
    statuses, seen, _ = spoken(data)
    assert statuses == [200]
    assert seen[0][1:] == (path, query, body)


@pytest.mark.parametrize("name", GOOD)
def test_what_conforms_is_understood_however_it_comes(name: str) -> None:
    data, path, query, body = GOOD[name]
    for size in (1, 7):
        _, seen, _ = spoken(*(data[i : i + size] for i in range(0, len(data), size)))
        assert [s[1:] for s in seen] == [(path, query, body)]
    if b" HTTP/1.1" in data:  # in a pipeline, between others
        statuses, seen, _ = spoken(
            head("GET /before HTTP/1.1") + data + head("GET /after HTTP/1.1")
        )
        if data.isascii() or not body:
            assert statuses == [200] * 3
            assert [s[1] for s in seen] == ["/before", path, "/after"]


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_conform_is_refused_and_ends_the_connection(name: str) -> None:
    data, status = BAD[name]
    follows = head("GET /smuggled HTTP/1.1")
    for before in (b"", head("GET /before HTTP/1.1")):
        statuses, seen, wire = spoken(before + data + follows)
        assert statuses == [*([200] if before else []), status], wire.written
        assert all(s[1] == "/before" for s in seen)
        assert wire.closed
        assert b"connection: close\r\n" in wire.written
    _, seen, _ = spoken(*(bytes([b]) for b in data + follows))
    assert not seen


@pytest.mark.parametrize(
    ("line", "header", "goes_on"),
    [
        ("GET / HTTP/1.1", "X: y", True),
        ("GET / HTTP/1.1", "Connection: close", False),
        ("GET / HTTP/1.1", "Connection: x, CLOSE", False),
        ("GET / HTTP/1.1", "Connection: keep-alive", True),
        ("GET / HTTP/1.0", "X: y", False),
        ("GET / HTTP/1.0", "Connection: keep-alive", True),
        ("GET / HTTP/1.0", "Connection: Keep-Alive, x", True),
        ("GET / HTTP/1.0", "Connection: keep-alive, close", False),
    ],
)
def test_a_connection_goes_on_where_both_sides_want_it(
    line: str, header: str, goes_on: bool
) -> None:
    statuses, _, wire = spoken(head(line, header) + head("GET /2 HTTP/1.1"))
    assert statuses == ([200, 200] if goes_on else [200])
    assert wire.closed is not goes_on
    first = wire.written.partition(b"\r\n\r\n")[0]
    assert (b"connection: close" in first) is not goes_on
    assert (b"connection: keep-alive" in first) is (goes_on and "1.0" in line)


def test_a_client_that_waits_to_be_asked_for_its_body_is_not_what_is_waited_for() -> None:
    endpoint = Echo()
    endpoint.streams = True  # it asks when it likes
    connection = Connection(Shared(ServeSettings(), lambda status, seconds: None), endpoint)
    connection.connection_made(wire := Wire())
    connection.data_received(post("Content-Length: 3", "Expect: 100-continue"))
    assert waited_for(connection) == ("", None)
    assert connection.reading is not None
    connection.invite(connection.reading)
    assert wire.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert waited_for(connection)[0] == "body"


@given(st.lists(st.integers(0, 300), max_size=6), st.sampled_from(sorted(GOOD)))
def test_where_a_message_is_cut_makes_no_difference(cuts: list[int], name: str) -> None:
    data, path, query, body = GOOD[name]
    if not data.isascii():
        return
    places = sorted({min(c, len(data)) for c in cuts} | {0, len(data)})
    _, seen, _ = spoken(*(data[a:b] for a, b in zip(places, places[1:])))
    assert [s[1:] for s in seen] == [(path, query, body)]


@given(st.binary(max_size=60))
def test_a_host_is_a_name_or_an_address(value: bytes) -> None:
    if is_host(value):
        assert not set(value) & set(b' \t/?#@\\"<>\r\n\0')
