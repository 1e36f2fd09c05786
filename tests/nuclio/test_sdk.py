"""What nuclio-sdk's handlers, and its own tests, expect of an event, a logger and a response."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import tracemalloc
from typing import Any

import msgspec
import nuclio_sdk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digitalhub_runtime_python.calls.event import Headers
from digitalhub_runtime_python.nuclio.events import Reader
from nuclio.driver import Processor, event


def packet(processor: Processor, **parts: Any) -> dict[str, Any]:
    """The `r` packet to an event, as it is on the line."""
    processor.post(event(**parts))
    while (found := processor.packet())[0] != "r":
        pass
    made: dict[str, Any] = json.loads(found[1])
    return made


@pytest.mark.parametrize(
    "made",
    [
        "r = context.Response(body='x'); r.ensure_no_ack(); return r",
        "return context.Response(headers={'x-nuclio-stream-no-ack': True}, body='x')",
        "return context.Response(headers={'X-Nuclio-Stream-No-Ack': 'true'}, body='x')",
    ],
)
def test_no_ack_is_a_boolean_under_every_processors_spelling(worker: Any, made: str) -> None:
    headers = packet(worker(f"def handler(context, event):\n    {made}"))["headers"]
    assert headers["X-Nuclio-Stream-No-Ack"] is True
    assert headers["x-nuclio-stream-no-ack"] is True


def test_an_ack_that_is_wanted_is_not_held_back(worker: Any) -> None:
    made = (
        "def handler(c, e): return c.Response(headers={'x-nuclio-stream-no-ack': False}, body='x')"
    )
    assert packet(worker(made))["headers"]["X-Nuclio-Stream-No-Ack"] is False


def test_a_client_is_not_told_of_acks(serve: Any) -> None:
    processor = serve(
        "def handler(c, e):\n    r = c.Response(body='x')\n    r.ensure_no_ack()\n    return r"
    )
    got = processor.call()
    assert (got.status, got.text) == (200, "x")


_names = st.sampled_from(
    ["x-low", "my_key", "traceId", "X-Foo-Bar", "TRACEID", "x", "content-TYPE"]
)


@settings(max_examples=200)
@given(
    st.dictionaries(_names, st.text(max_size=3), max_size=5),
    st.lists(
        st.tuples(
            st.sampled_from(["get", "in", "set", "del", "pop", "setdefault", "update", "ior"]),
            _names,
        )
    ),
)
def test_headers_are_one_dict_whatever_the_case_of_their_names(
    given_: dict[str, str], steps: list[tuple[str, str]]
) -> None:
    given_ = {n: v for n, v in given_.items() if n != "TRACEID" or "traceId" not in given_}
    headers, expected = Headers(given_), {name.lower(): value for name, value in given_.items()}
    for what, name in steps:
        low = name.lower()
        for spelled in (name, low, name.upper()):
            assert headers.get(spelled, "none") == expected.get(low, "none")
            assert (spelled in headers) == (low in expected)
        if what in ("set", "update", "ior"):
            if what == "set":
                headers[name] = "new"
            elif what == "update":
                headers.update({name: "new"})
            else:
                headers |= {name: "new"}  # 3.9
            expected[low] = "new"
        elif what == "setdefault":
            assert headers.setdefault(name, "new") == expected.setdefault(low, "new")
        elif what == "pop":
            assert headers.pop(name, None) == expected.pop(low, None)
        elif what == "del" and low in expected:
            del headers[name], expected[low]
        elif what == "del":
            with pytest.raises(KeyError):
                del headers[name]
        assert {n.lower(): v for n, v in headers.items()} == expected
        assert len(headers) == len(expected)
        assert headers.copy() == headers and type(headers.copy()) is Headers


def test_header_names_stay_as_the_trigger_gave_them() -> None:
    assert list(Headers({"x-low": "", "traceId": "", "X-Foo": ""})) == ["x-low", "traceId", "X-Foo"]


BAD = """
class Bad:
    def __repr__(self): raise RuntimeError("no repr")
    def __str__(self): raise RuntimeError("no str")
    def __log__(self): raise RuntimeError("no log")
"""


@pytest.mark.parametrize(
    "call, message, more",
    [
        ("info_with('m', v=Bad())", "m", {"v": "Unable to serialize object: no str"}),
        ("info_with('m', v=[Bad()])", "m", {"v": ["Unable to serialize object: no str"]}),
        ("info_with('m', **{'v': 1, 'w': {Bad(): 1}})", "m", None),
        ("info(Bad())", "Unable to serialize object: no str", {}),
        ("info('%s', Bad())", "%s (Unable to serialize object: no str)", {}),
        ("info('%d', 'x')", "%d ('x')", {}),
        ("info_with('m', v=float('nan'))", "m", {"v": "NaN"}),
        ("info_with('m', v=[float('inf'), None, 1])", "m", {"v": ["Infinity", None, 1]}),
        ("info_with('m', v={'a': float('-inf')})", "m", {"v": {"a": "-Infinity"}}),
        ("info_with('m', v=object)", "m", {"v": "<class 'object'>"}),
    ],
)
def test_a_log_call_never_fails_a_request(
    worker: Any, call: str, message: str, more: dict[str, Any] | None
) -> None:
    processor = worker(
        f"{BAD}\ndef handler(context, event):\n    context.logger.{call}\n    return 'ok'"
    )
    assert processor.call().text == "ok"
    record = next(r for r in processor.logs if r["level"] == "info")
    assert record["message"] == message
    if more is not None:
        assert {k: v for k, v in record["with"].items() if k != "worker_id"} == more


def read(*events: dict[str, Any], raw: bool = False) -> list[Any]:
    reader = Reader(not raw)
    return [reader.read(msgspec.msgpack.encode(one)) for one in events]


def test_a_redelivered_cloud_event_keeps_its_id() -> None:
    same = event(b"", id="a-1", version="1.0", type="t")
    assert [e.id for e in read(same, same, same)] == ["a-1"] * 3


def test_ids_are_bytes_in_raw_mode_each_time() -> None:
    same = event(b"", id="one", content_type="text/plain")
    ids = [e.id for e in read(same, same, same, raw=True)]
    assert len(set(ids)) == 3 and all(type(i) is bytes for i in ids)


@pytest.mark.parametrize("raw", [True, False])
def test_a_content_type_may_be_nil(raw: bool) -> None:
    (one,) = read(event(b"x", content_type=None), raw=raw)
    assert (one.body, one.content_type, one.media_type()) == (b"x", None, "")


def test_ten_thousand_sources_do_not_grow_memory() -> None:
    reader = Reader(True)

    def feed(start: int) -> None:
        for n in range(start, start + 5000):
            trigger = {"kind": f"source-{n}" + "x" * 200, "name": "http"}
            assert reader.read(msgspec.msgpack.encode(event(b"", trigger=trigger))).trigger.kind

    feed(0)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    feed(5000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000


@pytest.mark.parametrize("raw", [True, False])
def test_vars_and_dir_have_all_attributes(raw: bool) -> None:
    (one,) = read(event(b"x", headers={"A": "b"}), raw=raw)
    for name in vars(nuclio_sdk.Event()):
        assert name in vars(one) and name in dir(one), name
    assert vars(one)["body"] == b"x"
    one.mine = 1
    assert vars(one)["mine"] == 1
    for made in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert (made.body, made.mine, made.id) == (one.body, 1, one.id)


def test_an_event_is_shown_and_stored_as_the_sdks(worker: Any) -> None:
    processor = worker("def handler(context, event): return repr(event)")
    shown = processor.call(b"hi", id="i").json()
    theirs = json.loads(nuclio_sdk.Event(body=b"hi", _id="i").to_json())
    assert shown.keys() == theirs.keys()
    assert (shown["body"], shown["id"]) == (theirs["body"], theirs["id"])


TASKS = """
import asyncio
done = []
async def later():
    await asyncio.sleep(0.01)
    done.append(1)
def handler(context, event):
    if event.path == "/start":
        asyncio.get_event_loop().create_task(later())
        return "started"
    return len(done)
"""


@pytest.mark.parametrize("code", [TASKS, TASKS.replace("import asyncio\n", "", 1).replace(
    "    if event", "    import asyncio\n    globals()['asyncio'] = asyncio\n    if event")])  # fmt: skip
def test_what_a_plain_handler_gives_the_event_loop_is_run_between_events(
    serve: Any, code: str
) -> None:
    import time

    processor = serve(code)
    assert processor.call(path="/").text == "0"
    assert processor.call(path="/start").text == "started"
    give_up = time.monotonic() + 10
    while (found := processor.call(path="/").text) != "1":
        assert time.monotonic() < give_up, found
        time.sleep(0.02)
    assert processor.call(path="/start").text == "started"
    while (found := processor.call(path="/").text) != "2":
        assert time.monotonic() < give_up, found
        time.sleep(0.02)


def test_an_event_that_a_drained_worker_discards_is_not_acknowledged(worker: Any) -> None:
    import signal
    import time

    processor = worker(
        """
        def init_context(context):
            context.platform.set_drain_callback(lambda: context.logger.error("drained"))
        def handler(context, event): return "ok"
        """,
        trigger="kafka-cluster",
    )
    time.sleep(0.1)
    processor.signal(signal.SIGUSR2)
    while not any(r["message"] == "drained" for r in processor.logs):
        processor.packet()
    answer = packet(processor)
    assert answer["status_code"] == 503
    assert answer["headers"]["X-Nuclio-Stream-No-Ack"] is True
    assert answer["headers"]["X-Nuclio-Stream-Event-Discarded"] is True
