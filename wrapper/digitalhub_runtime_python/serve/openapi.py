"""OpenAPI of a function: parameters from its signature, texts from its docstring."""

from __future__ import annotations

import inspect
import json
import logging
import re
from pathlib import Path
from typing import Any, Callable

import msgspec

from digitalhub_runtime_python._version import __version__
from digitalhub_runtime_python.arguments import RESERVED, Signature
from digitalhub_runtime_python.calls import media
from digitalhub_runtime_python.lifecycle import ReadyFunction
from digitalhub_runtime_python.spec import RunSpec

logger = logging.getLogger(__name__)

FILE = "openapi.json"
_REF = "#/components/schemas/{name}"
_TAKES_REQUEST = ("event", "events", "context")


def write(folder: Path, ready: ReadyFunction, run: RunSpec) -> None:
    """Write the description where the management port reads it; a function without one is served all the same."""
    try:
        text = json.dumps(describe(ready.handler, ready.signature, run), default=str)
    except Exception:  # noqa: BLE001 - hints, defaults and docstrings are the user's
        logger.warning("the function has no OpenAPI description", exc_info=True)
        return
    part = folder / f"{FILE}.part"
    part.write_text(text, "utf-8")
    part.replace(folder / FILE)


def describe(handler: Callable[..., Any], signature: Signature, run: RunSpec) -> dict[str, Any]:
    """The OpenAPI document of one function, served at `/`."""
    name = run.function_name or getattr(handler, "__name__", None) or type(handler).__name__
    summary, description, texts = read_docstring(inspect.getdoc(handler) or "")
    components: dict[str, Any] = {"Problem": _PROBLEM}
    body = _body(signature, run, texts, components)
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W", "_", name),
        "summary": summary or name,
        "requestBody": {"required": bool(body.get("required")), "content": _content(body)},
        "responses": {
            "200": {"description": "What the function returns.", **_answer(handler, components)},
            **{status: {"description": text, **_problem()} for status, text in _ERRORS.items()},
        },
    }
    if description:
        operation["description"] = description
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": run.id or __version__, "description": summary},
        "paths": {"/": {"post": operation}},
        "components": {"schemas": components},
    }


def read_docstring(text: str) -> tuple[str, str, dict[str, str]]:
    """First line, the rest without its sections, and the text of each argument (Google, NumPy or Sphinx style)."""
    lines = text.strip().splitlines()
    if not lines:
        return "", "", {}
    texts = {
        match[1]: match[2].strip()
        for line in lines[1:]
        if (match := _SPHINX.match(line) or _GOOGLE.match(line))
    }
    rest: list[str] = []
    for line in lines[1:]:
        if _SECTION.match(line) or _SPHINX.match(line):
            break
        rest.append(line)
    return lines[0].strip(), "\n".join(rest).strip(), texts


_SECTION = re.compile(
    r"\s*(Args|Arguments|Parameters|Returns?|Yields?|Raises|Examples?|Notes?)\s*:?\s*$"
)
_SPHINX = re.compile(r"\s*:param (?:[\w\[\], |.]+ )?\*{0,2}(\w+): ?(.*)")
_GOOGLE = re.compile(r"\s+\*{0,2}(\w+)(?: ?\([^)]*\))?: (.*)")


def _body(
    signature: Signature, run: RunSpec, texts: dict[str, str], components: dict[str, Any]
) -> dict[str, Any]:
    """The schema of the JSON object that fills the arguments."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, parameter in signature.parameters.items():
        if name in RESERVED:
            continue
        schema = _schema(signature.hints.get(name, Any), components)
        if name in texts and "$ref" not in schema:
            schema["description"] = texts[name]
        if name in run.parameters:
            schema["default"] = run.parameters[name]
        elif name in run.inputs:
            schema["description"] = f"Bound to {run.inputs[name]}."
        elif parameter.default is inspect.Parameter.empty:
            required.append(name)
        elif _is_plain(parameter.default):
            schema["default"] = parameter.default
        properties[name] = schema
    if not properties and any(signature.names(n) for n in _TAKES_REQUEST):
        return {}  # the function reads the event, and takes whatever it likes
    body: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        body["required"] = required
    if not signature.takes_any and not any(signature.names(n) for n in _TAKES_REQUEST):
        body["additionalProperties"] = False
    return body


def _content(body: dict[str, Any]) -> dict[str, Any]:
    if body:
        return {"application/json": {"schema": body}}
    return {"application/json": {"schema": {}}, "*/*": {"schema": {}}}


def _answer(handler: Callable[..., Any], components: dict[str, Any]) -> dict[str, Any]:
    """The content of a 200, where the function's annotation says what it is."""
    function = handler if inspect.isroutine(handler) else type(handler).__call__
    try:
        hint = (
            inspect.signature(function, eval_str=True).return_annotation
            if _CAN_EVAL
            else (function.__annotations__.get("return", inspect.Parameter.empty))
        )
    except Exception:  # noqa: BLE001 - a hint that only a type checker can read
        return {}
    if hint in (inspect.Parameter.empty, None, type(None)) or isinstance(hint, str):
        return {}
    if hint is str:
        return {"content": {"text/plain": {"schema": {"type": "string"}}}}
    types = media.types_of(hint)
    if types:  # the request's Accept chooses
        return {"content": {name: {"schema": _of_type(name)} for name in types}}
    schema = _schema(hint, components)
    return {"content": {"application/json": {"schema": schema}}} if schema else {}


def _of_type(media_type: str) -> dict[str, Any]:
    if media_type == media.JSON:
        return {}
    return (
        {"type": "string"}
        if media_type.startswith("text/")
        else {"type": "string", "format": "binary"}
    )


_CAN_EVAL = "eval_str" in inspect.signature(inspect.signature).parameters


def _schema(hint: Any, components: dict[str, Any]) -> dict[str, Any]:
    """A hint as JSON schema; `{}`, which takes anything, where it has none."""
    if hint is Any:
        return {}
    if hasattr(hint, "model_json_schema"):
        schema: dict[str, Any] = hint.model_json_schema(ref_template="#/components/schemas/{model}")
        components.update(schema.pop("$defs", {}))
        components[hint.__name__] = schema
        return {"$ref": f"#/components/schemas/{hint.__name__}"}
    try:
        (found,), parts = msgspec.json.schema_components([hint], ref_template=_REF)
    except Exception:  # noqa: BLE001 - a hint that is not a data type, or one that is broken
        logger.debug("%r has no JSON schema", hint, exc_info=True)
        return {}
    components.update(parts)
    return dict(found)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))


def _problem() -> dict[str, Any]:
    return {
        "content": {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}}
    }


_PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "event_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}
_ERRORS = {
    "406": "The request's `Accept` takes none of the types that the function's value can be sent as.",
    "413": "The body is over the limit.",
    "422": "The arguments do not fit the function.",
    "500": "The function raised an error, or returned what cannot be sent.",
    "503": "No worker became free in time; `Retry-After` says when to try again.",
    "504": "The function took longer than its deadline.",
}
