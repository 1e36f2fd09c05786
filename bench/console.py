"""How long the console's pages and the API's lists take with many runs and functions, over HTTP.

    .venvs/3.11/bin/python bench/console.py [--runs 10000] [--functions 1000] [--rounds 15]

The store is filled directly, with runs as a job leaves them; then a control plane is started on it. Each
row is a median of milliseconds, with the server's CPU beside it, and the bytes of the answer.
"""

from __future__ import annotations

import argparse
import copy
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from digitalhub_python_control.store import times
from digitalhub_python_control.store.store import Store

_TICKS = os.sysconf("SC_CLK_TCK")
_STATES = ("COMPLETED",) * 8 + ("ERROR", "STOPPED")
PAGES = {
    "first page": "/console/p/bench/runs",
    "last page": "/console/p/bench/runs?page={last}",
    "by state": "/console/p/bench/runs?state=ERROR",
    "by function": "/console/p/bench/runs?function=f7",
    "by text": "/console/p/bench/runs?q=run-000",
    "by time": "/console/p/bench/runs?created={since}",
    "functions": "/console/p/bench/functions",
    "one run": "/console/p/bench/runs/run-{middle:06}",
    "API: runs": "/api/v1/-/bench/runs?size=20",
    "API: functions": "/api/v1/-/bench/functions?size=20",
}


def fill(home: Path, runs: int, functions: int) -> None:
    """Store what so many jobs have left."""
    store = Store(f"sqlite:///{home}/dhpy.db")
    began = time.time() - runs
    store.create("projects", _entity("projects", "project", "bench", "bench", began))
    for number in range(functions):
        entity = _entity("functions", "python", f"f{number}", f"f{number:06}", began + number)
        entity["spec"] = {"source": {"handler": "f", "source": "main.py", "base64": "cHJpbnQoMSkK" * 50}, "python_version": "PYTHON3_11"}  # fmt: skip
        store.create("functions", entity)
    for number in range(runs):
        name = f"run-{number:06}"
        run = _entity("runs", "python+job:run", name, name, began + number)
        function = number % max(functions, 1)
        run["spec"] = {
            "task": "python+job://bench/t", "function": f"python://bench/f{function}:f{function:06}", "parameters": {"a": number, "text": "x" * 800},
            "source": {"handler": "f", "source": "main.py", "base64": "cHJpbnQoMSkK" * 100}, "local_execution": False,
        }  # fmt: skip
        state = _STATES[number % len(_STATES)]
        run["status"] = {"state": state, "results": {"output_0": number}, "transitions": [{"status": "COMPLETED", "time": run["metadata"]["created"]}]}  # fmt: skip
        store.create("runs", copy.deepcopy(run))
    store.close()


def _entity(plural: str, kind: str, name: str, identity: str, moment: float) -> dict[str, Any]:
    at = times.text(int(moment * 1e6))
    return {
        "id": identity, "project": "bench", "name": name, "kind": kind, "key": f"store://bench/{plural}/{kind}/{name}:{identity}",
        "metadata": {"project": "bench", "name": name, "created": at, "updated": at}, "spec": {}, "status": {"state": "CREATED"}, "user": "bench",
    }  # fmt: skip


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--functions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="dhpy-bench-"))
    fill(home, asked.runs, asked.functions)
    env = {k: v for k, v in os.environ.items() if not k.startswith("DHPY_")}
    env.update(DHPY_HOME=str(home), DHPY_PORT="0")
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "digitalhub_python_control"], env=env, stdout=log, stderr=log)  # fmt: skip
    try:
        while not (home / "server.json").exists():
            if server.poll() is not None:
                raise SystemExit((home / "server.log").read_text())
            time.sleep(0.05)
        where = urlsplit(json.loads((home / "server.json").read_text())["url"])
        http_ = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
        words = {"last": asked.runs // 20 - 1, "middle": asked.runs // 2, "since": times.text(int((time.time() - asked.runs / 2) * 1e6))}  # fmt: skip
        print(
            f"{asked.runs} runs, {asked.functions} functions\n{'':>16}{'ms':>8}{'CPU ms':>8}{'KiB':>8}"
        )
        for name, path in PAGES.items():
            took, before = [], _cpu(server.pid)
            for _ in range(asked.rounds):
                start = time.perf_counter()
                http_.request("GET", path.format(**words))
                answer = http_.getresponse()
                data = answer.read()
                took.append(time.perf_counter() - start)
                assert answer.status == 200, (path, answer.status, data[:300])
            cpu = (_cpu(server.pid) - before) / asked.rounds
            print(f"{name:>16}{1e3 * statistics.median(took):8.1f}{1e3 * cpu:8.1f}{len(data) / 1024:8.1f}")  # fmt: skip
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
