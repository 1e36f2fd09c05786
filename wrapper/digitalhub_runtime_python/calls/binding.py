"""A request's arguments: what is fixed at start is bound once, a JSON object's fields per call.

`arguments.compose` has the rules. What most calls need of them is done here without it, in a
twentieth of the time; whatever is out of the ordinary is left to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable

from digitalhub_runtime_python import arguments
from digitalhub_runtime_python.calls import bodies
from digitalhub_runtime_python.calls.bodies import MalformedBody
from digitalhub_runtime_python.calls.event import RequestEvent
from digitalhub_runtime_python.errors import ArgumentFault

if TYPE_CHECKING:
    from digitalhub_runtime_python.lifecycle import ReadyFunction
    from digitalhub_runtime_python.spec import RunSpec

Bind = Callable[[RequestEvent], arguments.Arguments]

EVENT_NAMES = ("event", "events")
# Hints that a JSON value of exactly this type satisfies as it is.
_PLAIN = (int, str, bool, float, dict, list)


__all__ = ["Bind", "MalformedBody", "make_binder"]

BODY_LIMIT = 64 * 1024 * 1024
"""Bytes that a body may have when it is unpacked, where nobody says."""


def make_binder(ready: ReadyFunction, run: RunSpec, body_limit: int = BODY_LIMIT) -> Bind:
    """What composes the arguments of each call.

    Args:
        body_limit: bytes that a body sent as gzip or deflate may have.

    Raises:
        ArgumentFault: the run's parameters or inputs do not fit the function.
    """
    signature = ready.signature
    fixed, injected = _settled(ready, run)
    event_names = [n for n in EVENT_NAMES if signature.names(n)]
    constants = {**fixed, **{n: make() for n, make in injected.items() if signature.names(n)}}
    open_names = [n for n in signature.parameters if n not in injected and n not in EVENT_NAMES]
    if not open_names and not signature.takes_any:
        return _without_body(constants, event_names, body_limit)
    lenient = bool(event_names) or signature.names("context")
    return _with_body(signature, fixed, constants, injected, event_names, lenient, body_limit)


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
            lax=run.lax_parameters,
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


def _without_body(constants: dict[str, Any], event_names: list[str], body_limit: int) -> Bind:
    def bind(event: RequestEvent) -> arguments.Arguments:
        if event_names:
            bodies.prepare(event, body_limit)
        return arguments.Arguments((), {**constants, **dict.fromkeys(event_names, event)})

    return bind


def _with_body(
    signature: arguments.Signature,
    fixed: arguments.Resolved,
    constants: dict[str, Any],
    injected: Mapping[str, Callable[[], Any]],
    event_names: list[str],
    lenient: bool,
    body_limit: int,
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
        bodies.prepare(event, body_limit)
        try:
            given = bodies.given(event, accepts, strict=not event_names)
        except bodies.NoObject as exc:
            raise _no_object(signature, fixed, reserved, str(exc)) from None
        texts, files, fields = given
        if simple and not texts and not files:
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
        try:
            return arguments.compose(
                signature,
                fixed,
                *(_without(part, reserved) for part in given),
                injected={**injected, **dict.fromkeys(event_names, lambda: event)},
                ignore_unknown=lenient,
            )
        except ArgumentFault as fault:
            raise _explained(fault, fields or texts or files) from None

    return bind


_NOT_NAMED = object()


def _without(given: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    kind: type[dict[str, Any]] = type(given) if isinstance(given, dict) else dict
    return kind({n: v for n, v in given.items() if n not in names})


def _no_object(
    signature: arguments.Signature, fixed: Mapping[str, Any], reserved: set[str], kind: str
) -> ArgumentFault:
    """The fault of a JSON body that has no names: what is missing besides, in one message."""
    problem = f"The body is a JSON {kind}, and the arguments are read from an object"
    missing = [
        f"{n!r} is missing"
        for n, p in signature.parameters.items()
        if p.default is inspect.Parameter.empty and n not in fixed and n not in reserved
    ]
    return ArgumentFault(
        "arguments/mismatch",
        f"{'; '.join([problem, *missing])}.",
        f'Send {{"name": value}}. It takes {arguments.describe(signature)}.',
    )


def _explained(fault: ArgumentFault, given: Mapping[str, Any]) -> ArgumentFault:
    """The fault, and where arguments come from when none came."""
    if given:
        return fault
    return ArgumentFault(
        fault.code,
        fault.message,
        f'{fault.hint} Send them as a JSON object, e.g. {{"name": value}}, with the content type '
        "application/json.",
    )
