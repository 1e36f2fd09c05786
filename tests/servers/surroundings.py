"""An environment for tests of what runs other programs: nothing of the machine's own settings."""

from __future__ import annotations

import os
from pathlib import Path


def clean_environ(home: Path, **more: str) -> dict[str, str]:
    """PATH, an empty home, no proxy, no settings of git; and what is given."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **more,
    }


def files_below(folder: Path) -> dict[str, str]:
    """Relative path -> text of every file, or `-> target` of a link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_text(errors="replace")
    return found
