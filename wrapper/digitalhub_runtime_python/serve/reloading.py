"""Whether the code has changed, for `dhpy serve --reload`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path


def changes(root: Path) -> Iterator[bool]:
    """Whether a Python file below `root` has changed since the last look; the first look is now.

    A large tree is looked at less often: looking takes a twentieth of the time at most.
    """
    # Not in the generator, whose body begins late: an edit after the code was loaded would be missed.
    return _changes(root, _stamps(root))


def _changes(root: Path, before: dict[str, tuple[int, int]]) -> Iterator[bool]:
    look_at = 0.0
    while True:
        if (start := time.monotonic()) < look_at:
            yield False
            continue
        now = _stamps(root)
        look_at = start + 20 * (time.monotonic() - start)
        yield now != before
        before = now


def _stamps(root: Path) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [
            f
            for f in folders
            if not f.startswith(".")
            and f not in ("__pycache__", "node_modules")
            and not (Path(folder) / f / "pyvenv.cfg").exists()
        ]
        for name in files:
            if name.endswith(".py"):
                with contextlib.suppress(OSError):  # an editor is just replacing it
                    path = Path(folder) / name
                    stat = path.stat()
                    found[str(path)] = (stat.st_mtime_ns, stat.st_size)
    return found
