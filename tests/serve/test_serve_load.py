"""Load: nothing lost, nothing wrong; and what happens when it is too much."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from load import drive
from services import Service, request_bytes

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
