"""HTTP itself: limits, slow clients, what is malformed, pipelines, keep-alive."""

from __future__ import annotations

import os
import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import services
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from services import Service, read_all, read_response, request_bytes, wait_until

Serve = Callable[..., Service]

CODE = """
import time
def handler(context, event):
    if event.path == "/slow":
        time.sleep(float(event.fields.get("s", 0.3)))
    if event.path == "/size":
        return str(event.size)
    return event.path
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place = tmp_path_factory.mktemp("http")
    (place / "main.py").write_text(CODE)
    env = {"DHPY_HEADER_TIMEOUT": "1", "DHPY_STALL_TIMEOUT": "1.5", "DHPY_KEEP_ALIVE": "3"}
    with services.serving(place / "main.py", "handler", tmp_path=place, env=env) as service:
        yield service


def status_of(answer: bytes) -> int:
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    return int(match[1]) if match else 0


def assert_works(service: Service) -> None:
    assert requests.get(f"{service.url}/works", timeout=30).text == "/works"


def test_a_head_over_the_limit_is_431(service: Service) -> None:
    for head in (
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(3000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000,  # it does not even end
    ):
        answer = service.exchange(head)
        assert status_of(answer) == 431, answer
        assert b"application/problem+json" in answer
    assert_works(service)


def test_a_head_just_below_the_limit_is_served(service: Service) -> None:
    response = requests.get(service.url, headers={"X": "a" * 16_000}, timeout=10)
    assert response.status_code == 200


def test_heads_after_large_bodies_are_measured_by_themselves(service: Service) -> None:
    body = b"x" * 100_000
    with service.connect() as client:
        for _ in range(3):
            client.sendall(request_bytes(body, "/size"))
            assert read_response(client)[2] == b"100000"


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_413_and_is_not_kept(service: Service, announced: bool) -> None:
    """1 GB against 4 MiB."""
    chunk = b"x" * 65536
    sent = 0
    with service.connect() as client:
        client.settimeout(30)
        if announced:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n")
        else:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while sent < 1 << 30:
                client.sendall(chunk if announced else b"10000\r\n" + chunk + b"\r\n")
                sent += len(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has stopped reading
        answer = read_all(client)
    assert status_of(answer) == 413 or sent > 100_000_000
    assert service.metric("dhpy_worker_resident_bytes") < 100 * 1024 * 1024
    assert_works(service)


@pytest.mark.parametrize("announced", [True, False])
def test_a_client_that_reads_after_it_has_sent_gets_its_413(
    service: Service, announced: bool
) -> None:
    body = b"x" * 20_000_000
    data = body if announced else (body[i : i + 65536] for i in range(0, len(body), 65536))
    response = requests.post(service.url, data=data, timeout=30)
    assert response.status_code == 413
    assert response.json()["status"] == 413
    assert response.headers["connection"] == "close"


def test_a_body_of_exactly_the_limit_is_served(service: Service) -> None:
    limit = 4 * 1024 * 1024
    assert service.post(path="/size", data=b"x" * limit).text == str(limit)
    chunks = (b"x" * 65536 for _ in range(64))
    assert service.post(path="/size", data=chunks).text == str(limit)


def test_a_body_is_asked_for_only_when_it_is_wanted(service: Service) -> None:
    head = b"POST /size HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "
    with service.connect(head + b"5\r\n\r\n") as client:
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"12345")
        assert read_response(client)[2] == b"5"
    assert status_of(service.exchange(head + b"999999999\r\n\r\n")) == 413


def test_a_head_that_comes_in_drops_is_408(service: Service) -> None:
    with service.connect() as client:
        start = time.monotonic()
        try:
            for byte in b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1000:
                client.sendall(bytes([byte]))
                time.sleep(0.02)
                client.setblocking(False)
                try:
                    answer = client.recv(10_000)
                    break
                except BlockingIOError:
                    client.setblocking(True)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    assert status_of(answer) == 408
    assert time.monotonic() - start < 10
    assert_works(service)


def test_line_breaks_do_not_keep_a_connection_open(service: Service) -> None:
    with service.connect() as client:
        start = time.monotonic()
        try:
            while time.monotonic() - start < 10:
                client.sendall(b"\r\n")
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert time.monotonic() - start < 9


def test_many_slow_clients_do_not_stop_the_others(service: Service) -> None:
    slow = [service.connect(b"GET / HTTP/1.1\r\nHost") for _ in range(200)]
    try:
        for _ in range(20):
            assert_works(service)
        wait_until(lambda: service.metric("dhpy_worker_connections") < 100)
    finally:
        for client in slow:
            client.close()


def test_a_body_that_stalls_is_408(service: Service) -> None:
    with service.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc") as client:
        assert status_of(read_all(client)) == 408
    assert_works(service)


def test_a_slow_body_that_goes_on_is_served(service: Service) -> None:
    with service.connect(b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n") as client:
        for _ in range(8):
            client.sendall(b"x")
            time.sleep(0.4)
        assert read_response(client)[2] == b"8"


def test_an_idle_connection_is_closed_after_its_time_and_not_before(service: Service) -> None:
    with service.connect() as client:
        client.sendall(request_bytes())
        read_response(client)
        time.sleep(1.5)  # longer than a head may take
        client.sendall(request_bytes())
        assert read_response(client)[0] == 200
        assert client.recv(1) == b""


def test_a_client_that_leaves_in_its_body_is_forgotten(service: Service) -> None:
    before = service.metric("dhpy_requests_total")
    for _ in range(20):
        service.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc").close()
    wait_until(lambda: service.metric("dhpy_worker_requests_in_flight") == 0)
    assert service.metric("dhpy_requests_total") == before


def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    paths = ["/slow", "/a", "/size", "/slow", "/b"]
    data = b"".join(request_bytes(b"xy", path) for path in paths)
    last = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = service.exchange(data + last)
    bodies = re.findall(rb"\r\n\r\n(/[a-z]+|\d)", answer)
    assert bodies == [b"/slow", b"/a", b"2", b"/slow", b"/b", b"/last"]


def test_a_head_in_a_pipeline_may_come_in_parts_while_earlier_requests_are_answered(
    service: Service,
) -> None:
    with service.connect(request_bytes(path="/slow?s=3")) as client:  # longer than a head may take
        wait_until(lambda: service.metric("dhpy_worker_requests_in_flight") == 1)
        last = b"st HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        for part in (request_bytes() + b"GET /la", last):
            client.sendall(part)
            time.sleep(0.1)
        answer = b"".join(iter(lambda: client.recv(65536), b""))  # several may come at once
    assert re.findall(rb"\r\n\r\n(/[a-z]*)", answer) == [b"/slow", b"/", b"/last"]


def test_rubbish_after_a_request_does_not_take_its_answer(service: Service) -> None:
    answer = service.exchange(request_bytes(path="/slow") + b"\x00\x01rubbish\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"/slow")
    assert answer.count(b"HTTP/1.1") == 1


MALFORMED = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no version": b"GET /\r\n\r\n",
    "a version of its own": b"GET / HTTP/9.9\r\n\r\n",
    "a method of its own": b"GRAB / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header without colon": b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    "a header name with a space": b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
    "a line break in a header": b"GET / HTTP/1.1\r\nX: a\nY: b\rZ: c\r\n\r\n",
    "a zero byte": b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "a negative length": b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\nabc",
    "a length that is not a number": b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\nabc",
    "a length without end": b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "length and chunks": b"POST / HTTP/1.1\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk without a size": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk longer than it says": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nabcdef\r\n0\r\n\r\n",
    "a chunk without a size that nobody asked for": b"POST / HTTP/1.1\r\nExpect: 100-continue\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a path that is not a URL": b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path that is not ASCII": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_http_is_400_or_a_closed_connection(service: Service, name: str) -> None:
    answer = service.exchange(MALFORMED[name])
    assert status_of(answer) in (400, 413), answer
    assert b"application/problem+json" in answer
    assert_works(service)


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_an_upgrade_that_is_not_offered_is_a_plain_request_with_its_body(
    service: Service, protocol: str
) -> None:
    more = {"Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABk"}
    data = request_bytes(b"hello", "/size", Upgrade=protocol, **more)
    with service.connect(data + data[:40]) as client:
        assert read_response(client)[2] == b"5"
        client.sendall(data[40:-2])
        time.sleep(0.1)
        client.sendall(data[-2:])
        assert read_response(client)[2] == b"5"


def test_http_1_0_is_answered_and_closed(service: Service) -> None:
    answer = service.exchange(b"GET /old HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"/old")


def test_http_1_0_gets_streams_without_chunks(serve: Serve) -> None:
    service = serve("def handler():\n    yield 'one '\n    yield 'two'\n", "handler")
    answer = service.exchange(b"GET / HTTP/1.0\r\n\r\n")
    assert b"chunked" not in answer
    assert answer.endswith(b"\r\n\r\none two")


def test_more_connections_than_there_may_be_wait_their_turn(serve: Serve) -> None:
    service = serve(CODE, "handler", env={"DHPY_CONNECTIONS": "5", "DHPY_KEEP_ALIVE": "0.5"})
    clients = [service.connect() for _ in range(12)]
    try:
        for client in clients:
            client.sendall(request_bytes(path="/x"))
        assert all(read_response(client)[0] == 200 for client in clients)
    finally:
        for client in clients:
            client.close()


def test_bodies_that_are_too_much_together_are_refused(serve: Serve) -> None:
    service = serve(CODE, "handler", env={"DHPY_BODY_MEMORY": "3000000"})
    body = b"x" * 2_000_000
    with service.connect(request_bytes(body, "/slow?s=2")) as first:
        wait_until(lambda: service.metric("dhpy_worker_requests_in_flight") == 1)
        answer = service.exchange(request_bytes(body, "/x"))
        assert status_of(answer) == 503
        assert b"retry-after: 1" in answer
        chunks = b"".join(b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(30)) + b"0\r\n\r\n"
        head = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert status_of(service.exchange(head + chunks)) == 503
        assert read_response(first)[0] == 200
    assert service.post(path="/size", data=body).text == "2000000"
    assert (
        service.post(
            path="/size", data=(body[i : i + 9999] for i in range(0, len(body), 9999))
        ).text
        == "2000000"
    )


CHUNKED = b"POST /size HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_broken_body_ends_a_pipeline_after_the_answers_before_it(
    service: Service, ahead: int
) -> None:
    answer = service.exchange(request_bytes(path="/slow") * ahead + CHUNKED + b"zz\r\n")
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == ahead
    assert answer.count(b"HTTP/1.1 ") == ahead
    assert answer.count(b"connection: close\r\n") == 1
    wait_until(lambda: service.metric("dhpy_worker_connections") == 0)


def test_a_refused_request_is_answered_also_when_another_follows(serve: Serve) -> None:
    service = serve(CODE, "handler", env={"DHPY_BODY_LIMIT": "1000"})
    for following in (request_bytes(path="/x"), b"rubbish\r\n\r\n"):
        answer = service.exchange(request_bytes(b"x" * 1001) + following)
        assert status_of(answer) == 413
        assert answer.count(b"HTTP/1.1 ") == 1
    assert "without starting" not in service.log


@pytest.mark.parametrize("size", [1001, 300_000])
def test_a_body_in_chunks_has_the_same_limit(serve: Serve, size: int) -> None:
    service = serve(CODE, "handler", env={"DHPY_BODY_LIMIT": str(size - 1)})
    for cut in (-1, -7, -8, -size):  # how much of it comes late
        data = CHUNKED + b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"
        with service.connect(data[:cut]) as client:
            time.sleep(0.1)
            client.sendall(data[cut:])
            assert read_response(client)[0] == 413
    assert service.post(path="/size", data=iter([b"x" * (size - 1)])).text == str(size - 1)
    assert "without starting" not in service.log


def test_several_offers_to_upgrade_are_several_plain_requests(service: Service) -> None:
    offers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMA"}
    with service.connect(
        b"".join(request_bytes(b"x" * n, "/size", **offers) for n in range(5))
    ) as client:
        data = b""
        while data.count(b"HTTP/1.1 ") < 5 or not data.endswith(b"4"):
            data += client.recv(65536)
    assert re.findall(rb"\r\n\r\n(.)", data) == [b"0", b"1", b"2", b"3", b"4"]


def test_trailers_are_no_headers_and_take_no_memory(serve: Serve) -> None:
    code = "import time\ndef handler(event):\n    return event.headers.get('X-User', 'nobody')\n"
    service = serve(code, "handler")
    before = service.metric("dhpy_worker_resident_bytes")
    with service.connect(CHUNKED + b"1\r\nx\r\n0\r\nX-User: root\r\n") as client:
        for _ in range(200):
            client.sendall((b"X-User: " + b"x" * 4000 + b"\r\n") * 50)
        assert service.metric("dhpy_worker_resident_bytes") < before + 20 * 1024 * 1024
        client.sendall(b"\r\n")
        assert read_response(client)[2] == b"nobody"


def test_requests_that_are_sent_too_far_ahead_end_the_connection(service: Service) -> None:
    answer = service.exchange(request_bytes(path="/slow?s=0.2") + request_bytes(path="/x") * 2000)
    count = answer.count(b"HTTP/1.1 200 OK\r\n")
    assert 100 < count < 1000
    assert answer.count(b"connection: close\r\n") == 1
    assert answer.endswith(b"/x")


def test_a_client_that_takes_a_part_of_its_answer_is_given_up(serve: Serve) -> None:
    """Also where so little of it is left that nothing waits for it."""
    code = "def handler(event):\n    return bytes(int(event.fields['n']))\n"
    service = serve(code, "handler", env={"DHPY_STALL_TIMEOUT": "1"})
    for n in (200_000, 3_000_000, 10_000_000):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(service.address)
        with client:
            client.sendall(request_bytes(path=f"/?n={n}", Connection="close") * 20)
            wait_until(lambda: service.metric("dhpy_worker_connections") == 0)


def test_a_client_that_reads_slowly_and_goes_on_gets_it_all(serve: Serve) -> None:
    code = "def handler(event):\n    return bytes(8_000_000)\n"
    service = serve(code, "handler", env={"DHPY_STALL_TIMEOUT": "1"})
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(service.address)
        client.sendall(request_bytes(Connection="close"))
        size, start = 0, time.monotonic()
        while chunk := client.recv(100_000):
            size += len(chunk)
            if time.monotonic() - start < 3:
                time.sleep(0.05)
    assert size > 8_000_000


def test_a_stream_of_a_response_that_has_no_body_is_closed(serve: Serve, tmp_path: Path) -> None:
    code = f"""
import pathlib
from nuclio_sdk import Response
def chunks():
    try:
        while True:
            yield "x" * 1000
    finally:
        pathlib.Path({str(tmp_path / "closed")!r}).touch()
def handler(event):
    return Response(status_code=204, body=chunks()) if event.path == "/none" else "fine"
"""
    service = serve(code, "handler")
    with service.connect(request_bytes(path="/none") + request_bytes()) as client:
        data = b""
        while not data.endswith(b"fine"):
            data += client.recv(65536)
    assert data.startswith(b"HTTP/1.1 204 ")
    assert b"x" * 1000 not in data
    assert (tmp_path / "closed").exists()
    assert "Traceback" not in service.log


# --- hypothesis -------------------------------------------------------------------------------

BAD_REQUESTS = int(os.environ.get("DHPY_TEST_BAD_REQUESTS", "400"))
"""100,000 for a long run."""

_token = st.text("GETPOSabcxyz-/% ", min_size=0, max_size=12).map(str.encode)
_lines = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda n, v: n + b": " + v, _token, st.binary(max_size=30)),
    st.sampled_from(
        [
            b"Host: x",
            b"Content-Length: 5",
            b"Content-Length: 4294967296",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Connection: close",
            b"Connection: upgrade",
            b"Upgrade: websocket",
            b"Expect: 100-continue",
            b"Content-Type: application/json",
            b"Content-Type: application/json; charset=\xff",
            b"Content-Type: multipart/form-data; boundary=x",
        ]
    ),
)
_first = st.one_of(
    st.builds(lambda m, p: m + b" " + p + b" HTTP/1.1", _token, _token),
    st.sampled_from([b"POST / HTTP/1.1", b"GET / HTTP/1.1", b"OPTIONS * HTTP/1.1"]),
    st.binary(max_size=40),
)
_bodies = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b'{"a": ', b"[" * 2000, b'"\xff"', b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b""]
    ),
)
requests_of_any_kind = st.builds(
    lambda first, lines, body: b"\r\n".join([first, *lines, b"", b""]) + body,
    _first,
    st.lists(_lines, max_size=5),
    _bodies,
)


@settings(
    max_examples=BAD_REQUESTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=requests_of_any_kind)
def test_no_request_stops_the_service(service: Service, data: bytes) -> None:
    with service.connect(data) as client:
        # Who ends its side has left, and is not answered: first the time for a whole request to be.
        select.select([client], [], [], 0.005)
        client.shutdown(socket.SHUT_WR)
        answer = read_all(client)
    assert not answer or answer.startswith(b"HTTP/1.1 "), answer
    assert b"HTTP/1.1 500" not in answer, (data, service.log[-2000:])


def test_after_all_that_it_is_the_same_worker(service: Service) -> None:
    assert_works(service)
    assert service.metric("dhpy_worker_starts_total") == 1
    assert "Traceback" not in service.log
    assert Path(f"/proc/{service.process.pid}").exists()


def test_a_large_answer_reaches_a_client_that_reads_slowly(serve: Serve) -> None:
    code = "def handler(event):\n    return bytes(event.size * 1000)\n"
    service = serve(code, "handler")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(service.address)
        client.sendall(request_bytes(b"x" * 3000) + request_bytes(b"x" * 2))
        time.sleep(0.5)
        for size in (3_000_000, 2000):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(1)
            assert b"content-length: %d" % size in head
            left = size
            while left:
                left -= len(client.recv(min(left, 65536)))


def test_a_request_may_ask_for_the_connection_to_end(service: Service) -> None:
    answer = service.exchange(request_bytes(path="/x", Connection="close"))
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n/x")
