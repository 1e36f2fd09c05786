"""Calls a user's function, whatever it is: plain, async, or a generator."""

from __future__ import annotations

import contextvars
import inspect
import threading
from collections.abc import Coroutine
from typing import Any, Callable

from digitalhub_runtime_python.arguments import Arguments


def call(function: Callable[..., Any], arguments: Arguments) -> Any:
    """The function's value; a coroutine is awaited, a generator is read to its end into a list.

    Raises:
        BaseException: whatever the function raises, as it is.
    """
    return finish(function(*arguments.args, **arguments.kwargs))


def finish(value: Any) -> Any:
    """What a handler's return value stands for, once it has been awaited or read to its end."""
    if inspect.isawaitable(value):
        return finish(_run_async(_awaited(value)))
    if inspect.isasyncgen(value):
        return _run_async(_collected(value))
    if inspect.isgenerator(value):
        return list(value)
    return value


async def _awaited(value: Any) -> Any:
    return await value


async def _collected(generator: Any) -> list[Any]:
    return [item async for item in generator]


def _run_async(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio  # half a second at 0.1 CPU, and most handlers are not async

    # Not get_running_loop: what it raises would be chained to the user's error.
    if asyncio._get_running_loop() is None:
        return asyncio.run(coroutine)

    # The caller's thread already runs a loop (a notebook): a thread of our own may have another.
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = asyncio.run(coroutine)
        except BaseException as exc:  # noqa: BLE001 - re-raised below, in the caller's thread
            outcome["error"] = exc

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="async-handler")
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
