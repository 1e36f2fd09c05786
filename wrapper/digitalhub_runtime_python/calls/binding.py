"""A request's arguments: what is fixed at start is bound once, a JSON object's fields per call.

`arguments.compose` has the rules. What most calls need of them is done here without it, in a
twentieth of the time; whatever is out of the ordinary is left to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable

from digitalhub_runtime_python import arguments
from digitalhub_runtime_python.calls.event import RequestEvent
from digitalhub_runtime_python.errors import ArgumentFault

if TYPE_CHECKING:
    from digitalhub_runtime_python.lifecycle import ReadyFunction
    from digitalhub_runtime_python.spec import RunSpec

Bind = Callable[[RequestEvent], arguments.Arguments]

EVENT_NAMES = ("event", "events")
# Hints that a JSON value of exactly this type satisfies as it is.
_PLAIN = (int, str, bool, float, dict, list)


class MalformedBody(Exception):
    """The body is not the JSON that the function's arguments are read from."""


def make_binder(ready: ReadyFunction, run: RunSpec) -> Bind:
    """What composes the arguments of each call.

    Raises:
        ArgumentFault: the run's parameters or inputs do not fit the function.
    """
    signature = ready.signature
    fixed, injected = _settled(ready, run)
    event_names = [n for n in EVENT_NAMES if signature.names(n)]
    constants = {**fixed, **{n: make() for n, make in injected.items() if signature.names(n)}}
    open_names = [n for n in signature.parameters if n not in injected and n not in EVENT_NAMES]
    if not open_names and not signature.takes_any:
        return _without_body(constants, event_names)
    lenient = bool(event_names) or signature.names("context")
    return _with_body(signature, fixed, constants, injected, event_names, lenient)


def _settled(
    ready: ReadyFunction, run: RunSpec
) -> tuple[arguments.Resolved, dict[str, Callable[[], Any]]]:
    """The run's parameters and inputs, converted; and what makes the reserved values, each made once."""
    sources = (run.parameters, arguments.Resolved(ready.inputs))
    # What is not given now may come with a request, so nothing is missing yet.
    later = [n for n in ready.signature.parameters if not any(n in source for source in sources)]
    fixed = arguments.Resolved(
        arguments.check(
            ready.signature,
            *sources,
            injected={*arguments.RESERVED, *later},
            lax=bool(run.extra.get("lax_parameters")),
        )
    )

    def constant(value: Any) -> Callable[[], Any]:
        return lambda: value

    # At start, not in the first call: `project` and `run` import the SDK.
    injected = {
        name: constant(make())
        for name, make in ready.injected.items()
        if ready.signature.names(name)
    }
    return fixed, injected


def _without_body(constants: dict[str, Any], event_names: list[str]) -> Bind:
    def bind(event: RequestEvent) -> arguments.Arguments:
        return arguments.Arguments((), {**constants, **dict.fromkeys(event_names, event)})

    return bind


def _with_body(
    signature: arguments.Signature,
    fixed: arguments.Resolved,
    constants: dict[str, Any],
    injected: Mapping[str, Callable[[], Any]],
    event_names: list[str],
    lenient: bool,
) -> Bind:
    reserved = {*injected, *event_names}
    accepts = {n: signature.hints.get(n, Any) for n in signature.parameters if n not in reserved}
    # Positional-only ones need compose's order.
    simple = all(p.kind is not p.POSITIONAL_ONLY for p in signature.parameters.values())
    required = [
        n
        for n, p in signature.parameters.items()
        if p.default is inspect.Parameter.empty and n not in constants and n not in event_names
    ]

    def bind(event: RequestEvent) -> arguments.Arguments:
        fields = _fields(event, strict=not event_names)
        if simple:
            values = constants.copy()
            for name in event_names:
                values[name] = event
            for name, value in fields.items():
                hint = accepts.get(name, _NOT_NAMED)
                if hint is Any or (hint is type(value) and hint in _PLAIN):
                    values[name] = value
                elif hint is not _NOT_NAMED or not (lenient and not signature.takes_any):
                    break
            else:
                if all(name in values for name in required):
                    return arguments.Arguments((), values)
        given = {n: v for n, v in fields.items() if n not in reserved}
        try:
            return arguments.compose(
                signature,
                fixed,
                given,
                injected={**injected, **dict.fromkeys(event_names, lambda: event)},
                ignore_unknown=lenient,
            )
        except ArgumentFault as fault:
            raise _explained(fault, event, fields) from None

    return bind


_NOT_NAMED = object()


def _fields(event: RequestEvent, strict: bool) -> dict[str, Any]:
    """The fields of a JSON object body; none for any other body.

    Args:
        strict: refuse what should be JSON and is not; the function has no event to see it in.
    """
    body: Any = None
    if event.is_json():
        body = event.body  # the bytes, where they are no JSON
    elif event._raw[:1] == b"{":
        body = event._raw  # `curl -d '{…}'` calls everything a form
    if isinstance(body, bytes) and body:
        try:
            body = event.json_body()
        except (ValueError, RecursionError) as exc:
            if strict:
                raise MalformedBody(f"The body is not JSON: {exc}.") from None
    return body if type(body) is dict else {}


def _explained(
    fault: ArgumentFault, event: RequestEvent, fields: Mapping[str, Any]
) -> ArgumentFault:
    """The fault, and where arguments come from when none came."""
    if fields:
        return fault
    return ArgumentFault(
        fault.code,
        fault.message,
        f'{fault.hint} Send them as a JSON object, e.g. {{"name": value}}, with the content type '
        "application/json.",
    )
