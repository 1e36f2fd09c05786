"""Faults that need the real processor: what it does around the worker, and what becomes of its clients."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from nuclio.processor import Real


def test_a_handler_that_kills_its_worker_ends_the_processor_and_never_leaves_it_ready(
    real: Any,
) -> None:
    for code in ("os.kill(os.getpid(), 9)", "os._exit(0)", "os.abort()"):
        processor = real(f"import os\ndef handler(context, event): {code}")
        with contextlib.suppress(OSError):  # the processor may be quicker
            assert processor.call(timeout=10).status == 500
        assert processor.process.wait(20) != 0


def test_a_function_that_cannot_be_imported_ends_the_processor_and_the_log_says_why(
    real: Any,
) -> None:
    processor = real("import nothing_of_the_kind\n", wait=False)
    assert processor.process.wait(20) != 0
    assert "nothing_of_the_kind" in processor.log


def test_an_event_that_takes_too_long_is_408_and_leaves_no_process_behind(
    real: Any, tmp_path: Path
) -> None:
    processor = real(
        """
        import pathlib, subprocess, time
        def handler(context, event):
            if event.path != "/hang": return "ok"
            child = subprocess.Popen(["sleep", "300"])
            pathlib.Path(__file__).with_name("child").write_text(str(child.pid))
            time.sleep(300)
        """,
        spec={"eventTimeout": "1s"},
    )
    (before,) = processor.workers()
    assert processor.call(path="/hang", timeout=20).status == 408
    _wait_for(lambda: _ok(processor))
    (after,) = processor.workers()
    assert after != before
    child = int((tmp_path / "child").read_text())
    _wait_for(lambda: not _lives(child))


def test_a_processor_that_is_stopped_under_load_answers_what_it_has_taken(
    real: Any, tmp_path: Path
) -> None:
    processor = real(
        """
        import pathlib, time
        def init_context(context):
            note = pathlib.Path(__file__).with_name("ended")
            context.platform.set_termination_callback(lambda: note.write_text("yes"))
        def handler(context, event):
            time.sleep(0.05)
            return "ok"
        """,
        trigger={"numWorkers": 2},
    )
    seen: Counter[Any] = Counter()
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", processor.port, timeout=15)
            try:
                connection.request("POST", "/", b"x")
                seen[connection.getresponse().status] += 1
            except TimeoutError:
                seen["no answer"] += 1
            except OSError:
                return  # it no longer listens
            finally:
                connection.close()
            time.sleep(0.01)

    clients = [threading.Thread(target=load) for _ in range(6)]
    for client in clients:
        client.start()
    time.sleep(1)
    start = time.monotonic()
    processor.process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    stop.set()
    for client in clients:
        client.join()
    assert processor.process.wait(20) == 0
    assert time.monotonic() - start < 12  # 15 s with a worker that stays
    assert set(seen) <= {200, 503}, seen  # 503 is the processor's own: it is about to end
    assert seen[200] > 10
    assert (tmp_path / "ended").read_text() == "yes"


def test_batches_over_http_answer_every_client(real: Any) -> None:
    processor = real(
        """
        from nuclio_sdk import Response
        def handler(context, events):
            if any(e.body == b"raise" for e in events): raise ValueError("x")
            if any(e.body == b"nothing" for e in events): return []
            return [Response(body=e.body, event_id=e.id) for e in events]
        """,
        trigger={"batch": {"mode": "enable", "batchSize": 3, "timeout": "1s"}},
    )
    for body, statuses in [
        (b"fine", {200}),
        (b"raise", {500}),
        (b"nothing", {500}),
        (b"fine", {200}),
    ]:
        assert set(_at_once(processor, body, 3)) == statuses, body


def test_ten_thousand_requests_with_failures_among_them_are_all_answered(real: Any) -> None:
    processor = real(
        """
        def handler(context, event):
            if int(event.body) % 100 == 0: raise ValueError(event.body)
            return event.body
        """,
        trigger={"numWorkers": 2},
    )
    seen: Counter[int] = Counter()

    def run(numbers: range) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", processor.port, timeout=30)
        for number in numbers:
            connection.request("POST", "/", str(number).encode())
            response = connection.getresponse()
            body = response.read()
            seen[response.status] += 1
            assert response.status == 500 or int(body) == number
        connection.close()

    clients = [threading.Thread(target=run, args=(range(n, 10_000, 4),)) for n in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert seen == {200: 9900, 500: 100}


def test_a_log_record_of_megabytes_is_logged_and_the_request_answered(real: Any) -> None:
    processor = real(
        "def handler(c, e):\n    c.logger.info_with('big', text='x' * 5_000_000)\n    return 'ok'"
    )
    assert processor.call().text == "ok"
    _wait_for(lambda: "x" * 5_000_000 in processor.log)


def test_a_test_run_that_is_killed_leaves_no_processor(real: Any, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def handler(context, event): return 'ok'")
    code = (
        f"import pathlib, sys, time\nsys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from nuclio.processor import Real\n"
        f"real = Real(pathlib.Path({str(tmp_path)!r}))\n"
        "print(real.process.pid, *real.workers(), flush=True)\ntime.sleep(300)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    pids = [int(pid) for pid in run.stdout.readline().split()]
    run.kill()
    run.communicate()
    assert len(pids) == 2
    _wait_for(lambda: not any(map(_lives, pids)))
    for path in re.findall(r"/tmp/nuclio-rpc-\w+\.sock", (tmp_path / "processor.log").read_text()):
        Path(path).unlink(missing_ok=True)


def _at_once(processor: Real, body: bytes, count: int) -> list[int]:
    found: list[int] = []
    clients = [
        threading.Thread(target=lambda: found.append(processor.call(body, timeout=15).status))
        for _ in range(count)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert len(found) == count
    return found


def _ok(processor: Real) -> bool:
    try:
        return processor.call(timeout=15).text == "ok"
    except OSError:
        return False


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(condition: Any, seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)
