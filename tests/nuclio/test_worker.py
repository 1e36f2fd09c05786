"""The line: packets and their order, logs, streams, signals, async handlers."""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import msgspec
import pytest

from digitalhub_runtime_python.nuclio.wire import Disconnected, Frames
from nuclio.driver import event


def test_an_event_is_answered_by_one_write_metric_first(worker: Any) -> None:
    processor = worker("def handler(context, event): return 'ok'")
    before = processor.writes
    processor.call()
    assert processor.writes == before + 1
    assert processor.order[-2:] == ["m", "r"]
    assert all(seconds > 0 for seconds in processor.metrics)


def test_the_control_socket_hears_that_the_worker_is_there(worker: Any) -> None:
    processor = worker("def handler(context, event): return 'ok'")
    assert processor.control_message() == {
        "kind": "wrapperInitialized",
        "attributes": {"ready": "true"},
    }


def test_arguments_of_a_newer_processor_are_taken(worker: Any) -> None:
    processor = worker(
        "def handler(context, event): return 'ok'", more=["--new", "thing", "--flag"]
    )
    assert processor.call().text == "ok"


def test_every_method_of_the_logger_arrives_with_level_text_and_values(worker: Any) -> None:
    processor = worker(
        """
        def handler(context, event):
            log = context.logger
            log.debug("d %s", 1); log.info("i"); log.warn("w"); log.error("e")
            log.debug_with("dw", a=1); log.info_with("iw %d", 2, a={"b": [1]})
            log.warn_with("ww", o=object); log.error_with("ew", x=type("L", (), {"__log__": lambda s: "shown"})())
            log.info("bad %d", "format"); log.info("100%")
            log.info_with("loop", **{"x": log}); log.info_with("nan", x=float("nan"), s={1})
            log.bind(more="bound"); log.info("after")
        """
    )
    processor.call()
    got = [(r["level"], r["message"]) for r in processor.logs]
    assert got[:8] == [
        ("debug", "d 1"), ("info", "i"), ("warning", "w"), ("error", "e"),
        ("debug", "dw"), ("info", "iw 2"), ("warning", "ww"), ("error", "ew"),
    ]  # fmt: skip
    assert processor.logs[5]["with"] == {"a": {"b": [1]}, "worker_id": "0"}
    assert processor.logs[7]["with"]["x"] == "shown"
    assert "format" in processor.logs[8]["message"]
    assert processor.logs[9]["message"] == "100%"
    assert processor.logs[-1]["with"] == {"worker_id": "0", "more": "bound"}


def test_a_log_record_does_not_wait_for_a_slow_handler(worker: Any) -> None:
    processor = worker(
        """
        import time
        def handler(context, event):
            context.logger.info("one"); context.logger.info("two")
            time.sleep(2)
        """
    )
    start = time.monotonic()
    processor.post(event())
    while len(processor.logs) < 2:
        processor.packet()
    assert time.monotonic() - start < 1.5


def test_threads_may_log_while_events_are_answered(worker: Any) -> None:
    processor = worker(
        """
        import threading
        def init_context(context):
            def shout():
                for n in range(2000):
                    context.logger.info_with("x" * 200, n=n)
            context.threads = [threading.Thread(target=shout) for _ in range(3)]
            [t.start() for t in context.threads]
        def handler(context, event):
            if event.path == "/join": [t.join() for t in context.threads]
            return event.body
        """
    )
    for number in range(200):
        assert processor.call(str(number)).text == str(number)
    processor.call(path="/join")
    processor.call()
    assert len(processor.logs) == 6000


STREAM = """
import asyncio, time
from nuclio_sdk import Response
def chunks(*items, fail=False):
    yield from items
    if fail: raise ValueError("broken")
async def achunks(*items):
    for item in items:
        await asyncio.sleep(0)
        yield item
def handler(context, event):
    return {
        "/three": lambda: chunks("a", b"b", "c"),
        "/one": lambda: chunks("a"),
        "/none": lambda: chunks(),
        "/async": lambda: achunks("a", "b"),
        "/fails": lambda: chunks("a", fail=True),
        "/fails-first": lambda: chunks(fail=True),
        "/response": lambda: Response(body=chunks("a", "b"), status_code=201, content_type="text/csv", headers={"X-A": "1"}),
    }[event.path]()
"""
STREAMS = [
    ("/three", 200, b"abc"),
    ("/one", 200, b"a"),
    ("/none", 200, b""),
    ("/async", 200, b"ab"),
    ("/fails-first", 500, None),
    ("/response", 201, b"ab"),
]


def test_a_processor_that_knows_no_streams_gets_whole_answers(serve: Any) -> None:
    processor = serve(STREAM)
    for path, status, body in [*STREAMS, ("/fails", 500, None)]:
        got = processor.call(path=path)
        assert got.status == status, path
        assert body is None or got.body == body, path
        assert getattr(got, "chunks", None) is None


def test_a_processor_that_knows_streams_gets_chunks_and_always_their_end(worker: Any) -> None:
    processor = worker(STREAM, env={"DHPY_NUCLIO_STREAMING": "on"})
    for path, status, body in [*STREAMS, ("/fails", 200, b"a")]:
        got = processor.call(path=path)
        assert got.status == status, path
        assert body is None or got.body == body, path
        if status != 500 and path != "/none":
            assert got.chunks is not None
            assert processor.packet()[0] == "m"  # last, as 1.15 has it
    assert any("broken" in r["message"] for r in processor.logs)


def test_chunks_are_sent_when_they_are_made(worker: Any) -> None:
    processor = worker(
        """
        import time
        def handler(context, event):
            yield "a"
            time.sleep(1)
            yield "b"
        """,
        env={"DHPY_NUCLIO_STREAMING": "on"},
    )
    start = time.monotonic()
    processor.post(event())
    assert processor.packet()[0] == "c"
    assert time.monotonic() - start < 0.9
    assert processor.packet()[0] == "b"
    assert processor.packet()[0] == "e"


ASYNC = """
import asyncio
async def init_context(context):
    context.ticks = 0
    async def tick():
        while True:
            context.ticks += 1
            await asyncio.sleep(0.01)
    context.task = asyncio.create_task(tick())
async def handler(context, event):
    if event.path == "/raise": raise ValueError("x")
    if event.path == "/stream": return chunks()
    await asyncio.sleep(0)
    return context.ticks
async def chunks():
    yield "a"
    yield "b"
"""


def test_what_an_async_init_starts_goes_on_between_events(serve: Any) -> None:
    processor = serve(ASYNC)
    first = int(processor.call().text)
    time.sleep(0.5)
    assert int(processor.call().text) > first + 5
    assert processor.call(path="/raise").status == 500
    assert processor.call(path="/stream").body == b"ab"


def test_an_async_generator_function_streams(worker: Any) -> None:
    processor = worker(
        "async def handler(context, event):\n    yield 'a'\n    yield 'b'",
        env={"DHPY_NUCLIO_STREAMING": "on"},
    )
    assert processor.call().chunks == [b"a", b"b"]


def test_a_plain_handler_may_run_a_loop_of_its_own(serve: Any) -> None:
    processor = serve(
        "import asyncio\nasync def f(): return 'ran'\ndef handler(c, e): return asyncio.run(f())"
    )
    assert processor.call().text == "ran"
    assert processor.call().text == "ran"


def test_explicit_acks_go_over_the_control_socket(worker: Any) -> None:
    processor = worker(
        """
        import asyncio, nuclio_sdk
        def handler(context, event):
            offset = nuclio_sdk.QualifiedOffset.from_event(event)
            asyncio.get_running_loop().create_task(context.platform.explicit_ack(offset))
        """,
        trigger="kafka-cluster",
    )
    processor.control_message()
    processor.call(topic="t", shard_id=2, offset=9)
    message = processor.control_message()
    assert message["kind"] == "streamMessageAck"
    assert message["attributes"] == {"topic": "t", "partition": 2, "offset": 9}


SIGNALS = """
import pathlib, time
def note(text):
    with open({log!r}, "a") as f: f.write(text + "\\n")
def init_context(context):
    context.platform.set_drain_callback(lambda: note("drain"))
    {callback}
def handler(context, event):
    if event.path == "/slow":
        time.sleep(0.6)
        note("slow done")
    return "ok"
"""
PLAIN = 'context.platform.set_termination_callback(lambda: note("termination"))'
ASYNC_CALLBACK = """
    async def end():
        note("termination")
    context.platform.set_termination_callback(end)
"""


@pytest.mark.parametrize("callback", [PLAIN, ASYNC_CALLBACK])
@pytest.mark.parametrize("form", ["def", "async def"])
def test_drain_discards_with_an_answer_until_it_may_go_on(
    worker: Any, tmp_path: Any, callback: str, form: str
) -> None:
    log = tmp_path / "log"
    code = SIGNALS.format(log=str(log), callback=callback)
    processor = worker(code.replace("def handler", f"{form} handler"))
    assert processor.call().text == "ok"
    processor.signal(signal.SIGUSR2)
    _wait_for(lambda: log.exists() and log.read_text() == "drain\n")
    got = processor.call()
    assert (got.status, got.headers["retry-after"]) == (503, "1")
    processor.signal(signal.SIGUSR2)  # a second one changes nothing
    processor.signal(signal.SIGCONT)
    _wait_for(lambda: processor.call().status == 200)
    processor.signal(signal.SIGUSR1)
    assert processor.process.wait(10) == 0
    assert log.read_text() == "drain\ntermination\n"


def test_a_drain_waits_for_the_event_in_hand(worker: Any, tmp_path: Any) -> None:
    log = tmp_path / "log"
    processor = worker(SIGNALS.format(log=str(log), callback=PLAIN))
    processor.post(event(path="/slow"))
    time.sleep(0.2)
    processor.signal(signal.SIGUSR2)
    assert processor.answer().text == "ok"
    _wait_for(lambda: log.read_text() == "slow done\ndrain\n")


@pytest.mark.parametrize("form", ["def", "async def"])
def test_a_worker_that_is_told_to_end_answers_what_still_comes(
    worker: Any, tmp_path: Any, form: str
) -> None:
    log = tmp_path / "log"
    code = SIGNALS.format(log=str(log), callback=PLAIN).replace("def handler", f"{form} handler")
    processor = worker(code)
    processor.post(event(path="/slow"))
    time.sleep(0.2)
    processor.signal(signal.SIGUSR1)
    assert processor.answer().text == "ok"
    for _ in range(5):
        assert processor.call().text == "ok"
        time.sleep(0.1)
    start = time.monotonic()
    assert processor.process.wait(10) == 0
    assert time.monotonic() - start < 5
    assert log.read_text() == "slow done\ntermination\n"


def test_a_termination_callback_that_fails_does_not_keep_the_worker(worker: Any) -> None:
    processor = worker(
        "def init_context(c): c.platform.set_termination_callback(lambda: 1 / 0)\n"
        "def handler(c, e): return 'ok'"
    )
    processor.signal(signal.SIGUSR1)
    assert processor.process.wait(10) == 0


def test_signals_before_the_worker_is_ready_do_not_kill_it(worker: Any) -> None:
    processor = worker("import time\ntime.sleep(0.7)\ndef handler(c, e): return 'ok'", wait=False)
    for number in (signal.SIGUSR2, signal.SIGCONT):
        processor.signal(number)
        time.sleep(0.05)
    processor.wait_ready()
    assert processor.call().text == "ok"


def test_a_worker_that_nobody_told_to_end_does_not_exit_with_0(worker: Any) -> None:
    processor = worker("def handler(c, e): return 'ok'")
    processor.signal(signal.SIGTERM)
    assert processor.process.wait(10) != 0


def test_frames_are_cut_wherever_the_bytes_are(worker: Any) -> None:
    frames = Frames()
    data = b"".join(len(b).to_bytes(4, "big") + b for b in (b"one", b"two two", b"3"))
    found = []
    for place in range(len(data)):
        frames.feed(data[place : place + 1])
        while (frame := frames.pop()) is not None:
            found.append(frame)
    assert found == [b"one", b"two two", b"3"]
    with pytest.raises(Disconnected):
        frames.feed(b"")


def test_the_line_takes_events_of_megabytes_one_after_the_other(worker: Any) -> None:
    processor = worker("def handler(c, e): return str(len(e.body))")
    for size in (1 << 20, 3, 5 << 20, 0):
        assert processor.call(b"x" * size).text == str(size)


def _wait_for(condition: Any, seconds: float = 10) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_an_async_handler_that_cancels_itself_ends_neither_the_worker_nor_the_next_event(
    worker: Any,
) -> None:
    processor = worker(
        """
        import asyncio
        async def handler(context, event):
            if event.path == "/now": raise asyncio.CancelledError
            if event.path == "/later": asyncio.current_task().cancel()
            return "ok"
        """
    )
    assert processor.call(path="/now").status == 500
    processor.call(path="/later")
    for _ in range(3):
        assert processor.call().text == "ok"


ASYNC_PARTS = """
import asyncio, contextvars
place = contextvars.ContextVar("place", default="nowhere")
main = []

async def soon(value):
    await asyncio.sleep(0.01)
    return value

async def timeout_now():
    async with timeout(5): return "in time"

async def timeout_later():
    async with timeout(5): return await soon("in time")

async def timeout_passes():
    try:
        async with timeout(0.05): await asyncio.sleep(5)
    except asyncio.TimeoutError:
        return "too late"

async def group():
    async with asyncio.TaskGroup() as tasks:
        found = [tasks.create_task(soon(n)) for n in range(3)]
    return [task.result() for task in found]

async def gather(): return await asyncio.gather(*(soon(n) for n in range(3)))
async def wait_for(): return await asyncio.wait_for(soon("done"), 5)
async def thread(): return await asyncio.get_running_loop().run_in_executor(None, lambda: "ran")

async def same_task():
    before, loop = asyncio.current_task(), asyncio.get_running_loop()
    await asyncio.sleep(0)
    assert before is asyncio.current_task() and loop is asyncio.get_running_loop()
    return before in asyncio.all_tasks()

async def context_stays():
    assert place.get() == "nowhere"
    place.set("here")
    await soon(1)
    return [place.get(), await asyncio.ensure_future(inner())]

async def inner(): return place.get()

async def cancels_itself():
    asyncio.current_task().cancel()
    return "unmoved"

async def cancels_itself_and_waits():
    asyncio.current_task().cancel()
    try:
        await asyncio.sleep(5)
    except asyncio.CancelledError:
        return "cancelled"

async def leaves_a_task():
    main.append(asyncio.ensure_future(soon("left")))

async def what_it_left(): return await main.pop()

async def raises():
    await asyncio.sleep(0)
    raise ValueError("x")

async def semaphore():
    async with asyncio.Lock(): return "held"

class timeout:
    def __init__(self, seconds): self.real = asyncio.timeout(seconds)
    async def __aenter__(self): return await self.real.__aenter__()
    async def __aexit__(self, *exc): return await self.real.__aexit__(*exc)

async def handler(context, event):
    return await globals()[event.path[1:]]()
"""
ASYNC_CALLS = [
    ("gather", 200, "[0,1,2]"), ("wait_for", 200, "done"), ("thread", 200, "ran"), ("same_task", 200, "True"),
    ("context_stays", 200, '["here","here"]'), ("context_stays", 200, '["here","here"]'), ("cancels_itself", 200, "unmoved"),
    ("same_task", 200, "True"), ("cancels_itself_and_waits", 200, "cancelled"), ("wait_for", 200, "done"),
    ("leaves_a_task", 204, ""), ("what_it_left", 200, "left"), ("raises", 500, None), ("semaphore", 200, "held"),
]  # fmt: skip
ASYNC_CALLS_OF_3_11 = [
    ("timeout_now", 200, "in time"), ("timeout_later", 200, "in time"), ("timeout_passes", 200, "too late"),
    ("group", 200, "[0,1,2]"), ("cancels_itself", 200, "unmoved"), ("timeout_passes", 200, "too late"),
]  # fmt: skip


def test_asyncio_is_whole_inside_a_handler_whether_it_waits_or_not(serve: Any) -> None:
    processor = serve(ASYNC_PARTS)
    newer = ASYNC_CALLS_OF_3_11 if sys.version_info >= (3, 11) else []
    for path, status, text in [*ASYNC_CALLS, *newer, *ASYNC_CALLS]:
        got = processor.call(path=f"/{path}")
        assert got.status == status, (path, got.text)
        assert text is None or got.text == text, path


def test_events_that_come_at_once_are_answered_in_turn_by_an_async_handler(worker: Any) -> None:
    processor = worker(
        """
        import asyncio
        async def handler(context, event):
            if event.path == "/cancel": asyncio.current_task().cancel()
            if event.path == "/wait": await asyncio.sleep(0.01)
            return event.body
        """
    )
    paths = ["/now", "/wait", "/cancel", "/wait", "/wait", "/now", "/cancel", "/now"]
    for number, path in enumerate(paths):
        processor.post(event(str(number).encode(), path=path))
    assert [processor.answer().text for _ in paths] == [str(n) for n in range(len(paths))]


def test_a_thread_may_hand_work_to_the_loop_between_events(worker: Any) -> None:
    processor = worker(
        """
        import asyncio, threading
        async def init_context(context):
            loop = asyncio.get_running_loop()
            async def add(): context.sum += 1
            def run():
                for _ in range(50): asyncio.run_coroutine_threadsafe(add(), loop).result(10)
            context.sum = 0
            context.thread = threading.Thread(target=run)
        async def handler(context, event):
            if event.path == "/start": context.thread.start()
            return context.sum
        """
    )
    processor.call(path="/start")
    _wait_for(lambda: processor.call().text == "50")


def test_a_worker_whose_async_handler_waits_ends_with_the_processor(worker: Any) -> None:
    processor = worker(
        "import asyncio\nasync def handler(c, e):\n    await asyncio.sleep(0.5)\n    return 'ok'"
    )
    processor.post(event())
    time.sleep(0.1)
    processor.end()
    assert processor.process.returncode == 1


@pytest.mark.parametrize("form", ["def", "async def"])
def test_the_last_bytes_of_an_event_may_come_by_themselves(worker: Any, form: str) -> None:
    processor = worker(f"{form} handler(c, e): return e.body")
    frame = msgspec.msgpack.encode(event(b"whole"))
    for left in range(1, 7):
        processor.line.sendall(len(frame).to_bytes(4, "big") + frame[:-left])
        time.sleep(0.05)
        processor.line.sendall(frame[-left:])
        assert processor.answer().text == "whole"
