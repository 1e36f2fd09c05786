"""The management port: health, metrics, OpenAPI, the page to try the function."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from services import Service, wait_until

from digitalhub_runtime_python.serve import page

Serve = Callable[..., Service]

TYPED = '''
import dataclasses, datetime
from typing import List, Literal, Optional

@dataclasses.dataclass
class Item:
    """A thing to sell."""
    name: str
    price: float = 1.0

class Opaque: ...

def order(
    items: List[Item],
    when: Optional[datetime.date] = None,
    mode: Literal["fast", "slow"] = "fast",
    thing: Opaque = None,
    limit=10,
) -> Item:
    """Order things.

    They come by mail.

    Args:
        items (list): what to order.
        mode: how soon; it
            takes a while.

    Returns:
        the dearest.
    """
    return max(items, key=lambda i: i.price)
'''


def test_openapi_describes_the_function_from_its_signature_and_docstring(serve: Serve) -> None:
    service = serve(TYPED, "order", "-p", "limit=3")
    document = service.manage("/openapi.json").json()
    operation = document["paths"]["/"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "order"
    assert operation["summary"] == "Order things."
    assert operation["description"] == "They come by mail."
    assert body["required"] == ["items"]
    assert body["additionalProperties"] is False
    assert body["properties"]["items"]["items"] == {"$ref": "#/components/schemas/Item"}
    assert body["properties"]["items"]["description"] == "what to order."
    assert body["properties"]["mode"]["enum"] == ["fast", "slow"]
    assert body["properties"]["mode"]["default"] == "fast"
    assert body["properties"]["limit"]["default"] == "3"
    assert "thing" in body["properties"]
    item = document["components"]["schemas"]["Item"]
    assert item["properties"]["price"]["default"] == 1.0
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/Item"}
    assert "422" in operation["responses"]


def test_openapi_of_a_function_that_reads_the_event_takes_anything(serve: Serve) -> None:
    service = serve("def handler(context, event):\n    return 'x'\n", "handler")
    operation = service.manage("/openapi.json").json()["paths"]["/"]["post"]
    assert operation["requestBody"]["content"]["*/*"] == {"schema": {}}
    assert operation["requestBody"]["required"] is False


def test_openapi_of_a_class_and_of_unresolvable_hints(serve: Serve) -> None:
    code = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import nothing
class Handler:
    \"\"\"Called like a function.\"\"\"
    def __call__(self, a: nothing.Thing, b: int = 1) -> nothing.Thing:
        return {"a": a, "b": b}
handler = Handler()
"""
    service = serve(code, "handler")
    assert service.post({"a": 1}).json() == {"a": 1, "b": 1}
    body = service.manage("/openapi.json").json()["paths"]["/"]["post"]["requestBody"]
    properties = body["content"]["application/json"]["schema"]["properties"]
    assert properties["a"] == {}
    assert properties["b"] == {"type": "integer", "default": 1}


def test_metrics_are_prometheus_text_and_count_what_was_answered(serve: Serve) -> None:
    service = serve("def handler(n: int):\n    return n\n", "handler", "--workers", "2")
    for n in (1, 2, "x"):
        service.post({"n": n})
    requests.post(service.url, data=b"x" * 5_000_000, timeout=30)
    response = service.manage("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {f.name: f for f in text_string_to_metric_families(response.text)}
    assert set(families) == {
        "dhpy_worker_up",
        "dhpy_worker_resident_bytes",
        "dhpy_worker_connections",
        "dhpy_worker_requests_in_flight",
        "dhpy_worker_requests_waiting",
        "dhpy_worker_starts",
        "dhpy_requests",
        "dhpy_request_duration_seconds",
    }
    assert service.metric("dhpy_requests_total", status="200") == 2
    assert service.metric("dhpy_requests_total", status="422") == 1
    assert service.metric("dhpy_requests_total", status="413") == 1
    assert service.metric("dhpy_request_duration_seconds_count") == 4
    assert service.metric("dhpy_request_duration_seconds_bucket", le="+Inf") == 4
    assert service.metric("dhpy_worker_up") == 2


def test_the_page_passes_requests_on_to_the_function(serve: Serve) -> None:
    code = "def handler(context, event):\n    return {'path': event.path, 'body': event.body}\n"
    service = serve(code, "handler")
    page = service.manage("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    # Nothing comes from elsewhere: it works with no network.
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page.text)
    answer = requests.post(
        service.management_url + "/try",
        json={
            "method": "POST",
            "path": "/a b?x=ü",
            "headers": {"content-type": "application/json"},
            "body": '{"n": 1}',
        },
        timeout=10,
    ).json()
    assert answer["status"] == 200
    assert '"path":"/a b"' in answer["body"]
    assert '"body":{"n":1}' in answer["body"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"data": '{"path": "/"}', "headers": {"content-type": "text/plain"}}, 415),
        ({"data": "no JSON", "headers": {"content-type": "application/json"}}, 400),
        ({"json": [1]}, 400),
        ({"json": {"headers": {"X": "a\r\nb: c"}}}, 400),
        ({"json": {"method": "A\r\nB"}}, 400),
    ],
)
def test_the_page_sends_nothing_that_is_not_its_own(
    serve: Serve, sent: dict[str, object], status: int
) -> None:
    """Other sites' pages can only send what a browser does not ask about first."""
    service = serve("def handler(event):\n    return 'x'\n", "handler")
    response = requests.post(service.management_url + "/try", timeout=10, **sent)  # type: ignore[arg-type]
    assert response.status_code == status
    assert service.metric("dhpy_requests_total") == 0


FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8082"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "localhost.evil.example"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


def test_a_page_of_another_site_neither_calls_the_function_nor_reads_anything(serve: Serve) -> None:
    service = serve("def handler(event):\n    return 'x'\n", "handler")
    url = service.management_url
    port = url.rpartition(":")[2]
    for headers in FOREIGN:
        for path in ("/", "/live", "/ready", "/metrics", "/openapi.json"):
            assert requests.get(url + path, headers=headers, timeout=10).status_code == 403, headers
        tried = requests.post(f"{url}/try", json={"path": "/"}, headers=headers, timeout=10)
        assert tried.status_code == 403, headers
    assert service.metric("dhpy_requests_total") == 0
    own = {"Origin": url, "Sec-Fetch-Site": "same-origin"}
    assert requests.post(f"{url}/try", json={}, headers=own, timeout=10).json()["status"] == 200
    for host in (
        f"localhost:{port}",
        f"LOCALHOST:{port}",
        f"a.localhost:{port}",
        "[::1]",
        "10.0.0.7:8082",
    ):
        assert requests.get(f"{url}/ready", headers={"Host": host}, timeout=10).status_code == 200


def test_probes_may_ask_by_a_name_of_their_cluster_where_others_can_reach_the_port(
    serve: Serve,
) -> None:
    service = serve(
        "def handler(event):\n    return 'x'\n", "handler", env={"DHPY_HOST": "0.0.0.0"}
    )
    url = service.management_url.replace("0.0.0.0", "127.0.0.1")
    named = {"Host": "run-1.default.svc:8082"}
    for path in ("/live", "/ready", "/metrics"):
        assert requests.get(url + path, headers=named, timeout=10).status_code == 200
    assert requests.post(f"{url}/try", json={}, headers=named, timeout=10).status_code == 403


def test_what_is_not_there_and_what_is_not_for_post(serve: Serve) -> None:
    service = serve("def handler():\n    return 'x'\n", "handler")
    assert service.manage("/nothing").status_code == 404
    assert requests.post(service.management_url + "/live", timeout=10).status_code == 405


def test_it_is_not_ready_before_the_function_is(serve: Serve) -> None:
    code = "import time\ndef init(context):\n    time.sleep(1.5)\ndef handler():\n    return 'x'\n"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--init-function", "init", "--management-port", str(port)]
    service = serve(code, "handler", *options, wait=False)
    service.management_url = f"http://127.0.0.1:{port}"
    wait_until(lambda: _ask(service, "/live") == 200)
    assert _ask(service, "/ready") == 503
    assert _ask(service, "/openapi.json") == 503
    wait_until(lambda: _ask(service, "/ready") == 200)
    assert _ask(service, "/openapi.json") == 200


def _ask(service: Service, path: str) -> int:
    try:
        return requests.get(service.management_url + path, timeout=10).status_code
    except requests.ConnectionError:
        return 0


def test_the_script_of_the_page_is_well_formed(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = tmp_path / "page.js"
    script.write_text(page.HTML.partition("<script>")[2].partition("</script>")[0])
    subprocess.run([node, "--check", str(script)], check=True, timeout=60)
