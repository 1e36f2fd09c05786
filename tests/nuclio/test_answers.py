"""Each row of the table of returned values: what the handler returns, what the client gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

ROWS = [
    # returned, status, content type, body
    ("'text'", 200, "text/plain", b"text"),
    ("'h\\u00e9'", 200, "text/plain; charset=utf-8", "hé".encode()),
    ("b'\\x00\\xff'", 200, "text/plain", b"\x00\xff"),
    ("bytearray(b'ab')", 200, "text/plain", b"ab"),
    ("memoryview(b'ab')", 200, "text/plain", b"ab"),
    ("None", 204, None, b""),
    ("7", 200, "text/plain", b"7"),
    ("1.5", 200, "text/plain", b"1.5"),
    ("True", 200, "text/plain", b"True"),
    ("{'a': 1}", 200, "application/json", {"a": 1}),
    ("{'a': float('nan'), 'b': float('inf')}", 200, "application/json", {"a": "NaN", "b": "Infinity"}),
    ("[1, 'two', {'three': 3}]", 200, "application/json", [1, "two", {"three": 3}]),
    ("[]", 200, "application/json", []),
    ("(201, 'made')", 201, "text/plain", b"made"),
    ("(202, {'a': 1})", 202, "application/json", {"a": 1}),
    ("(200, None)", 200, "application/json", None),
    ("(1, 2, 3)", 200, "application/json", [1, 2, 3]),
    ("('x', 'y')", 200, "application/json", ["x", "y"]),
    ("{'when': datetime.datetime(2026, 1, 2)}", 200, "application/json", {"when": "2026-01-02T00:00:00"}),
    ("Response(body={'a': 1}, status_code=418)", 418, "application/json", {"a": 1}),
    ("Response(body='x', content_type='text/csv')", 200, "text/csv", b"x"),
    ("Response(body=b'\\xff', content_type='image/png')", 200, "image/png", b"\xff"),
    ("Response(body=None, status_code=404)", 404, "text/plain", b""),
    ("Response(body=[1], content_type='application/json')", 200, "application/json", [1]),
    ("Response(body='x', status_code=None)", 200, "text/plain", b"x"),
    ("Response(body='x', status_code=http.HTTPStatus.CREATED)", 201, "text/plain", b"x"),
    ("(n for n in ('a', 'b', 'c'))", 200, "text/plain; charset=utf-8", b"abc"),
    ("coroutine()", 200, "text/plain", b"awaited"),
]  # fmt: skip
CODE = """
import datetime, http
from nuclio_sdk import Response

async def coroutine():
    return "awaited"

ROWS = {rows}

def handler(context, event):
    return eval(ROWS[int(event.headers["X-Row"])])
"""


def test_every_kind_of_value_becomes_the_response_of_the_table(serve: Any) -> None:
    processor = serve(CODE.format(rows=[row[0] for row in ROWS]))
    wrong = []
    for number, (returned, status, content_type, body) in enumerate(ROWS):
        got = processor.call(b"", headers={"X-Row": str(number)}, method="GET")
        shown = json.loads(got.body) if not isinstance(body, bytes) and got.body else got.body
        if (got.status, shown) != (status, body) or content_type not in (None, got.content_type):
            wrong.append((returned, got.status, got.content_type, got.body))
    assert not wrong


@pytest.mark.parametrize("value", ["Response(status_code='no')", "Response(body='x', headers={'a b': '1'})"])  # fmt: skip
def test_a_response_that_cannot_be_sent_is_a_500_that_says_why(serve: Any, value: str) -> None:
    processor = serve(
        f"from nuclio_sdk import Response\ndef handler(context, event): return {value}"
    )
    got = processor.call()
    assert got.status == 500
    assert got.json()["code"].startswith("outputs/")


def test_headers_reach_the_client_numbers_lists_and_two_cookies_too(serve: Any) -> None:
    processor = serve(
        """
        from nuclio_sdk import Response
        def handler(context, event):
            return Response(body="x", headers={
                "X-Number": 5, "X-List": ["a", "b"], "Set-Cookie": ["one=1; Path=/", "two=2"],
            })
        """
    )
    got = processor.call()
    pairs = getattr(got, "pairs", None) or list(got.headers.items())
    lower = [(name.lower(), value) for name, value in pairs]
    assert ("x-number", "5") in lower
    assert ("x-list", "a, b") in lower
    cookies = sorted(value.split(";")[0] for name, value in lower if name == "set-cookie")
    assert cookies == ["one=1", "two=2"]


def test_a_megabyte_of_binary_comes_back_as_it_went(serve: Any) -> None:
    processor = serve("def handler(context, event): return event.body")
    body = bytes(range(256)) * 4096
    assert processor.call(body, content_type="application/octet-stream").body == body


def test_large_json_comes_back_as_it_went(serve: Any) -> None:
    processor = serve("def handler(context, event): return event.body")
    body = [{"n": n, "text": "é" * 20} for n in range(20_000)]
    got = processor.call(json.dumps(body).encode(), content_type="application/json")
    assert got.json() == body
