"""Processes of this machine: started, told apart from later ones of the same pid, ended."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digitalhub_python_control.running.plain_files import read_text

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_START_TIME = 19
"""Place of the start time among the fields of /proc/<pid>/stat that follow the name."""


@dataclass(frozen=True)
class Process:
    """A process, for good: a pid is used again, a pid with its start time is not."""

    pid: int
    born: str
    """Start time, in clock ticks since the boot or as ps prints it; empty where nobody could tell."""
    boot: str
    """The boot that `born` counts from; empty where the system does not name it."""

    def to_json(self) -> dict[str, Any]:
        return {"pid": self.pid, "born": self.born, "boot": self.boot}

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> Process:
        return cls(int(obj["pid"]), str(obj.get("born") or ""), str(obj.get("boot") or ""))


def spawn(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start `command` in a session of its own, its output added to the file `log`.

    Not subprocess.Popen: that insists on being waited for by whoever started it, and these
    processes outlive us.

    Raises:
        OSError: it cannot be started, or the log cannot be opened.
        ValueError: a name or value of the environment is not possible.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        command[0],
        list(command),
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        # A server ignores some signals; its children must not.
        setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT],
        setsigmask=[],
    )
    return Process(pid, _born(pid) or "", _boot())


def is_alive(process: Process) -> bool:
    """Whether this very process runs; one that has ended and was not reaped does not."""
    return bool(process.born) and process.boot == _boot() and _born(process.pid) == process.born


def reap(process: Process) -> int | None:
    """Let a child that has ended go.

    Returns:
        None while it runs; its exit status, 128 + n for a signal; 0 also for what is no child.
    """
    try:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    if pid == 0:
        return None
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def end_group(process: Process, *, force: bool) -> None:
    """Send SIGTERM, or SIGKILL, to the process and all of its group; nothing where it is gone."""
    # The check and the signal are two steps, but a pid is not used again as long as its group is.
    if is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def group_members(process: Process, mark: bytes) -> list[int]:
    """The processes of the group that `process` led and that carry `mark` in their environment.

    Only Linux lets us look; elsewhere the list is empty.
    """
    found: list[int] = []
    if process.pid <= 0:
        return found
    for entry in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = _stat_fields((entry / "stat").read_text(encoding="utf-8", errors="replace"))
            if int(fields[2]) == process.pid and mark in (entry / "environ").read_bytes().split(
                b"\0"
            ):
                found.append(int(entry.name))
    return found


def read_claim(path: Path) -> Process | None:
    """Who claimed an attempt (shim.sh writes it): a file of pid, start time and boot."""
    text = read_text(path)
    if text is None:
        return None
    lines = [*text.split("\n"), "", "", ""]
    # A file that a crash of the machine has emptied still says that it was claimed.
    pid = int(lines[0]) if lines[0].isdigit() else 0
    return Process(pid, _start_time(lines[1]), lines[2])


def _born(pid: int) -> str | None:
    if not _BOOT_ID.exists():
        listed = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return listed.stdout.strip() or None
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ESRCH):
            return None
        raise
    return None if _stat_fields(stat)[0] in ("Z", "X") else _start_time(stat)


@functools.lru_cache(maxsize=1)
def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def _start_time(text: str) -> str:
    """The start time out of a line of /proc/<pid>/stat, or what ps printed as it is."""
    if ")" not in text:
        return text.strip()
    return _stat_fields(text)[_START_TIME]


def _stat_fields(stat: str) -> list[str]:
    # The name stands in brackets and may hold anything, brackets and blanks included.
    return stat.rpartition(")")[2].split()
