"""Turns fetched code and a handler's name into callables. Knows files and modules, nothing of runs."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Optional

from digitalhub_runtime_python.decorator import OutputDeclaration, declared_outputs
from digitalhub_runtime_python.errors import HandlerFault
from digitalhub_runtime_python.report import is_below

# sys.path and sys.modules belong to the whole process: one run at a time changes them.
_IMPORTS = threading.RLock()

_MARK = "__digitalhub_import__"
ROOT_MARK = "__digitalhub_root__"
"""Global of the handler's module: the folder with the run's code."""


Aside = dict[str, tuple[ModuleType, Optional[Path]]]
"""Module name -> the module that is set aside, and the folder of the run that it is of, if of one."""


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
    name: str = "",
    aside: Aside | None = None,
) -> LoadedFunction:
    """Import the handler, and the init function where one is named.

    Args:
        root: folder with the code; must be on sys.path already (see `importable`).
        main: the file a bare handler name means, relative to root; None: `main.py`, or the only one.
        handler: `module.sub:function`, `path/to/file.py:function`, or `function`.
        init_function: a name in the handler's module, or of the handler's forms.
        name: import the handler's file under this module name, so that runs that share a process
            do not share the module. Default: its own name.
        aside: gets the modules that hide one of `root`'s, and are set aside (see `importable`).

    Raises:
        HandlerFault: handler/missing, handler/module, handler/not-found, handler/not-callable.
        Exception: whatever the user's module raises while it is imported, as it is.
    """
    if not handler or not handler.rpartition(":")[2].strip():
        raise HandlerFault(
            "handler/missing",
            "The function names no handler.",
            "Set handler, e.g. handler='main:run'.",
        )
    with _IMPORTS:
        if aside is not None:
            _come_first(root, aside)
        module = _import(root, main, handler, name)
        function = _find(module, handler.rpartition(":")[2])
        init = None
        if init_function:
            home = _import(root, main, init_function, name) if ":" in init_function else module
            init = _find(home, init_function.rpartition(":")[2])
    return LoadedFunction(function, init, declared_outputs(function), module)


def raised_by_import(exc: BaseException) -> bool:
    """Whether the user's module raised this while it was imported."""
    try:
        return getattr(exc, _MARK, False)
    except Exception:  # noqa: BLE001 - an exception of the user's that raises when it is asked
        return False


@contextlib.contextmanager
def importable(root: Path) -> Iterator[Aside]:
    """Put `root` on sys.path; on leaving, forget what was imported from it.

    Modules of the process that have the name of one in `root` are set aside meanwhile, into the
    dict that `load` takes: the code's own `utils.py` is what its `import utils` means, whatever the
    caller, or another run, has imported.
    """
    aside: Aside = {}
    with _IMPORTS:
        path, modules = set(sys.path), dict(sys.modules)
        sys.path.insert(0, str(root))
        _forget_finders(root)
    try:
        yield aside
    finally:
        with _IMPORTS:
            # Before sys.path changes: a folder without __init__.py is looked up on it again each time.
            for name, module in [i for i in list(sys.modules.items()) if _lies_in(i[1], root)]:
                if modules.get(name) is not module:
                    del sys.modules[name]
            if str(root) in sys.path:
                sys.path.remove(str(root))
            for entry in [e for e in sys.path if e not in path and is_below(e, root)]:
                sys.path.remove(entry)
            _forget_finders(root)
            for name, (module, run) in aside.items():
                if run is None or str(run) in sys.path:  # else that run has ended
                    sys.modules.setdefault(name, module)


def own_modules() -> list[ModuleType]:
    """Every module of users' code that is imported now, of whichever run of this process."""
    roots = _roots()
    modules = [m for m in list(sys.modules.values()) if isinstance(m, ModuleType)]
    return [m for m in modules if any(_lies_in(m, root) for root in roots)]


def _forget_finders(root: Path) -> None:
    """Have `root` listed anew: a folder that filled up since would look empty.

    Not importlib.invalidate_caches, which imports importlib.metadata: 20 ms, and a fifth of a
    second at 0.1 CPU.
    """
    for entry in [e for e in sys.path_importer_cache if is_below(e, root)]:
        del sys.path_importer_cache[entry]


def _roots() -> set[Path]:
    """The folders of the runs whose handlers are imported now."""
    modules = [m for m in list(sys.modules.values()) if isinstance(m, ModuleType)]
    return {root for m in modules if (root := m.__dict__.get(ROOT_MARK)) is not None}


def _come_first(root: Path, aside: Aside) -> None:
    """Move `root` before those of other runs, and take the modules away that hide one of its own."""
    if str(root) in sys.path:
        sys.path.remove(str(root))
    sys.path.insert(0, str(root))
    # A folder without __init__.py hides nothing but another such folder.
    names = {p.name: (p / "__init__.py").exists() for p in root.iterdir() if p.is_dir()}
    names.update({p.stem: True for p in root.glob("*.py") if p.stem != "__main__"})
    hiding = {n for n, code in names.items() if _hides(sys.modules.get(n), root, code=code)}
    runs = _roots()
    for name in [n for n in sys.modules if n.partition(".")[0] in hiding]:
        module = sys.modules.pop(name)
        aside[name] = module, next((run for run in runs if _lies_in(module, run)), None)


def _hides(module: ModuleType | None, root: Path, *, code: bool) -> bool:
    """Whether a top-level module stands where one of `root` belongs; `code`: and is more than a folder."""
    if not isinstance(module, ModuleType):
        return False
    file = module.__dict__.get("__file__")
    if not file:  # a folder without __init__.py: it stands for those of all runs at once
        return "__path__" in module.__dict__
    if is_below(file, root):
        return False
    # Never the standard library nor ourselves, whatever the code's files are called.
    fixed = (Path(inspect.__file__).parent, Path(__file__).parent)
    return code and not any(is_below(file, place) for place in fixed)


def _lies_in(module: object, root: Path) -> bool:
    # Not getattr: a lazy module would import what it stands for.
    names = getattr(module, "__dict__", {})
    places = [names.get("__file__")]
    with contextlib.suppress(KeyError, TypeError):  # a folder whose parent is forgotten; no list
        places += names.get("__path__") or ()
    return any(is_below(str(place or ""), root) for place in places)


def _import(root: Path, main: Path | None, handler: str, name: str) -> ModuleType:
    file = _file_of(root, main, handler.rpartition(":")[0])
    _add_siblings(file, root)
    dotted = ".".join(file.relative_to(root).with_suffix("").parts)
    if dotted.endswith(".__init__"):
        dotted = dotted[: -len(".__init__")]
    in_package = (file.parent / "__init__.py").exists() or "." in dotted
    importable_name = all(part.isidentifier() for part in dotted.split("."))
    try:
        if in_package and importable_name:
            # Relative imports in it need its own name and its parents.
            module = importlib.import_module(dotted)
        else:
            own_name = dotted if importable_name else re.sub(r"\W", "_", file.stem)
            module = _import_file(file, name or own_name, root)
    except (Exception, SystemExit) as exc:
        # The exception stays the user's; the mark tells it from one that the handler raises.
        with contextlib.suppress(Exception):
            setattr(exc, _MARK, True)
        raise
    module.__dict__.setdefault(ROOT_MARK, root)
    return module


def _add_siblings(file: Path, root: Path) -> None:
    """Put a file's folder (a package's parent) on sys.path, so that `src/main.py` finds `src/helper.py`."""
    folder = file.parent
    while folder != root and (folder / "__init__.py").exists():
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(sys.path.index(str(root)) + 1 if str(root) in sys.path else 0, str(folder))


def _import_file(file: Path, name: str, root: Path) -> ModuleType:
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
    module.__dict__[ROOT_MARK] = root
    sys.modules[name] = module  # before exec, as import does: dataclasses and pickle look it up
    try:
        # Not loader.exec_module: its bytecode cache knows a file by size and second, so two
        # sources of one length written within a second would run as one.
        exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


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
