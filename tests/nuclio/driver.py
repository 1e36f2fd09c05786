"""The processor's side of the wrapper protocol, over the same sockets: starts a worker, sends it events.

Written from Nuclio 1.14.1's sources: the length and the body of an event are two writes, as Go's are.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec

import digitalhub_runtime_python

WRAPPER = Path(digitalhub_runtime_python.__file__).parent / "nuclio" / "wrapper.py"
TIMEOUT = 20.0


class Answer:
    """What an `r` packet (or a stream) says."""

    def __init__(self, fields: dict[str, Any], chunks: list[bytes] | None = None) -> None:
        self.status = fields["status_code"]
        self.content_type = fields["content_type"]
        self.headers = fields["headers"]
        self.event_id = fields.get("event_id")
        text = fields["body"]
        self.body = base64.b64decode(text) if fields["body_encoding"] == "base64" else text.encode()
        self.encoding = fields["body_encoding"]
        self.chunks = [self.body, *chunks] if chunks is not None else None
        if chunks:
            self.body = b"".join(self.chunks or [])

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Gone(Exception):
    """The worker has closed its side."""


class Processor:
    """One worker of a processor; `with` ends it.

    Args:
        folder: where the user's code lies; goes on the worker's PYTHONPATH.
        handler: `module:function`.
        env: more environment.
        raw: whether the processor was told not to decode strings.
    """

    def __init__(
        self,
        folder: Path,
        handler: str = "main:handler",
        *,
        env: dict[str, str] | None = None,
        raw: bool = False,
        wrapper: Path = WRAPPER,
        python: str = sys.executable,
        trigger: str = "http",
        more: list[str] | None = None,
        wait: bool = True,
        stderr: Any = subprocess.PIPE,
    ) -> None:
        self.sockets = Path(tempfile.mkdtemp(prefix="np-"))
        self._listeners = [self._listen("event"), self._listen("control")]
        arguments = [
            python, "-u", str(wrapper),
            "--handler", handler,
            "--event-socket-path", str(self.sockets / "event"),
            "--control-socket-path", str(self.sockets / "control"),
            "--platform-kind", "local",
            "--namespace", "nuclio",
            "--worker-id", "0",
            "--trigger-kind", trigger,
            "--trigger-name", trigger,
            *([] if raw else ["--decode-event-strings"]),
            *(more or []),
        ]  # fmt: skip
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            arguments,
            env={**os.environ, "PYTHONPATH": path, "NUCLIO_HANDLER": handler, **(env or {})},
            stdout=subprocess.DEVNULL if stderr is subprocess.DEVNULL else None,
            stderr=stderr,
        )
        self.keep = True
        self.logs: list[dict[str, Any]] = []
        self.metrics: list[float] = []
        self.order: list[str] = []
        self.writes = 0
        self._buffer = b""
        self._control_buffer = b""
        for listener in self._listeners:
            listener.settimeout(TIMEOUT)
        self.line, _ = self._listeners[0].accept()
        self.control, _ = self._listeners[1].accept()
        self.line.settimeout(TIMEOUT)
        self.control.settimeout(TIMEOUT)
        if wait:
            self.wait_ready()

    def _listen(self, name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.sockets / name))
        listener.listen(1)
        return listener

    def wait_ready(self) -> None:
        kind, _ = self.packet()
        while kind != "s":
            kind, _ = self.packet()
        self.ready_after = time.perf_counter() - self.started

    def packet(self) -> tuple[str, bytes]:
        """The next packet; logs and metrics are kept aside too."""
        while b"\n" not in self._buffer:
            data = self.line.recv(1 << 20)
            if not data:
                raise Gone(self.end())
            self.writes += 1
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        kind, payload = chr(line[0]), line[1:]
        self.order.append(kind)
        if kind == "l" and self.keep:
            self.logs.append(json.loads(payload))
        elif kind == "m" and self.keep:
            self.metrics.append(json.loads(payload)["duration"])
        return kind, payload

    def send(self, frame: bytes) -> None:
        self.line.sendall(struct.pack(">i", len(frame)))
        self.line.sendall(frame)

    def post(self, *events: dict[str, Any]) -> None:
        self.send(msgspec.msgpack.encode(events[0] if len(events) == 1 else list(events)))

    def answer(self) -> Any:
        """The answer to what was sent: one, or a list of them for a batch."""
        while True:
            kind, payload = self.packet()
            if kind == "r":
                fields = json.loads(payload)
                return [Answer(f) for f in fields] if isinstance(fields, list) else Answer(fields)
            if kind == "c":
                chunks: list[bytes] = []
                while (more := self.packet())[0] != "e":
                    if more[0] == "b":
                        chunks.append(base64.b64decode(more[1]))
                return Answer(json.loads(payload), chunks)

    def call(self, body: Any = b"", **parts: Any) -> Any:
        self.post(event(body, **parts))
        return self.answer()

    def control_message(self) -> Any:
        while b"\n" not in self._control_buffer:
            self._control_buffer += self.control.recv(1 << 16)
        line, _, self._control_buffer = self._control_buffer.partition(b"\n")
        return json.loads(line)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> str:
        """Close the line; what the worker wrote on standard error."""
        for line in (self.line, self.control):
            line.close()
        try:
            _, errors = self.process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, errors = self.process.communicate()
        return (errors or b"").decode()

    def __enter__(self) -> Processor:
        return self

    def __exit__(self, *_: object) -> None:
        for line in (self.line, self.control, *self._listeners):
            line.close()
        if self.process.poll() is None:
            self.process.kill()
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.process.wait()
        for path in self.sockets.iterdir():
            with contextlib.suppress(OSError):
                path.unlink()
        self.sockets.rmdir()


def event(body: Any = b"", **parts: Any) -> dict[str, Any]:
    """An event as the HTTP trigger makes it."""
    if isinstance(body, str):
        body = body.encode()
    content_type = parts.get("content_type", "")
    made = {
        "body": body,
        "content_type": content_type,
        "content-type": content_type,
        "trigger": {"kind": "http", "name": "http"},
        "fields": {},
        "headers": {"Content-Type": content_type} if content_type else {},
        "id": str(uuid.uuid4()),
        "method": "POST",
        "path": "/",
        "size": len(body or b"") if isinstance(body, (bytes, type(None))) else 0,
        "timestamp": 1_700_000_000,
        "url": "",
        "shard_id": -1,
        "num_shards": 0,
        "type": "",
        "type_version": "",
        "version": "",
        "offset": 0,
        "topic": "",
    }
    return {**made, **parts}
