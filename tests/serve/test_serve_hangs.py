"""Workers that hang are seen from outside, replaced, and never outlive their supervisor."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from services import Service, alive, wait_until

Serve = Callable[..., Service]

CODE = """
import asyncio, os, re, signal, subprocess, threading, time

def regex():
    re.match(r"(a+)+$", "a" * 40 + "b")

def total():
    sum(range(10**13))

def power():
    pow(3, 10**9)

def stopped():
    os.kill(os.getpid(), signal.SIGSTOP)

def loop():
    while True:
        pass

def loop_in_c():
    [None for _ in iter(int, 1)]

def sleep():
    time.sleep(3600)

WAYS = {f.__name__: f for f in (regex, total, power, stopped, loop, loop_in_c, sleep)}

def act(event):
    if event.path == "/child":
        return str(subprocess.Popen(["sleep", "600"]).pid)
    if event.path != "/":
        WAYS[event.path[1:]]()
    return str(os.getpid())

def handler(event):
    return act(event)

async def ahandler(event):
    return act(event)
"""
WAYS = ["regex", "total", "power", "stopped", "loop", "loop_in_c", "sleep"]
SILENT = ["regex", "stopped"]
DEADLINE = {"DHPY_REQUEST_TIMEOUT": "1", "DHPY_GRACE": "3"}


def ask(service: Service, path: str) -> int:
    """The status of the answer; 0 where the connection was dropped."""
    try:
        return requests.get(service.url + path, timeout=30).status_code
    except requests.ConnectionError:
        return 0


@pytest.mark.parametrize("handler", ["handler", "ahandler"])
def test_a_call_that_hangs_is_answered_or_dropped_and_its_worker_replaced(
    serve: Serve, handler: str
) -> None:
    service = serve(CODE, handler, env=DEADLINE)
    for n, way in enumerate(WAYS, 1):
        pid = requests.get(service.url, timeout=30).text
        with ThreadPoolExecutor(2) as pool:
            stuck = pool.submit(ask, service, f"/{way}")
            time.sleep(0.2)
            behind = pool.submit(ask, service, "/")
            # In the worker that hangs they share its fate; in the kernel's queue, the next one serves them.
            assert stuck.result() in (504, 0), way
            assert behind.result() in (200, 503, 504, 0), way
        assert requests.get(service.url, timeout=30).text != pid, way
        wait_until(lambda n=n: service.metric("dhpy_worker_starts_total") == n + 1)
        assert not alive(int(pid)), way
    wait_until(lambda: service.manage("/ready").status_code == 200)


@pytest.mark.parametrize("way", SILENT)
def test_a_worker_without_a_deadline_that_gives_no_sign_of_life_is_replaced(
    serve: Serve, way: str
) -> None:
    service = serve(CODE, "handler", env={"DHPY_HANG_TIMEOUT": "4"})
    assert service.manage("/ready").status_code == 200
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(ask, service, f"/{way}")
        wait_until(lambda: service.manage("/ready").status_code == 503)
        assert service.metric("dhpy_worker_up") == 0
        assert stuck.result() == 0
    assert ask(service, "/") == 200
    wait_until(lambda: service.manage("/ready").status_code == 200)
    assert "has given no sign of life" in service.log


def test_a_loop_that_an_async_handler_blocks_is_replaced_without_a_deadline_too(
    serve: Serve,
) -> None:
    service = serve(CODE, "ahandler", env={"DHPY_HANG_TIMEOUT": "1"})
    assert ask(service, "/loop") == 504
    assert ask(service, "/") == 200


def test_of_two_workers_the_other_one_serves_meanwhile(serve: Serve) -> None:
    service = serve(CODE, "handler", "--workers", "2", env={"DHPY_HANG_TIMEOUT": "60"})
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ask, service, "/regex")
        wait_until(lambda: service.metric("dhpy_worker_up") == 1)
        assert service.manage("/ready").json()["ready"] == 1
        assert ask(service, "/") == 200
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "ending: " in service.log)
        service.process.send_signal(signal.SIGTERM)  # ends what hangs at once
        assert service.process.wait(30) == 128 + signal.SIGTERM


@pytest.mark.parametrize("way", SILENT)
def test_sigterm_ends_a_worker_that_hangs_within_the_grace_time(serve: Serve, way: str) -> None:
    service = serve(CODE, "handler", env={"DHPY_GRACE": "1"})
    service.manage("/live")
    children = service.children()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ask, service, f"/{way}")
        wait_until(lambda: service.manage("/ready").status_code == 503)
        assert service.stop() == 128 + signal.SIGTERM
    assert not any(alive(pid) for pid in children)


@pytest.mark.parametrize("way", SILENT)
@pytest.mark.parametrize("management", ["lives", "dies too"])
def test_a_worker_that_hangs_does_not_outlive_its_supervisor(
    serve: Serve, way: str, management: str
) -> None:
    service = serve(CODE, "handler")
    child = int(requests.get(f"{service.url}/child", timeout=30).text)
    worker = int(requests.get(service.url, timeout=30).text)
    service.manage("/live")  # which starts after the worker
    children = service.children()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ask, service, f"/{way}")
        wait_until(lambda: service.manage("/ready").status_code == 503)
        service.process.kill()
        if management != "lives":
            for pid in children:
                if pid != worker:
                    os.kill(pid, signal.SIGKILL)
        service.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in children))
    if management == "lives":
        wait_until(lambda: not alive(child))
    elif alive(child):
        os.kill(child, signal.SIGKILL)


def test_a_management_process_that_is_stopped_is_replaced(serve: Serve) -> None:
    service = serve(CODE, "handler")
    service.manage("/live")  # it starts after the worker
    worker = int(requests.get(service.url, timeout=30).text)
    (management,) = [pid for pid in service.children() if pid != worker]
    os.kill(management, signal.SIGSTOP)
    wait_until(lambda: not alive(management), 40)
    assert service.manage("/live").status_code == 200


def test_what_paused_as_a_whole_is_not_replaced_when_it_goes_on(serve: Serve) -> None:
    service = serve(CODE, "handler", env=DEADLINE)
    pid = int(requests.get(service.url, timeout=30).text)
    service.manage("/live")
    paused = [service.process.pid, *service.children()]
    for process in paused:
        os.kill(process, signal.SIGSTOP)
    time.sleep(3)
    for process in paused:
        os.kill(process, signal.SIGCONT)
    time.sleep(1)
    assert int(requests.get(service.url, timeout=30).text) == pid
