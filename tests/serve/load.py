"""A client for load: connections that are kept, one request after the other, every answer checked."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import uvloop

Make = Callable[[int], bytes]
Check = Callable[[int, int, dict[str, str], bytes], bool]


@dataclass
class Load:
    """What came of it."""

    answers: Counter[int] = field(default_factory=Counter)
    """Status -> how many."""
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    """Seconds that each 200 took."""
    seconds: float = 0.0


def drive(
    address: tuple[str, int],
    connections: int,
    *,
    make: Make,
    check: Check,
    requests: int | None = None,
    seconds: float | None = None,
    pause: float = 0.0,
) -> Load:
    """Send requests until so many, or so many seconds, have gone.

    Args:
        make: the bytes of request n.
        check: whether status, headers and body are the answer to request n.
        pause: seconds that a connection waits after an answer other than 200.
    """
    load = Load()
    numbers = iter(range(requests if requests is not None else 1 << 60))
    start = time.monotonic()

    async def client() -> None:
        reader, writer = await asyncio.open_connection(*address)
        try:
            for n in numbers:
                if seconds is not None and time.monotonic() - start > seconds:
                    return
                if writer.is_closing():
                    reader, writer = await asyncio.open_connection(*address)
                sent = time.monotonic()
                writer.write(make(n))
                try:
                    status, headers, body = await read(reader)
                except (asyncio.IncompleteReadError, ConnectionError) as exc:
                    load.lost.append(f"{n}: {exc!r}")
                    writer.close()
                    continue
                load.answers[status] += 1
                if status == 200:
                    load.accepted.append(time.monotonic() - sent)
                elif pause:
                    await asyncio.sleep(pause)
                if not check(n, status, headers, body):
                    load.wrong.append(f"{n}: {status} {body[:200]!r}")
                if headers.get("connection") == "close":
                    writer.close()
        finally:
            writer.close()

    async def all_clients() -> None:
        await asyncio.gather(*(client() for _ in range(connections)))

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(all_clients())
    finally:
        loop.close()
    load.seconds = time.monotonic() - start
    return load


async def read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:-2])}
    length = int(headers.get("content-length", 0))
    return int(lines[0][9:12]), headers, await reader.readexactly(length) if length else b""
