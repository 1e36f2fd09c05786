"""Compiles what the runtime imports of the standard library, where the base image has no bytecode of it.

python:3.x-slim comes without, and a user who may not write there compiles it at each start: seconds in
a pod of 0.1 CPU. Run while an image is built: `python3 -B images/bytecode.py LIST FOLDER`; LIST has the files
that the base image has, FOLDER becomes /usr/local.
"""

from __future__ import annotations

import importlib
import py_compile
import sys
import sysconfig
from pathlib import Path

USED = (
    "entry",
    "lifecycle",
    "hub.core",
    "nuclio.standin",
    "nuclio.worker",
    "nuclio.turns",
    "serve.supervisor",
)
"""Modules of the runtime whose imports a job, a service and a worker of Nuclio's share."""


def main(there: set[str], folder: Path) -> None:
    for name in USED:
        importlib.import_module(f"digitalhub_runtime_python.{name}")
    importlib.import_module("uvloop")
    library = Path(sysconfig.get_path("stdlib"))
    for module in list(sys.modules.values()):
        source, compiled = getattr(module, "__file__", None), getattr(module, "__cached__", None)
        if not source or not compiled or library not in Path(source).parents:
            continue
        if "site-packages" in source or not source.endswith(".py") or compiled in there:
            continue
        target = folder / Path(compiled).relative_to("/usr/local")
        # Nothing changes in an image: the source is never looked at, and its time is not in the file.
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(source, str(target), source, doraise=True, invalidation_mode=mode)


if __name__ == "__main__":
    main(set(Path(sys.argv[1]).read_text().split()), Path(sys.argv[2]))
