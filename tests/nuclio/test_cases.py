"""The serving cases of tests/cases: under the processor they answer as in our own server, or differ as listed."""

from __future__ import annotations

import json
import posixpath
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
import requests

from digitalhub_runtime_python.nuclio.manifests import Deployment, function_file
from nuclio.driver import event
from nuclio.processor import Real

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "serve"))
from test_serve_cases import Answer, problems, with_requests

CASES = sorted(p.name for p in (TESTS / "cases").glob("serve_*") if (p / "service.json").exists())

# Case and exchange -> why it differs; docs/reference/nuclio.md has the list for readers.
_NO_STREAMS = "1.14 knows no streams: it gets the whole"
_FILES = "the processor sends the file itself"
_FORMS = "the processor parses forms before the worker sees them"
_EVENTS = (
    "the processor takes events apart itself, and keeps an earlier event's data for a malformed one"
)
_LIMIT = "the processor limits bodies, and what they unpack to has 64 MiB"
DIFFERENCES: dict[str, dict[tuple[str, str], str]] = {
    "driver": {
        ("serve_streams", "text"): _NO_STREAMS,
        ("serve_bodies", "gzip of more than the limit"): _LIMIT,
        ("serve_responses", "a file"): _FILES,
        ("serve_responses", "the file was removed"): _FILES,
        ("serve_responses", "a file that is not there"): _FILES,
    },
    "processor": {
        ("serve_streams", "text"): _NO_STREAMS,
        ("serve_bodies", "gzip of more than the limit"): _LIMIT,
        ("serve_bodies", "a CloudEvent that is none"): _EVENTS,
        ("serve_responses", "a file"): _FILES,
        ("serve_forms", "a form that ends early"): _FORMS,
        ("serve_forms", "a form that is something else"): _FORMS,
    },
}


@pytest.mark.parametrize("name", CASES)
def test_a_serving_case_answers_under_the_processor_as_in_our_own_server(
    serve: Any, name: str, request: pytest.FixtureRequest
) -> None:
    folder = TESTS / "cases" / name
    case = json.loads((folder / "service.json").read_text("utf-8"))
    spec = function_file(deployment(folder, case))["spec"]
    env = {e["name"]: e["value"] for e in spec["env"]} | (case.get("env") or {})
    processor = serve(handler=spec["handler"], env=env)
    kind = "processor" if isinstance(processor, Real) else "driver"
    wrong, same = [], []
    for exchange in case["exchanges"]:
        key = (name, exchange["title"])
        found = problems(ask(processor, exchange["request"]), exchange["response"])
        if found and key not in DIFFERENCES[kind]:
            wrong.append(f"{key}: {found}")
        elif not found and key in DIFFERENCES[kind]:
            same.append(key)
    assert not wrong, "\n".join(wrong)
    assert not same, "listed as different, and the same"


def deployment(folder: Path, case: dict[str, Any]) -> Deployment:
    """What `dhpy manifests` makes of the case's options of `dhpy serve`."""
    options = list(case.get("options") or [])
    given: dict[str, Any] = {"parameters": {}, "init_parameters": {}, "init_function": ""}
    while options:
        option, value = options.pop(0), options.pop(0)
        if option == "--init-function":
            given["init_function"] = value
        else:
            key, _, text = value.partition("=")
            given["parameters" if option == "-p" else "init_parameters"][key] = text
    return Deployment(
        name="case",
        image="i",
        file="main.py",
        handler=f"main:{case['handler']}",
        code=(folder / "main.py").read_text("utf-8"),
        **given,
    )


def ask(processor: Any, request: dict[str, Any]) -> Answer:
    if isinstance(processor, Real):
        return with_requests(f"http://127.0.0.1:{processor.port}", request)
    processor.post(as_event(request))
    got = processor.answer()
    headers = {**got.headers, **({"content-type": got.content_type} if got.content_type else {})}
    if got.status not in (204, 304):
        headers["content-length"] = str(len(got.body))  # the processor's to say
    body = b"" if request.get("method") == "HEAD" else got.body
    return Answer(got.status, list(headers.items()), body)


def as_event(request: dict[str, Any]) -> dict[str, Any]:
    """The event that Nuclio's HTTP trigger makes of a request."""
    sent: dict[str, Any] = {}

    class Adapter(requests.adapters.BaseAdapter):
        def send(self, prepared: Any, **_: Any) -> Any:
            sent.update(prepared=prepared)
            raise InterruptedError

        def close(self) -> None: ...

    with requests.Session() as session:
        session.mount("http://", Adapter())
        before, requests.request = requests.request, session.request  # type: ignore[assignment]
        try:
            with_requests("http://localhost", request)
        except InterruptedError:
            pass
        finally:
            requests.request = before
    prepared = sent["prepared"]
    parts = urlsplit(prepared.url)
    headers = {
        "-".join(p.capitalize() for p in k.split("-")): v for k, v in prepared.headers.items()
    }
    path = unquote(parts.path)
    normal = "/" + posixpath.normpath(path).lstrip("/")
    body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
    return event(
        body,
        content_type=headers.get("Content-Type", ""),
        headers={k: str(v) for k, v in headers.items()},
        method=prepared.method,
        path=normal + "/" if path.endswith(("/", "/.", "/..")) and normal != "/" else normal,
        fields=dict(parse_qsl(parts.query, keep_blank_values=True)),
    )
