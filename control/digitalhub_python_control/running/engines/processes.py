"""Processes of this machine: told apart from later ones of the same pid, and ended."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digitalhub_python_control.running.engines import keeper
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


def is_alive(process: Process) -> bool:
    """Whether this very process runs; one that has ended and was not reaped does not."""
    return bool(process.born) and process.boot == _boot() and _born(process.pid) == process.born


def ask_to_end(process: Process) -> None:
    """Send SIGTERM; nothing where it is gone."""
    _send(process, signal.SIGTERM)


def end_tree(process: Process) -> None:
    """Kill all that descends from a keeper, which then writes down how it ended; or the keeper itself.

    To be repeated as long as it is alive: a keeper that has nothing to keep, or was stopped, is killed.
    """
    if not is_alive(process):
        return
    below = keeper.descendants(process.pid)
    for pid in below:
        kill(pid)
    _send(process, signal.SIGCONT if below else signal.SIGKILL)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def marked(mark: bytes) -> list[int]:
    """Our processes that carry `mark`, `NAME=value`, in their environment; Linux alone lets us look."""
    found: list[int] = []
    for entry in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _send(process: Process, number: int) -> None:
    """Send a signal to this very process: a pidfd cannot come to mean another one."""
    if not hasattr(os, "pidfd_open"):
        if is_alive(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        return
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        if is_alive(process):
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def read_claim(path: Path) -> Process | None:
    """Who claimed an attempt; None where nobody did."""
    text = read_text(path)
    return None if text is None else process_of(text)


def process_of(claim: str) -> Process:
    """The process of a claim, which keeper.py writes: pid, start time, boot."""
    lines = [*claim.split("\n"), "", "", ""]
    # A file that a crash of the machine has emptied still says that it was claimed.
    pid = int(lines[0]) if lines[0].isdigit() else 0
    return Process(pid, _start_time(lines[1]), lines[2].strip())


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
