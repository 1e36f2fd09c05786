"""A pod as DigitalHub Core starts one when a task asks for nothing: 0.1 CPU, 282 MiB: `python bench/pods.py`.

A trivial job and one that returns a frame, from `docker run` to their exit; a service, from `docker run` to its
first answer, its requests per second and per second of CPU under `wrk` with 8 connections, its memory. Noise on
the machine disturbs requests per second of CPU least. Builds the images, with an
engine that it starts itself, as the tests do.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "images")]
import docker_engine  # noqa: E402
from nuclio.core import Core  # noqa: E402
from parts import BaseImages, docker, free_port  # noqa: E402
from test_core_pods import SCRIPT as COMMAND  # noqa: E402
from test_core_pods import pod  # noqa: E402

JOB = "def f(a=1, b=2):\n    return a + b\n"
FRAME = "import pandas as pd\ndef f(): return pd.DataFrame({'n': range(1000)})\n"
SERVICE = "def f(context, event):\n    return event.body\n"
BODY = '{"a":1,"b":"some 20 b"}'
RUNTIME = "msgspec\ndigitalhub-runtime-python\n"
# Without [full], whose polars and mlcroissant pip would fetch: that is the network's time.
SDK = "digitalhub\ndigitalhub-runtime-python\n"
# Measured on a real Core and a real cluster, in the same limits.
SECONDS = 8
"""Of a measurement of requests."""
UPSTREAM = {"job_s": 29.0, "frame_s": 30.0, "service_s": 12.7, "requests_per_s": 291.0, "memory_mib": 246.0}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--python", default="3.11")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; Debian has it: apt-get install wrk")
    if reason := docker_engine.absent():
        print(f"bench/pods.py is left out: {reason}")
        return
    with docker_engine.engine() as host:
        os.environ["DOCKER_HOST"] = host
        image = BaseImages()
        report(image(options.python, "slim"), image(options.python, "full"), options.rounds)


def report(slim: str, full: str, rounds: int) -> None:
    """Measure, print the table, keep the figures."""
    seen: dict[str, list[float]] = {name: [] for name in UPSTREAM}
    for _ in range(rounds):
        seen["job_s"].append(job(slim, JOB, RUNTIME))
        for name, value in service(slim).items():
            seen.setdefault(name, []).append(value)
    for _ in range(3):
        seen["frame_s"].append(job(full, FRAME, SDK))
    medians = {name: statistics.median(values) for name, values in seen.items()}
    measure.save("pods", {"ours": medians, "upstream, on a cluster": UPSTREAM, "all": seen})
    for name, value in medians.items():
        of = UPSTREAM.get(name)
        beside = f"   upstream {of:6.1f}   {value / of:.2f}" if of else ""
        print(f"{name:22} {value:8.2f}{beside}")


def job(image: str, code: str, requirements: str) -> float:
    """Seconds from `docker run` to the container's end."""
    with started(image, code, requirements, "job") as (_core, command):
        begin = time.perf_counter()
        done = subprocess.run(command("--rm"), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        return time.perf_counter() - begin


def service(image: str) -> dict[str, float]:
    """Seconds from `docker run` to the first answer, requests per second and per second of CPU, MiB after them."""
    port = free_port()
    ports = {"DHPY_PORT": str(port), "DHPY_MANAGEMENT_PORT": str(free_port())}
    with started(image, SERVICE, RUNTIME, "serve") as (_core, command):
        begin = time.perf_counter()
        name = subprocess.run(
            command("--detach", **ports), capture_output=True, text=True, check=True
        ).stdout.strip()
        try:
            while not answers(port):
                time.sleep(0.01)
                if time.perf_counter() - begin > 60:
                    raise SystemExit(docker("logs", name).stderr)
            start = time.perf_counter() - begin
            before = cpu_seconds(name)
            per_s, p99 = rate(port)
            used = cpu_seconds(name) - before
            return {
                "service_s": start,
                "requests_per_s": per_s,
                "requests_per_cpu_s": per_s * SECONDS / used if used else 0.0,
                "p99_ms": p99,
                "memory_mib": memory(name),
            }
        finally:
            docker("rm", "--force", name)


@contextlib.contextmanager
def started(image: str, code: str, requirements: str, action: str) -> Iterator[tuple[Core, Any]]:
    with tempfile.TemporaryDirectory() as folder, Core(code, action=action) as core:
        home = Path(folder) / "home"
        core.files(home, requirements=requirements)
        home.parent.chmod(0o755)
        store = {
            "DHCORE_DEFAULT_FILES_STORE": "s3://bucket",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{core.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret-secret",
            "AWS_REGION": "us-east-1",
        }
        yield (
            core,
            lambda *options, **env: pod(core, home, image, COMMAND, *options, **store, **env),
        )


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("POST", "/", BODY, {"Content-Type": "application/json"})
            return connection.getresponse().status == 200
        except OSError:
            return False


def rate(port: int) -> tuple[float, float]:
    """Requests per second, and the 99th percentile of their times in ms."""
    said = measure.wrk(f"http://127.0.0.1:{port}/", f"'{BODY}'", "application/json", 8, SECONDS)
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(said)
    number, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s)", said)[0]
    p99 = float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0]), p99


def cpu_seconds(name: str) -> float:
    """Of the container's processes, those that have ended included; with either version of cgroups."""
    pid = docker("inspect", "--format", "{{.State.Pid}}", name).stdout.strip()
    for line in Path(f"/proc/{pid}/cgroup").read_text("utf-8").splitlines():
        _, controllers, group = line.split(":", 2)
        if "cpuacct" in controllers.split(","):
            for top in ("/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/cpu,cpuacct"):
                if (file := Path(f"{top}{group}/cpuacct.usage")).exists():
                    return int(file.read_text("utf-8")) / 1e9
        if not controllers and (file := Path(f"/sys/fs/cgroup{group}/cpu.stat")).exists():
            return int(file.read_text("utf-8").split()[1]) / 1e6
    return 0.0


def memory(name: str) -> float:
    used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", name).stdout
    return float(used.partition("MiB")[0])


if __name__ == "__main__":
    main()
