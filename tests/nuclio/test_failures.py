"""The tables of errors and exits: nothing that a handler does leaves a client, or the processor, waiting."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from nuclio.driver import Gone, event

RAISES = [
    "1 / 0",
    "raise SystemExit(0)",
    "sys.exit(3)",
    "raise KeyboardInterrupt",
    "raise BaseException('x')",
    "raise type('Mute', (Exception,), {'__str__': lambda s: 1 / 0})()",
    "b'\\xff'.decode()",
    "[].append([]) or (lambda f: f(f))(lambda f: f(f))",
]


def test_whatever_a_handler_raises_is_a_500_without_its_traceback(serve: Any) -> None:
    lines = "\n".join(
        f"    if event.path == '/{n}':\n        {code}" for n, code in enumerate(RAISES)
    )
    processor = serve(f"import sys\ndef handler(context, event):\n{lines}\n    return 'ok'")
    for number, code in enumerate(RAISES):
        got = processor.call(path=f"/{number}")
        assert got.status == 500, code
        assert got.content_type == "application/problem+json"
        assert "Traceback" not in got.text and "main.py" not in got.text
        assert processor.call(path="/fine").text == "ok"


def test_the_log_has_the_traceback(worker: Any) -> None:
    processor = worker("def handler(context, event):\n    secret_line = 1 / 0")
    processor.call()
    (record,) = [r for r in processor.logs if r["level"] == "error"]
    assert "ZeroDivisionError" in record["message"] + str(record["with"])
    assert "secret_line" in record["message"] + str(record["with"])


def test_an_exception_with_a_response_is_that_response(serve: Any) -> None:
    processor = serve(
        """
        import nuclio_sdk
        def handler(context, event):
            raise nuclio_sdk.ExceptionWithResponse(404, "no such thing", "text/plain")
        """
    )
    assert processor.call().status == 404


@pytest.mark.parametrize(
    "code, handler, status, said",
    [
        ("import no_such_module", "main:handler", 11, "no_such_module"),
        ("def handler(: pass", "main:handler", 11, "SyntaxError"),
        ("x = 1", "main:handler", 11, "no function 'handler'"),
        ("x = 1", "other:handler", 11, "There is no module 'other'"),
        ("x = 1", "no handler", 11, "module:function"),
        ("def handler(c, e): pass\ndef init_context(c): 1 / 0", "main:handler", 1, "ZeroDivisionError"),
        ("def handler(c, e): pass\ndef init_context(c): raise SystemExit(0)", "main:handler", 1, "SystemExit"),
    ],
)  # fmt: skip
def test_a_function_that_cannot_be_served_ends_the_worker_and_says_why(
    worker: Any, tmp_path: Path, code: str, handler: str, status: int, said: str
) -> None:
    note = tmp_path / "termination"
    note.touch()
    processor = worker(code, handler, wait=False, env={"DHPY_TERMINATION_LOG": str(note)})
    with pytest.raises(Gone) as gone:
        processor.wait_ready()
    assert processor.process.returncode == status
    assert said in str(gone.value)  # standard error
    assert said in note.read_text()
    assert any(said in str(record) for record in processor.logs)


def test_the_worker_connects_before_it_imports(worker: Any) -> None:
    processor = worker("import time\ntime.sleep(1)\ndef handler(c, e): return 'ok'", wait=False)
    assert time.perf_counter() - processor.started < 1  # accepted while main.py still sleeps
    processor.wait_ready()
    assert processor.ready_after > 1


@pytest.mark.parametrize(
    "frame", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00"]
)
def test_a_broken_line_ends_the_worker_with_1(worker: Any, frame: bytes) -> None:
    processor = worker("def handler(context, event): return 'ok'")
    processor.line.sendall(frame)
    processor.end()
    assert processor.process.returncode == 1


def test_a_handler_that_leaves_the_process_leaves_no_dead_worker_that_counts_as_ready(
    worker: Any,
) -> None:
    processor = worker(
        "import os\ndef handler(context, event):\n    context.logger.info('bye')\n    os._exit(0)"
    )
    with pytest.raises(Gone):
        processor.call()
    assert processor.process.wait() == 70
    assert processor.logs[-1]["message"] == "bye"


def test_a_child_that_the_handler_forks_may_leave_as_it_likes(worker: Any) -> None:
    processor = worker(
        """
        import os
        def handler(context, event):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        """
    )
    assert processor.call().text == "0"


def test_what_a_killed_worker_leaves_behind_is_ended(worker: Any, tmp_path: Path) -> None:
    processor = worker(
        """
        import subprocess
        def handler(context, event):
            child = subprocess.Popen(["sleep", "300"])
            apart = subprocess.Popen(["sleep", "301"], start_new_session=True)
            return [child.pid, apart.pid]
        """
    )
    child, apart = processor.call().json()
    try:
        processor.process.kill()  # as the processor does when an event takes too long
        give_up = time.monotonic() + 10
        while _lives(child) and time.monotonic() < give_up:
            time.sleep(0.05)
        assert not _lives(child)
        assert _lives(apart)  # started in a session of its own, on purpose
    finally:
        subprocess.run(["kill", str(apart)])


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_ten_thousand_events_with_failures_among_them_are_all_answered(worker: Any) -> None:
    processor = worker(
        """
        def handler(context, event):
            if int(event.body) % 100 == 0:
                raise ValueError(event.body)
            context.logger.info("fine")
            return event.body
        """
    )
    processor.keep = False
    statuses = {200: 0, 500: 0}
    for number in range(10_000):
        got = processor.call(str(number).encode())
        statuses[got.status] += 1
        assert got.status == 500 or int(got.body) == number
    assert statuses == {200: 9900, 500: 100}


def test_a_five_megabyte_log_record_arrives_whole(worker: Any) -> None:
    processor = worker(
        "def handler(context, event):\n    context.logger.info('x' * 5_000_000)\n    return 'ok'"
    )
    assert processor.call().text == "ok"
    assert len(processor.logs[-1]["message"]) == 5_000_000
    assert processor.order[-3:] == ["l", "m", "r"]


def test_a_batch_is_answered_event_by_event(worker: Any) -> None:
    processor = worker(
        """
        from nuclio_sdk import Response
        def handler(context, events):
            first = events[0].body
            if first == b"raise": 1 / 0
            if first == b"nothing": return None
            if first == b"plain": return [e.body for e in events]
            if first == b"one": return [Response(body="only", event_id=events[1].id)]
            if first == b"no ids": return [Response(body=e.body) for e in events]
            return [Response(body=e.body, event_id=e.id) for e in reversed(events)]
        """
    )
    for first, expected in [
        (b"fine", [200, 200]),
        (b"raise", [500, 500]),
        (b"nothing", [500, 500]),
        (b"plain", [200, 200]),
        (b"one", [500, 200]),
        (b"no ids", [200, 200]),
    ]:
        sent = [event(first), event(b"second")]
        processor.post(*sent)
        got = processor.answer()
        assert [a.event_id for a in got] == [e["id"] for e in sent], first
        assert [a.status for a in got] == expected, first
    processor.post(event(b"fine"), event(b"second"))
    assert [a.body for a in processor.answer()] == [b"fine", b"second"]
