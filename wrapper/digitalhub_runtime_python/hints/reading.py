"""What annotations stand for, on every Python alike; one that cannot be resolved counts as none."""

from __future__ import annotations

import functools
import inspect
import logging
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Callable

logger = logging.getLogger(__name__)

_P = inspect.Parameter
_IS_3_9 = sys.version_info < (3, 10)


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """`inspect.signature` that leaves annotations as they are.

    Raises:
        TypeError, ValueError: the callable does not say what it takes.
    """
    if sys.version_info >= (3, 14):  # evaluates them, and names that are missing raise
        import annotationlib

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function)


def function_hints(
    function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]
) -> dict[str, Any]:
    """Parameter -> what its annotation stands for; those without one, or with an unknown one, left out."""
    target = _function_behind(function)
    annotations = _annotations(target)
    # The parameters' own ones where they are others: a decorator may have set __signature__.
    given = {n: annotations.get(n, p.annotation) for n, p in parameters.items()}
    return resolved(given, getattr(target, "__globals__", {}), _closed_over(target))


def class_hints(cls: type) -> dict[str, Any]:
    """Name -> what its annotation in the class, or in one of its bases, stands for."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        module = sys.modules.get(base.__module__)
        # An annotation in a class may name the class itself, wherever that is defined.
        names = {**vars(base), cls.__name__: cls, base.__name__: base}
        found.update(resolved(_annotations(base), getattr(module, "__dict__", {}), names))
    return found


def resolved(
    annotations: Mapping[str, Any], names: dict[str, Any], local_names: Mapping[str, Any]
) -> dict[str, Any]:
    """The annotations that stand for something, evaluated."""
    found = {n: evaluated(a, names, local_names) for n, a in annotations.items()}
    return {n: hint for n, hint in found.items() if hint is not _P.empty}


def evaluated(annotation: Any, names: dict[str, Any], local_names: Mapping[str, Any]) -> Any:
    """What an annotation stands for; `Parameter.empty` where that cannot be found out."""
    try:
        for _ in range(2):  # twice: "'Point'" under `from __future__ import annotations`
            if isinstance(annotation, str):
                annotation = _from_text(annotation, names, local_names)
        if isinstance(annotation, str):
            return _P.empty
        # Forward references inside, `List["Point"]`: typing's own way in.
        holder = types.SimpleNamespace(__annotations__={"hint": annotation})
        return typing.get_type_hints(holder, names, dict(local_names), include_extras=True)["hint"]
    except Exception:  # noqa: BLE001 - imported for type checkers only, of a later Python, misspelt
        logger.debug("type hint %r cannot be resolved", annotation)
        return _P.empty


def _from_text(text: str, names: dict[str, Any], local_names: Mapping[str, Any]) -> Any:
    try:
        return eval(text, names, dict(local_names))  # noqa: S307 - the user's own code
    except TypeError:
        if not _IS_3_9:
            raise
    from eval_type_backport import eval_type_backport  # `int | None` on 3.9

    # Wrappers that typing refuses as a type of a field, though they stand around one.
    wrapped = re.fullmatch(r"(?:\w+\.)*(?:InitVar|ClassVar|Final)\[(.*)\]", text.strip(), re.DOTALL)
    reference = typing.ForwardRef(wrapped[1] if wrapped else text)
    return eval_type_backport(reference, names, dict(local_names))


def _annotations(target: Any) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(target, format=annotationlib.Format.FORWARDREF)
    if isinstance(target, type):  # not what a base has
        found = vars(target).get("__annotations__")
    else:
        found = getattr(target, "__annotations__", None)
    return found if isinstance(found, Mapping) else {}


def _closed_over(function: Any) -> dict[str, Any]:
    """Variables of the functions around it that it uses: local classes among them."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    found = {}
    for name, cell in zip(code.co_freevars, cells or ()) if code else ():
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not set yet
            continue
    return found


def _function_behind(function: Any) -> Any:
    """What holds the type hints of a callable: decorated, partial, a class, or an object."""
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    if inspect.isroutine(function):
        return function
    if isinstance(function, type):
        # A class made by calling __new__, a named tuple, has its hints there.
        cls: Any = function
        made = cls.__init__ is object.__init__ and cls.__new__ is not object.__new__
        return inspect.unwrap(cls.__new__ if made else cls.__init__)
    return inspect.unwrap(type(function).__call__)
