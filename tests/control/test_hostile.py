"""What a client sends that cannot be is its own fault (4xx), and what users store is never a page of the API's."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import Plane, server_process

from digitalhub_python_control.files.s3.request import whole
from digitalhub_python_control.store import times
from digitalhub_runtime_python.errors import UsageFault

HUGE = "9" * 5000
WORDS = " ".join(f"w{n}" for n in range(1500))
SEARCH = "/api/v1/-/proj/solr/search/item"
ARTIFACTS = "/api/v1/-/proj/artifacts"
STREAM = {
    "Content-Encoding": "aws-chunked",
    "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
}
DOCTYPE = '<!DOCTYPE a [<!ENTITY x "y">]><C><Part><PartNumber>1</PartNumber></Part></C>'

Asked = tuple[str, str, dict[str, Any]]
REFUSED: dict[str, Asked] = {
    "1,500 words": ("GET", SEARCH, {"params": {"q": WORDS}}),
    "5,000 values": ("GET", SEARCH, {"params": {"fq": f"type:({' OR '.join('ab' for _ in range(5000))})"}}),
    "3,000 filters": ("GET", SEARCH, {"params": [("fq", "name:x")] * 3000}),
    "page": ("GET", ARTIFACTS, {"params": {"page": HUGE}}),
    "other digits": ("GET", ARTIFACTS, {"params": {"size": "٣"}}),
    "underscores": ("GET", ARTIFACTS, {"params": {"size": "1_0"}}),
    "depth": ("POST", ARTIFACTS, {"content": b"[" * 100_000}),
    **{f"depth of {depth} in {where}": ("POST", path, {"content": body % (opening * depth + "1" + closing * depth)})
       for depth in (101, 250, 500, 900, 985, 1100, 10_000)
       for opening, closing in (("[", "]"), ('{"a":', "}"))
       for where, path, body in (
           ("a spec", ARTIFACTS, '{"name": "x", "kind": "artifact", "spec": {"path": "s3://a/b", "a": %s}}'),
           ("a status", ARTIFACTS, '{"name": "x", "kind": "artifact", "status": {"a": %s}}'),
           ("metadata", ARTIFACTS, '{"name": "x", "kind": "artifact", "metadata": {"a": %s}}'),
           ("parameters", "/api/v1/-/proj/runs", '{"kind": "python+job:run", "spec": {"local_execution": true, "parameters": {"a": %s}}}'),
           ("requirements", "/api/v1/-/proj/functions", '{"kind": "python", "name": "f", "spec": {"requirements": %s}}'),
           ("a trigger", "/api/v1/-/proj/triggers", '{"kind": "scheduler", "name": "t", "spec": {"template": %s}}'),
           ("a project", "/api/v1/projects", '{"kind": "project", "name": "q", "spec": {"a": %s}}'),
           ("secrets", "/api/v1/-/proj/secrets/data", '{"a": %s}'),
       )},
    "a packed body": ("POST", ARTIFACTS, {"content": gzip.compress(bytes(100 << 20)), "headers": {"Content-Encoding": "gzip"}}),
    "digits": ("POST", ARTIFACTS, {"content": f'{{"name": "x", "kind": "artifact", "spec": {{"a": {HUGE}}}}}'}),
    "year 0": ("POST", ARTIFACTS, {"json": {"name": "x", "kind": "artifact", "metadata": {"created": "0001-01-01T00:00:00+23:59"}}}),
    "year 10000": ("POST", ARTIFACTS, {"json": {"name": "x", "kind": "artifact", "metadata": {"created": "9999-12-31T23:59:59-23:59"}}}),
    "half a pair": ("POST", ARTIFACTS, {"content": b'{"name": "x", "kind": "artifact", "metadata": {"created": "\\ud800"}}'}),
    "part number": ("PUT", "/s3/bkt/k?partNumber=" + "1" * 5000, {"content": b"x"}),
    "part number 10001": ("PUT", "/s3/bkt/k?partNumber=10001", {"content": b"x"}),
    "part number in other digits": ("PUT", "/s3/bkt/k?partNumber=٣", {"content": b"x"}),
    "listed part number": ("POST", "/s3/bkt/k?", {"content": f"<C><Part><PartNumber>{HUGE}</PartNumber></Part></C>"}),
    "part x": ("POST", "/s3/bkt/k?", {"content": "<C><Part><PartNumber>x</PartNumber></Part></C>"}),
    **{f"DOCTYPE in {name}": ("POST", "/s3/bkt/k?", {"content": DOCTYPE.encode(name)}) for name in ("utf-8", "utf-16", "utf-16-be")},
    **{f"encoding {name}": ("POST", "/s3/bkt/k?", {"content": f'<?xml version="1.0" encoding="{name}"?><C/>'}) for name in ("nope", "utf-7", "idna", "base64")},
    "keys": ("GET", "/s3/bkt?list-type=2&max-keys=²", {}),
    **{f"chunk {size}": ("PUT", "/s3/bkt/c", {"content": f"{size}\r\nhello\r\n0\r\n\r\n".encode(), "headers": STREAM}) for size in ("0x5", "+5", "-5", "1_0", "", " 5", "5 ", "9" * 17)},
    "range": ("GET", "/s3/bkt/there", {"headers": {"Range": f"bytes={HUGE}-"}}),
}  # fmt: skip


@pytest.fixture
def ask(plane: Plane) -> Callable[[Asked], httpx.Response]:
    plane.http.put("/s3/bkt/there", content=b"0123456789")
    upload = re.findall("<UploadId>(.*?)<", plane.http.post("/s3/bkt/k?uploads").text)[0]

    def send(asked: Asked) -> httpx.Response:
        method, path, given = asked
        if "/s3/bkt/k?" in path:
            path += f"&uploadId={upload}"
        return plane.http.request(method, path, **given)

    return send


def test_what_a_client_sends_that_cannot_be_is_refused_as_its_own_fault(
    ask: Callable[[Asked], httpx.Response], plane: Plane
) -> None:
    statuses = {name: ask(asked).status_code for name, asked in REFUSED.items()}
    assert {name: status for name, status in statuses.items() if not 400 <= status < 500} == {}
    assert plane.ask("GET", "/-/proj/artifacts")["content"] == []
    assert plane.http.get("/s3/bkt/c").status_code == 404


@pytest.mark.parametrize("name", ["bytes=-", "bytes=0-", "bytes=2-"])
def test_a_range_that_ends_after_the_end_is_cut_there(plane: Plane, name: str) -> None:
    plane.http.put("/s3/bkt/there", content=b"0123456789")
    answer = plane.http.get("/s3/bkt/there", headers={"Range": name + HUGE})
    assert answer.status_code in (200, 206)
    assert answer.text == ("23456789" if "2" in name else "0123456789")


@given(st.text(max_size=40) | st.integers().map(str))
def test_a_whole_number_is_plain_digits_within_its_bounds(text: str) -> None:
    number = whole(text, 1, 1000)
    plain = re.fullmatch("[0-9]+", text)
    assert number == (min(int(text), 1000) if plain and int(text) >= 1 else None)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.datetimes().map(str)
    | st.datetimes(timezones=st.timezones()).map(str)
    | st.text()
    | st.floats()
)
def test_an_instant_is_read_and_written_again_or_refused(value: object) -> None:
    try:
        micros = times.parse(value, "x")
    except UsageFault:
        return
    assert abs(times.parse(times.text(micros), "x") - micros) < 1000


def test_what_users_store_is_never_a_page_or_a_script_of_the_api(plane: Plane) -> None:
    page = b"<script>fetch('/api/v1/projects')</script>"
    plane.http.put("/s3/bkt/h", content=page, headers={"Content-Type": "text/html"})
    own = {"Content-Type": "text/html", "Content-Disposition": "inline; filename=x"}
    plane.http.put("/s3/bkt/i", content=page, headers=own)
    for key, disposition in (("h", "attachment"), ("i", "inline; filename=x")):
        for method in ("GET", "HEAD"):
            answer = plane.http.request(method, f"/s3/bkt/{key}")
            assert answer.headers.get_list("content-disposition") == [disposition]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in answer.headers["content-security-policy"]
    for path in ("/api/v1/projects", "/api/v1/projects/none", "/nope"):
        assert plane.http.get(path).headers["x-content-type-options"] == "nosniff", path


def test_a_home_that_others_can_read_is_taken_from_them(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dhpy.db").touch()
    (home / "server.log").touch()
    for path in (home, home / "dhpy.db", home / "server.log"):
        path.chmod(0o777)
    with server_process(home):
        wide = [p for p in (home, *home.iterdir()) if p.is_file() and p.name.startswith(("dhpy.db", "server.log", "secret")) and p.stat().st_mode & 0o077]  # fmt: skip
        assert wide == [] and home.stat().st_mode & 0o077 == 0
        assert {"dhpy.db", "dhpy.db-wal"} <= {p.name for p in home.iterdir()}
