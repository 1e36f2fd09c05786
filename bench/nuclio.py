"""Under Nuclio's processor: its own wrapper, ours, and our own server in its place: `python bench/nuclio.py`.

One worker, 100 B of JSON in and out, all of them in turn in one session, so that what is compared is
a ratio. Where no processor is found (on PATH, at $NUCLIO_PROCESSOR) the tests' driver takes its part,
without HTTP. Nuclio's own wrapper is measured where $NUCLIO_REFERENCE_WRAPPER names it and
$NUCLIO_REFERENCE_PYTHON an interpreter with nuclio-sdk and msgpack.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measure

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
import msgspec  # noqa: E402
from nuclio.driver import WRAPPER, Processor, event  # noqa: E402
from nuclio.processor import Real, find, free_port  # noqa: E402

BODY = (
    '{"a":1,"b":[1,2,3],"name":"somebody with a name","text":"lorem ipsum dolor sit amet consect"}'
)
CODE = {
    "json": "def handler(context, event):\n    return event.body\n",
    "log": "def handler(context, event):\n    context.logger.info('one record')\n    return event.body\n",
    "async": "async def handler(context, event):\n    return event.body\n",
}
REFERENCE = os.environ.get("NUCLIO_REFERENCE_WRAPPER", "")
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Figures:
    """One contestant with one handler; medians of the rounds."""

    ready_s: list[float] = field(default_factory=list)
    first_answer_s: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    worker_cpu_us: list[float] = field(default_factory=list)
    total_cpu_us: list[float] = field(default_factory=list)
    worker_mib: list[float] = field(default_factory=list)
    total_mib: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--handlers", default=",".join(CODE), help="of these: %(default)s")
    options = parser.parse_args()
    has_processor = find() is not None and shutil.which("wrk") is not None
    wrappers = (
        {"reference": REFERENCE, "ours": str(WRAPPER)} if REFERENCE else {"ours": str(WRAPPER)}
    )
    figures: dict[str, Figures] = {}
    for _ in range(options.rounds):
        for handler in options.handlers.split(","):
            for name, wrapper in wrappers.items():
                if has_processor:
                    took = figures.setdefault(f"processor + {name}, {handler}", Figures())
                    under_processor(took, handler, wrapper, options)
                took = figures.setdefault(f"driver + {name}, {handler}", Figures())
                under_driver(took, handler, wrapper, options.seconds)
            if has_processor and handler != "log":
                took = figures.setdefault(f"our own server, {handler}", Figures())
                own_server(took, handler, options)
    result = {name: medians(found) for name, found in figures.items()}
    measure.save("nuclio", {"rounds": options.rounds, "connections": options.connections, "results": result, "ratios": ratios(result)})  # fmt: skip
    columns = list(Figures.__dataclass_fields__)
    rows = [("", *columns)]
    rows += [(name, *(str(found.get(c, "")) for c in columns)) for name, found in result.items()]
    print(measure.table(rows))
    for name, ratio in ratios(result).items():
        print(f"{name}: {ratio}")


def under_processor(took: Figures, handler: str, wrapper: str, options: Any) -> None:
    with folder_with(handler) as folder:
        processor = Real(folder, wrapper=Path(wrapper), python=python_of(wrapper), wait=False,
                         spec={"loggerSinks": [{"level": "warn"}]})  # fmt: skip
        with processor:
            processor.wait_ready()
            took.ready_s.append(time.perf_counter() - processor.started)
            processor.call(BODY, content_type="application/json")
            took.first_answer_s.append(time.perf_counter() - processor.started)
            (worker,) = processor.workers()
            load(
                took,
                processor.port,
                [worker],
                [processor.process.pid, worker, *children(worker)],
                options,
            )


def own_server(took: Figures, handler: str, options: Any) -> None:
    port, management = free_port(), free_port()
    with folder_with(handler) as folder:
        ready = folder / "ready"
        start = time.perf_counter()
        process = subprocess.Popen(
            [shutil.which("dhpy", path=str(Path(sys.executable).parent)) or "dhpy", "serve",
                  f"{folder}/main.py:handler", "--port", str(port), "--management-port", str(management)],
            env={**os.environ, "DHPY_READY_FILE": str(ready)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not ready.exists():
                assert process.poll() is None, "our own server did not start"
                time.sleep(0.005)
            took.ready_s.append(time.perf_counter() - start)
            wrk(port, 0.2, options.connections)
            workers = children(process.pid)
            load(took, port, workers, [process.pid, *workers], options)
        finally:
            process.terminate()
            process.wait()


def under_driver(took: Figures, handler: str, wrapper: str, seconds: float) -> None:
    frame = msgspec.msgpack.encode(
        event(BODY, content_type="application/json", headers={"Host": "localhost", "User-Agent": "bench", "Content-Type": "application/json"})
    )  # fmt: skip
    with (
        folder_with(handler) as folder,
        Processor(
            folder, wrapper=Path(wrapper), python=python_of(wrapper), stderr=subprocess.DEVNULL
        ) as processor,
    ):
        processor.keep = False
        took.ready_s.append(processor.ready_after)
        latencies = []
        for _ in range(300):
            processor.send(frame)
            processor.answer()
        pid = processor.process.pid
        before, end = cpu([pid]), time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            processor.send(frame)
            processor.answer()
            latencies.append(time.perf_counter() - start)
        took.worker_cpu_us.append((cpu([pid]) - before) / len(latencies) * 1e6)
        took.rate.append(len(latencies) / seconds)
        took.p99_ms.append(sorted(latencies)[int(len(latencies) * 0.99)] * 1e3)
        took.worker_mib.append(memory([pid]))
        took.total_mib.append(memory([pid, *children(pid)]))


def load(took: Figures, port: int, workers: list[int], everyone: list[int], options: Any) -> None:
    wrk(port, 0.3, options.connections)
    before, before_all = cpu(workers), cpu(everyone)
    output = wrk(port, options.seconds, options.connections)
    count = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    assert "Non-2xx" not in output, output
    took.rate.append(float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]))  # type: ignore[index]
    took.p99_ms.append(milliseconds(re.search(r"^ +99% +(\S+)", output, re.M)[1]))  # type: ignore[index]
    took.worker_cpu_us.append((cpu(workers) - before) / count * 1e6)
    took.total_cpu_us.append((cpu(everyone) - before_all) / count * 1e6)
    took.worker_mib.append(memory(workers))
    took.total_mib.append(memory(everyone))


def wrk(port: int, seconds: float, connections: int) -> str:
    url = f"http://127.0.0.1:{port}/"
    return measure.wrk(url, f"'{BODY}'", "application/json", connections, seconds)


def milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def python_of(wrapper: str) -> str:
    theirs = os.environ.get("NUCLIO_REFERENCE_PYTHON", sys.executable)
    return theirs if wrapper == REFERENCE else sys.executable


@contextlib.contextmanager
def folder_with(handler: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.py").write_text(CODE[handler])
        yield Path(folder)


def cpu(pids: list[int]) -> float:
    """Seconds of user and system time of processes."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(f[11]) + int(f[12]) for f in fields) / TICK


def memory(pids: list[int]) -> float:
    """MiB of processes, what they share counted once."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return total / 1024


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def medians(found: Figures) -> dict[str, float]:
    return {k: round(statistics.median(v), 3) for k, v in vars(found).items() if v}


def ratios(result: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ours over the reference's; the aims are 1/2 of the CPU, and 3 times the rate by our own server."""
    found = {}
    for handler in CODE:
        for part in ("processor", "driver"):
            ours, theirs = (
                result.get(f"{part} + ours, {handler}"),
                result.get(f"{part} + reference, {handler}"),
            )
            if ours and theirs:
                found[f"CPU per event, {part}, {handler}"] = (
                    ours["worker_cpu_us"] / theirs["worker_cpu_us"]
                )
                found[f"rate, {part}, {handler}"] = ours["rate"] / theirs["rate"]
        own, theirs = (
            result.get(f"our own server, {handler}"),
            result.get(f"processor + reference, {handler}"),
        )
        if own and theirs:
            found[f"rate of our own server over the processor, {handler}"] = (
                own["rate"] / theirs["rate"]
            )
    return {name: round(value, 2) for name, value in found.items()}


if __name__ == "__main__":
    main()
