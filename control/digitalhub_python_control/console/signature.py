"""What a handler takes, read from its source without running it: no code of a user's runs in the server."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from typing import Any

from digitalhub_python_control.api.web import Refusal

_GIVEN = ("project", "run", "context", "event", "events", "self")
_NUMBERS = ("int", "float")


@dataclass(frozen=True)
class Parameter:
    """One field of a form."""

    name: str
    hint: str
    default: str | None
    """As it is written; None: a value must be given."""
    choices: tuple[str, ...] = ()

    @property
    def input(self) -> str:
        """How a form asks for it."""
        if self.choices or self.hint == "bool":
            return "select"
        return "number" if self.hint in _NUMBERS else "text"

    @property
    def options(self) -> tuple[str, ...]:
        return self.choices or ("true", "false")


@dataclass(frozen=True)
class Signature:
    text: str
    doc: str
    parameters: tuple[Parameter, ...]


def read(source: str, handler: str) -> Signature | None:
    """The signature of the function that `handler` names; None where it cannot be found in the source."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    name = handler.replace(":", ".").rpartition(".")[2]
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            text = f"{name}({ast.unparse(node.args)}){returns}"
            return Signature(text, ast.get_docstring(node) or "", tuple(_parameters(node.args)))
    return None


def values_of(signature: Signature, form: dict[str, list[str]]) -> dict[str, Any]:
    """The parameters that a form gives; fields left empty are left to their defaults.

    Raises:
        Refusal: a field that must have a value has none, or one that does not fit (400).
    """
    values: dict[str, Any] = {}
    for parameter in signature.parameters:
        text = (form.get(f"p.{parameter.name}") or [""])[0]
        if not text.strip():
            if parameter.default is None and f"p.{parameter.name}" in form:
                raise Refusal(400, f"{parameter.name} has no value, and no default. Go back and give it one.")  # fmt: skip
            continue
        values[parameter.name] = _value(parameter, text)
    return values


def _parameters(arguments: ast.arguments) -> list[Parameter]:
    plain = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults))
    pairs = [*zip(plain, [*missing, *arguments.defaults])]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults)
    return [_parameter(one, default) for one, default in pairs if one.arg not in _GIVEN]


def _parameter(argument: ast.arg, default: ast.expr | None) -> Parameter:
    hint = ast.unparse(argument.annotation) if argument.annotation else ""
    return Parameter(
        argument.arg,
        hint.strip("'\""),
        None if default is None else ast.unparse(default),
        _choices(argument.annotation),
    )


def _choices(hint: ast.expr | None) -> tuple[str, ...]:
    """The values of a Literal of text."""
    if not isinstance(hint, ast.Subscript) or ast.unparse(hint.value).rpartition(".")[2] != "Literal":  # fmt: skip
        return ()
    values = hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]
    texts = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    return tuple(texts) if len(texts) == len(values) else ()


def _value(parameter: Parameter, text: str) -> Any:
    if parameter.choices or parameter.hint == "str":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if parameter.hint in ("int", "float", "bool") or text.lstrip()[:1] in ("{", "[", '"'):
            raise Refusal(400, f"{parameter.name}: {text!r} is no {parameter.hint or 'JSON'}. Go back and mend it.") from None  # fmt: skip
        return text
