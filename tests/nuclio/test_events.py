"""Each row of the tables of events: what the handler sees of what was sent."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digitalhub_runtime_python.nuclio.events import Reader, unpack
from nuclio.driver import event

SHOW = """
def handler(context, event):
    return {name: repr(getattr(event, name)) for name in (
        "body content_type fields headers id method path size timestamp url shard_id num_shards type "
        "type_version version offset topic last_in_batch").split()
    } | {"trigger": f"{event.trigger.kind}/{event.trigger.name}"}
"""


def test_an_http_event_has_the_attributes_of_the_table(serve: Any) -> None:
    processor = serve(SHOW)
    if hasattr(processor, "post"):
        got = processor.call(
            b"hi", path="/a/b", fields={"q": "1"}, headers={"X-Foo-Bar": "y"}, method="PUT"
        ).json()
        assert got["timestamp"] == "datetime.datetime(2023, 11, 14, 22, 13, 20)"
        assert got["headers"] == "{'X-Foo-Bar': 'y'}"
    else:
        got = processor.call(
            b"hi", path="/a/b?q=1", headers={"x-foo-bar": "y"}, method="PUT"
        ).json()
        assert "'X-Foo-Bar': 'y'" in got["headers"]
        assert "'Host'" in got["headers"]
        assert got["timestamp"].startswith("datetime.datetime(20")
    assert {k: got[k] for k in got if k not in ("headers", "timestamp", "id")} == {
        "body": "b'hi'",
        "content_type": "''",
        "fields": "{'q': '1'}",
        "method": "'PUT'",
        "path": "'/a/b'",
        "size": "2",
        "url": "''",
        "shard_id": "-1",
        "num_shards": "0",
        "type": "''",
        "type_version": "''",
        "version": "''",
        "offset": "0",
        "topic": "''",
        "last_in_batch": "False",
        "trigger": "http/http",
    }


@pytest.mark.parametrize(
    "content_type, sent, seen",
    [
        ("application/json", b'{"a": 1}', "{'a': 1}"),
        ("application/json; charset=utf-8", b'{"a": 1}', "{'a': 1}"),
        ("application/json", b"not json", "b'not json'"),
        ("application/json", b"null", "None"),
        ("text/plain", b'{"a": 1}', "b'{\"a\": 1}'"),
        ("", b"\x00\xff", "b'\\x00\\xff'"),
        ("", b"", "b''"),
        ("application/json", b"", "b''"),
    ],
)
def test_a_body_is_bytes_and_json_is_parsed(
    serve: Any, content_type: str, sent: bytes, seen: str
) -> None:
    processor = serve("def handler(context, event): return repr(event.body)")
    assert processor.call(sent, content_type=content_type).text == seen


def test_no_body_at_all_is_empty_bytes(worker: Any) -> None:
    processor = worker("def handler(context, event): return repr(event.body)")
    assert processor.call(None).text == "b''"


def test_the_data_of_a_structured_cloud_event_is_the_body(worker: Any) -> None:
    processor = worker("def handler(context, event): return event.body['x']")
    got = processor.call({"x": "data"}, content_type="application/cloudevents+json")
    assert got.text == "data"


def test_a_binary_cloud_event_says_its_type(serve: Any) -> None:
    processor = serve("def handler(context, event): return [event.type, event.id, event.version]")
    if hasattr(processor, "post"):
        got = processor.call(b"", type="t", id="i", version="0.1").json()
    else:
        got = processor.call(
            b"x",
            headers={
                "CE-CloudEventsVersion": "0.1",
                "CE-EventType": "t",
                "CE-EventID": "i",
                "CE-Source": "s",
            },
        ).json()
    assert got == ["t", "i", "0.1"]


def test_each_event_has_an_id_of_its_own(serve: Any) -> None:
    processor = serve("def handler(context, event): return event.id")
    same = {"id": "one"} if hasattr(processor, "post") else {}
    ids = [processor.call(b"", **same).text for _ in range(5)]
    assert len(set(ids)) == 5, ids


def test_headers_are_found_in_whatever_case(serve: Any) -> None:
    processor = serve(
        "def handler(context, event):\n"
        "    return [event.headers['X-Foo'], event.headers.get('x-foo'), event.get_header('X-FOO')]"
    )
    assert processor.call(headers={"X-Foo": "v"}).json() == ["v", "v", "v"]


def test_a_header_that_is_not_utf8_is_latin1_and_the_line_goes_on(worker: Any) -> None:
    processor = worker("def handler(context, event): return event.headers['X-Name']")
    frame = msgspec.msgpack.encode(event(b"", headers={"X-Name": "cafe!"}))
    processor.send(frame.replace(b"cafe!", b"caf\xe9!"))
    assert processor.answer().text == "café!"
    assert processor.call(headers={"X-Name": "next"}).text == "next"


def test_raw_mode_gives_bytes(worker: Any) -> None:
    processor = worker(
        "def handler(context, event):\n"
        "    return repr((event.path, event.headers, event.method, event.trigger.kind, event.body))",
        raw=True,
    )
    got = processor.call(b'{"a": 1}', content_type="application/json").text
    assert got == "(b'/', {b'Content-Type': b'application/json'}, b'POST', b'http', {'a': 1})"


def test_values_of_other_triggers_pass_as_they_are(worker: Any) -> None:
    processor = worker(
        "def handler(context, event): return [event.shard_id, event.offset, event.topic, event.headers['k']]",
        trigger="kafka-cluster",
    )
    got = processor.call(b"", shard_id=3, offset=1 << 40, topic="t", headers={"k": b"\x00"})
    assert got.json() == [3, 1 << 40, "t", "AA=="]


def test_the_context_is_nuclios(serve: Any) -> None:
    processor = serve(
        """
        def init_context(context):
            context.user_data.started = True
            context.anything = 1
        def handler(context, event):
            return [context.worker_id, context.trigger.kind, context.trigger_name, context.platform.kind,
                    context.platform.namespace, context.user_data.started, context.anything,
                    context.Response.__name__]
        """
    )
    assert processor.call().json() == ["0", "http", "http", "local", "nuclio", True, 1, "Response"]


@pytest.mark.parametrize("frame", [b"\xc1", b"\x93\x01", b"\x01", b"\x80", b"\xc0", b"\x81\xa1a"])
def test_what_is_no_event_is_answered_and_the_line_goes_on(worker: Any, frame: bytes) -> None:
    processor = worker("def handler(context, event): return 'ok'")
    processor.send(frame)
    assert processor.answer().status == 500
    assert processor.call().text == "ok"


_texts = st.text(max_size=40)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False)
    | _texts | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(_texts, inner, max_size=20),
    max_leaves=30,
)  # fmt: skip


@given(_values)
def test_our_reader_of_msgpack_reads_what_msgspec_writes(value: Any) -> None:
    assert unpack(msgspec.msgpack.encode(value), "utf-8") == value


@settings(max_examples=300)
@given(st.binary(max_size=60), st.booleans())
def test_no_bytes_make_the_reader_fail_otherwise_than_it_says(frame: bytes, decode: bool) -> None:
    with contextlib.suppress(ValueError):
        Reader(decode).read(frame)


@given(st.binary(max_size=40), st.integers(0, 45))
def test_an_event_cut_or_changed_anywhere_is_refused_or_read(extra: bytes, at: int) -> None:
    frame = msgspec.msgpack.encode(event(b"x"))
    for decode in (True, False):
        with contextlib.suppress(ValueError):
            Reader(decode).read(frame[:at] + extra + frame[at + len(extra) :])


@pytest.mark.parametrize("returns", ["event.body", "type(event.body).__name__"])
def test_a_bomb_of_depth_is_answered_and_the_worker_goes_on(worker: Any, returns: str) -> None:
    processor = worker(f"def handler(context, event):\n    return {returns}")
    for depth in (150, 250, 500, 900, 985, 1100, 100_000):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            body = (opening * depth + "1" + closing * depth).encode()
            got = processor.call(body, content_type="application/json")
            assert got.status == 200, (depth, got.text[:300])
    assert processor.call(b"[1]", content_type="application/json").status == 200
    assert processor.process.poll() is None
