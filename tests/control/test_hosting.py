"""The control plane's own server keeps the limits that serving keeps, and what an ASGI application may expect."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import PATIENCE, Plane, server_process, serving, settings_in, wait_until

from digitalhub_python_control.hosting import Host

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
PUT = b"PUT / HTTP/1.1\r\nHost: localhost\r\n"
CLOSE = b"Connection: close\r\n\r\n"


class Hosted:
    """An application that is hosted in a thread of this process."""

    def __init__(self, app: Any, **options: Any) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.host = Host(app, listener, **{"grace": 5, **options})
        self.thread = threading.Thread(target=self._run, args=[listener], daemon=True)
        self.thread.start()

    def _run(self, listener: socket.socket) -> None:
        with listener:
            self.host.run()

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.address, timeout=PATIENCE)
        client.sendall(data)
        return client

    def exchange(self, data: bytes) -> bytes:
        """What is answered to these bytes until the connection ends."""
        with self.connect(data) as client:
            return read_all(client)

    def __enter__(self) -> Hosted:
        return self

    def __exit__(self, *_: Any) -> None:
        self.host.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def read_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        chunk = client.recv(65536)
        assert chunk, (data, end)
        data += chunk
    return data


def read_what_comes(client: socket.socket) -> bytes:
    """To the end, or until the connection is reset."""
    data = b""
    with suppress(ConnectionResetError):
        while chunk := client.recv(65536):
            data += chunk
    return data


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(body: bytes = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def body(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


def sending(*messages: dict[str, Any]) -> Any:
    """An application that sends these, whatever is asked."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


async def echo(scope: Any, receive: Any, send: Any) -> None:
    content = await body(receive)
    await send(start(200, (b"x-seen", b"%d" % len(content))))
    await send(part(content))


# --- what is read -----------------------------------------------------------------------------


def test_an_application_gets_the_request_as_the_specification_says() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await sending(start(204), part())(scope, receive, send)

    with Hosted(app) as hosted:
        for target in (b"/a%20b/%C3%A9?x=%20y", b"http://localhost/a%20b/%C3%A9?x=%20y"):
            head = b"GET %b HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\nX: 1\r\n"
            assert hosted.exchange(head % target + b"X: 2\r\n" + CLOSE).startswith(b"HTTP/1.1 204 ")
        hosted.exchange(GET + CLOSE)
        port = hosted.address[1]
    for scope in seen[:2]:
        assert (scope["type"], scope["method"], scope["http_version"]) == ("http", "GET", "1.1")
        assert (scope["path"], scope["raw_path"]) == ("/a b/é", b"/a%20b/%C3%A9")
        assert (scope["query_string"], scope["root_path"]) == (b"x=%20y", "")
        assert scope["headers"][2:4] == [(b"x", b"1"), (b"x", b"2")]
        assert (scope["client"][0], tuple(scope["server"])) == ("127.0.0.1", ("127.0.0.1", port))
        assert scope["scheme"] == "https"  # a proxy on this machine says so
    assert seen[2]["scheme"] == "http"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_comes_in_parts_that_an_application_takes_as_slowly_as_it_likes(
    chunked: bool,
) -> None:
    content = bytes(range(256)) * 64 * 1024  # 16 MiB
    largest = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal largest
        digest = hashlib.sha256()
        more = True
        while more:
            await asyncio.sleep(0.005)
            message = await receive()
            more = message["more_body"]
            largest = max(largest, len(message["body"]))
            digest.update(message["body"])
        await send(start())
        await send(part(digest.hexdigest().encode()))

    pieces = (content[at : at + 60_000] for at in range(0, len(content), 60_000))
    with Hosted(app) as hosted:
        url = "http://{}:{}/".format(*hosted.address)
        answer = httpx.put(url, content=pieces if chunked else content, timeout=PATIENCE)
    assert answer.text == hashlib.sha256(content).hexdigest()
    assert largest <= 1 << 20


def test_a_body_of_very_many_chunks_is_put_together() -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % (65 + n % 26) for n in range(100_000))
    with Hosted(echo) as hosted:
        answer = hosted.exchange(PUT + b"Transfer-Encoding: chunked\r\n" + CLOSE + chunks + b"0\r\n\r\n")  # fmt: skip
    assert body_of(answer) == bytes(65 + n % 26 for n in range(100_000))


def test_a_body_is_asked_for_only_when_it_is_wanted() -> None:
    head = PUT + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with Hosted(echo) as hosted, hosted.connect(head) as client:
        assert read_until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello" + GET + CLOSE)  # and the connection goes on
        assert re.findall(rb"x-seen: (\d)", read_all(client)) == [b"5", b"0"]
    with Hosted(sending(start(401), part(b"no"))) as hosted, hosted.connect(head) as client:
        answer = read_all(client)
        assert answer.startswith(b"HTTP/1.1 401 ") and answer.endswith(b"\r\n\r\nno")
        assert b"connection: close\r\n" in answer  # else the next request is taken for the body


def test_an_answer_before_the_end_of_the_body_reaches_the_client() -> None:
    with Hosted(sending(start(413), part(b"too much"))) as hosted:
        with hosted.connect(PUT + b"Content-Length: 9000000\r\n\r\n" + b"x" * 100_000) as client:
            assert body_of(read_all(client)) == b"too much"


def test_an_application_is_told_that_its_client_has_left() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not told or told[-1] != "http.disconnect":
            told.append((await receive())["type"])

    with Hosted(app) as hosted:
        hosted.connect(GET + b"\r\n").close()
        wait_until(lambda: told == ["http.request", "http.disconnect"])
        told.clear()
        hosted.connect(PUT + b"Content-Length: 9\r\n\r\nab").close()
        wait_until(lambda: told and told[-1] == "http.disconnect")


# --- what is answered -------------------------------------------------------------------------

LENGTH_5 = (b"content-length", b"5")
ANSWERS: dict[str, tuple[bytes, list[dict[str, Any]], bytes]] = {
    "whole": (GET, [start(), part(b"hello")], b"hello"),
    "whole with its length": (GET, [start(200, LENGTH_5), part(b"hello")], b"hello"),
    "in parts": (GET, [start(), part(b"he", True), part(b"llo")], b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    "in parts with its length": (GET, [start(200, LENGTH_5), part(b"he", True), part(b"llo", True), part()], b"hello"),
    "longer than its length": (GET, [start(200, LENGTH_5), part(b"hello, world")], b"hello"),
    "empty": (GET, [start(), part()], b""),
    "without a body": (GET, [start(304), part()], b""),
    "a body that none may have": (GET, [start(204), part(b"", True), part(b"x")], b""),
    "HEAD": (b"HEAD / HTTP/1.1\r\nHost: x\r\n", [start(200, LENGTH_5), part()], b""),
    "HEAD in parts": (b"HEAD / HTTP/1.1\r\nHost: x\r\n", [start(), part(b"he", True), part(b"llo")], b""),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n", [start(), part(b"hello")], b"hello"),
    "HTTP/1.0 in parts": (b"GET / HTTP/1.0\r\n", [start(), part(b"he", True), part(b"llo")], b"hello"),
}  # fmt: skip


BAD = [b"a\r\nSet-Cookie: b=c", b"a\nb", b"a\0b", b"a\r\n\r\n<html>"]
CASES: dict[str, list[dict[str, Any]]] = {
    **{name: messages for name, (_, messages, _) in ANSWERS.items()},
    **{f"bad value {n}": [start(200, (b"x", bad)), part(b"hello")] for n, bad in enumerate(BAD)},
    **{f"bad name {n}": [start(200, (bad, b"x")), part(b"hello")] for n, bad in enumerate(BAD)},
    "nothing": [],
    "a head": [start()],
    "a part": [start(200, LENGTH_5), part(b"h", True)],
}


async def by_name(scope: Any, receive: Any, send: Any) -> None:
    """Sends the messages of the case that the request names."""
    name = dict(scope["headers"])[b"x-case"].decode()
    await sending(*CASES[name])(scope, receive, send)


def test_an_answer_has_the_frame_that_its_client_understands() -> None:
    with Hosted(by_name) as hosted:
        for name, (head, messages, expected) in ANSWERS.items():
            answer = hosted.exchange(head + b"X-Case: %b\r\n" % name.encode() + CLOSE)
            assert answer.startswith(b"HTTP/1.1 %d " % messages[0]["status"]), name
            assert body_of(answer) == expected, name
            assert answer.count(b"content-length") <= 1, name


def test_connections_go_on_and_pipelines_are_answered_in_order() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        for _ in range(3):
            await asyncio.sleep(0)
            await send(part(b"", True))
        await send(part(scope["path"].encode()))

    paths = [b"/%d" % n for n in range(50)]
    request = b"GET %b HTTP/1.1\r\nHost: localhost\r\n"
    data = b"".join(request % path + b"\r\n" for path in paths)
    with Hosted(app) as hosted:
        answer = hosted.exchange(data + request % b"/last" + CLOSE)
        assert re.findall(rb"\r\n(/\w+)\r\n0\r\n\r\n", answer) == [*paths, b"/last"]
        with hosted.connect() as client:  # HTTP/1.0, one after the other
            client.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"connection: close" in read_all(client)  # the answer has no other end


def test_an_application_that_fails_answers_500_or_cuts_what_it_has_begun(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/early":
            await send(start(200, (b"content-length", b"9")))
            await send(part(b"half", True))
        raise ZeroDivisionError("secret")

    with Hosted(app) as hosted:
        answer = hosted.exchange(b"GET /early HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 500 ") and b"secret" not in answer
        with hosted.connect(GET + b"\r\n") as client:
            assert body_of(read_what_comes(client)) in (b"half", b"")
    assert caplog.text.count("ZeroDivisionError: secret") == 2


def test_an_application_that_ends_without_an_answer_does_not_keep_its_client_waiting() -> None:
    with Hosted(by_name) as hosted:
        for name in ("nothing", "a head"):
            answer = hosted.exchange(GET + b"X-Case: %b\r\n\r\n" % name.encode())
            assert answer.startswith(b"HTTP/1.1 500 "), name
        with hosted.connect(GET + b"X-Case: a part\r\n\r\n") as client:
            assert body_of(read_what_comes(client)) in (b"h", b"")


def test_a_header_cannot_begin_another_one() -> None:
    with Hosted(by_name) as hosted:
        for name in (name for name in CASES if name.startswith("bad")):
            answer = hosted.exchange(GET + b"X-Case: %b\r\n" % name.encode() + CLOSE)
            assert answer.startswith(b"HTTP/1.1 500 "), name
            assert b"Cookie" not in answer and b"html" not in answer, name


def test_an_answer_is_made_only_as_fast_as_its_client_reads() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        if scope["path"] == "/other":
            await sending(start(), part(b"other"))(scope, receive, send)
            return
        await send(start(200, (b"content-length", b"%d" % (64 << 20))))
        for n in range(64):
            sent += 1
            await send(part(bytes([n]) * (1 << 20), n < 63))

    with Hosted(app) as hosted, hosted.connect(GET + CLOSE) as client:
        wait_until(lambda: sent)
        assert body_of(hosted.exchange(b"GET /other HTTP/1.1\r\nHost: x\r\n" + CLOSE)) == b"other"
        assert sent < 64
        assert body_of(read_all(client)) == b"".join(bytes([n]) * (1 << 20) for n in range(64))


# --- its end ----------------------------------------------------------------------------------


def test_at_the_end_requests_are_answered_and_streams_are_ended() -> None:
    ending = threading.Event()
    running: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(part(b"begun", True))
        running.append(scope["path"])
        while not ending.is_set():
            await asyncio.sleep(0.01)
        await send(part(b"ended"))

    with Hosted(app, grace=PATIENCE, on_stop=ending.set) as hosted:
        with hosted.connect(GET + b"\r\n") as client, hosted.connect() as idle:
            wait_until(lambda: running)
            hosted.host.stop()
            assert read_all(client).endswith(b"\r\nended\r\n0\r\n\r\n")
            assert idle.recv(1) == b""
            hosted.thread.join(PATIENCE)
            assert not hosted.thread.is_alive()
        with pytest.raises(ConnectionRefusedError):
            hosted.connect()


def test_what_does_not_end_within_the_grace_time_is_cancelled() -> None:
    running, cancelled = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with Hosted(app, grace=0.1) as hosted, hosted.connect(GET + b"\r\n"):
        assert running.wait(PATIENCE)
        hosted.host.stop()
        assert cancelled.wait(PATIENCE)


def test_a_stop_before_the_start_is_a_stop() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        host = Host(echo, listener, grace=5)
        host.stop()
        thread = threading.Thread(target=host.run, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        host.stop()  # and another one is nothing


# --- the control plane ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    settings = settings_in(tmp_path_factory.mktemp("home"), token="secret")
    with serving(settings) as plane:
        yield plane


def exchange(plane: Plane, data: bytes) -> bytes:
    address = ("127.0.0.1", plane.settings.port)
    with socket.create_connection(address, timeout=PATIENCE) as client:
        client.sendall(data)
        return read_all(client)


@pytest.mark.parametrize("more", [b"A: " + b"x" * 70_000, b"A: b\r\n" * 20_000])
def test_a_head_without_end_is_refused_before_any_credentials(plane: Plane, more: bytes) -> None:
    assert exchange(plane, GET + more).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "data",
    [
        b"rubbish\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        GET + b"Host: b\r\n\r\n",
        PUT + b"Content-Length: +5\r\n\r\nhello",
        PUT + b"Content-Length: 1_0\r\n\r\nhello",
        PUT + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400(plane: Plane, data: bytes) -> None:
    assert exchange(plane, data).startswith(b"HTTP/1.1 400 ")


def test_without_credentials_no_body_is_asked_for(plane: Plane) -> None:
    head = b"PUT /api/v1/projects HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    answer = exchange(plane, head)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in answer


def test_silent_connections_beyond_the_limit_of_files_do_not_lock_a_user_out(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(server_process(tmp_path / "home", files=200))
        address = server.settings.host, int(server.url.rpartition(":")[2])
        for n in range(120):
            client = stack.enter_context(socket.create_connection(address, timeout=PATIENCE))
            if n % 4 == 0:
                client.sendall(GET)

        def is_served() -> bool:
            try:
                return httpx.get(f"{server.url}/health", timeout=PATIENCE).status_code == 200
            except httpx.TransportError:
                return False

        for _ in range(3):
            wait_until(is_served)


def test_an_open_page_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    with server_process(tmp_path / "home") as server:
        httpx.post(f"{server.url}/api/v1/projects", json={"name": "p"}, timeout=PATIENCE)
        url = f"{server.url}/console/p/p/events"
        with httpx.stream("GET", url, timeout=PATIENCE) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            parts = answer.iter_text()
            assert "data:" in next(parts)
            server.process.terminate()
            list(parts)  # to its end, which is a proper one
        assert server.process.wait(PATIENCE) == 0
