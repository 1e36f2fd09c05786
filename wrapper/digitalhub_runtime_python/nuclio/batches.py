"""Answers a batch: every event of it gets an answer, whatever the handler returns."""

from __future__ import annotations

import inspect
from typing import Any

from digitalhub_runtime_python.calls import media
from digitalhub_runtime_python.calls.replies import Reply, problem_reply, to_reply
from digitalhub_runtime_python.errors import OutputFault
from digitalhub_runtime_python.nuclio.functions import Function

Answered = list[tuple[Any, Reply]]


def answer(events: list[Any], function: Function, context: Any, loop: Any) -> Answered:
    """(event id, reply) of each event."""
    handling = function.handling
    if not function.takes_batches:
        return [(event.id, handling.call(event, loop)) for event in events]
    try:
        return _paired(loop.finish(handling.handler(context, events)), events)
    except BaseException as exc:  # noqa: BLE001 - SystemExit too: a worker must not vanish
        return _failed(handling, exc, events)


async def answer_on_loop(events: list[Any], function: Function, context: Any) -> Answered:
    """`answer`, awaiting."""
    handling = function.handling
    if not function.takes_batches:
        return [(event.id, await handling.call_async(event)) for event in events]
    try:
        value = handling.handler(context, events)
        return _paired(await value if inspect.isawaitable(value) else value, events)
    except BaseException as exc:  # noqa: BLE001 - as above
        return _failed(handling, exc, events)


def _failed(handling: Any, exc: BaseException, events: list[Any]) -> Answered:
    reply = handling.failed(exc, events[0])
    return [(event.id, reply) for event in events]


def _paired(value: Any, events: list[Any]) -> Answered:
    """By `event_id`; values without one answer the events by position where there are as many."""
    values = value if isinstance(value, list) else [value]
    by_id = {item.event_id: item for item in values if getattr(item, "event_id", None)}
    in_order = not by_id and len(values) == len(events)
    found = []
    for place, event in enumerate(events):
        if event.id in by_id:
            reply = _reply(by_id[event.id])
        elif in_order:
            reply = _reply(values[place])
        else:
            reply = problem_reply(
                500,
                f"The function was given {len(events)} events and has no answer to this one. Return "
                "a list with a Response for each, its event_id set to the event's id.",
            )
        found.append((event.id, reply))
    return found


def _reply(value: Any) -> Reply:
    try:
        return to_reply(
            media.replaced(value, "", whole=True), lambda: getattr(value, "event_id", "")
        )
    except OutputFault as fault:
        return problem_reply(500, str(fault), code=fault.code)
