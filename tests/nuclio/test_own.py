"""A function of ours: the same answers from our own server, under the driver, under the real processor."""

from __future__ import annotations

import base64
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nuclio.processor import HttpAnswer

CODE = """
import asyncio
from dataclasses import dataclass
from nuclio_sdk import Response
from digitalhub_runtime_python import handler

@dataclass
class Point:
    x: int
    y: int = 0

def prepare(context, start):
    context.total = start

@handler(outputs=["sum", "product"])
def both(a: int, b: int = 2):
    return a + b, a * b

def with_event(event, context, scale=1):
    context.total += scale
    return {"body": event.body if isinstance(event.body, dict) else None, "scale": scale, "path": event.path}

def typed(point: Point): return {"x": point.x, "y": point.y}
def anything(**fields): return sorted(fields)
def raises(a): raise ValueError("the user's own")
def listed(): return [1, 2]
def nothing(): return None
def answers(): return Response(body=b"\\xff\\x00", content_type="image/png", status_code=201, headers={"X-A": "1"})
def chunks():
    yield "a"
    yield "b"
async def later(a):
    await asyncio.sleep(0)
    return a
"""
JSON = "application/json"
CALLS = [
    ("both", b'{"a": 3}', JSON),
    ("both", b'{"a": 3, "b": 5}', JSON + "; charset=utf-8"),
    ("both", b"{}", JSON),
    ("both", b'{"a": "no"}', JSON),
    ("both", b'{"a": 1, "c": 2}', JSON),
    ("both", b"not json", JSON),
    ("both", b'{"a": 4}', ""),
    ("with_event", b'{"scale": 4, "other": 1}', JSON),
    ("with_event", b"text", "text/plain"),
    ("typed", b'{"point": {"x": 1}}', JSON),
    ("typed", b'{"point": {"y": "no"}}', JSON),
    ("anything", b'{"q": 1, "p": 2}', JSON),
    ("raises", b'{"a": 1}', JSON),
    ("listed", b"", ""),
    ("nothing", b"", ""),
    ("answers", b"", ""),
    ("chunks", b"", ""),
    ("later", b'{"a": [1]}', JSON),
]  # fmt: skip


def run_file(folder: Path, handler: str) -> Path:
    spec = {
        "source": {
            "base64": base64.b64encode(CODE.encode()).decode(),
            "handler": f"main:{handler}",
            "source": "main.py",
            "init_function": "prepare",
        },
        "init_parameters": {"start": 10},
        "function": "python://p/f:1",
    }
    run = {"id": "r", "project": "p", "kind": "python+serve:run", "spec": spec}
    file = folder / f"{handler}.json"
    file.write_text(json.dumps(run))
    return file


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What our own server answers."""
    folder = tmp_path_factory.mktemp("own")
    cache: dict[str, list[tuple[int, str, Any]]] = {}

    def ask(handler: str) -> list[tuple[int, str, Any]]:
        if handler not in cache:
            cache[handler] = _ask_own_server(folder, handler)
        return cache[handler]

    yield ask


@pytest.mark.parametrize("handler", sorted({call[0] for call in CALLS}))
def test_a_function_answers_under_the_processor_as_in_our_own_server(
    serve: Any, expected: Any, tmp_path: Path, handler: str
) -> None:
    processor = serve(
        handler="digitalhub_runtime_python:run",
        env={"DHPY_RUN_FILE": str(run_file(tmp_path, handler)), "DHPY_WORKSPACE": str(tmp_path)},
    )
    got = []
    for _, body, content_type in (call for call in CALLS if call[0] == handler):
        answer = processor.call(body, content_type=content_type)
        got.append((answer.status, answer.content_type, _comparable(answer.body)))
    assert got == expected(handler)


def test_cores_handler_is_the_run_where_there_is_one(worker: Any, tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("raise ImportError('handler.py was imported')")
    processor = worker(
        handler="handler:handler",
        env={
            "PROJECT_NAME": "p",
            "RUN_ID": "r",
            "DHPY_RUN_FILE": str(run_file(tmp_path, "listed")),
        },
    )
    assert processor.call().json() == [1, 2]


def test_a_batch_for_a_function_of_ours_is_answered_event_by_event(
    worker: Any, tmp_path: Path
) -> None:
    from nuclio.driver import event

    for handler in ("both", "later"):
        processor = worker(
            handler="digitalhub_runtime_python:run",
            env={"DHPY_RUN_FILE": str(run_file(tmp_path, handler))},
        )
        processor.post(
            *(event(json.dumps({"a": n}), content_type=JSON) for n in range(3)),
            event(b'{"zz": 1}', content_type=JSON),
        )
        assert [answer.status for answer in processor.answer()] == [200, 200, 200, 422]


def _ask_own_server(folder: Path, handler: str) -> list[tuple[int, str, Any]]:
    ready = folder / f"{handler}.ready"
    process = subprocess.Popen(
        [sys.executable, "-m", "digitalhub_runtime_python", "serve", "--host", "127.0.0.1", "--port", "0",
         "--management-port", "0"],
        env={**os.environ, "DHPY_RUN_FILE": str(run_file(folder, handler)), "DHPY_READY_FILE": str(ready),
             "DHPY_WORKSPACE": str(folder)},
    )  # fmt: skip
    try:
        give_up = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.02)
        address = json.loads(ready.read_text())["url"].partition("//")[2]
        found = []
        for _, body, content_type in (call for call in CALLS if call[0] == handler):
            connection = http.client.HTTPConnection(address, timeout=20)
            headers = {"Content-Type": content_type} if content_type else {}
            connection.request("POST", "/", body, headers)
            answer = HttpAnswer(connection.getresponse())
            found.append((answer.status, answer.content_type, _comparable(answer.body)))
            connection.close()
        return found
    finally:
        process.terminate()
        process.wait(40)


def _comparable(body: bytes) -> Any:
    try:
        value = json.loads(body)
    except ValueError:
        return body
    if isinstance(value, dict):
        value.pop("event_id", None)  # each request's own
    return value


def test_code_that_lies_in_the_image_is_served_with_what_lies_beside_it(
    worker: Any, tmp_path: Path
) -> None:
    code = tmp_path / "image"
    code.mkdir()
    (code / "main.py").write_text("import helper\ndef f(a: int): return helper.double(a)\n")
    (code / "helper.py").write_text("def double(a): return a * 2\n")
    run = {
        "id": "r", "project": "p", "kind": "python+serve:run",
        "spec": {"source": {"source": f"{code}/", "handler": "main:f"}},
    }  # fmt: skip
    processor = worker(handler="digitalhub_runtime_python:run", env={"DHPY_RUN": json.dumps(run)})
    assert processor.call(b'{"a": 2}', content_type=JSON).text == "4"
