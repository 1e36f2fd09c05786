"""Folders and files of the cache: for their owner alone, and whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def cache_of(environ: Mapping[str, str]) -> Path:
    """`DHPY_CACHE`, or a folder below the user's cache."""
    home = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or "/tmp", ".cache")  # noqa: S108
    return Path(environ.get("DHPY_CACHE") or Path(home, "digitalhub-python"))


def folder(path: Path, top: Path | None = None) -> Path:
    """`path`, made where it is absent, with 0700; one of ours that has wider modes is tightened.

    Args:
        top: the cache itself, which is treated likewise, with all that lies between.

    Raises:
        OSError: it cannot be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    between = [
        one for one in path.parents if top is not None and (one == top or top in one.parents)
    ]
    for one in (path, *between):
        found = one.stat()
        if found.st_mode & 0o077 and found.st_uid == os.geteuid():
            one.chmod(0o700)
    return path


def keep(file: Path, content: str, cache: Path) -> None:
    """Write a file of the cache: 0600, and never half of it.

    Raises:
        OSError: it cannot be written.
    """
    folder(file.parent, cache)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as new:
        new.write(content)
    Path(new.name).replace(file)
