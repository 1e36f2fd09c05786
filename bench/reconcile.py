"""CPU of the control plane per trivial run, with few and with many of them queued.

    .venvs/3.11/bin/python bench/reconcile.py [--queued 10 50 200 800 10000] [--running 1000]

Two runs hold the two places while the others are stored; then they let go, and the first `SAMPLE` that
end are what is measured: the server and what it starts runs with, never the runs themselves. `--running`
starts so many services' worth of sleeping jobs and measures a minute of doing nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SAMPLE = 200
"""Runs that are waited for, of however many are queued."""
_TICKS = os.sysconf("SC_CLK_TCK")
CODE = """import os, time
def f(gate=""):
    while gate and not os.path.exists(gate):
        time.sleep(0.05)
"""


class Plane:
    """A control plane in a folder of its own."""

    def __init__(self, jobs: int) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="dhpy-bench-"))
        env = {k: v for k, v in os.environ.items() if not k.startswith("DHPY_")}
        env.update(DHPY_HOME=str(self.home), DHPY_PORT="0", DHPY_MAX_JOBS=str(jobs))
        with (self.home / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "digitalhub_python_control"], env=env, stdout=log, stderr=log
            )
        while not (self.home / "server.json").exists():
            if self.process.poll() is not None:
                raise SystemExit((self.home / "server.log").read_text())
            time.sleep(0.05)
        where = urlsplit(json.loads((self.home / "server.json").read_text())["url"])
        self._http = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
        self._task = self._function()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json"}
        self._http.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._http.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return json.loads(text) if text[:1] in b"{[" else text.decode()

    def _function(self) -> str:
        self.ask("POST", "/api/v1/projects", {"name": "bench", "kind": "project"})
        version = f"PYTHON{sys.version_info[0]}_{sys.version_info[1]}"
        source = {"handler": "f", "code": CODE, "source": "main.py"}
        spec = {"source": source, "python_version": version}
        function = {"kind": "python", "name": "f", "spec": spec}
        made = self.ask("POST", "/api/v1/-/bench/functions", function)
        spec = {"function": f"python://bench/f:{made['id']}"}
        task = self.ask("POST", "/api/v1/-/bench/tasks", {"kind": "python+job", "spec": spec})
        return f"python+job://bench/{task['id']}"

    def run(self, **parameters: Any) -> None:
        spec = {"task": self._task, "parameters": parameters}
        self.ask("POST", "/api/v1/-/bench/runs", {"kind": "python+job:run", "spec": spec})

    def count(self, state: str) -> int:
        for line in self.ask("GET", "/metrics").splitlines():
            if line.startswith(f'dhpy_runs{{state="{state}"}}'):
                return int(float(line.rpartition(" ")[2]))
        return 0

    def cpu(self) -> float:
        """Seconds of the server and of those of its children that are not a run."""
        pids = [self.process.pid]
        listed = Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text().split()
        pids += [int(pid) for pid in listed if b"keeper" in _command(int(pid))]
        return sum(_cpu(pid) for pid in pids)

    def close(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for claim in self.home.glob("*/*/*/attempt-*/started"):
            pid = int(claim.read_text().split()[0])
            if _command(pid) != b"":
                os.killpg(pid, signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def per_run(queued: int) -> tuple[float, float]:
    """Milliseconds of CPU per run: to take it in, and to bring it to its end."""
    plane = Plane(jobs=2)
    try:
        gate = plane.home / "gate"
        for _ in range(2):
            plane.run(gate=str(gate))
        while plane.count("RUNNING") < 2:
            time.sleep(0.2)
        time.sleep(1)
        begin = plane.cpu()
        for _ in range(queued):
            plane.run()
        time.sleep(2)
        stored = plane.cpu()
        gate.touch()
        wanted = min(queued, SAMPLE)
        while (ended := plane.count("COMPLETED")) < wanted:
            time.sleep(1)
        return 1000 * (stored - begin) / queued, 1000 * (plane.cpu() - stored) / ended
    finally:
        plane.close()


def idle(running: int) -> float:
    """Per cent of one CPU while so many jobs sleep."""
    plane = Plane(jobs=running)
    try:
        for _ in range(running):
            plane.run(gate=str(plane.home / "gate"))
        while plane.count("RUNNING") < running:
            time.sleep(2)
        time.sleep(5)
        begin, at = plane.cpu(), time.monotonic()
        time.sleep(130)
        return 100 * (plane.cpu() - begin) / (time.monotonic() - at)
    finally:
        plane.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--queued", type=int, nargs="*", default=[10, 50, 200, 800])
    parser.add_argument("--running", type=int, default=0)
    chosen = parser.parse_args()
    print("| queued | to take in, ms | to run, ms | CPU per run, ms |\n|---|---|---|---|")
    for queued in chosen.queued:
        taken, ran = per_run(queued)
        print(f"| {queued} | {taken:.1f} | {ran:.1f} | {taken + ran:.1f} |", flush=True)
    if chosen.running:
        print(f"{chosen.running} running, nothing to do: {idle(chosen.running):.2f} % of a CPU")


if __name__ == "__main__":
    main()
