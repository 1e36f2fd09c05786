"""Files of the user's that are called as a module of the standard library: `queue.py`, `token.py`, `email/`.

The user's own code means its own file, as it does where Python runs it by itself; everybody else, the
standard library and packages above all, means the standard library's. So such a file is imported under
a name of its own, and the imports of code below the run's folder are led there.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import inspect
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from digitalhub_runtime_python.error_report import is_below
from digitalhub_runtime_python.errors import HandlerFault

ROOT_MARK = "__digitalhub_root__"
"""Global of a run's module: the folder with the run's code."""
_LIBRARY = Path(inspect.__file__).parent
_LEFT = ("__init__", "__main__", "__future__", "this", "antigravity", *sys.builtin_module_names)
"""Python itself finds the built-in ones first, and importing the others does something."""

_own: dict[Path, dict[str, Path]] = {}
"""Folder of a run -> name of the standard library -> the run's file of that name."""
_import = builtins.__import__


def take(root: Path, files: Iterable[Path]) -> set[str]:
    """Lead the imports of `root`'s code to its own files; their names, of those that need it.

    Args:
        files: modules (`.py`) and packages (folders) that the code can import by name.
    """
    found = {p.stem: p for p in files if p.stem not in _LEFT and _is_standard(p.stem)}
    for name in list(found):
        try:
            _load_standard(name, root)
        except Exception:  # noqa: BLE001 - tkinter is missing, say: then nobody else means it
            del found[name]
    if found:
        _own[root] = found
        builtins.__import__ = _led
    return set(found)


def forget(root: Path) -> None:
    """Undo `take`."""
    if _own.pop(root, None) and not _own and builtins.__import__ is _led:
        builtins.__import__ = _import


def own_name(name: str, root: Path) -> str:
    """The name that a run's module is imported under: its own, but for those of the standard library."""
    if name.partition(".")[0] not in _own.get(root, ()):
        return name
    top, dot, rest = name.partition(".")
    return f"{top}__{zlib.crc32(str(root).encode()):08x}{dot}{rest}"


def _is_standard(name: str) -> bool:
    return (_LIBRARY / f"{name}.py").is_file() or (_LIBRARY / name / "__init__.py").is_file()


def _load_standard(name: str, root: Path) -> None:
    """Have the standard library's module in sys.modules before the code's folder is looked at."""
    if name in sys.modules:
        return
    path = list(sys.path)
    sys.path[:] = [entry for entry in path if not is_below(entry or ".", root)]
    try:
        importlib.import_module(name)
    finally:
        sys.path[:] = path


def _led(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> Any:
    top = name.partition(".")[0]
    file = (globals or {}).get("__file__")
    if level == 0 and file:
        for root, names in list(_own.items()):
            if top in names and is_below(str(file), root):
                name = own_name(name, root)
                _load_own(name.partition(".")[0], names[top], root)
                break
    return _import(name, globals, locals, fromlist, level)


def _load_own(name: str, place: Path, root: Path) -> None:
    if name in sys.modules:
        return
    file = place / "__init__.py" if place.is_dir() else place
    import_file(file, name, root)


def import_file(file: Path, name: str, root: Path) -> ModuleType:
    """Import a file of the run's code under a name."""
    existing = sys.modules.get(name)
    if existing is not None and getattr(existing, "__file__", None) == str(file):
        return existing
    package = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=package)
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
