"""Composes a handler's arguments from its signature and what the run gives. Pure.

Precedence, lowest first: the signature's defaults, `parameters`, `inputs`, and in serve the fields
of a JSON object body. Reserved names are injected over all of them.
"""

from __future__ import annotations

import inspect
import logging
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, NamedTuple

from digitalhub_runtime_python.convert import clip, convert, type_name
from digitalhub_runtime_python.errors import ArgumentFault
from digitalhub_runtime_python.hints import reading

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


class Texts(dict):  # type: ignore[type-arg]
    """A source whose values are text, of a form or a query: converted leniently, and text where no hint says more."""


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
        signature = reading.signature_of(function)
    except (TypeError, ValueError):
        # A callable written in C that does not say what it takes: pass on whatever is given.
        return Signature({}, takes_any=True)
    parameters = dict(signature.parameters)
    if hasattr(function, "register") and parameters:
        # functools.singledispatch looks at the first argument, and finds it by position alone.
        first = next(iter(parameters.values()))
        if first.kind is _P.POSITIONAL_OR_KEYWORD:
            parameters[first.name] = first.replace(kind=_P.POSITIONAL_ONLY)
    return Signature(
        {n: p for n, p in parameters.items() if p.kind not in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)},
        reading.function_hints(function, parameters),
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
    texts: set[str] = set()
    for source in sources:
        given.update(source)
        for names, kind in ((resolved, Resolved), (texts, Texts)):
            names.difference_update(source)
            if isinstance(source, kind):
                names.update(source)
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
            if value is None and signature.parameters[name].default is None:
                values[name] = None  # `n: int = None`: what its author means by it
                continue
            try:
                hint = signature.hints.get(name, Any)
                as_text = name in texts
                if as_text and hint in (Any, object):
                    values[name] = value
                else:
                    values[name] = convert(value, hint, lax=lax or as_text)
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
        _shown(parameter, signature.hints.get(name))
        for name, parameter in signature.parameters.items()
        if name not in RESERVED
    ]
    return f"({', '.join([*shown, *(['**kwargs'] if signature.takes_any else [])])})"


def _shown(parameter: inspect.Parameter, hint: Any) -> str:
    text = parameter.name if hint is None else f"{parameter.name}: {type_name(hint)}"
    if parameter.default is _P.empty:
        return text
    try:
        default = clip(repr(parameter.default))
    except Exception:  # noqa: BLE001 - the user's own __repr__
        default = "…"
    return f"{text} = {default}" if hint is not None else f"{text}={default}"


def input_form(hint: Any) -> str:
    """How a handler wants an input with this hint: `entity`, `frame`, `polars` or `path`."""
    for part in parts_of(hint):
        if isinstance(part, type):
            name = f"{part.__module__.partition('.')[0]}.{part.__name__}"
            if name in _INPUT_FORMS:
                return _INPUT_FORMS[name]
    return "entity"


def parts_of(hint: Any) -> Iterator[Any]:
    """A hint and what it is made of, outermost first: `Optional[List[Path]]` is about paths."""
    yield hint
    for part in typing.get_args(hint):
        yield from parts_of(part)


_INPUT_FORMS = {
    "pandas.DataFrame": "frame",
    "polars.DataFrame": "polars",
    "pathlib.Path": "path",
    "pathlib.PosixPath": "path",
    "os.PathLike": "path",
}


def _split(signature: Signature, values: dict[str, Any]) -> Arguments:
    args: list[Any] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is not _P.POSITIONAL_ONLY:
            break
        args.append(values.pop(name, parameter.default))
    return Arguments(tuple(args), values)


def _unknown(name: str, signature: Signature) -> str:
    import difflib  # only for an error

    close = difflib.get_close_matches(name, signature.parameters, n=1)
    return f"{name!r} is unknown" + (f" (did you mean {close[0]!r}?)" if close else "")
