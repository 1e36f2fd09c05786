"""The code of docs/guides/serving.md does what the page says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import requests
from services import Service

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "serving.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.S)

Serve = Callable[..., Service]


def _block(name: str) -> str:
    return next(block for block in BLOCKS if f"def {name}(" in block)


def test_the_first_example(serve: Serve) -> None:
    options = ["--init-function", "init", "--init-parameter", "threshold=0.7"]
    service = serve(_block("predict"), "predict", *options)
    answer = service.post({"text": "hello", "times": 2})
    assert answer.json() == {"text": "hellohello", "score": 0.7}
    curl = requests.post(service.url, data='{"text": "hello"}', timeout=10)
    assert curl.json()["text"] == "hello"


def test_the_upload(serve: Serve) -> None:
    service = serve(_block("classify"), "classify")
    answer = requests.post(
        service.url, data={"title": "t"}, files={"image": ("a.png", b"123")}, timeout=10
    )
    assert answer.json() == {"name": "a.png", "size": 3, "title": "t"}


def test_the_stream(serve: Serve) -> None:
    service = serve(_block("count"), "count")
    answer = requests.post(service.url, timeout=10)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text.split("\n\n")[:2] == ['data: {"n":0}', 'data: {"n":1}']
