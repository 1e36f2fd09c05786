"""An event loop that answers events between its own turns: an event that waits for nothing costs it none.

A coroutine that comes to its end at its first step needs neither a task nor a turn of the loop, only that
both are there when it looks. So an event's first step is taken where the loop waits for its files; if the
coroutine then waits for something, the rest of it is the rest of one task, whose first step that was.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import selectors
import types
from collections.abc import Coroutine, Generator
from typing import Any, Callable

Answer = Callable[[], "Coroutine[Any, Any, None] | None"]
"""The coroutine that answers the next event that has come, or None."""


class TurnLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, whose waiting can be lent to whoever answers events."""

    def __init__(self) -> None:
        self._waiting = _Waiting()
        super().__init__(self._waiting)

    # What is to be run, or at what time, can change while the loop waits; it must look again then.

    @property
    def has_work(self) -> bool:
        """Whether something has been given to it that it has not run."""
        return self._waiting.stirred

    def call_soon(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        self._waiting.stirred = True
        return super().call_soon(*args, **kwargs)

    def call_at(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        self._waiting.stirred = True
        return super().call_at(*args, **kwargs)

    async def serve(self, line: Any, receive: Callable[[], None], answer: Answer) -> None:
        """Answer events until `receive` or an answer raises.

        Args:
            line: the socket that events come on.
            receive: reads it once.
            answer: called until it returns None each time that something was read.

        Raises:
            BaseException: what `receive` or an answer raised.
        """
        serving = _Serving(self, asyncio.current_task(), answer)

        def turn() -> None:
            if serving.busy:  # the processor sends nothing meanwhile: it has gone
                self._waiting.unregister(line)
                return
            try:
                receive()
                serving.answer_all()
            except BaseException as exc:  # noqa: BLE001 - raised in the task that waits
                serving.end(exc)

        self._waiting.watch(line, turn)
        try:
            await serving.finish_what_waits(lambda: self._waiting.watch(line, turn))
        finally:
            with contextlib.suppress(KeyError):
                self._waiting.unregister(line)


class _Waiting(selectors.DefaultSelector):
    """Waits for files; what comes on the line is answered in here."""

    stirred = False
    """Whether the loop has got something to do since it began to wait."""

    def watch(self, line: Any, turn: Callable[[], None]) -> None:
        with contextlib.suppress(KeyError):  # it is watched already
            self.register(line, selectors.EVENT_READ, _Turn(turn))

    def select(self, timeout: float | None = None) -> Any:
        self.stirred = False
        while True:
            ready = super().select(timeout)
            for place, (key, _) in enumerate(ready):
                if key.data.__class__ is _Turn:
                    key.data.take()
                    if len(ready) == 1 and timeout is None and not self.stirred:
                        break
                    del ready[place]
                    return ready
            else:
                return ready


class _Turn:
    __slots__ = ("take",)

    def __init__(self, take: Callable[[], None]) -> None:
        self.take = take


class _Serving:
    """The task that events are answered in, one at a time."""

    def __init__(self, loop: TurnLoop, task: Any, answer: Answer) -> None:
        self._loop, self._task, self._answer = loop, task, answer
        self._begun: tuple[Any, contextvars.Context, Any] | None = None
        self._end: BaseException | None = None
        self._waiter: Any = loop.create_future()

    @property
    def busy(self) -> bool:
        """Whether an event waits for something."""
        return self._begun is not None

    def answer_all(self) -> None:
        """Answer what has come, as far as it waits for nothing."""
        # A waiter that is done is a task that is about to go on: it looks here again.
        while not self._waiter.done() and (coroutine := self._answer()) is not None:
            context = contextvars.copy_context()
            asyncio.tasks._enter_task(self._loop, self._task)
            try:
                waits_for = context.run(coroutine.send, None)
            except StopIteration:
                continue
            finally:
                asyncio.tasks._leave_task(self._loop, self._task)
            self._begun = coroutine, context, waits_for
            self._wake()

    def end(self, exc: BaseException) -> None:
        self._end = exc
        self._wake()

    def _wake(self) -> None:
        if not self._waiter.done():
            self._waiter.set_result(None)

    async def finish_what_waits(self, watch: Callable[[], None]) -> None:
        """Take the further steps of events that wait; `watch` is called after each."""
        while True:
            cancelled = False
            try:
                await self._waiter
            except asyncio.CancelledError:  # by the handler itself
                cancelled = True
            if self._end is not None:
                raise self._end
            if self._begun is not None:
                coroutine, context, waits_for = self._begun
                if cancelled and waits_for is not None:
                    waits_for.cancel()
                await _rest(coroutine, context, waits_for)
                self._begun = None
                watch()
            _forget_cancels(self._task)
            self._waiter = self._loop.create_future()
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        try:
            self.answer_all()
        except BaseException as exc:  # noqa: BLE001 - raised in the task that waits
            self.end(exc)


@types.coroutine
def _rest(
    coroutine: Any, context: contextvars.Context, waits_for: Any
) -> Generator[Any, None, None]:
    """The further steps of a coroutine, in the context of its first."""
    with contextlib.suppress(StopIteration):
        while True:
            try:
                yield waits_for
            except BaseException as exc:  # noqa: BLE001 - the coroutine's to handle
                waits_for = context.run(coroutine.throw, exc)
            else:
                waits_for = context.run(coroutine.send, None)


def _forget_cancels(task: Any) -> None:
    """A handler that cancelled its task is done; the next one's `asyncio.timeout` counts them."""
    if hasattr(task, "uncancel"):  # 3.11
        while task.cancelling():
            task.uncancel()
