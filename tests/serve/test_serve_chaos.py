"""Clients that do what they like, on raw sockets, among others whose answers must be theirs, whole and in order.

Every client draws what it does from a generator seeded with its number, so that a run can be repeated;
DHPY_TEST_CHAOS_SECONDS makes it longer, DHPY_TEST_CHAOS_SEED another.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import requests
import uvloop
from services import Service, wait_until

Serve = Callable[..., Service]

SECONDS = float(os.environ.get("DHPY_TEST_CHAOS_SECONDS", "1"))
"""Of each kind of handler."""
SEED = os.environ.get("DHPY_TEST_CHAOS_SEED", "1")

CODE = """
import asyncio, os, time, zlib

def answer(event):
    if event.path == "/pid":
        return str(os.getpid())
    text = f"{event.path} {event.size} {zlib.crc32(event.body)} "
    return text + "x" * int(event.fields.get("more", 0))

def handler(event):
    time.sleep(float(event.fields.get("s", 0)))
    return answer(event)

async def ahandler(event):
    await asyncio.sleep(float(event.fields.get("s", 0)))
    return answer(event)

def stream(event):
    for piece in pieces(event):
        time.sleep(float(event.fields.get("s", 0)) / 4)
        yield piece

async def astream(event):
    for piece in pieces(event):
        await asyncio.sleep(float(event.fields.get("s", 0)) / 4)
        yield piece

def pieces(event):
    text = answer(event)
    size = max(1, len(text) // 4)
    for at in range(0, len(text), size):
        yield text[at : at + size]
"""
LIMIT = 32 << 20
ENV = {
    "DHPY_BODY_LIMIT": str(LIMIT),
    "DHPY_BODY_MEMORY": str(LIMIT),
    "DHPY_HEADER_TIMEOUT": "1",
    "DHPY_STALL_TIMEOUT": "1",
    "DHPY_WAIT": "60",
    "DHPY_QUEUE": "100000",
    "DHPY_GRACE": "60",
}
PATIENCE = 30.0
"""Seconds within which the service ends a connection or answers, on a busy machine."""


class Client:
    """One connection, and what its client draws."""

    def __init__(self, address: tuple[str, int], number: int) -> None:
        self.draw = random.Random(f"{SEED} {number}")
        self.number = number
        self.address = address

    async def __aenter__(self) -> Client:
        raw = socket.socket()
        raw.setblocking(False)
        if self.draw.random() < 0.2:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(raw, self.address)
            self.reader, self.writer = await asyncio.open_connection(sock=raw)
        except BaseException:
            raw.close()
            raise
        self.raw = self.writer.get_extra_info("socket")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    def reset(self) -> None:
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def send(self, data: bytes, pieces: int = 1) -> None:
        cuts = sorted(self.draw.randrange(len(data) + 1) for _ in range(pieces - 1))
        for start, end in zip([0, *cuts], [*cuts, len(data)]):
            self.writer.write(data[start:end])
            await self.writer.drain()
            if pieces > 1:
                await asyncio.sleep(self.draw.choice([0, 0, 0.005, 0.03]))

    async def to_the_end(self) -> bytes:
        """What comes until the service ends the connection; which it has to do."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await asyncio.wait_for(self.reader.read(65536), PATIENCE):
                data += chunk
        return data


class Asked:
    """A request, and what has to be its answer."""

    def __init__(self, draw: random.Random, name: str, *, version: str = "1.1") -> None:
        body = draw.randbytes(draw.choice([0, 1, 50, 3000, 100_000]))
        more = draw.choice([0, 0, 10, 5000, 300_000])
        wait = draw.choice([0, 0, 0, 0.002])
        self.method = draw.choice(["POST", "POST", "PUT", "GET", "HEAD"])
        self.body = f"/{name} {len(body)} {zlib.crc32(body)} ".encode() + b"x" * more
        self.close = draw.random() < 0.1
        self.version = version
        lines = [f"{self.method} /{name}?more={more}&s={wait} HTTP/{version}", "Host: test"]
        connection = ["close"] if self.close else []
        if version == "1.1" and draw.random() < 0.15:
            connection.append("upgrade")
            lines += ["Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"]
        self.waits = version == "1.1" and bool(body) and draw.random() < 0.1
        if self.waits:
            lines.append("Expect: 100-continue")
        if connection:
            lines.append(f"Connection: {', '.join(connection)}")
        if version == "1.1" and draw.random() < 0.3:
            lines.append("Transfer-Encoding: chunked")
            self.sent = _chunked(draw, body)
        else:
            lines.append(f"Content-Length: {len(body)}")
            self.sent = body
        self.head = "\r\n".join([*lines, "", ""]).encode()

    @property
    def data(self) -> bytes:
        return self.head + self.sent


def _chunked(draw: random.Random, body: bytes) -> bytes:
    data = b""
    while body:
        size = draw.randint(1, len(body))
        extension = b";a=b" if draw.random() < 0.1 else b""
        data += b"%x%s\r\n%s\r\n" % (size, extension, body[:size])
        body = body[size:]
    return data + (b"0\r\nX-Trailer: 1\r\n\r\n" if draw.random() < 0.2 else b"0\r\n\r\n")


async def read_answer(reader: asyncio.StreamReader, asked: Asked) -> bool:
    """Read the answer to a request, whichever way it is framed; whether the connection goes on."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    while head.startswith("HTTP/1.1 100 "):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    assert head.startswith("HTTP/1.1 200 "), (asked.head, head)
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head.split("\r\n"))}
    goes_on = asked.version == "1.1" and headers.get("connection") != "close"
    if asked.method == "HEAD":
        body = asked.body
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
    else:
        assert asked.version == "1.0"
        assert not goes_on
        body = await reader.read(-1)
    assert body == asked.body, (asked.head, body[:100], len(body), len(asked.body))
    return goes_on


# --- honest clients ----------------------------------------------------------------------------


async def one_after_the_other(client: Client) -> None:
    for n in range(client.draw.randint(1, 6)):
        asked = Asked(client.draw, f"{client.number}-{n}")
        if asked.waits:
            await client.send(asked.head)
            await asyncio.sleep(client.draw.choice([0, 0.01]))
            await client.send(asked.sent)
        else:
            await client.send(asked.data, client.draw.choice([1, 1, 2, 5]))
        if not await asyncio.wait_for(read_answer(client.reader, asked), PATIENCE):
            break


async def pipeline(client: Client) -> None:
    all_asked = [
        Asked(client.draw, f"{client.number}-{n}") for n in range(client.draw.randint(2, 8))
    ]
    # Nothing follows a request that ends its connection.
    last = next((n for n, asked in enumerate(all_asked) if asked.close), len(all_asked) - 1)
    all_asked = all_asked[: last + 1]
    sending = asyncio.ensure_future(
        client.send(b"".join(a.data for a in all_asked), client.draw.choice([1, 1, 3]))
    )
    try:
        for asked in all_asked:
            await asyncio.wait_for(read_answer(client.reader, asked), PATIENCE)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def old(client: Client) -> None:
    asked = Asked(client.draw, f"{client.number}", version="1.0")
    await client.send(asked.data, client.draw.choice([1, 2]))
    assert not await asyncio.wait_for(read_answer(client.reader, asked), PATIENCE)
    assert await client.to_the_end() == b""


async def slow_reader(client: Client) -> None:
    asked = Asked(client.draw, f"{client.number}")
    await client.send(asked.data)
    await asyncio.sleep(0.5)
    await asyncio.wait_for(read_answer(client.reader, asked), PATIENCE)


HONEST = [one_after_the_other, one_after_the_other, pipeline, pipeline, old, slow_reader]

# --- the others --------------------------------------------------------------------------------


async def leaves(client: Client) -> None:
    """Sends a part of a pipeline, perhaps reads a part of the answer, and goes in one way or another."""
    data = b"".join(
        Asked(client.draw, f"bad-{client.number}-{n}").data
        for n in range(client.draw.choice([1, 1, 2, 9]))
    )
    if client.draw.random() < 0.6:
        data = data[: client.draw.randrange(len(data))]
    await client.send(data, client.draw.choice([1, 3]))
    if client.draw.random() < 0.5:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(client.reader.read(client.draw.choice([1, 9000])), 0.05)
    how = client.draw.choice(["close", "reset", "half", "pause"])
    if how == "pause":
        await asyncio.sleep(client.draw.random() * 0.02)
        how = client.draw.choice(["close", "reset", "half"])
    if how == "half":
        if not client.writer.transport.is_closing():
            client.writer.write_eof()
        await client.to_the_end()
    elif how == "reset":
        client.reset()


async def breaks_the_rules(client: Client) -> None:
    """Sends what is not HTTP, first or after proper requests, and waits until it is told so."""
    bad = client.draw.choice(BAD)
    before = [
        Asked(client.draw, f"bad-{client.number}-{n}") for n in range(client.draw.choice([0, 1, 3]))
    ]
    await client.send(b"".join(a.data for a in before) + bad, client.draw.choice([1, 1, 3]))
    await client.to_the_end()


CHUNKED = b"POST /bad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = b"POST /bad HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
BAD = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"rubbish\r\n\r\n",
    b"GET  HTTP/1.1\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: b\r\nContent-Le",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000,
    b"POST / HTTP/1.1\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 50000\r\n\r\nthat is all",
    b"POST / HTTP/1.1\r\nContent-Length: 50000\r\nExpect: 100-continue\r\n\r\n",
    CHUNKED + b"zz\r\n",
    CHUNKED + b"3\r\nabc\r\n-1\r\n",
    CHUNKED + b"3\r\nabcde\r\n0\r\n\r\n",
    CHUNKED + b"fffffffffffffffff\r\n",
    CHUNKED + b"3\r\nab",
    CHUNKED + b"0\r\nTrailer without an end: ",
    UPGRADE + b"\r\nrubbish, not h2c\r\n\r\n",
    UPGRADE + b"Content-Length: 5\r\n\r\nab",
    UPGRADE + b"Content-Length: 0\r\n\r\n" + UPGRADE + b"Content-Length: x\r\n\r\n",
    UPGRADE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"CONNECT host:443 HTTP/1.1\r\nHost: host:443\r\n\r\nrubbish",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


async def does_not_read(client: Client) -> None:
    """Asks for more than the kernel keeps for it, and lets it lie."""
    client.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.writer.transport.pause_reading()
    for _ in range(client.draw.randint(1, 2)):
        client.writer.write(b"GET /bad?more=4000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(client.draw.choice([0.1, 0.5, 2]))
    if client.draw.random() < 0.5:
        client.reset()


DISHONEST = [leaves, leaves, leaves, breaks_the_rules, breaks_the_rules, does_not_read]


# --- the tests ---------------------------------------------------------------------------------


class Storm:
    """So many clients at a time, one after the other."""

    def __init__(self, service: Service, seconds: float, *, at_once: int = 200) -> None:
        self.address = service.address
        self.wrong: list[str] = []
        self.done: Counter[str] = Counter()
        self.ending = False
        self._numbers = itertools.count()
        self._seconds = seconds
        self._at_once = at_once

    def run(self, then: Callable[[], None] | None = None) -> None:
        """Let clients come for so long; `then` is called half-way."""
        loop = uvloop.new_event_loop()
        try:
            loop.run_until_complete(self._run(then))
        finally:
            loop.close()

    async def _run(self, then: Callable[[], None] | None) -> None:
        clients = [asyncio.ensure_future(self._place()) for _ in range(self._at_once)]
        if then is not None:
            await asyncio.sleep(self._seconds / 2)
            self.ending = True
            then()
        try:
            await asyncio.gather(*clients)
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

    async def _place(self) -> None:
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            number = next(self._numbers)
            honest = number % 2 == 0
            behave = random.Random(f"{SEED} kind {number}").choice(HONEST if honest else DISHONEST)
            await self._one(number, behave, honest)

    async def _one(
        self, number: int, behave: Callable[[Client], Awaitable[None]], honest: bool
    ) -> None:
        try:
            async with Client(self.address, number) as client:
                await asyncio.wait_for(behave(client), 2 * PATIENCE)
            self.done[behave.__name__] += 1
        except Exception as exc:
            left = isinstance(exc, (OSError, RuntimeError)) or (
                isinstance(exc, asyncio.IncompleteReadError) and not exc.partial
            )
            # Who is left without an answer while the service ends may ask another one.
            if (honest and not (self.ending and left)) or isinstance(exc, asyncio.TimeoutError):
                self.wrong.append(f"{number} {behave.__name__}: {exc!r}")


def assert_nothing_remains(service: Service) -> None:
    for name in ("requests_in_flight", "requests_waiting", "connections"):
        wait_until(lambda name=name: service.metric(f"dhpy_worker_{name}") == 0)  # type: ignore[misc]


def assert_no_complaint(service: Service) -> None:
    for text in ("Traceback", "never retrieved", "was destroyed", "Exception", "returned without"):
        assert text not in service.log, service.log[-5000:]


def descriptors(service: Service) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in service.children())


@pytest.mark.parametrize("handler", ["handler", "ahandler", "stream", "astream"])
def test_whatever_clients_do_the_others_get_their_answers_and_nothing_remains(
    serve: Serve, handler: str
) -> None:
    service = serve(CODE, handler, "--workers", "2", env=ENV)
    workers = {requests.get(f"{service.url}/pid", timeout=30).text for _ in range(100)}
    Storm(service, 0.5).run()  # what is allocated once, for that many answers that nobody reads
    assert_nothing_remains(service)
    files, memory = descriptors(service), service.metric("dhpy_worker_resident_bytes")

    storm = Storm(service, SECONDS)
    storm.run()
    assert not storm.wrong, "\n".join(storm.wrong[:10])
    assert all(storm.done[kind.__name__] for kind in (*HONEST, *DISHONEST)), storm.done
    assert_nothing_remains(service)
    assert_no_complaint(service)
    assert service.metric("dhpy_worker_starts_total") == 2
    assert abs(descriptors(service) - files) <= 2
    assert service.metric("dhpy_worker_resident_bytes") < memory + 2 * 100 * 1024 * 1024
    # A body of the whole memory for bodies is only taken where nothing is left of another.
    answered = set()
    deadline = time.monotonic() + PATIENCE
    while answered != workers and time.monotonic() < deadline:
        response = requests.post(f"{service.url}/pid", data=bytes(LIMIT), timeout=30)
        assert response.status_code == 200, response.text
        assert response.elapsed.total_seconds() < 5
        answered.add(response.text)
    assert answered == workers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("handler", ["handler", "astream"])
def test_a_service_that_ends_in_the_middle_of_it_cuts_no_answer(
    serve: Serve, handler: str, number: int
) -> None:
    service = serve(CODE, handler, "--workers", "2", env=ENV)
    storm = Storm(service, SECONDS)
    storm.run(lambda: service.process.send_signal(number))
    assert not storm.wrong, "\n".join(storm.wrong[:10])
    assert service.process.wait(80) == 0, service.log[-3000:]
    assert_no_complaint(service)


def test_a_pipeline_whose_answers_nobody_reads_is_not_answered_on(serve: Serve) -> None:
    code = """
calls = 0

def handler(event):
    global calls
    if event.path == "/calls":
        return str(calls)
    calls += 1
    return "x" * 4_000_000
"""
    service = serve(code, "handler", env={"DHPY_STALL_TIMEOUT": "30"})
    before = service.metric("dhpy_worker_resident_bytes")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect(service.address)
        client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        wait_until(lambda: requests.get(f"{service.url}/calls", timeout=30).text != "0")
        for _ in range(20):  # each of which would have let the others in before it
            asked = requests.get(f"{service.url}/calls", timeout=30).text
        assert int(asked) <= 3
        assert service.metric("dhpy_worker_resident_bytes") < before + 50 * 1024 * 1024
        # Whoever reads in the end gets all of them.
        size = 0
        while size < 50 * 4_000_000:
            size += len(client.recv(1 << 20))
    assert requests.get(f"{service.url}/calls", timeout=30).text == "50"
