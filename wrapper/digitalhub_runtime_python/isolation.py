"""Keeps runs that share a process apart: each has sys.path and sys.modules as if it were alone."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Optional

from digitalhub_runtime_python import shadows
from digitalhub_runtime_python.error_report import is_below

LOCK = threading.RLock()
"""sys.path and sys.modules belong to the whole process: one run at a time changes them."""

Aside = dict[str, tuple[ModuleType, Optional[Path]]]
"""Module name -> the module that is set aside, and the folder of the run that it is of, if of one."""


@contextlib.contextmanager
def importable(root: Path) -> Iterator[Aside]:
    """Put `root` on sys.path; on leaving, forget what was imported from it.

    Modules of the process that have the name of one in `root` are set aside meanwhile, into the
    dict that `come_first` takes: the code's own `utils.py` is what its `import utils` means, whatever the
    caller, or another run, has imported.
    """
    aside: Aside = {}
    with LOCK:
        path, modules = set(sys.path), dict(sys.modules)
        sys.path.insert(0, str(root))
        _forget_finders(root)
    try:
        yield aside
    finally:
        with LOCK:
            # Before sys.path changes: a folder without __init__.py is looked up on it again each time.
            for name, module in [i for i in list(sys.modules.items()) if _lies_in(i[1], root)]:
                if modules.get(name) is not module:
                    del sys.modules[name]
            if str(root) in sys.path:
                sys.path.remove(str(root))
            for entry in [e for e in sys.path if e not in path and is_below(e, root)]:
                sys.path.remove(entry)
            shadows.forget(root)
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
    return {root for m in modules if (root := m.__dict__.get(shadows.ROOT_MARK)) is not None}


def come_first(root: Path, folders: list[Path], aside: Aside) -> None:
    """Put `root`, and then its `folders`, first on sys.path, and set aside what hides one of their modules.

    Called once for a run, with the lock held, before anything of it is imported.
    """
    names: dict[str, bool] = {}
    own = [p for folder in [root, *folders] for p in folder.iterdir()]
    shadows.take(root, [p for p in own if p.suffix == ".py" or (p / "__init__.py").exists()])
    for folder in [root, *folders]:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        sys.path.insert(0, str(folder))
        # A folder without __init__.py hides nothing but another such folder.
        names.update({p.name: (p / "__init__.py").exists() for p in folder.iterdir() if p.is_dir()})
        names.update({p.stem: True for p in folder.glob("*.py") if p.stem != "__main__"})
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
