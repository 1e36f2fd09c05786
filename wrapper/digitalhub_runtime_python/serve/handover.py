"""Hands requests from the front, the thread with the sockets, to the main thread, where the user's code runs.

The front must answer while a handler computes, so the two never share a thread. Both directions go
in batches: a thread that is awake takes all that is there, and is only woken when it sleeps.
That costs a tenth of an executor's hop per request when there is load.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from digitalhub_runtime_python.calls.handling import Handling
from digitalhub_runtime_python.calls.replies import Reply
from digitalhub_runtime_python.serve.exchange import Exchange
from digitalhub_runtime_python.serve.streams import Outbox, Stream

logger = logging.getLogger(__name__)


def resolve(outcome: tuple[Exchange, Reply | None]) -> None:
    """On the front's loop: give a request its reply, unless it has been answered meanwhile."""
    job, reply = outcome
    job.connection.endpoint.finish(job, reply)


class Runner(Protocol):
    """What the front sees of the thread that runs the handler."""

    def submit(self, job: Exchange) -> None: ...
    def cancel(self, job: Exchange) -> None: ...
    def running(self) -> Iterable[Exchange]: ...
    def waiting(self) -> int: ...
    def busy(self, seconds: float) -> bool: ...
    def overdue(self, before: float) -> list[Exchange]: ...
    def run(self) -> None: ...
    def stop(self) -> None: ...
    def stuck(self, job: Exchange, seconds: float) -> bool: ...
    def wedged(self, seconds: float) -> bool: ...
    def beat(self) -> None: ...


class SyncRunner:
    """Runs plain handlers one at a time, first come, first served."""

    def __init__(self, handling: Handling, outbox: Outbox, loop: asyncio.AbstractEventLoop) -> None:
        self._handling = handling
        self._outbox = outbox
        self._loop = loop
        self._jobs: deque[Exchange | None] = deque()
        self._current: Exchange | None = None
        self._asleep = False
        # Not a lock: rung twice, which two races in a row can bring about, it must not complain.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def submit(self, job: Exchange | None) -> None:
        self._jobs.append(job)
        if self._asleep:
            self._asleep = False
            self._bell.put(None)

    def cancel(self, job: Exchange) -> None:
        """The client has gone: a job that waits is not begun, a stream is closed, a call goes on."""
        job.gone = True
        if job.stream is not None:
            job.stream.close()

    def running(self) -> Iterable[Exchange]:
        job = self._current
        return () if job is None else (job,)

    def waiting(self) -> int:
        return len(self._jobs)

    def busy(self, seconds: float) -> bool:
        """Whether a new request would wait, behind a call that takes longer than this."""
        job = self._current
        return job is not None and time.monotonic() - job.started > seconds

    def overdue(self, before: float) -> list[Exchange]:
        """Take out the jobs that wait since before a time."""
        taken: list[Exchange] = []
        while self._jobs:
            # Never taken out and put back: the other thread may look in between, and fall asleep.
            try:
                job = self._jobs[0]
                if job is None or job.queued >= before:
                    break
                self._jobs.remove(job)
            except (IndexError, ValueError):  # the other thread took it
                continue
            taken.append(job)
        return taken

    def stuck(self, job: Exchange, seconds: float) -> bool:
        """Whether only the end of the process ends this call: nothing else stops a plain function."""
        return job is self._current

    def wedged(self, seconds: float) -> bool:
        """Never: without a deadline a plain function may take as long as it likes."""
        return False

    def beat(self) -> None:
        """Nothing to ask: this thread is as busy as its handler."""

    def stop(self) -> None:
        self.submit(None)

    def run(self) -> None:
        """Run jobs until `stop` is called; in the main thread."""
        jobs = self._jobs
        while True:
            try:
                job = jobs.popleft()
            except IndexError:
                self._asleep = True
                if jobs:  # it came before the flag was seen
                    self._asleep = False
                    continue
                self._bell.get()
                continue
            if job is None:
                return
            if job.gone:
                self._outbox.put(resolve, (job, None))
                continue
            job.started = time.monotonic()
            self._current = job
            reply = self._handling.call(job.event, self._loop)
            if reply.stream is not None:
                self._stream(job, reply)
            else:
                self._outbox.put(resolve, (job, reply))
            self._current = None

    def _stream(self, job: Exchange, reply: Reply) -> None:
        stream = job.stream = Stream(self._outbox)
        self._outbox.put(resolve, (job, reply))
        failed = False
        try:
            for chunk in reply.stream:
                if stream.closed or job.gone:
                    break
                job.started = time.monotonic()
                stream.put(reply.encode(chunk))
                room = threading.Lock()
                room.acquire()
                if stream.wait_for(room.release):
                    room.acquire()
        except BaseException as exc:  # noqa: BLE001 - the user's; the status has been sent already
            failed = True
            self._handling.failed(exc, job.event)
        finally:
            _close(reply.stream, self._handling, job)
            stream.end(failed)


class AsyncRunner:
    """Runs `async` handlers concurrently, on a loop of their own in the main thread.

    Args:
        limit: calls at the same time; more wait.
    """

    def __init__(
        self, handling: Handling, outbox: Outbox, loop: asyncio.AbstractEventLoop, limit: int
    ) -> None:
        self._handling = handling
        self._outbox = outbox
        self._loop = loop
        self._limit = limit
        self._waiting: deque[Exchange] = deque()
        self._running: dict[Exchange, None] = {}  # the front's record: begun, and not yet resolved
        self._handed: deque[Exchange] = deque()
        self._scheduled = False
        self._asked = 0.0

    # The front's side.
    def submit(self, job: Exchange) -> None:
        if len(self._running) >= self._limit:
            self._waiting.append(job)
            return
        self._hand_over(job)

    def _hand_over(self, job: Exchange) -> None:
        self._running[job] = None
        self._handed.append(job)
        if not self._scheduled:
            self._scheduled = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._begin)

    def _done(self, job: Exchange) -> None:
        self._running.pop(job, None)
        while self._waiting and len(self._running) < self._limit:
            waiting = self._waiting.popleft()
            if waiting.gone:
                resolve((waiting, None))
            else:
                self._hand_over(waiting)

    def cancel(self, job: Exchange) -> None:
        """The client has gone, or the deadline has passed: the call is cancelled."""
        job.gone = True
        if job.stream is not None:
            job.stream.close()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel_task, job)

    def _cancel_task(self, job: Exchange) -> None:
        if job.task is not None:
            # A round later, as a task that is cancelled before its first step never says that it ended.
            self._loop.call_soon(job.task.cancel)

    def running(self) -> Iterable[Exchange]:
        return list(self._running)

    def waiting(self) -> int:
        return len(self._waiting)

    def busy(self, seconds: float) -> bool:
        """Whether a new request would wait."""
        return len(self._running) >= self._limit

    def overdue(self, before: float) -> list[Exchange]:
        taken: list[Exchange] = []
        while self._waiting and self._waiting[0].queued < before:
            taken.append(self._waiting.popleft())
        # Handed over and not begun: the loop is held up by a handler that blocks it.
        for job in list(self._running):
            if not job.started and job.queued < before and not job.gone:
                taken.append(job)
                job.gone = True
        return taken

    def stuck(self, job: Exchange, seconds: float) -> bool:
        """Whether the loop has not moved for so long: a handler blocks it, and cannot be cancelled."""
        return self.wedged(seconds)

    def wedged(self, seconds: float) -> bool:
        """Whether the loop has not moved for so long, and with it none of the calls."""
        return bool(self._asked) and time.monotonic() - self._asked > seconds

    def beat(self) -> None:
        """Ask the loop whether it moves."""
        if not self._asked:
            self._asked = time.monotonic()
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._answered)

    def _answered(self) -> None:
        self._asked = 0.0

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)

    # The main thread's side.
    def run(self) -> None:
        """Run jobs until `stop` is called; in the main thread."""
        self._loop.run_forever()

    def _begin(self) -> None:
        self._scheduled = False
        handed = self._handed
        while handed:
            job = handed.popleft()
            if job.gone:
                self._outbox.put(self._finish, (job, None))
            else:
                job.started = time.monotonic()
                job.task = self._loop.create_task(self._run_one(job))

    def _finish(self, outcome: tuple[Exchange, Reply | None]) -> None:
        self._done(outcome[0])
        resolve(outcome)

    async def _run_one(self, job: Exchange) -> None:
        reply: Reply | None = None
        try:
            reply = await self._handling.call_async(job.event)
            if reply.stream is not None:
                await self._stream(job, reply)
                reply = None
        except asyncio.CancelledError as exc:
            if not job.gone:
                reply = self._handling.failed(exc, job.event)
        finally:
            self._outbox.put(self._finish, (job, reply))

    async def _stream(self, job: Exchange, reply: Reply) -> None:
        stream = job.stream = Stream(self._outbox)
        self._outbox.put(resolve, (job, reply))
        failed = True
        try:
            if hasattr(reply.stream, "__aiter__"):
                async for chunk in reply.stream:
                    if not await self._pass_on(job, stream, reply.encode(chunk)):
                        break
            else:
                for chunk in reply.stream:
                    if not await self._pass_on(job, stream, reply.encode(chunk)):
                        break
            failed = False
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # noqa: BLE001 - as in SyncRunner
            self._handling.failed(exc, job.event)
        finally:
            stream.end(failed)
            await self._close(job, reply.stream)

    async def _pass_on(self, job: Exchange, stream: Stream, chunk: bytes) -> bool:
        """Send a chunk; whether the client takes more."""
        if stream.closed or job.gone:
            return False
        job.started = time.monotonic()
        stream.put(chunk)
        room: asyncio.Future[None] = self._loop.create_future()
        if stream.wait_for(lambda: self._resume(room)):
            await room
        return True

    def _resume(self, room: asyncio.Future[None]) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_set, room)

    async def _close(self, job: Exchange, stream: Any) -> None:
        if not hasattr(stream, "aclose"):
            _close(stream, self._handling, job)
            return
        try:
            await stream.aclose()
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # noqa: BLE001 - as in _close
            self._handling.failed(exc, job.event)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _close(stream: Any, handling: Handling, job: Exchange) -> None:
    """Let the generator's `finally` run; what it raises there is logged, nobody waits for it."""
    if hasattr(stream, "close"):
        try:
            stream.close()
        except BaseException as exc:  # noqa: BLE001 - the user's
            handling.failed(exc, job.event)
