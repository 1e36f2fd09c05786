"""Turns fetched code and a handler's name into callables. Knows files and modules, nothing of runs."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

from digitalhub_runtime_python import drift, foreign, isolation, shadows
from digitalhub_runtime_python.decorator import OutputDeclaration, declared_outputs
from digitalhub_runtime_python.errors import HandlerFault
from digitalhub_runtime_python.isolation import Aside

_MARK = "__digitalhub_import__"


@dataclass(frozen=True)
class LoadedFunction:
    """The user's callables, imported."""

    handler: Callable[..., Any]
    init: Callable[..., Any] | None
    outputs: list[OutputDeclaration] = field(default_factory=list)
    """What `@handler` declared on the handler."""
    module: ModuleType | None = None


def load(
    root: Path,
    main: Path | None,
    handler: str | None,
    init_function: str | None,
    aside: Aside,
    name: str = "",
) -> LoadedFunction:
    """Import the handler, and the init function where one is named.

    Args:
        root: folder with the code.
        main: the file a bare handler name means, relative to root; None: `main.py`, or the only one.
        handler: `module.sub:function`, `path/to/file.py:function`, or `function`.
        init_function: a name in the handler's module, or of the handler's forms.
        aside: what `isolation.importable(root)` gives.
        name: import the handler's file under this module name, so that runs that share a process
            do not share the module. Default: its own name.

    Raises:
        HandlerFault: handler/missing, handler/module, handler/not-found, handler/not-callable.
        SourceFault: source/not-python, for a file with the name of a module and the content of another kind.
        Exception: whatever the user's module raises while it is imported, as it is.
    """
    file = file_of(root, main, handler)
    handler, init_function = str(handler), init_function or ""
    drift.warn()
    home = _file_of(root, main, init_function.rpartition(":")[0]) if ":" in init_function else file
    for one in {file, home}:
        foreign.refuse_foreign(one, one.relative_to(root).as_posix())
    with isolation.LOCK:
        isolation.come_first(root, [_import_folder(f, root) for f in (home, file)], aside)
        module = _import(file, root, name)
        function = _find(module, handler.rpartition(":")[2])
        init = None
        if init_function:
            init = _find(_import(home, root, name), init_function.rpartition(":")[2])
    return LoadedFunction(function, init, declared_outputs(function), module)


def mark_import(exc: BaseException) -> None:
    """Note that the user's module raised this while it was imported; the exception stays the user's."""
    with contextlib.suppress(Exception):
        setattr(exc, _MARK, True)


def file_of(root: Path, main: Path | None, handler: str | None) -> Path:
    """The file with the handler; raises as `load`."""
    if not handler or not handler.rpartition(":")[2].strip():
        raise HandlerFault(
            "handler/missing",
            "The function names no handler.",
            "Set handler, e.g. handler='main:run'.",
        )
    return _file_of(root, main, handler.rpartition(":")[0])


def raised_by_import(exc: BaseException) -> bool:
    """Whether the user's module raised this while it was imported."""
    try:
        return getattr(exc, _MARK, False)
    except Exception:  # noqa: BLE001 - an exception of the user's that raises when it is asked
        return False


def _import(file: Path, root: Path, name: str) -> ModuleType:
    dotted = ".".join(file.relative_to(root).with_suffix("").parts)
    if dotted.endswith(".__init__"):
        dotted = dotted[: -len(".__init__")]
    in_package = (file.parent / "__init__.py").exists() or "." in dotted
    importable_name = all(part.isidentifier() for part in dotted.split("."))
    try:
        if in_package and importable_name:
            # Relative imports in it need its own name and its parents.
            module = importlib.import_module(shadows.own_name(dotted, root))
        else:
            own_name = dotted if importable_name else re.sub(r"\W", "_", file.stem)
            module = shadows.import_file(file, name or shadows.own_name(own_name, root), root)
    except (Exception, SystemExit) as exc:
        mark_import(exc)
        raise
    module.__dict__.setdefault(shadows.ROOT_MARK, root)
    return module


def _import_folder(file: Path, root: Path) -> Path:
    """The folder that a file's neighbours are imported from: its own, or its package's parent."""
    folder = file.parent
    while folder != root and (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def _file_of(root: Path, main: Path | None, module: str) -> Path:
    """The file that the part of a handler before the colon means."""
    if not module:
        return _default_file(root, main)
    stem = module[:-3] if module.endswith(".py") else module.replace(".", "/")
    candidates = [root / f"{stem}.py", root / stem / "__init__.py"]
    if main is not None and "/" not in stem:
        candidates.append(root / main.parent / f"{stem}.py")  # relative to the file that was named
    for candidate in candidates:
        if candidate.is_file() and root in candidate.resolve().parents:
            return candidate
    raise HandlerFault(
        "handler/module",
        f"The code has no module {module!r}.",
        _nearest(module, _modules(root), "It has"),
    )


def _default_file(root: Path, main: Path | None) -> Path:
    if main is not None:
        return root / main
    files = sorted(p for p in root.glob("*.py") if p.is_file())
    candidates = [root / "main.py", *(files if len(files) == 1 else [])]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise HandlerFault(
        "handler/module",
        "The handler names no module, and the code has no main.py.",
        f"Write handler='module:function'. {_nearest('main', _modules(root), 'It has')}",
    )


def _modules(root: Path) -> list[str]:
    found = (p.relative_to(root) for p in root.rglob("*.py"))
    return sorted({".".join(p.with_suffix("").parts) for p in found if not p.name.startswith("_")})


def _find(module: ModuleType, dotted: str) -> Callable[..., Any]:
    value: Any = module
    for part in dotted.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            defined = [
                n
                for n, v in vars(module).items()
                if inspect.isroutine(v) and getattr(v, "__module__", None) == module.__name__
            ]
            raise HandlerFault(
                "handler/not-found",
                f"{Path(module.__file__ or module.__name__).name} has no function {dotted!r}.",
                _nearest(dotted, defined, "It defines"),
            ) from None
    if not callable(value):
        raise HandlerFault(
            "handler/not-callable",
            f"The handler {dotted!r} is a {type(value).__name__}, which cannot be called.",
            "Name a function.",
        )
    return value  # type: ignore[no-any-return]


def _nearest(wanted: str, existing: list[str], verb: str) -> str:
    if not existing:
        return f"{verb} none."
    import difflib  # only for an error

    close = difflib.get_close_matches(wanted, existing, n=1)
    listed = ", ".join(existing[:12]) + (", …" if len(existing) > 12 else "")
    return (f"Did you mean {close[0]!r}? " if close else "") + f"{verb} {listed}."
