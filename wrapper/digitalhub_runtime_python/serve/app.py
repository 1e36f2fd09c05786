"""A function's endpoint: admission, the hand-over of a whole request to the handler, its reply."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable

from digitalhub_runtime_python.calls.event import RequestEvent
from digitalhub_runtime_python.calls.replies import Reply, problem_reply
from digitalhub_runtime_python.serve.exchange import Exchange
from digitalhub_runtime_python.serve.handover import Runner
from digitalhub_runtime_python.serve.messages import BadMessage, split_target
from digitalhub_runtime_python.settings import ServeSettings

logger = logging.getLogger(__name__)

HEALTH = b"/__internal/health"
"""Answered without the handler; Nuclio's readiness probe."""

GONE = 499
"""Counted for requests whose client left before the answer."""


class App:
    """The endpoint of one handler.

    Args:
        runner: runs the handler.
        submit: has it run for a request.
        count: called with the status of each answer and the seconds that it took.
        log_requests: write a line for each.
    """

    streams = False

    def __init__(
        self,
        runner: Runner,
        submit: Callable[[Exchange], None],
        settings: ServeSettings,
        count: Callable[[int, float], None],
        *,
        log_requests: bool = False,
    ) -> None:
        self._log_requests = log_requests
        self._runner = runner
        self._submit = submit
        self._settings = settings
        self._count = count
        self._held = 0  # bytes of bodies in memory
        self.in_flight = 0
        self.ending = ""
        """Why requests are not taken any more."""

    # --- the protocol's calls ---

    def begin(self, exchange: Exchange) -> None:
        exchange.began = time.perf_counter()
        self.in_flight += 1
        length = exchange.length
        if length:
            limit = self._settings.body_limit
            if length > limit:
                exchange.refuse(413, f"The body has {length} bytes; the limit is {limit}.")
            else:
                self._reserve(exchange, length)

    def grow(self, exchange: Exchange) -> None:
        """A part of a body in chunks has come, which has announced no length."""
        size, limit = exchange.size, self._settings.body_limit
        if size > limit:
            exchange.refuse(413, f"The body is longer than the limit of {limit} bytes.")
        elif size > exchange.held:
            self._reserve(exchange, size - exchange.held)

    def _reserve(self, exchange: Exchange, size: int) -> None:
        """Make room for so many more bytes of a body, or refuse it."""
        if self._held and self._held + size > self._settings.body_memory:
            exchange.refuse(503, "The service holds too many request bodies.", _RETRY)
            return
        self._held += size
        exchange.held += size

    def respond(self, exchange: Exchange) -> None:
        if exchange.target.startswith(HEALTH):
            self._health(exchange)
            return
        try:
            path, query = split_target(exchange.method, exchange.target)
        except BadMessage as exc:
            exchange.refuse(exc.status, str(exc))
            return
        scope = {
            "method": exchange.method,
            "path": path,
            "query_string": query,
            "headers": exchange.headers,
        }
        exchange.event = RequestEvent(scope, exchange.body(), exchange.content_type)
        if self.ending:
            self.finish(exchange, busy(self.ending))
        elif self._runner.waiting() >= self._settings.queue:
            self.finish(exchange, busy("The service has too many requests waiting."))
        else:
            exchange.queued = time.monotonic()
            self._submit(exchange)

    def lost(self, exchange: Exchange) -> None:
        """The client has left, or was refused."""
        if exchange.event is None:
            self._release(exchange)  # it was not whole: there is nothing to count
            return
        self._runner.cancel(exchange)  # which has it finished, where it is not yet
        if exchange.done and exchange.stream is not None:
            self._end(exchange, exchange.status)

    def writable(self, exchange: Exchange) -> None:
        if exchange.stream is not None:
            self._pump(exchange)

    # --- replies ---

    def finish(self, exchange: Exchange, reply: Reply | None) -> None:
        """Answer with the handler's reply, or another in its place; None where nobody waits for one any more."""
        if exchange.done:
            return
        exchange.done = True
        connection = exchange.connection
        exchange.status = GONE if reply is None else reply.status
        if reply is None or exchange.answered:
            if exchange.stream is not None:
                self._runner.cancel(exchange)
            self._end(exchange, exchange.status)
            if reply is None and not exchange.answered:
                connection.cut()
        elif exchange.stream is None:
            self._end(
                exchange, reply.status
            )  # first: who has read the answer may look at the metrics
            exchange.answer(reply.status, reply.headers, reply.body)
        elif reply.status in (204, 304):
            self._runner.cancel(exchange)  # these have no body, so nobody takes the stream
            headers = [h for h in reply.headers if h[0] != b"content-type"]
            exchange.stream = None
            self._end(exchange, reply.status)
            exchange.answer(reply.status, headers, b"")
        else:
            exchange.start(reply.status, reply.headers)
            exchange.write(reply.body)
            exchange.stream.listen(functools.partial(self._pump, exchange))

    def _pump(self, exchange: Exchange) -> None:
        """Pass on what there is of a stream, as long as the client takes it."""
        stream, connection = exchange.stream, exchange.connection
        if exchange.answered:
            return
        while not connection.write_paused:
            ended = stream.ended  # read first: chunks that come before the end are then there
            data = stream.take()
            if data:
                exchange.write(data)
            elif ended or stream.closed:
                self._end(exchange, exchange.status)
                if stream.failed or stream.closed:
                    connection.cut()
                else:
                    exchange.end()
                return
            else:
                return

    def _end(self, exchange: Exchange, status: int) -> None:
        seconds = time.perf_counter() - exchange.began
        self._count(status, seconds)
        if self._log_requests:
            path = exchange.event.path
            logger.info("%s %s %d %.1f ms", exchange.method, path, status, seconds * 1000)
        self._release(exchange)
        exchange.stream = (
            None  # which knows the exchange: without a word they would keep each other
        )

    def forget(self, exchange: Exchange) -> None:
        """Somebody else has answered it, and counted it."""
        exchange.done = True
        self._release(exchange)

    def part_with(self, exchange: Exchange) -> None:
        """Another app goes on with it, which calls `take_on`."""
        self.in_flight -= 1
        self._held -= exchange.held

    def take_on(self, exchange: Exchange) -> None:
        self.in_flight += 1
        self._held += exchange.held

    def _release(self, exchange: Exchange) -> None:
        self.in_flight -= 1
        self._held -= exchange.held
        exchange.held = 0

    def _health(self, exchange: Exchange) -> None:
        self._release(exchange)
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
        exchange.answer(200, headers, b"OK")


_RETRY = (b"retry-after", b"1")


def busy(detail: str) -> Reply:
    """503 with `Retry-After`."""
    reply = problem_reply(503, f"{detail} Try again in a second.")
    reply.headers.append(_RETRY)
    return reply


def late(seconds: float) -> Reply:
    """504."""
    return problem_reply(504, f"The function took longer than its deadline of {seconds:g} s.")
