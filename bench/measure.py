"""Times whole processes in turn, A B A B …, so that a machine whose speed drifts is fair to both."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from digitalhub_python_builder.interpreters import find_uv

RESULTS = Path(__file__).parent / "results"


@dataclass
class Sample:
    """One finished process."""

    wall: float
    """Seconds from start to exit."""
    cpu: float
    """Seconds of user and system time, children included."""
    memory: float
    """MiB of resident memory at its highest."""


def run(command: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> Sample:
    """Run a command to its end; a command that fails is shown whole and ends the measurement."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{command} exited with {process.returncode}:\n{output.decode()}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def in_turn(
    contestants: dict[str, Callable[[], Sample]], rounds: int = 5, warmup: int = 1
) -> dict[str, list[Sample]]:
    """Run every contestant `rounds` times, in turn, after `warmup` rounds that do not count."""
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    for number in range(warmup + rounds):
        for name, contestant in contestants.items():
            sample = contestant()
            if number >= warmup:
                samples[name].append(sample)
    return samples


def environment(folder: Path, python: str, packages: list[str]) -> None:
    """Make a virtual environment with what is compared to; a folder that is half made is none."""
    uv = find_uv()
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    subprocess.run([uv, "venv", "-q", "--relocatable", "--python", python, str(part)], check=True)
    interpreter = str(part / "bin" / "python")
    subprocess.run([uv, "pip", "install", "-q", "-p", interpreter, *packages], check=True)
    part.rename(folder)


def wrk(url: str, body: str | None, content_type: str, connections: int, seconds: float) -> str:
    """What wrk prints of a load of POSTs on one thread.

    Args:
        body: an expression of Lua; None for an empty body.
    """
    lines = ["wrk.method = 'POST'"]
    if body is None:
        lines += ["wrk.headers['Content-Length'] = '0'"]
    else:
        lines += [f"wrk.body = {body}", f"wrk.headers['Content-Type'] = '{content_type}'"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write("\n".join(lines))
        script.flush()
        command = ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        command += ["--timeout", "30s", "-s", script.name, url]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def median(samples: list[Sample], figure: str) -> float:
    return statistics.median(getattr(s, figure) for s in samples)


def ratio(samples: dict[str, list[Sample]], ours: str, theirs: str, figure: str) -> float:
    """Median of ours/theirs, pair by pair."""
    pairs = zip(samples[ours], samples[theirs])
    return statistics.median(getattr(a, figure) / getattr(b, figure) for a, b in pairs)


def save(name: str, value: object) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as a Markdown table; the first one is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
