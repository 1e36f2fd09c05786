"""What goes wrong with a function and its process, and what the others notice of it."""

from __future__ import annotations

import gzip
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import services
from services import Service, alive, request_bytes, wait_until

Serve = Callable[..., Service]

FAULTY = """
import os, signal, subprocess, sys, time

def handler(context, event):
    what = event.path.strip("/")
    if what == "pid":
        return str(os.getpid())
    if what == "exit":
        os._exit(3)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "sleep":
        time.sleep(float(event.fields["s"]))
        return "slept"
    if what == "child":
        return str(subprocess.Popen(["sleep", "300"]).pid)
    if what == "leak":
        hoard = []
        while True:
            hoard.append(bytearray(b"x" * 10_000_000))
    if what == "forever":
        while True:
            time.sleep(0.1)
    return "fine"

async def ahandler(context, event):
    import asyncio
    if event.path == "/block":
        time.sleep(float(event.fields["s"]))
    if event.path == "/forever":
        await asyncio.sleep(3600)
    if event.path == "/stubborn":
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
    return str(os.getpid())
"""


def test_a_worker_that_exits_is_replaced_while_the_others_go_on(serve: Serve) -> None:
    service = serve(FAULTY, "handler", "--workers", "2")
    stop = threading.Event()
    answers: list[int] = []

    def keep_asking() -> None:
        while not stop.is_set():
            try:
                answers.append(requests.get(f"{service.url}/pid", timeout=10).status_code)
            except requests.ConnectionError:
                answers.append(0)  # it was in the worker that died

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(keep_asking)
        for path in ("/exit", "/kill", "/exit"):
            with pytest.raises(requests.ConnectionError):
                requests.get(f"{service.url}{path}", timeout=10)
            time.sleep(0.3)
        stop.set()
    assert answers.count(200) > 20
    assert set(answers) <= {200, 0}
    assert answers.count(0) <= 3 * 4
    wait_until(lambda: service.metric("dhpy_worker_up") == 2)
    assert service.metric("dhpy_worker_starts_total") == 5
    assert "ended with 3" in service.log
    assert "was ended by SIGKILL" in service.log
    assert service.manage("/ready").status_code == 200


def test_a_service_of_one_worker_takes_requests_again_after_a_kill(serve: Serve) -> None:
    service = serve(FAULTY, "handler")
    pid = int(requests.get(f"{service.url}/pid", timeout=10).text)
    os.kill(pid, signal.SIGKILL)
    # The socket is the supervisor's: this waits in the kernel for the next worker.
    assert int(requests.get(f"{service.url}/pid", timeout=30).text) != pid


def test_a_worker_that_crashes_again_and_again_is_started_less_and_less_often(serve: Serve) -> None:
    service = serve(FAULTY, "handler")
    for _ in range(5):
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{service.url}/exit", timeout=30)
    wait_until(lambda: "it is replaced in 0.8 s" in service.log)
    assert requests.get(f"{service.url}/", timeout=30).text == "fine"


def test_what_the_function_has_started_ends_with_its_worker(serve: Serve) -> None:
    service = serve(FAULTY, "handler")
    child = int(requests.get(f"{service.url}/child", timeout=10).text)
    assert alive(child)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{service.url}/kill", timeout=10)
    wait_until(lambda: not alive(child))


def test_a_dead_management_process_is_replaced(serve: Serve) -> None:
    service = serve(FAULTY, "handler")
    worker = int(requests.get(f"{service.url}/pid", timeout=10).text)
    (management,) = [pid for pid in service.children() if pid != worker]
    os.kill(management, signal.SIGKILL)
    wait_until(lambda: "the management process ended" in service.log)
    assert service.manage("/live").status_code == 200


def test_workers_end_when_their_supervisor_is_killed(serve: Serve) -> None:
    service = serve(FAULTY, "handler", "--workers", "2")
    children = service.children()
    assert len(children) == 3
    service.process.kill()
    service.process.wait()
    wait_until(lambda: not any(alive(pid) for pid in children))


def test_a_slow_handler_does_not_hold_up_health_and_metrics(serve: Serve) -> None:
    service = serve(FAULTY, "handler")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(requests.get, f"{service.url}/sleep?s=2", timeout=30)
        time.sleep(0.3)
        start = time.monotonic()
        while not slow.done():
            for path in ("/live", "/ready", "/metrics"):
                assert service.manage(path).status_code == 200
            health = requests.get(f"{service.url}/__internal/health", timeout=1)
            assert health.status_code == 200
        assert time.monotonic() - start > 1  # it was asked while the handler computed
        assert slow.result().text == "slept"


def test_an_async_handler_that_blocks_does_not_hold_up_health(serve: Serve) -> None:
    service = serve(FAULTY, "ahandler")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(requests.get, f"{service.url}/block?s=1.5", timeout=30)
        time.sleep(0.3)
        assert requests.get(f"{service.url}/__internal/health", timeout=1).status_code == 200
        assert not slow.done()
        assert slow.result().status_code == 200


def test_a_plain_handler_past_its_deadline_is_answered_and_its_worker_replaced(
    serve: Serve,
) -> None:
    service = serve(FAULTY, "handler", env={"DHPY_REQUEST_TIMEOUT": "0.5"})
    pid = int(requests.get(f"{service.url}/pid", timeout=10).text)
    with ThreadPoolExecutor(2) as pool:
        stuck = pool.submit(requests.get, f"{service.url}/forever", timeout=30)
        time.sleep(0.2)
        behind = pool.submit(requests.get, f"{service.url}/", timeout=30)
        assert stuck.result().status_code == 504
        assert stuck.result().headers["content-type"] == "application/problem+json"
        assert behind.result().status_code == 503
        assert behind.result().headers["retry-after"] == "1"
    assert int(requests.get(f"{service.url}/pid", timeout=30).text) != pid
    assert service.metric("dhpy_requests_total", status="504") == 1


def test_an_async_handler_past_its_deadline_is_cancelled_and_its_worker_goes_on(
    serve: Serve,
) -> None:
    service = serve(FAULTY, "ahandler", env={"DHPY_REQUEST_TIMEOUT": "0.5"})
    pid = requests.get(service.url, timeout=10).text
    for path in ("/forever", "/stubborn"):
        assert requests.get(f"{service.url}{path}", timeout=30).status_code == 504
    assert requests.get(service.url, timeout=10).text == pid


def test_an_async_handler_that_blocks_for_ever_costs_its_worker(serve: Serve) -> None:
    service = serve(FAULTY, "ahandler", env={"DHPY_REQUEST_TIMEOUT": "0.5"})
    pid = requests.get(service.url, timeout=10).text
    assert requests.get(f"{service.url}/block?s=600", timeout=30).status_code == 504
    wait_until(lambda: "this worker is replaced" in service.log)
    assert requests.get(service.url, timeout=30).text != pid


def test_who_waits_too_long_for_a_worker_is_told_when_to_come_back(serve: Serve) -> None:
    service = serve(FAULTY, "handler", env={"DHPY_WAIT": "0.3", "DHPY_QUEUE": "3"})
    with ThreadPoolExecutor(8) as pool:
        slow = pool.submit(requests.get, f"{service.url}/sleep?s=1.5", timeout=30)
        time.sleep(0.3)
        others = [pool.submit(requests.get, service.url, timeout=30) for _ in range(7)]
        refused = [o.result() for o in others]
        assert slow.result().status_code == 200
    assert [r.status_code for r in refused] == [503] * 7
    assert all(r.headers["retry-after"] == "1" for r in refused)
    assert max(r.elapsed.total_seconds() for r in refused) < 1.4  # while the slow one still ran
    assert requests.get(service.url, timeout=10).text == "fine"


def test_a_client_that_leaves_while_it_waits_is_not_served(serve: Serve, tmp_path: Path) -> None:
    code = f"""
import pathlib, time
def handler(context, event):
    with pathlib.Path({str(tmp_path / "calls")!r}).open("a") as calls:
        calls.write(event.path + "\\n")
    time.sleep(float(event.fields.get("s", 0)))
"""
    service = serve(code, "handler")
    with service.connect(request_bytes(path="/slow?s=1")) as slow:
        time.sleep(0.3)
        with service.connect(request_bytes(path="/left")):
            wait_until(lambda: service.metric("dhpy_worker_requests_waiting") == 1)
        time.sleep(0.1)
        assert requests.get(f"{service.url}/last", timeout=10).status_code == 204
        assert services.read_response(slow)[0] == 204
    assert (tmp_path / "calls").read_text().split() == ["/slow", "/last"]
    assert service.metric("dhpy_requests_total", status="499") == 1


def test_a_client_that_leaves_cancels_an_async_call(serve: Serve, tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib
async def handler(event):
    if event.path != "/wait":
        return "fine"
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        pathlib.Path({str(tmp_path / "cancelled")!r}).touch()
        raise
"""
    service = serve(code, "handler")
    with service.connect(request_bytes(path="/wait")):
        wait_until(lambda: service.metric("dhpy_worker_requests_in_flight") == 1)
    wait_until((tmp_path / "cancelled").exists)
    assert requests.get(service.url, timeout=10).text == "fine"


STREAMS = """
import asyncio, pathlib, time

def stream(place):
    try:
        for n in range(100_000):
            yield b"x" * 10_000
            time.sleep(0.001)
    finally:
        pathlib.Path(place).touch()

def handler(event):
    if event.path == "/stream":
        return stream(event.fields["place"])
    if event.path == "/breaks":
        return breaks()
    return "fine"

def breaks():
    yield "a beginning"
    raise ValueError("in the middle")

async def ahandler(event, place: str = ""):
    if event.path == "/stream":
        try:
            for n in range(100_000):
                yield b"x" * 10_000
                await asyncio.sleep(0.001)
        finally:
            pathlib.Path(event.fields["place"]).touch()
    elif event.path == "/breaks":
        yield "a beginning"
        raise ValueError("in the middle")
    else:
        yield "fine"
"""


@pytest.mark.parametrize("handler", ["handler", "ahandler"])
def test_a_client_that_leaves_in_a_stream_ends_the_generator(
    serve: Serve, tmp_path: Path, handler: str
) -> None:
    service = serve(STREAMS, handler)
    place = tmp_path / "closed"
    with service.connect(request_bytes(path=f"/stream?place={place}")) as client:
        client.recv(1000)
    wait_until(place.exists)
    assert requests.get(service.url, timeout=10).text == "fine"


@pytest.mark.parametrize("handler", ["handler", "ahandler"])
def test_a_client_that_does_not_read_holds_up_its_stream_and_not_memory(
    serve: Serve, tmp_path: Path, handler: str
) -> None:
    service = serve(STREAMS, handler, env={"DHPY_STALL_TIMEOUT": "1"})
    place = tmp_path / "closed"
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(service.address)
    with client:
        client.sendall(request_bytes(path=f"/stream?place={place}"))
        wait_until(place.exists)  # it is given up after the stall
    assert service.metric("dhpy_worker_resident_bytes") < 100 * 1024 * 1024
    assert requests.get(service.url, timeout=10).text == "fine"


def test_a_client_that_reads_slowly_and_steadily_gets_its_whole_answer(serve: Serve) -> None:
    size = 12_000_000  # more than the kernel keeps: nothing more leaves the process for six seconds or so
    code = f"def handler(event):\n    return b'x' * {size}\n"
    service = serve(code, "handler", env={"DHPY_STALL_TIMEOUT": "3"})
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.connect(service.address)
    got = 0
    with client:
        client.sendall(request_bytes(Connection="close"))
        slowly_until = time.monotonic() + 8
        while chunk := client.recv(10_000 if time.monotonic() < slowly_until else 1_000_000):
            got += len(chunk)
            if time.monotonic() < slowly_until:
                time.sleep(0.05)
    assert size < got < size + 1000


@pytest.mark.parametrize("handler", ["handler", "ahandler"])
def test_a_stream_that_breaks_does_not_look_complete(serve: Serve, handler: str) -> None:
    service = serve(STREAMS, handler)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(f"{service.url}/breaks", timeout=10)
    assert "in the middle" in service.log
    assert requests.get(service.url, timeout=10).text == "fine"


def test_chunks_are_sent_when_they_are_made(serve: Serve) -> None:
    code = """
import time
def handler():
    for n in range(3):
        yield f"{n}\\n"
        time.sleep(0.5)
"""
    service = serve(code, "handler")
    times = []
    with requests.post(service.url, stream=True, timeout=30) as response:
        for _ in response.iter_lines():
            times.append(time.monotonic())
    assert len(times) == 3
    assert times[2] - times[0] > 0.7


@contextmanager
def memory_limit(mebibytes: int) -> Iterator[Path]:
    """A memory control group of cgroup v1, as a container's runtime makes one."""
    root = Path("/sys/fs/cgroup/memory")
    if not (root / "memory.limit_in_bytes").exists() or not os.access(root, os.W_OK):
        pytest.skip("no memory cgroup v1 that can be written")
    group = root / f"dhpy-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(mebibytes << 20))
    except OSError as exc:
        pytest.skip(f"a memory cgroup cannot be made: {exc}")
    try:
        yield group
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_a_worker_that_the_memory_limit_kills_is_replaced(serve: Serve, tmp_path: Path) -> None:
    """It leaks towards 2 GB under a limit of 200 MiB; the kernel kills the largest process."""
    (tmp_path / "main.py").write_text(FAULTY)
    with memory_limit(200) as group:
        code = "from digitalhub_runtime_python.cli import main; main()"
        command = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
        command += [sys.executable, "-c", code, "serve", f"{tmp_path}/main.py:handler"]
        command += ["--port", "0", "--management-port", "0"]
        with services.started(command, tmp_path=tmp_path / "service") as service:
            pid = int(requests.get(f"{service.url}/pid", timeout=10).text)
            with pytest.raises(requests.ConnectionError):
                requests.get(f"{service.url}/leak", timeout=60)
            wait_until(lambda: "was ended by SIGKILL" in service.log)
            assert int(requests.get(f"{service.url}/pid", timeout=30).text) != pid
            assert service.manage("/live").status_code == 200


def test_an_address_space_limit_is_an_answer(serve: Serve) -> None:
    code = """
import resource
def init(context):
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
def handler(event):
    return str(len(bytearray(2 << 30))) if event.path == "/leak" else "fine"
"""
    service = serve(code, "handler", "--init-function", "init")
    assert "MemoryError" in requests.get(f"{service.url}/leak", timeout=30).text
    assert requests.get(service.url, timeout=10).text == "fine"


def test_curl_sees_the_limit_of_a_body_before_it_sends_it(serve: Serve, tmp_path: Path) -> None:
    service = serve(FAULTY, "handler")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)  # 1 GB of nothing
    command = ["curl", "-sS", "-w", "\n%{http_code} %{size_upload}", "--noproxy", "*", "-T"]
    output = subprocess.run(
        [*command, file.name, service.url], capture_output=True, timeout=60, check=True
    ).stdout.decode()
    answer, _, numbers = output.rpartition("\n")
    status, uploaded = numbers.split()
    assert status == "413"
    assert "the limit is 4194304" in answer
    assert int(uploaded) < 100_000_000
    assert service.metric("dhpy_worker_resident_bytes") < 100 * 1024 * 1024


BODIES = {
    **{
        f"{what} of {depth}": (opening * depth + "1" + closing * depth).encode()
        for depth in (150, 250, 500, 900, 985, 1100, 100_000)
        for what, opening, closing in (("lists", "[", "]"), ("objects", '{"a":', "}"))
    },
    "an argument": b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}",
    "an open list": b"[" * 100_000,
    "UTF-16": ("[" * 900 + "]" * 900).encode("utf-16"),
}
"""Bombs of depth, and what is just below one."""


@pytest.mark.parametrize(
    "code, handler, statuses",
    [
        ("def f(context, event):\n    return event.body\n", "f", {200}),
        ("def f(a):\n    return a\n", "f", {200, 400, 422}),
        ("def f(a: 'list[list]'):\n    return a\n", "f", {400, 422}),
    ],
    ids=["event", "argument", "hint"],
)
def test_a_bomb_in_a_body_is_answered_and_the_worker_goes_on(
    serve: Serve, code: str, handler: str, statuses: set[int]
) -> None:
    service = serve(f"import os\nprint('worker', os.getpid(), flush=True)\n{code}", handler)
    kinds = {"Content-Type": "application/json"}
    for name, body in BODIES.items():
        got = requests.post(service.url, data=body, headers=kinds, timeout=60)
        assert got.status_code in statuses, (name, got.text[:300])
        packed = requests.post(service.url, data=gzip.compress(body), headers={**kinds, "Content-Encoding": "gzip"}, timeout=60)  # fmt: skip
        assert packed.status_code == got.status_code, name
        sent = {"method": "POST", "headers": kinds, "body": body.decode("latin-1")}
        tried = requests.post(service.management_url + "/try", json=sent, timeout=60)
        assert tried.status_code == 200, (name, tried.text[:300])
        tried = requests.post(service.management_url + "/try", data=body, headers=kinds, timeout=60)
        assert tried.status_code in (200, 400), (name, tried.text[:300])
    bomb = gzip.compress(bytes(200 << 20))
    for packed_again in (bomb, gzip.compress(bomb)):
        got = requests.post(service.url, data=packed_again, headers={"Content-Encoding": "gzip"}, timeout=60)  # fmt: skip
        assert got.status_code in {*statuses, 413, 415}, got.text[:300]
    # A worker that had died would have loaded the code once more, in another process.
    assert len(set(re.findall(r"worker \d+", service.log))) == 1
