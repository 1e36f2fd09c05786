"""The server's log: lines or JSON, with requests that matter, and never longer than it may be."""

from __future__ import annotations

import json

import httpx
from serving import server_env, server_process

from digitalhub_python_control import daemon
from digitalhub_python_control.settings import ControlSettings


def test_json_lines_name_requests_that_change_something_or_are_refused(tmp_path):
    home = tmp_path / "home"
    with server_process(home, DHPY_LOG_FORMAT="json") as server:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            http.post("/api/v1/projects?secret=hidden", json={"name": "proj", "kind": "project"})
            http.get("/api/v1/projects/proj")
            http.get("/api/v1/projects/nope")
            metrics = http.get("/metrics").text
    text = (tmp_path / "home.log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    seen = [(x["method"], x["path"], x["status"]) for x in lines if "method" in x]
    assert ("POST", "/api/v1/projects", 200) in seen
    assert ("GET", "/api/v1/projects/nope", 404) in seen
    assert ("GET", "/api/v1/projects/proj", 200) not in seen
    assert "hidden" not in text
    assert all(x["ms"] >= 0 and x["client"] == "127.0.0.1" for x in lines if "method" in x)
    assert 'dhpy_request_seconds_count{area="api",method="POST"} 1.0' in metrics


def test_a_server_in_the_background_keeps_its_log_small(tmp_path):
    environ = server_env(tmp_path / "home", DHPY_MAX_SERVER_LOG="4096")
    settings = ControlSettings.from_env(environ)
    place = daemon.start(settings, environ)
    try:
        with httpx.Client(base_url=place.url, timeout=60) as http:
            for number in range(200):
                http.get(f"/api/v1/projects/none-{number}")
    finally:
        daemon.stop(settings, place)
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "home").glob("server.log*")}
    assert set(sizes) == {"server.log", "server.log.1", "server.log.2"}
    assert max(sizes.values()) <= 4096
    assert (
        "none-199"
        in (tmp_path / "home" / "server.log").read_text()
        + (tmp_path / "home" / "server.log.1").read_text()
    )
