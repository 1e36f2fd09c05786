"""Control groups of Linux (version 2), where this user may make them: they hold all that a run starts."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import signal
from pathlib import Path


@functools.lru_cache(maxsize=1)
def home() -> Path | None:
    """The control group of this process, where it may have groups below it; None where there is none."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        own = next(line[3:] for line in lines if line.startswith("0::"))
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        mount = next(line.split()[4] for line in mounts if " - cgroup2 " in line)
        folder = Path(f"{mount}/{own.lstrip('/')}")
        trial = folder / f"dhpy-trial-{os.getpid()}"
        trial.mkdir()
        trial.rmdir()
    except (OSError, StopIteration):
        return None
    # Without this a process cannot be moved from here into a group below.
    return folder if os.access(folder / "cgroup.procs", os.W_OK) else None


def make(name: str) -> str:
    """The folder of a new group of that name, or of the one that there is; "" where there can be none."""
    place = home()
    if place is None:
        return ""
    folder = place / f"dhpy-{hashlib.sha256(name.encode()).hexdigest()[:24]}"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return ""
    return str(folder)


def kill(folder: str) -> None:
    """End everything in a group, and remove it where that is done; nothing where there is none."""
    if not folder or not os.path.isdir(folder):  # noqa: PTH112 - the common case, and the hot one
        return
    place = Path(folder)
    with contextlib.suppress(OSError):
        if (place / "cgroup.kill").exists():
            (place / "cgroup.kill").write_text("1", encoding="ascii")
        else:  # before Linux 5.14
            for pid in (place / "cgroup.procs").read_text(encoding="ascii").split():
                os.kill(int(pid), signal.SIGKILL)
        place.rmdir()
