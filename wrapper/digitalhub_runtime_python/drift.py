"""What an image has beside what its lock says: named at the start, before it is somebody's riddle.

Read from the names of folders: the metadata of seventy packages take 0.1 s to read on one CPU, in a pod a second.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

log = logging.getLogger(__name__)

LOCK = Path("/opt/function/requirements.txt")
"""Where an image has its lock; nothing else has a file there."""

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.M)


@lru_cache(maxsize=8)
def warn(lock: Path = LOCK, path: tuple[str, ...] | None = None) -> None:
    """Say, once per process, which packages differ from the lock of this image; nothing where there is no lock."""
    try:
        text = lock.read_text("utf-8")
    except OSError:
        return
    found = differences(text, sys.path if path is None else path)
    if found:
        more = f" and {len(found) - 10} more" if len(found) > 10 else ""
        log.warning(
            "This environment is not what was locked for the function: %s%s. Build its image again, "
            "or do not install over it.",
            ", ".join(found[:10]),
            more,
        )


def differences(lock: str, path: Sequence[str]) -> list[str]:
    """`name 1.0 (locked: 2.0)` for each package that is absent or has another version; the first on the path counts."""
    installed: dict[str, str] = {}
    for folder in path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - names are all that is needed
        except OSError:
            continue
        for name in names:
            if name.endswith(".dist-info"):
                package, _, version = name[: -len(".dist-info")].rpartition("-")
                installed.setdefault(_canonical(package), version)
    found = []
    for name, version in _PIN.findall(lock):
        has = installed.get(_canonical(name))
        if has is None:
            found.append(f"{name} is not installed (locked: {version})")
        elif has.replace("_", "-") != version.replace("_", "-"):
            found.append(f"{name} {has} (locked: {version})")
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
