"""Runs a program and hands on each line that it writes, as it comes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Callable

Log = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """How a program ended."""

    status: int
    lines: tuple[str, ...]
    """Its output, standard error included."""

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def run(command: Sequence[str], environ: Mapping[str, str], log: Log | None = None) -> Finished:
    """Run `command` to its end; `log` takes each line."""
    lines: list[str] = []
    with subprocess.Popen(
        list(command),
        env=dict(environ),
        cwd=os.sep,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for mypy
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                if log is not None and lines[-1]:
                    log(lines[-1])
        except BaseException:
            # Whoever stops the build must not leave it running.
            process.terminate()
            raise
    return Finished(process.returncode, tuple(lines))
