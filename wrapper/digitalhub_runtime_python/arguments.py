"""Composes a handler's arguments from its signature and what the run gives. Pure.

Precedence, lowest first: the signature's defaults, `parameters`, `inputs`, and in serve the fields
of a JSON object body. Reserved names are injected over all of them.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import sys
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, NamedTuple

from digitalhub_runtime_python.errors import ArgumentFault

logger = logging.getLogger(__name__)

RESERVED = ("project", "run", "context", "event", "events")
"""Injected when the signature names them, in every mode."""

_P = inspect.Parameter


class Arguments(NamedTuple):
    """Ready for `function(*args, **kwargs)`; args holds the positional-only ones."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Resolved(dict):  # type: ignore[type-arg]
    """A source whose values are passed as they are: what the run's inputs were resolved to."""


@dataclass(frozen=True)
class Signature:
    """A function's parameters, read once."""

    parameters: Mapping[str, inspect.Parameter]
    """Every parameter but `*args` and `**kwargs`."""
    hints: Mapping[str, Any] = field(default_factory=dict)
    """Type hints that could be resolved."""
    takes_any: bool = False
    """Whether there is a `**kwargs`."""

    def names(self, name: str) -> bool:
        return name in self.parameters

    def first_positional(self) -> str | None:
        """The name of the parameter that a first positional argument would fill."""
        first = next(iter(self.parameters.values()), None)
        return None if first is None or first.kind is _P.KEYWORD_ONLY else first.name


def read_signature(function: Callable[..., Any]) -> Signature:
    """Read a callable's parameters and hints; a hint that cannot be resolved counts as none."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # A callable written in C that does not say what it takes: pass on whatever is given.
        return Signature({}, takes_any=True)
    parameters = signature.parameters
    return Signature(
        {n: p for n, p in parameters.items() if p.kind not in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)},
        _hints(function, parameters),
        any(p.kind is _P.VAR_KEYWORD for p in parameters.values()),
    )


def compose(
    signature: Signature,
    *sources: Mapping[str, Any],
    injected: Mapping[str, Callable[[], Any]],
    lax: bool = False,
    ignore_unknown: bool = False,
    what: str = "the function",
) -> Arguments:
    """Compose the arguments of one call.

    Args:
        signature: of the function to call.
        sources: name -> value, lowest precedence first.
        injected: reserved name -> what makes its value; called only when the signature names it,
            and when nothing else is wrong.
        lax: values are text from a command line: `"5"` fits an int.
        ignore_unknown: leave out what the signature does not name, instead of refusing it.
        what: the function's name in a fault.

    Raises:
        ArgumentFault: names every missing and unknown argument and every value that does not fit.
    """
    values = check(
        signature, *sources, injected=injected, lax=lax, ignore_unknown=ignore_unknown, what=what
    )
    for name in signature.parameters:
        if name in injected:
            if any(name in source for source in sources):
                logger.warning("argument %r is reserved; the given value is replaced", name)
            values[name] = injected[name]()
    return _split(signature, values)


def check(
    signature: Signature,
    *sources: Mapping[str, Any],
    injected: Collection[str],
    lax: bool = False,
    ignore_unknown: bool = False,
    what: str = "the function",
) -> dict[str, Any]:
    """The values that the sources give, converted; the injected ones left out. As `compose`."""
    given: dict[str, Any] = {}
    resolved: set[str] = set()
    for source in sources:
        given.update(source)
        resolved -= source.keys()
        if isinstance(source, Resolved):
            resolved |= source.keys()
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in given.items():
        if not signature.names(name):
            if signature.takes_any:
                values[name] = value
            elif not ignore_unknown:
                problems.append(_unknown(name, signature))
        elif name in resolved and name not in injected:
            values[name] = value
        elif name not in injected:
            try:
                values[name] = convert(value, signature.hints.get(name, Any), lax=lax)
            except ValueError as exc:
                problems.append(f"{name!r} {exc}")
    problems += [
        f"{name!r} is missing"
        for name, parameter in signature.parameters.items()
        if name not in injected and name not in given and parameter.default is _P.empty
    ]
    if problems:
        raise ArgumentFault(
            "arguments/mismatch",
            f"The arguments do not fit {what}: {'; '.join(problems)}.",
            f"It takes {describe(signature)}.",
        )
    return values


def describe(signature: Signature) -> str:
    """The parameters as a reader would write them: `(n: int, factor=2)`; the reserved ones left out."""
    shown = [
        str(p.replace(annotation=signature.hints.get(n, p.annotation)))
        for n, p in signature.parameters.items()
        if n not in RESERVED
    ]
    return f"({', '.join([*shown, *(['**kwargs'] if signature.takes_any else [])])})"


def convert(value: Any, hint: Any, *, lax: bool = False) -> Any:
    """A JSON value as the annotated type.

    Raises:
        ValueError: it does not fit; the text reads after the argument's name.
    """
    if hint is Any or hint is _P.empty or hint is object:
        return _from_text(value) if lax else value
    if _is_instance(value, hint):
        return value
    if _mentions_pydantic(hint):
        return _convert_pydantic(value, hint)
    import msgspec

    try:
        return msgspec.convert(value, hint, strict=not lax, dec_hook=_decode)
    except msgspec.ValidationError as exc:
        if lax and isinstance(value, str) and (parsed := _from_text(value)) is not value:
            return convert(parsed, hint)
        raise ValueError(
            f"expects {type_name(hint)}, got {type_name(type(value))} ({_clip(repr(value))}): {exc}"
        ) from exc
    except (TypeError, NotImplementedError):
        return value  # a hint that is no data type (a Protocol, a Callable): nothing to convert to


def input_form(hint: Any) -> str:
    """How a handler wants an input with this hint: `entity`, `frame`, `polars` or `path`."""
    for candidate in (hint, *typing.get_args(hint)):
        if isinstance(candidate, type):
            name = f"{candidate.__module__.partition('.')[0]}.{candidate.__name__}"
            if name in _INPUT_FORMS:
                return _INPUT_FORMS[name]
    return "entity"


_INPUT_FORMS = {
    "pandas.DataFrame": "frame",
    "polars.DataFrame": "polars",
    "pathlib.Path": "path",
    "pathlib.PosixPath": "path",
    "os.PathLike": "path",
}


def type_name(hint: Any) -> str:
    """A type as a reader would write it."""
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else _text(hint)


def _text(hint: Any) -> str:
    return str(hint).replace("typing.", "")


def _hints(
    function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]
) -> dict[str, Any]:
    target = (
        function if inspect.isroutine(function) else type(function).__call__
    )  # a callable object
    target = inspect.unwrap(target)
    try:
        found = typing.get_type_hints(target, include_extras=True)
    except Exception:  # noqa: BLE001 - one name that is imported for type checkers only; take the others
        found = {}
        for name, parameter in parameters.items():
            hint = parameter.annotation
            if isinstance(hint, str):
                try:
                    hint = eval(hint, getattr(target, "__globals__", {}))  # noqa: S307 - the user's own code
                except Exception:  # noqa: BLE001
                    logger.debug("type hint %r of %r cannot be resolved", hint, name)
                    continue
            found[name] = hint
    return {n: h for n, h in found.items() if n in parameters and h is not _P.empty}


def _split(signature: Signature, values: dict[str, Any]) -> Arguments:
    args: list[Any] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is not _P.POSITIONAL_ONLY:
            break
        args.append(values.pop(name, parameter.default))
    return Arguments(tuple(args), values)


def _unknown(name: str, signature: Signature) -> str:
    close = difflib.get_close_matches(name, signature.parameters, n=1)
    return f"{name!r} is unknown" + (f" (did you mean {close[0]!r}?)" if close else "")


def _is_instance(value: Any, hint: Any) -> bool:
    if not isinstance(hint, type) or typing.get_origin(hint) is not None:
        return False
    try:
        # bool is an int to Python, but an int argument given True is a mistake.
        return isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)
    except TypeError:
        return False


def _decode(hint: Any, value: Any) -> Any:
    """msgspec's hook for types that it does not know."""
    if isinstance(value, hint):
        return value
    if isinstance(hint, type) and issubclass(hint, Path) and isinstance(value, str):
        return hint(value)
    maker = _MAKERS.get(f"{hint.__module__.partition('.')[0]}.{hint.__name__}")
    if maker is not None:
        return maker(hint, value)
    if hint.__module__.startswith("digitalhub.entities"):
        raise ValueError("an entity is passed by its key in inputs, not in parameters")
    raise ValueError(f"a JSON value cannot become a {hint.__name__}")


def _to_array(hint: Any, value: Any) -> Any:
    return sys.modules["numpy"].asarray(value)  # the hint exists, so numpy is imported


_MAKERS: dict[str, Callable[[Any, Any], Any]] = {
    "numpy.ndarray": _to_array,
    "pandas.DataFrame": lambda hint, value: hint(value),
    "polars.DataFrame": lambda hint, value: hint(value),
}


def _mentions_pydantic(hint: Any) -> bool:
    if "pydantic" not in sys.modules:
        return False
    if hasattr(hint, "model_validate") or hasattr(hint, "__pydantic_fields__"):
        return True
    return any(_mentions_pydantic(arg) for arg in typing.get_args(hint))


def _convert_pydantic(value: Any, hint: Any) -> Any:
    pydantic: Any = sys.modules["pydantic"]
    try:
        return pydantic.TypeAdapter(hint).validate_python(value)
    except pydantic.ValidationError as exc:
        raise ValueError(f"expects {type_name(hint)}, got {type_name(type(value))}: {exc}") from exc


def _from_text(value: Any) -> Any:
    """A command line's text as JSON where it is JSON, else as it is."""
    if not isinstance(value, str):
        return value
    import json

    try:
        return json.loads(value)
    except ValueError:
        return value


def _clip(text: str) -> str:
    return text if len(text) <= 80 else text[:80] + "…"
