"""Checks what a user passes before anything is created. What is read from the platform is not checked."""

from __future__ import annotations

import datetime
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

import pydantic
from digitalhub.utils.generic_utils import CustomJsonEncoder

from digitalhub_runtime_python.errors import ArgumentFault, UsageFault
from digitalhub_runtime_python.sdk import kinds
from digitalhub_runtime_python.spec import ACTIONS, interpreter_version

_NAME = re.compile(r"[a-zA-Z0-9._+-]{1,256}")
_KEY = re.compile(r"store://[^/]+/[^/]+/[^/]+/[^/]+")
_HANDLER = re.compile(r"([^\s:]+:)?[^\W\d]\w*(\.[^\W\d]\w*)*")


def check_action(action: Any) -> str:
    """The action, if it is one.

    Raises:
        UsageFault: usage/action
    """
    if action not in ACTIONS:
        raise UsageFault(
            "usage/action",
            f"A python function has no action {action!r}.",
            f"Use one of {', '.join(ACTIONS)}.",
        )
    return str(action)


def check_entity_name(name: Any) -> None:
    """Refuse what the platform would refuse as a name.

    Raises:
        UsageFault: usage/name
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageFault(
            "usage/name",
            f"{name!r} cannot be the name of a function.",
            "Use letters, digits and . _ + - only, 256 at most.",
        )


def check_handler(handler: Any, parameter: str = "handler") -> None:
    """Refuse what cannot name a function.

    Raises:
        UsageFault: usage/handler
    """
    if not isinstance(handler, str) or not _HANDLER.fullmatch(handler):
        problem = "is missing" if handler is None else f"{handler!r} names no function"
        raise UsageFault(
            "usage/handler",
            f"The {parameter} {problem}.",
            "Write 'function', 'module:function' or 'path/to/file.py:function'.",
        )


def check_function(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A function's spec, validated.

    Raises:
        UsageFault: usage/parameter, usage/python-version
    """
    check_names(spec, kinds.FUNCTION, "new_function()")
    interpreter_version(spec.get("python_version"))  # type: ignore[arg-type]
    return _validated(kinds.BY_NAME[kinds.FUNCTION_KIND], spec)


def check_run(action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of `function.run(action, …)`, validated, with entities in `inputs` made keys.

    Raises:
        UsageFault: usage/parameter, usage/local
        ArgumentFault: arguments/input
    """
    call = f"function.run({action!r})"
    parameters = {k: v for k, v in parameters.items() if v is not None}
    check_names(parameters, kinds.run_parameters(action), call)
    if "inputs" in parameters:
        parameters["inputs"] = _checked_inputs(parameters["inputs"])
    values = _validated(
        kinds.BY_NAME[f"python+{action}:run"],
        {"task": "", **parameters},
    )
    values.pop("task")
    if values.get("local_execution") and action != "job":
        raise UsageFault(
            "usage/local",
            f"The action {action!r} cannot be executed locally; nothing was created.",
            "Leave out local_execution, or run the action 'job'.",
        )
    for name in ("parameters", "init_parameters"):
        _check_json(name, values.get(name) or {})
    return values


def check_task(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A task's spec, validated.

    Raises:
        UsageFault: usage/parameter
    """
    row = kinds.BY_NAME[kind]
    check_names(spec, row.fields, f"a task of kind {kind!r}")
    return _validated(row, spec)


def check_names(given: Iterable[str], known: Iterable[str], call: str) -> None:
    """Refuse names that nothing takes, with the nearest that something does.

    Raises:
        UsageFault: usage/parameter, one sentence for every name
    """
    names = list(known)
    shown = (
        [*(n for n in names if n != "source"), *kinds.SOURCE_PARAMETERS]
        if "source" in names
        else names
    )
    problems = [_unknown(name, shown) for name in given if name not in names]
    if problems:
        raise UsageFault(
            "usage/parameter",
            f"{call} does not take {'; '.join(problems)}.",
            f"It takes {', '.join(sorted(shown))}.",
        )


def _unknown(name: str, names: Iterable[str]) -> str:
    if name in kinds.FUNCTION or name in kinds.SOURCE_PARAMETERS:
        return f"{name!r}, which belongs to new_function()"
    owners = [action for action, fields in kinds.ACTION.items() if name in fields]
    if owners:
        return f"{name!r}, which belongs to the action {owners[0]!r}"
    if name in kinds.TASK or name in kinds.RUN:
        return f"{name!r}, which belongs to function.run()"
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"{name!r}" + (f" (did you mean {close[0]!r}?)" if close else "")


def _checked_inputs(inputs: Any) -> Any:
    """Inputs with entities replaced by their keys.

    Raises:
        ArgumentFault: arguments/input
    """
    if isinstance(inputs, dict):
        return {name: _key_of(value, str(name)) for name, value in inputs.items()}
    return inputs  # the validator says what is wrong with it


def _key_of(value: Any, name: str) -> Any:
    if isinstance(value, (list, tuple)):
        return [_key_of(item, name) for item in value]
    key = getattr(value, "key", value)
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        shown = f"{key!r}" if isinstance(key, str) else f"a {type(value).__name__}"
        raise ArgumentFault(
            "arguments/input",
            f"The input {name!r} is {shown}, which is not an entity key.",
            "Pass an entity's key, as in inputs={'data': dataitem.key}; plain values go to parameters.",
        )
    return key


class _Encoder(CustomJsonEncoder):
    """The SDK's encoder, which sends the printed text of whatever it does not know; here that is an error."""

    def default(self, obj: Any) -> Any:
        value = super().default(obj)
        if isinstance(value, str) and not isinstance(obj, _AS_TEXT):
            raise TypeError(f"{type(obj).__name__} is not JSON")
        return value


_AS_TEXT = (datetime.date, datetime.time, Decimal, PurePath, UUID)


def _check_json(what: str, values: Mapping[str, Any]) -> None:
    """Refuse values that would not reach the function as they are, by name and type."""
    for name, value in values.items():
        try:
            json.dumps(value, cls=_Encoder)
        except (TypeError, ValueError, RecursionError) as exc:
            raise UsageFault(
                "usage/parameter",
                f"{what}[{name!r}] is not a JSON value, but a {type(value).__name__} ({exc}).",
                "Log it as a dataitem or an artifact and pass its key in inputs.",
            ) from exc


def _validated(kind: kinds.Kind, spec: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return kinds.VALIDATORS[kind.name](**spec).to_dict()  # type: ignore[no-any-return]
    except pydantic.ValidationError as exc:
        # Only places and reasons: the values may be secrets.
        problems = "; ".join(_problem(error) for error in exc.errors(include_url=False))
        raise UsageFault("usage/parameter", f"{problems}.", _SHAPES) from None


def _problem(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "extra_forbidden":
        return f"{place} is not known"
    reason = str(error["msg"])
    return f"{place}: {reason[:1].lower()}{reason[1:]}"


_SHAPES = "Each parameter's shape: dhpy help task, dhpy help function"
