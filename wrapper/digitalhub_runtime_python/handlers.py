"""Reads a function's text for the handler that it should define; the text is parsed, never executed."""

from __future__ import annotations

import ast
import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import msgspec

from digitalhub_runtime_python.errors import ArgumentFault, HandlerFault
from digitalhub_runtime_python.spec import PYTHON_VERSIONS

_DYNAMIC = frozenset({"globals", "exec", "setattr", "vars", "locals", "__getattr__"})
"""Names that let a module define functions which its text does not show."""


_PLAIN = {"int": int, "float": float, "bool": bool}


def check_handler_exists(text: bytes, given: Mapping[str, Any], python_version: str) -> None:
    """Refuse code that no Python reads, and a handler that it does not define.

    Raises:
        HandlerFault: handler/syntax, handler/not-found
    """
    name = PurePath(os.fspath(given.get("code_src") or "main.py")).name
    try:
        module = ast.parse(text, name)
    except (SyntaxError, ValueError) as exc:
        if _newer_than_this(python_version):
            return  # its grammar may be ahead of this interpreter's
        line = getattr(exc, "lineno", None)
        raise HandlerFault(
            "handler/syntax",
            f"{name} is not valid Python: {getattr(exc, 'msg', exc)}{f' (line {line})' if line else ''}.",
            "Correct it; nothing was created.",
        ) from exc
    defined = _defined(module)
    if defined is None:
        return
    for parameter in ("handler", "init_function"):
        wanted = str(given.get(parameter) or "")
        prefix, _, function = wanted.rpartition(":")
        first = function.partition(".")[0]
        if not first or first in defined or (prefix and not _means(prefix, name)):
            continue
        functions = sorted(n for n, callable_ in defined.items() if callable_)
        close = difflib.get_close_matches(function, functions, n=1)
        raise HandlerFault(
            "handler/not-found",
            f"{name} has no function {function!r}.",
            (f"Did you mean {close[0]!r}? " if close else "")
            + (f"It defines {', '.join(functions[:12])}." if functions else "It defines none."),
        )


def check_arguments(text: bytes, handler: str, given: Mapping[str, Any]) -> None:
    """Refuse arguments that the handler cannot take, as far as its text tells.

    Args:
        given: values as a command line has them: text.

    Raises:
        ArgumentFault: arguments/mismatch
    """
    try:
        found = [n for n in ast.parse(text).body if getattr(n, "name", "") == handler]
    except (SyntaxError, ValueError):
        return  # check_handler_exists has let it pass: it may be of a later Python
    if not found or not isinstance(found[0], (ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    plain = [d for d in found[0].decorator_list if "handler" not in ast.dump(d)]
    if plain:
        return  # what it takes is the decorator's to say
    arguments = found[0].args
    names = {a.arg: a for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    problems = [_unfit(name, value, names) for name, value in given.items()]
    problems = [problem for problem in problems if problem]
    if arguments.kwarg:
        problems = [problem for problem in problems if "unknown" not in problem]
    if problems:
        raise ArgumentFault(
            "arguments/mismatch",
            f"{handler}() cannot take its arguments: {'; '.join(problems)}.",
            f"It takes ({', '.join(names)}).",
        )


def _unfit(name: str, value: Any, names: Mapping[str, ast.arg]) -> str:
    if name not in names:
        close = difflib.get_close_matches(name, list(names), n=1)
        return f"unknown {name!r}" + (f" (did you mean {close[0]!r}?)" if close else "")
    hint = getattr(names[name].annotation, "id", "")
    if hint not in _PLAIN:
        return ""
    try:
        msgspec.convert(value, _PLAIN[hint], strict=False)
    except msgspec.ValidationError:
        return f"{name!r} is {value!r}, which is not {_PLAIN[hint].__name__}"
    return ""


def _means(prefix: str, name: str) -> bool:
    """Whether the module part of a handler is the one file that is embedded."""
    return PurePath(prefix.replace(".", "/") if not prefix.endswith(".py") else prefix).stem == (
        PurePath(name).stem
    )


def _newer_than_this(python_version: str) -> bool:
    version = PYTHON_VERSIONS.get(python_version)
    return version is not None and tuple(map(int, version.split("."))) > sys.version_info[:2]


def _defined(module: ast.Module) -> dict[str, bool] | None:
    """Names of a module's top level -> whether they are functions or classes; None: not to be known."""
    names: dict[str, bool] = {}
    for node in _outer(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names[node.name] = True
            if node.name in _DYNAMIC:
                return None
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                if alias.name == "*":
                    return None
                names[(alias.asname or alias.name).partition(".")[0]] = False
        elif isinstance(node, ast.Name):
            if node.id in _DYNAMIC:
                return None
            if isinstance(node.ctx, ast.Store):
                names[node.id] = False
    return names


def _outer(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that is not inside a function or a class."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield from _outer(child)
