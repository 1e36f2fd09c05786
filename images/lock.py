"""Writes images/locks: one lock per Python and flavour, and one for the build stage.

python images/lock.py             lock what is missing, keep the versions that are there
python images/lock.py --upgrade   take the newest versions
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from digitalhub_python_builder.locks import lock, lock_alone
from digitalhub_python_builder.requirement_files import Wanted
from digitalhub_runtime_python.errors import EnvironmentFault

HERE = Path(__file__).resolve().parent
LOCKS = HERE / "locks"


def main() -> None:
    matrix = json.loads((HERE / "matrix.json").read_text("utf-8"))
    upgrade = "--upgrade" in sys.argv[1:]
    for python in matrix["pythons"]:
        for flavour in matrix["flavours"]:
            target = LOCKS / f"{python}-{flavour}.txt"
            old = target.read_text("utf-8") if target.exists() and not upgrade else ""
            try:
                new = lock(Wanted(), python, "linux/amd64", flavour=flavour, preferred=old)
            except EnvironmentFault as exc:
                if python in matrix["required"]:
                    raise
                print(f"{target.name}: {exc}")
                continue
            _write(target, new)
    target = LOCKS / "build.txt"
    old = target.read_text("utf-8") if target.exists() and not upgrade else ""
    _write(target, lock_alone(["uv>=0.8"], "3.9", "linux/amd64", preferred=old))


def _write(target: Path, text: str) -> None:
    head = "# Made by images/lock.py; do not edit.\n"
    target.write_text(head + text, "utf-8")
    print(f"{target.name}: {text.count('==')} packages")


if __name__ == "__main__":
    main()
