"""Services, measured beside functions-framework, Flask + gunicorn, FastAPI + uvicorn and bare uvicorn: `make bench`.

All of them answer the same requests of `wrk` in turn in one session, so that what is compared is a
ratio. Peers are installed once, into ~/.cache/digitalhub-python/bench. `--soak 600` measures our
memory under steady load instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import measure

HERE = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache" / "digitalhub-python" / "bench"
UVICORN = "0.54.0"
PEERS = ["functions-framework", "flask", "gunicorn", "fastapi", f"uvicorn[standard]=={UVICORN}"]
JSON_BODY = (
    '{"a":1,"b":[1,2,3],"name":"somebody with a name","text":"lorem ipsum dolor sit amet consect"}'
)
BODIES = {"empty": None, "100 B JSON": JSON_BODY, "1 MB": 1_000_000}

_OURS = f"{sys.executable} -m digitalhub_runtime_python serve"
_UVICORN = "--port {port} --workers {workers} --no-access-log --log-level warning"
# Name -> its command; {port}, {workers} and {python}, the peers' interpreter, are filled in.
SERVERS = {
    "ours, def": _OURS,
    "ours, async def": _OURS,
    "ours, def with arguments": _OURS,
    "functions-framework": "{python} -m functions_framework --source serve_apps.py "
    "--target function --port {port} --host 127.0.0.1",
    "Flask + gunicorn": "{python} -m gunicorn -w {workers} --threads 4 -b 127.0.0.1:{port} "
    "serve_apps:flask",
    "FastAPI + uvicorn, def": "{python} -m uvicorn serve_apps:fastapi_sync " + _UVICORN,
    "FastAPI + uvicorn, async def": "{python} -m uvicorn serve_apps:fastapi_async " + _UVICORN,
    "bare uvicorn": "{python} -m uvicorn serve_apps:bare --lifespan off " + _UVICORN,
}
OURS = {
    "ours, def": "ours",
    "ours, async def": "ours_async",
    "ours, def with arguments": "ours_named",
}


@dataclass
class Figures:
    """One server under one load."""

    rate: float
    p50: float
    p99: float
    failed: bool


def main() -> None:
    options = _options()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; Debian has it: apt-get install wrk")
    if options.soak:
        soak(options.soak)
        return
    rows = [measured(workers, options) for workers in options.workers]
    result = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "uvicorn": UVICORN,
        "connections": options.connections,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "results": [row for part in rows for row in part],
    }
    result["ratios"] = ratios(result["results"])
    measure.save("serve", result)
    print(tables(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each; the median counts")  # fmt: skip
    parser.add_argument("--only", nargs="+", default=list(SERVERS), help="names of servers")
    parser.add_argument("--soak", type=float, help="seconds of steady load; memory at its end")
    return parser.parse_args()


def peers() -> str:
    """The python of the environment that has the peers."""
    python = CACHE / f"serve-peers-{platform.python_version()}-{UVICORN}" / "bin" / "python"
    if not python.exists():
        print(f"installing {', '.join(PEERS)}", flush=True)
        measure.environment(python.parent.parent, sys.executable, PEERS)
    return str(python)


def measured(workers: int, options: argparse.Namespace) -> list[dict]:
    """Every server with so many workers: start, load with each body in turn, memory."""
    results: dict[str, dict] = {}
    figures: dict[tuple[str, str], list[Figures]] = {}
    memory: dict[tuple[str, str], tuple[float, float]] = {}
    with contextlib.ExitStack() as stack:
        running = {}
        for name in options.only:
            starts = []
            for _ in range(options.rounds):
                with served(name, workers) as (_, took, _):
                    starts.append(took)
            process, _, url = stack.enter_context(served(name, workers))
            running[name] = process, url
            results[name] = {"server": name, "workers": workers}
            results[name]["ready_s"] = round(statistics.median(starts), 3)
        for kind in BODIES:
            for round_ in range(-1, options.rounds):
                for name, (_, url) in running.items():
                    if name == "ours, def with arguments" and kind != "100 B JSON":
                        continue
                    seconds = 0.5 if round_ < 0 else options.seconds
                    got = load(url, kind, options.connections, seconds)
                    if round_ >= 0:
                        figures.setdefault((name, kind), []).append(got)
            for name, (process, _) in running.items():
                memory[name, kind] = round(largest(process.pid), 1), round(total(process.pid), 1)
            print(f"{workers} worker(s), {kind}: done", flush=True)
    for (name, kind), several in figures.items():
        results[name][kind] = {
            "req_s": round(statistics.median(f.rate for f in several)),
            "p50_ms": round(statistics.median(f.p50 for f in several), 2),
            "p99_ms": round(statistics.median(f.p99 for f in several), 2),
            "failed": any(f.failed for f in several),
            "rss_mib": memory[name, kind][0],
            "pss_total_mib": memory[name, kind][1],
        }
    return list(results.values())


@contextlib.contextmanager
def served(name: str, workers: int) -> Iterator[tuple[subprocess.Popen, float, str]]:
    """A server that answers; the seconds from its start to its first answer; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    python = "" if name in OURS else peers()
    fill = {"python": python, "port": port, "workers": workers}
    command = SERVERS[name].format(**fill).split()
    env = {**os.environ, "WORKERS": str(workers), "PYTHONPATH": ""}
    with tempfile.TemporaryDirectory() as place:
        if name in OURS:
            env.update(_ours(name, Path(place), port, workers))
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=HERE / "peers", env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            _wait(process, port)
            took = time.perf_counter() - start
            yield process, took, f"http://127.0.0.1:{port}/"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _ours(name: str, place: Path, port: int, workers: int) -> dict[str, str]:
    run = {
        "id": "bench",
        "project": "bench",
        "kind": "python+serve:run",
        "spec": {
            "source": {"source": str(HERE / "peers" / "serve_apps.py"), "handler": OURS[name]}
        },
    }
    (place / "run.json").write_text(json.dumps(run))
    return {
        "DHPY_RUN_FILE": str(place / "run.json"),
        "DHPY_WORKSPACE": str(place),
        "DHPY_PORT": str(port),
        "DHPY_MANAGEMENT_PORT": "0",
        "DHPY_WORKERS": str(workers),
    }


def _wait(process: subprocess.Popen, port: int) -> None:
    request = (
        f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(JSON_BODY)}\r\nConnection: close\r\n\r\n{JSON_BODY}"
    ).encode()
    give_up = time.monotonic() + 60
    while True:
        assert process.poll() is None, f"{process.args} has ended"
        assert time.monotonic() < give_up, f"{process.args} does not answer"
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(request)
                answer = client.recv(1000)
        except OSError:
            answer = b""
        if answer:
            assert b" 200 " in answer, answer
            return
        time.sleep(0.005)


def load(url: str, kind: str, connections: int, seconds: float) -> Figures:
    """What wrk measures."""
    body = BODIES[kind]
    if isinstance(body, int):
        text = measure.wrk(url, f"string.rep('x', {body})", "application/octet-stream", connections, seconds)  # fmt: skip
    else:
        quoted = None if body is None else f"'{body}'"
        text = measure.wrk(url, quoted, "application/json", connections, seconds)
    if " requests in" not in text or "nan" in text:
        raise SystemExit(f"{url} does not answer {kind} under load:\n{text}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
    return Figures(
        rate,
        _milliseconds(re.search(r"^\s+50%\s+(\S+)", text, re.M)[1]),
        _milliseconds(re.search(r"^\s+99%\s+(\S+)", text, re.M)[1]),
        "Non-2xx" in text or "Socket errors" in text,
    )


def _milliseconds(text: str) -> float:
    number, unit = re.match(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def largest(pid: int) -> float:
    """MiB of resident memory of the largest process of a server: a worker, after load."""
    return max(_kib(p, "status", "VmRSS") for p in tree(pid)) / 1024


def total(pid: int) -> float:
    """MiB of a whole server, shared pages counted once."""
    return sum(_kib(p, "smaps_rollup", "Pss") for p in tree(pid)) / 1024


def _kib(pid: int, file: str, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.M)
    return int(match[1]) if match else 0


def ratios(results: list[dict]) -> dict[str, float]:
    """The aims of the design: one worker, JSON in and out."""
    kind = "100 B JSON"
    one = {r["server"]: r[kind]["req_s"] for r in results if r["workers"] == 1 and kind in r}
    found = {}
    for ours in (name for name in OURS if name in one):
        for peer in (name for name in one if name not in OURS):
            found[f"{ours} / {peer}"] = round(one[ours] / one[peer], 2)
    return found


def tables(result: dict) -> str:
    head = (
        "server",
        "workers",
        "body",
        "req/s",
        "p50 ms",
        "p99 ms",
        "RSS MiB",
        "all MiB",
        "ready s",
    )
    rows = [head]
    for r in result["results"]:
        for kind in BODIES:
            if kind in r:
                f = r[kind]
                rows.append((
                    r["server"], str(r["workers"]), kind, f"{f['req_s']:,}" + (" !" if f["failed"] else ""),
                    str(f["p50_ms"]), str(f["p99_ms"]), str(f["rss_mib"]), str(f["pss_total_mib"]),
                    str(r["ready_s"]),
                ))  # fmt: skip
    shown = [("ratio of req/s, 1 worker, 100 B JSON", "")]
    shown += [(name, f"{value:.2f}") for name, value in result["ratios"].items()]
    return measure.table(rows) + "\n\n" + measure.table(shown)


def soak(seconds: float) -> None:
    """Steady load of all kinds of requests; resident memory after the first minute and at the end."""
    samples: list[tuple[float, float]] = []
    with served("ours, def", 1) as (process, _, url):
        stop = threading.Event()
        counts = [0]
        threads = [
            threading.Thread(target=_steady, args=(url, stop, counts, n), daemon=True)
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        start = time.monotonic()
        while (now := time.monotonic() - start) < seconds:
            samples.append((round(now, 1), round(largest(process.pid), 2)))
            time.sleep(min(5.0, seconds / 20))
        samples.append((round(now, 1), round(largest(process.pid), 2)))
        stop.set()
        for thread in threads:
            thread.join()
    first = next(rss for at, rss in samples if at >= min(60.0, seconds / 5))
    last = samples[-1][1]
    result = {
        "seconds": seconds,
        "requests": counts[0],
        "rss_after_a_minute_mib": first,
        "rss_at_the_end_mib": last,
        "growth_percent": round(100 * (last - first) / first, 2),
        "samples": samples,
    }
    measure.save("serve_soak", result)
    print(json.dumps({k: v for k, v in result.items() if k != "samples"}, indent=2))


def _steady(url: str, stop: threading.Event, counts: list[int], n: int) -> None:
    """JSON, large bodies, errors and new connections, some hundred a second."""
    import http.client

    address = url.removeprefix("http://").strip("/")
    kinds = [
        (JSON_BODY.encode(), {"Content-Type": "application/json"}),
        (b"x" * 100_000, {"Content-Type": "text/plain"}),
        (b'{"a": 1}', {"Content-Type": "application/json"}),  # the function raises
        (b"{broken", {"Content-Type": "application/json"}),
    ]
    connection = http.client.HTTPConnection(address, timeout=30)
    while not stop.is_set():
        body, headers = kinds[counts[0] % len(kinds)]
        connection.request("POST", f"/{counts[0]}", body, headers)
        connection.getresponse().read()
        counts[0] += 1
        if counts[0] % 100 == n:
            connection.close()
        time.sleep(0.005)
    connection.close()


if __name__ == "__main__":
    main()
