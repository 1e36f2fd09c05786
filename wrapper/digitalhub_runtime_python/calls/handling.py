"""One call: event → arguments → handler → reply. Knows no sockets and no threads."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import nuclio_sdk

from digitalhub_runtime_python import error_report
from digitalhub_runtime_python.calls import media, replies
from digitalhub_runtime_python.calls.binding import Bind, MalformedBody
from digitalhub_runtime_python.calls.event import RequestEvent
from digitalhub_runtime_python.calls.replies import SIMPLE, Reply
from digitalhub_runtime_python.errors import ArgumentFault, OutputFault

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger(__name__)

_END = object()


def is_async(handler: Callable[..., Any]) -> bool:
    """Whether calls of a handler run concurrently on a loop: `async def`, with or without `yield`."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    target = handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)  # noqa: B004
    return inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target)


class Handling:
    """Calls the handler for an event, and makes a reply of whatever happens.

    Args:
        names: what `@handler` declared; a tuple of as many values becomes an object with these names.
        root: the folder of the user's code, to name files relative to it.
        debug: show a caller what the handler raised.
        secrets: values that no error may show.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        bind: Bind,
        *,
        names: list[str],
        root: Path | None,
        debug: bool = False,
        secrets: Collection[str] = (),
    ) -> None:
        self.handler = handler
        self.bind = bind
        self.names = names
        self.root = root
        self.debug = debug
        self.secrets = secrets

    def call(self, event: RequestEvent, loop: asyncio.AbstractEventLoop) -> Reply:
        """The reply of a plain function; `loop` awaits what it returns, where that has to be."""
        try:
            args, kwargs = self.bind(event)
        except (ArgumentFault, MalformedBody) as exc:
            return refused(exc)
        except BaseException as exc:  # noqa: BLE001 - reading the event may run the user's code
            return self.failed(exc, event)
        try:
            value = self.handler(*args, **kwargs)
            convert = SIMPLE.get(type(value))
            if convert is not None:
                return convert(value)
            if inspect.isawaitable(value):
                value = loop.run_until_complete(_awaited(value))
            return self._concluded(value, event, loop)
        except BaseException as exc:  # noqa: BLE001 - SystemExit too: one request must not end the others
            return self.failed(exc, event)

    async def call_async(self, event: RequestEvent) -> Reply:
        """The reply of an `async` function.

        Raises:
            asyncio.CancelledError: the client has gone, or the deadline has passed.
        """
        try:
            args, kwargs = self.bind(event)
        except (ArgumentFault, MalformedBody) as exc:
            return refused(exc)
        except BaseException as exc:  # noqa: BLE001 - as above
            return self.failed(exc, event)
        try:
            value = self.handler(*args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
            convert = SIMPLE.get(type(value))
            if convert is not None:
                return convert(value)
            if not replies.is_stream(value):
                return self._whole(value, event)
            stream, response = _parts(value)
            if inspect.isgenerator(stream):
                return self._started(next(stream, _END), stream, response, event)
            return self._started(await _anext(stream), stream, response, event)
        except BaseException as exc:
            if _is_cancel(exc):
                raise
            return self.failed(exc, event)

    def failed(self, exc: BaseException, event: RequestEvent) -> Reply:
        """The reply to a handler's exception; the log gets the traceback."""
        if isinstance(exc, nuclio_sdk.ExceptionWithResponse):
            response = nuclio_sdk.Response(
                body=exc.body, content_type=exc.content_type, status_code=exc.status_code
            )
            try:
                return replies.to_reply(response, str)
            except OutputFault as fault:
                exc = fault
        error = error_report.describe(exc, self.root, self.secrets)
        extra: dict[str, Any] = {"event_id": event.id}
        if self.debug:
            extra["error"] = error
        if isinstance(exc, OutputFault):
            logger.error("event %s: %s [%s]", event.id, error["message"], exc.code)
            return replies.problem_reply(500, error["message"], code=exc.code, extra=extra)
        logger.error("event %s failed: %s", event.id, error.get("traceback") or error["message"])
        more = "" if self.debug else " The service's log has the traceback under this event_id."
        return replies.problem_reply(
            500, f"The function raised {error['type']}.{more}", extra=extra
        )

    def _concluded(self, value: Any, event: RequestEvent, loop: asyncio.AbstractEventLoop) -> Reply:
        if not replies.is_stream(value):
            return self._whole(value, event)
        stream, response = _parts(value)
        if inspect.isasyncgen(stream):
            stream = _driven(stream, loop)
        return self._started(next(stream, _END), stream, response, event)

    def _whole(self, value: Any, event: RequestEvent) -> Reply:
        if self.names and type(value) is tuple and len(value) == len(self.names):
            value = dict(zip(self.names, value))
        value = media.replaced(value, event.accepted)
        if isinstance(value, nuclio_sdk.Response) and value.headers:
            for name in value.headers:
                if str(name).lower() == "x-nuclio-filestream-path":
                    return _file(value, event)
        return replies.to_reply(value, lambda: event.id)

    def _started(self, first: Any, stream: Any, response: Any, event: RequestEvent) -> Reply:
        if first is _END:
            return replies.to_reply(response_with(response, ""), str)
        reply = replies.start_stream(first, response, event.accepts("text/event-stream"))
        reply.stream = stream
        return reply


def _is_cancel(exc: BaseException) -> bool:
    import asyncio  # a worker of Nuclio's needs it for nothing else, and starts in three quarters of the time

    return isinstance(exc, asyncio.CancelledError)


def refused(exc: ArgumentFault | MalformedBody) -> Reply:
    """The reply to arguments that do not fit, or cannot be read."""
    if isinstance(exc, ArgumentFault):
        return replies.problem_reply(422, str(exc), code=exc.code)
    return replies.problem_reply(exc.status, str(exc))


def response_with(response: Any, body: Any) -> Any:
    """A Response's status and headers with another body."""
    given = response or nuclio_sdk.Response()
    return nuclio_sdk.Response(given.headers, body, given.content_type, given.status_code)


def _parts(value: Any) -> tuple[Any, Any]:
    """A generator, and the Response that it is the body of."""
    return (value.body, value) if isinstance(value, nuclio_sdk.Response) else (value, None)


def _file(response: Any, event: RequestEvent) -> Reply:
    """The file that `X-nuclio-filestream-path` names; 404 where there is none, as Nuclio does."""
    headers = {str(name).lower(): value for name, value in response.headers.items()}
    path = Path(str(headers.pop("x-nuclio-filestream-path")))
    delete = str(headers.pop("x-nuclio-filestream-delete-after-send", "")).lower() == "true"
    if not path.is_file():
        return replies.problem_reply(404, "The file to send does not exist.")
    size = path.stat().st_size
    chunks: Iterator[bytes] = iter(replies.file_chunks(path, delete))
    start = nuclio_sdk.Response(headers, None, response.content_type, response.status_code)
    reply = replies.start_stream(next(chunks, b""), start, False)
    reply.headers.append((b"content-length", b"%d" % size))
    reply.stream = chunks
    return reply


async def _awaited(value: Any) -> Any:
    return await value


async def _anext(stream: AsyncIterator[Any]) -> Any:
    try:
        return await stream.__anext__()
    except StopAsyncIteration:
        return _END


def _driven(stream: Any, loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """An async generator as a plain one, for a function that is not a coroutine and returns one."""
    try:
        while (chunk := loop.run_until_complete(_anext(stream))) is not _END:
            yield chunk
    finally:
        loop.run_until_complete(stream.aclose())
