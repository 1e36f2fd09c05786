"""The environments that a cache holds: what is in them, how large they are, when they were used last."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from digitalhub_python_builder.environments import MARKER

_sizes: dict[tuple[Path, int], int] = {}
"""An environment has thousands of files, and stays as it was made: it is measured once."""


@dataclass(frozen=True)
class Kept:
    """An environment in the cache."""

    folder: Path
    python_version: str
    requirements: tuple[str, ...]
    """With the runtime's own, without logins."""
    size: int | None
    """Bytes on the disk, files that uv's cache shares among them; None: not measured yet."""
    used: float
    """Seconds since 1970."""

    @property
    def python(self) -> Path:
        """What a run's command begins with."""
        return self.folder / "bin" / "python"


def listing(cache: Path, patience: float = 1.0) -> list[Kept]:
    """The environments that are whole, the one used last first. To be listed is not to be used.

    Args:
        cache: as for `ensure_environment`.
        patience: seconds, after which no other one is measured.
    """
    found, ends = [], time.monotonic() + patience
    for folder in cache.glob("environments/python*"):
        marker = folder / MARKER
        try:
            content = json.loads(marker.read_text(encoding="utf-8"))
            requirements = tuple(str(line) for line in content["requirements"])
            used, made = marker.stat().st_mtime, folder.stat().st_mtime_ns
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being made or removed, or not ours
        key = folder, made
        if key not in _sizes and time.monotonic() < ends:
            _sizes[key] = _size(folder)
        version = folder.name[len("python") :].partition("-")[0]
        found.append(Kept(folder, version, requirements, _sizes.get(key), used))
    return sorted(found, key=lambda one: one.used, reverse=True)


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(place, name).lstat().st_blocks * 512
    return total
