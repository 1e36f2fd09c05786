"""Turns fetched code and a handler's name into callables. Knows files and modules, nothing of runs."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

from digitalhub_runtime_python.decorator import OutputDeclaration, declared_outputs
from digitalhub_runtime_python.errors import HandlerFault

# sys.path and sys.modules belong to the whole process: one run at a time changes them.
_IMPORTS = threading.RLock()

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
    root: Path, main: Path | None, handler: str | None, init_function: str | None, name: str = ""
) -> LoadedFunction:
    """Import the handler, and the init function where one is named.

    Args:
        root: folder with the code; must be on sys.path already (see `importable`).
        main: the file a bare handler name means, relative to root; None: `main.py`, or the only one.
        handler: `module.sub:function`, `path/to/file.py:function`, or `function`.
        init_function: a name in the handler's module, or of the handler's forms.
        name: import the handler's file under this module name, so that runs that share a process
            do not share the module. Default: its own name.

    Raises:
        HandlerFault: handler/missing, handler/module, handler/not-found, handler/not-callable.
        Exception: whatever the user's module raises while it is imported, as it is.
    """
    if not handler or not handler.strip(": "):
        raise HandlerFault(
            "handler/missing",
            "The function names no handler.",
            "Set handler, e.g. handler='main:run'.",
        )
    with _IMPORTS:
        module = _import(root, main, handler, name)
        function = _find(module, handler.rpartition(":")[2])
        init = None
        if init_function:
            home = _import(root, main, init_function, name) if ":" in init_function else module
            init = _find(home, init_function.rpartition(":")[2])
    return LoadedFunction(function, init, declared_outputs(function), module)


def raised_by_import(exc: BaseException) -> bool:
    """Whether the user's module raised this while it was imported."""
    return getattr(exc, _MARK, False)


@contextmanager
def importable(root: Path) -> Iterator[None]:
    """Put `root` first on sys.path, and forget on leaving what was imported from it."""
    entry = str(root)
    with _IMPORTS:
        sys.path.insert(0, entry)
        # A folder that filled up after the path was last listed would look empty to the finders.
        importlib.invalidate_caches()
    try:
        yield
    finally:
        with _IMPORTS:
            if entry in sys.path:
                sys.path.remove(entry)
            for name, module in list(sys.modules.items()):
                if str(getattr(module, "__file__", None) or "").startswith(entry + "/"):
                    del sys.modules[name]
            sys.path_importer_cache.pop(entry, None)


def _import(root: Path, main: Path | None, handler: str, name: str) -> ModuleType:
    file = _file_of(root, main, handler.rpartition(":")[0])
    dotted = ".".join(file.relative_to(root).with_suffix("").parts)
    if dotted.endswith(".__init__"):
        dotted = dotted[: -len(".__init__")]
    in_package = (file.parent / "__init__.py").exists() or "." in dotted
    importable_name = all(part.isidentifier() for part in dotted.split("."))
    try:
        if in_package and importable_name:
            # Relative imports in it need its own name and its parents.
            _forget_others(dotted.partition(".")[0], root)
            return importlib.import_module(dotted)
        own_name = dotted if importable_name else file.stem.replace("-", "_")
        return _import_file(file, name or own_name)
    except Exception as exc:
        # The exception stays the user's; the mark tells it from one that the handler raises.
        setattr(exc, _MARK, True)
        raise


def _import_file(file: Path, name: str) -> ModuleType:
    existing = sys.modules.get(name)
    if existing is not None and getattr(existing, "__file__", None) == str(file):
        return existing
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise HandlerFault(
            "handler/module",
            f"{file.name} is not a Python file.",
            "Name a .py file in the handler.",
        )
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__digitalhub_run__"] = True  # its classes are pickled by value
    sys.modules[name] = module  # before exec, as import does: dataclasses and pickle look it up
    try:
        # Not loader.exec_module: its bytecode cache knows a file by size and second, so two
        # sources of one length written within a second would run as one.
        exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _forget_others(top: str, root: Path) -> None:
    """Drop a package of this name that another run, in another folder, has left in sys.modules."""
    loaded = sys.modules.get(top)
    places = [str(getattr(loaded, "__file__", "") or ""), *getattr(loaded, "__path__", [])]
    if loaded is None or any(place.startswith(str(root)) for place in places):
        return
    for name in [n for n in sys.modules if n == top or n.startswith(top + ".")]:
        del sys.modules[name]


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
    close = difflib.get_close_matches(wanted, existing, n=1)
    listed = ", ".join(existing[:12]) + (", …" if len(existing) > 12 else "")
    return (f"Did you mean {close[0]!r}? " if close else "") + f"{verb} {listed}."
