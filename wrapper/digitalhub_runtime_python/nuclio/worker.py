"""A worker of Nuclio's processor: connects, loads the function, then one event in, one answer out.

Read `Worker.serve` first. The line's rules are in wire.py, an event's in events.py, an answer's in
packets.py. An exit status of 0 is for the end that the processor asked for: it takes any other
worker that exits for dead, and one that exited with 0 for ready.
"""

from __future__ import annotations

import inspect
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from digitalhub_runtime_python import error_report
from digitalhub_runtime_python.calls.replies import problem_reply
from digitalhub_runtime_python.errors import EXIT_OK
from digitalhub_runtime_python.nuclio import batches, failures, functions, logs, packets, wire
from digitalhub_runtime_python.nuclio.events import Reader
from digitalhub_runtime_python.nuclio.signals import Signals
from digitalhub_runtime_python.nuclio.streams import Stream

if TYPE_CHECKING:
    from digitalhub_runtime_python.ending import Walk

EXIT_DISCONNECTED = 1
ACKNOWLEDGED = ("kafka", "kafka-cluster", "kinesis", "v3ioStream", "eventhub", "nats", "rabbit-mq")
"""Kinds of triggers whose handlers may acknowledge in a task of their own, `def` or `async def`."""


def main(argv: list[str]) -> int:
    """Serve the processor that the arguments name; the exit status."""
    options = parse(argv)
    signals = Signals()
    with ExitStack() as stack:
        try:
            worker = Worker(options, signals)
        except wire.Disconnected as exc:
            sys.stderr.write(f"nuclio worker: {exc}\n")
            return EXIT_DISCONNECTED
        walks: list[Walk] = []
        try:
            worker.prepare(stack, walks)
        except BaseException as exc:  # noqa: BLE001 - said wherever someone may look, then the end
            from digitalhub_runtime_python.ending import Walk, conclude
            from digitalhub_runtime_python.settings import Settings

            ending = conclude(exc, *walks or [Walk(Settings.to_end_with(os.environ))])
            # The processor itself only says that its worker is gone.
            with suppress(OSError):
                worker.logger.error_with(
                    "The function cannot be served", error=ending.status["error"]
                )
            return ending.exit_status
        return worker.serve()


def parse(argv: list[str]) -> dict[str, str]:
    """`--name value` and `--flag` as a dict; what a newer processor adds is taken too."""
    options = {"handler": "", "platform-kind": "local", "namespace": "", "worker-id": "0"}
    name = ""
    for word in argv:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            options[name] = value
        elif name:
            options[name] = word
            name = ""
    return options


class Worker:
    """One worker's line to the processor, its function and its context."""

    def __init__(self, options: dict[str, str], signals: Signals) -> None:
        self._options = options
        self._line = wire.connect(options.get("event-socket-path", ""))
        self._line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wire.WAKE_UP)
        control = options.get("control-socket-path")
        self._control = wire.connect(control) if control else None
        self._outbox = wire.Outbox(self._line)
        self._frames = wire.Frames()
        self._reader = Reader("decode-event-strings" in options)
        self._signals = signals
        self._loop: Any = LazyLoop()  # stands in for an asyncio loop
        self.logger = logs.connect(self._outbox, options["worker-id"])
        self._context = functions.make_context(options, self.logger, self._acknowledge)
        failures.guard_exit(self._outbox)

    def prepare(self, stack: ExitStack, walks: list[Walk]) -> None:
        """Load the function and run its init, then tell the processor that this worker is ready."""
        self._function = functions.load(
            self._options["handler"], self._context, self._loop.finish, stack, walks
        )
        self._call = self._function.handling.call
        if self._function.names_loop:
            self._loop.running()  # for its asyncio.get_event_loop()
        self._signals.attach(self._line, lambda: self._callback("drain"))
        self._outbox.send(packets.START)
        self._tell({"kind": "wrapperInitialized", "attributes": {"ready": "true"}})

    def serve(self) -> int:
        """Answer events until the processor says that it is enough; the exit status."""
        try:
            kind = self._options.get("trigger-kind", "")
            if self._function.wants_loop or kind in ACKNOWLEDGED:
                self._loop.finish(self._serve_on_loop())
            while True:
                frame = self._frames.pop()
                if frame is None:
                    self._receive()
                else:
                    self._signals.work()
                    self._outbox.send(self._answer(frame))
                    self._signals.rest()
                    if self._loop.has_work:  # a plain handler's tasks: they go on from here on
                        self._loop.finish(self._serve_on_loop())
        except (wire.Disconnected, OSError) as exc:
            return self._end(exc)

    async def _serve_on_loop(self) -> None:
        """The same on an event loop, so that what the handler started goes on between events."""
        await self._loop.running().serve(self._line, self._receive, self._next)

    def _receive(self) -> None:
        self._frames.read(self._line)

    def _next(self) -> Any:
        frame = self._frames.pop()
        return None if frame is None else self._answer_and_send(frame)

    async def _answer_and_send(self, frame: bytes) -> None:
        self._signals.work()
        self._outbox.send(await self._answer_on_loop(frame))
        self._signals.rest()

    def _answer(self, frame: bytes) -> bytes:
        """The packets that answer one event; whatever happens, an answer is among them."""
        start = time.perf_counter()
        event = self._read(frame)
        if event.__class__ is bytes:
            return event
        if event.__class__ is list:
            done = batches.answer(event, self._function, self._context, self._loop)
            return packets.metric(time.perf_counter() - start) + packets.batch(done)
        reply = self._call(event, self._loop)
        if reply.stream is None:
            return packets.metric(time.perf_counter() - start) + packets.answer(reply)
        stream = Stream(reply, self._outbox)
        try:
            for chunk in reply.stream:
                stream.add(chunk)
            last = stream.end()
        except BaseException as exc:  # noqa: BLE001 - the user's; a worker must not vanish
            last = stream.fail(exc, self._function.handling.failed(exc, event))
        return last + packets.metric(time.perf_counter() - start)

    async def _answer_on_loop(self, frame: bytes) -> bytes:
        """`_answer`, awaiting."""
        start = time.perf_counter()
        event = self._read(frame)
        if event.__class__ is bytes:
            return event
        if event.__class__ is list:
            done = await batches.answer_on_loop(event, self._function, self._context)
            return packets.metric(time.perf_counter() - start) + packets.batch(done)
        try:
            reply = await self._function.handling.call_async(event)
        except BaseException as exc:  # noqa: BLE001 - a handler that cancels itself
            reply = self._function.handling.failed(exc, event)
        if reply.stream is None:
            return packets.metric(time.perf_counter() - start) + packets.answer(reply)
        stream = Stream(reply, self._outbox)
        try:
            async for chunk in _chunks(reply.stream):
                stream.add(chunk)
            last = stream.end()
        except BaseException as exc:  # noqa: BLE001 - as above
            last = stream.fail(exc, self._function.handling.failed(exc, event))
        return last + packets.metric(time.perf_counter() - start)

    def _read(self, frame: bytes) -> Any:
        """The event, or the packets that refuse it."""
        try:
            event = self._reader.read(frame)
        except ValueError as exc:
            self.logger.error_with("The processor sent what is not an event", error=str(exc))
            return packets.answer(problem_reply(500, str(exc)))
        if not self._signals.discarding:
            return event
        reply = problem_reply(503, "Event discarded: worker draining")
        reply.headers += [
            (b"retry-after", b"1"),
            (packets.NO_ACK, b"true"),
            (packets.DISCARDED, b"true"),
        ]
        if event.__class__ is list:
            return packets.batch((one.id, reply) for one in event)
        return packets.answer(reply)

    def _callback(self, kind: str) -> None:
        """Call what the user set for `drain` or `termination`."""
        try:
            self._loop.finish_soon(self._context.platform._on_signal(callback_type=kind))
        except Exception as exc:  # noqa: BLE001 - the end must come in any case
            self.logger.error_with(f"The {kind} callback failed", error=error_report.describe(exc))

    def _end(self, cause: Exception) -> int:
        if not self._signals.ending:
            sys.stderr.write(f"nuclio worker: {cause}\n")
            return EXIT_DISCONNECTED
        self._callback("termination")
        self.logger.debug("The worker ends, as the processor asked")
        return EXIT_OK

    async def _acknowledge(self, message: Any) -> None:
        self._tell(message)

    def _tell(self, message: dict[str, Any]) -> None:
        """Send a message on the control socket, where there is one."""
        if self._control is not None:
            wire.write_all(self._control, packets.control(message))


class LazyLoop:
    """One event loop for the worker's life, made when something has to be awaited."""

    def __init__(self) -> None:
        self._loop: Any = None

    def running(self) -> Any:
        if self._loop is None:
            import asyncio

            from digitalhub_runtime_python.nuclio.turns import TurnLoop

            self._loop = TurnLoop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    @property
    def has_work(self) -> bool:
        """Whether a handler has left something to be run."""
        return self._loop is not None and self._loop.has_work

    def run_until_complete(self, awaitable: Awaitable[Any]) -> Any:
        return self.running().run_until_complete(awaitable)

    def finish(self, value: Any) -> Any:
        """A value, or what its awaitable comes to."""
        return self.run_until_complete(_awaited(value)) if inspect.isawaitable(value) else value

    def finish_soon(self, value: Any) -> None:
        """`finish`, but from inside the running loop a task of it."""
        if inspect.isawaitable(value) and self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._loop.create_task, _awaited(value))
        else:
            self.finish(value)


async def _awaited(value: Any) -> Any:
    return await value


async def _chunks(stream: Any) -> AsyncIterator[Any]:
    if inspect.isasyncgen(stream):
        async for chunk in stream:
            yield chunk
    else:
        for chunk in stream:
            yield chunk
