"""Requests and responses: every folder tests/cases/serve_*, on real sockets, with three clients."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import httpx
import pytest
import requests
import services

CASES = sorted(p.name for p in services.CASES.glob("serve_*") if (p / "service.json").exists())


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [v for k, v in self.headers if k.lower() == name]


@pytest.fixture(scope="module")
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Any], services.Service]]:
    folder = services.CASES / request.param
    case = json.loads((folder / "service.json").read_text("utf-8"))
    with services.serving(
        folder / "main.py",
        case["handler"],
        *case.get("options", []),
        env=case.get("env"),
        tmp_path=tmp_path_factory.mktemp(request.param),
    ) as service:
        yield case, service


@pytest.mark.parametrize("client", ["requests", "httpx", "curl"])
@pytest.mark.parametrize("case", CASES, indirect=True)
def test_every_exchange_of_a_case_is_as_it_is_written(
    case: tuple[dict[str, Any], services.Service], client: str
) -> None:
    described, service = case
    wrong = []
    for exchange in described["exchanges"]:
        answer = CLIENTS[client](service.url, exchange["request"])
        wrong += [f"{exchange['title']}: {p}" for p in problems(answer, exchange["response"])]
    assert not wrong, "\n".join([*wrong, service.log[-3000:]])


def problems(answer: Answer, expected: dict[str, Any]) -> list[str]:
    text = answer.body.decode("utf-8", "replace")
    found = []

    def check(what: str, is_so: bool, got: Any) -> None:
        if not is_so:
            found.append(f"{what}, got {got!r}")

    check(
        f"status {expected['status']}", answer.status == expected["status"], (answer.status, text)
    )
    for name, value in expected.get("headers", {}).items():
        got = answer.header(name)
        check(f"{name}: {value}", got == ([] if value is None else [value]), got)
    if "cookies" in expected:
        got = answer.header("set-cookie")
        check("cookies", sorted(got) == expected["cookies"], got)
    if "text" in expected:
        check(f"body {expected['text']!r}", text == expected["text"], text)
    if "base64" in expected:
        check("body", answer.body == base64.b64decode(expected["base64"]), answer.body)
    if "json" in expected:
        check(f"JSON {expected['json']}", _json(text) == expected["json"], text)
    if "length" in expected:
        check("length", len(answer.body) == expected["length"], len(answer.body))
    for part in [
        *expected.get("all", []),
        *([expected["contains"]] if "contains" in expected else []),
    ]:
        check(f"contains {part!r}", part in text, text)
    for part in expected.get("none", []):
        check(f"does not contain {part!r}", part not in text, text)
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return "no JSON"


def _body(request: dict[str, Any]) -> tuple[bytes | None, dict[str, str]]:
    headers = dict(request.get("headers", {}))
    if "json" in request:
        return json.dumps(request["json"]).encode(), {"content-type": "application/json", **headers}
    if "text" in request:
        return request["text"].encode(), headers
    if "base64" in request:
        return base64.b64decode(request["base64"]), headers
    return None, headers


def _files(request: dict[str, Any]) -> dict[str, tuple[str, bytes, str]]:
    return {
        name: (filename, base64.b64decode(content), kind)
        for name, (filename, content, kind) in request.get("files", {}).items()
    }


def with_requests(url: str, request: dict[str, Any]) -> Answer:
    body, headers = _body(request)
    response = requests.request(
        request.get("method", "POST"),
        url + request.get("path", "/"),
        data=body if "files" not in request else request.get("fields"),
        files=_files(request) or None,
        headers=headers,
        timeout=30,
        allow_redirects=False,
    )
    pairs = [(k, v) for k in response.raw.headers for v in response.raw.headers.getlist(k)]
    return Answer(response.status_code, list(dict.fromkeys(pairs)), response.content)


def with_httpx(url: str, request: dict[str, Any]) -> Answer:
    body, headers = _body(request)
    more: dict[str, Any] = {"content": body}
    if "files" in request:
        more = {"data": request.get("fields"), "files": _files(request)}
    with httpx.Client(trust_env=False, timeout=30) as client:
        response = client.request(
            request.get("method", "POST"), url + request.get("path", "/"), headers=headers, **more
        )
    return Answer(response.status_code, response.headers.multi_items(), response.content)


def with_curl(url: str, request: dict[str, Any]) -> Answer:
    body, headers = _body(request)
    command = ["curl", "-sS", "-i", "--noproxy", "*", "--path-as-is", "--max-time", "30"]
    method = request.get("method", "POST")
    command += ["-I"] if method == "HEAD" else ["-X", method]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    if body is not None:
        command += ["--data-binary", "@-"]
        if "content-type" not in headers:
            command += ["-H", "content-type;"]
    for name, value in request.get("fields", {}).items():
        command += ["--form-string", f"{name}={value}"]
    command.append(url + request.get("path", "/"))
    with tempfile.TemporaryDirectory() as place:
        for name, (filename, content, kind) in _files(request).items():
            file = Path(place, name)
            file.write_bytes(content)
            command += ["-F", f"{name}=@{file};filename={filename};type={kind}"]
        done = subprocess.run(command, input=body, capture_output=True, timeout=40, check=True)
    output = done.stdout
    head, _, content = output.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, _, content = content.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    pairs = [(k, v.strip()) for k, _, v in (line.partition(":") for line in lines[1:])]
    return Answer(int(lines[0].split()[1]), pairs, content)


CLIENTS: dict[str, Callable[[str, dict[str, Any]], Answer]] = {
    "requests": with_requests,
    "httpx": with_httpx,
    "curl": with_curl,
}


def test_there_are_cases() -> None:
    assert len(CASES) >= 10
    assert all((Path(services.CASES) / name / "main.py").is_file() for name in CASES)
