"""Load: nothing lost, nothing wrong; and what happens when it is too much."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable

import pytest
import requests
from load import drive
from services import Service, request_bytes, wait_until

Serve = Callable[..., Service]

REQUESTS = int(os.environ.get("DHPY_TEST_LOAD_REQUESTS", "20000"))
"""200,000 for a long run."""

CODE = """
import asyncio, time
def handler(n: int, text: str):
    return {"n": n, "text": text, "twice": 2 * n}
async def ahandler(n: int, text: str):
    if n % 100 == 0:
        await asyncio.sleep(0.001)
    return {"n": n, "text": text, "twice": 2 * n}
def slow(context, event):
    time.sleep(0.02)
    return "fine"
"""


@pytest.mark.parametrize("handler", ["handler", "ahandler"])
def test_no_request_is_lost_or_wrong_under_load(serve: Serve, handler: str) -> None:
    """256 connections that are kept, 2 workers."""
    service = serve(CODE, handler, "--workers", "2", env={"DHPY_WAIT": "60"})

    def make(n: int) -> bytes:
        body = json.dumps({"n": n, "text": "x" * (n % 50)}).encode()
        return request_bytes(body, content_type="application/json")

    def check(n: int, status: int, headers: dict[str, str], body: bytes) -> bool:
        expected = {"n": n, "text": "x" * (n % 50), "twice": 2 * n}
        return status == 200 and json.loads(body) == expected

    load = drive(service.address, 256, make=make, check=check, requests=REQUESTS)
    assert not load.lost, load.lost[:5]
    assert not load.wrong, load.wrong[:5]
    assert load.answers == {200: REQUESTS}
    assert service.metric("dhpy_requests_total", status="200") == REQUESTS
    assert service.metric("dhpy_worker_starts_total") == 2
    assert service.metric("dhpy_worker_resident_bytes") < 2 * 60 * 1024 * 1024


def test_more_than_it_can_do_is_answered_with_200_or_503(serve: Serve) -> None:
    env = {"DHPY_WAIT": "0.5", "DHPY_QUEUE": "40"}
    service = serve(CODE, "slow", env=env)

    def check(n: int, status: int, headers: dict[str, str], body: bytes) -> bool:
        return status == 200 or (status == 503 and headers.get("retry-after") == "1")

    def overload(seconds: float) -> None:
        load = drive(
            service.address,
            200,
            make=lambda n: request_bytes(b"x" * 10_000),
            check=check,
            seconds=seconds,
            pause=0.02,
        )
        assert not load.lost
        assert not load.wrong, load.wrong[:5]
        assert load.answers[200] > seconds * 10
        assert load.answers[503] > seconds * 50
        assert max(load.accepted) < 3.0  # half a second in the queue; the rest is a busy machine's

    overload(1)
    before = service.metric("dhpy_worker_resident_bytes")
    overload(3)
    assert service.metric("dhpy_worker_resident_bytes") < before + 10 * 1024 * 1024
    assert service.post().text == "fine"


COMING_AND_GOING = """
import asyncio, time
def handler(event):
    if event.path == "/stream":
        return ("x" * 5000 for _ in range(50))
    if event.path == "/raise":
        raise ValueError("no")
    time.sleep(0.0005)
    return "fine"
async def ahandler(event):
    if event.path == "/stream":
        async def chunks():
            for _ in range(50):
                yield "x" * 5000
                await asyncio.sleep(0)
        return event and Response(body=chunks())
    if event.path == "/raise":
        raise ValueError("no")
    await asyncio.sleep(0.0005)
    return "fine"
from nuclio_sdk import Response
"""


@pytest.mark.parametrize("handler", ["handler", "ahandler"])
def test_clients_that_come_and_go_leave_nothing_behind(serve: Serve, handler: str) -> None:
    service = serve(COMING_AND_GOING, handler, env={"DHPY_STALL_TIMEOUT": "5"})
    chance = random.Random(1)
    stop = time.monotonic() + 4

    def come_and_go(seed: int) -> None:
        own = random.Random(seed)
        while time.monotonic() < stop:
            with contextlib.suppress(OSError), service.connect() as client:
                client.settimeout(0.05)
                for _ in range(own.randint(1, 3)):
                    path = own.choice(["/", "/stream", "/raise"])
                    data = request_bytes(b"x" * own.choice([0, 10, 50_000]), path)
                    client.sendall(data[: own.choice([len(data), own.randint(0, len(data))])])
                    if own.random() < 0.7:
                        client.recv(own.choice([10, 100_000]))
                if own.random() < 0.3:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    threads = [threading.Thread(target=come_and_go, args=(chance.random(),)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("requests_in_flight", "requests_waiting", "connections"):
        wait_until(lambda name=name: service.metric(f"dhpy_worker_{name}") == 0)  # type: ignore[misc]
    assert service.metric("dhpy_requests_total", status="200") > 50
    assert service.metric("dhpy_worker_starts_total") == 1
    assert service.post().text == "fine"
    log = service.log.replace("ValueError: no", "")
    assert "has failed" not in log
    assert "RuntimeError" not in log


def test_requests_and_connections_leave_no_garbage(serve: Serve) -> None:
    """With the collector off: what is in a cycle would stay, and count."""
    code = """
import collections, gc
from nuclio_sdk import Response
def init(context):
    gc.disable()
def handler(event):
    if event.path == "/count":
        names = collections.Counter(type(o).__name__ for o in gc.get_objects())
        return {n: names[n] for n in ("Connection", "Exchange", "RequestEvent", "HttpRequestParser", "Stream", "traceback")}
    if event.path == "/raise":
        raise ValueError("no")
    if event.path == "/stream":
        return Response(body=(c for c in "abc"))
    return event.body
"""
    service = serve(code, "handler", "--init-function", "init")

    def ask_all(times: int) -> None:
        session = requests.Session()
        for _ in range(times):
            for client in (session, requests):
                for path in ("/", "/raise", "/stream"):
                    client.post(service.url + path, json={"a": 1}, timeout=10)
            service.connect(request_bytes(b"x" * 10)[:-5]).close()
            service.exchange(b"rubbish\r\n\r\n")

    ask_all(3)
    before = service.post(path="/count").json()
    ask_all(40)
    wait_until(lambda: service.metric("dhpy_worker_connections") <= 1)
    after = service.post(path="/count").json()
    assert all(after[name] <= before[name] + 5 for name in before), (before, after)
