"""Builds of one function's image: ours, and upstream's order of the Dockerfile with pip, on the same base.

    python bench/build.py [--python 3.11]

Starts a Docker Engine where none answers, and builds the base images. Size over the base, a cold build, a
rebuild after an edit of the code, and one with nothing changed, in process and as `dhpy build`; and a
container's cold start, step by step, beside that of an interpreter that does nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Callable

import measure

from digitalhub_python_builder.build import Options, build
from digitalhub_python_builder.context import code_of
from digitalhub_runtime_python.spec import FunctionSpec, SourceSpec

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ("scikit-learn==1.5.2", "pyyaml==6.0.2")
# Upstream's order: the code goes in first, so that any edit installs everything again; no lock.
UPSTREAM = """\
FROM {base}
USER root
COPY . /shared
WORKDIR /shared
RUN true
RUN python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check -r /shared/requirements.txt
USER 8877
"""


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def docker(*arguments: str, **kwargs: object) -> str:
    client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run([client, *arguments], env=env, check=True, capture_output=True, text=True, **kwargs)  # type: ignore[call-overload]  # fmt: skip
    return str(done.stdout).strip()


def ours(folder: Path, code: str, cache: Path, python: str) -> str:
    (folder / "main.py").write_text(code)
    function = FunctionSpec(
        "bench", SourceSpec(source="main.py", handler="f"), f"PYTHON{python.replace('.', '_')}",
        project="bench", requirements=REQUIREMENTS,
    )  # fmt: skip
    options = Options(flavour="slim", engine="docker", network="host")
    found = build(function, options, code=code_of(function.source, folder), cache=cache)
    return found.image.reference


def theirs(folder: Path, code: str, base: str) -> str:
    (folder / "main.py").write_text(code)
    (folder / "requirements.txt").write_text("\n".join(REQUIREMENTS))
    (folder / "Dockerfile").write_text(UPSTREAM.format(base=base))
    docker("build", "--quiet", "--network=host", "--tag", "bench/upstream", str(folder))
    return "bench/upstream"


def command(place: Path) -> float:
    """Seconds of `dhpy build` as a process, whose image exists."""
    (place / "code").mkdir()
    (place / "code" / "main.py").write_text("def f(): return 1\n")
    options = ["--flavour=slim", "--engine=docker", "--network=host", *(f"--requirement={one}" for one in REQUIREMENTS)]  # fmt: skip
    code = "from digitalhub_runtime_python.cli import main; main()"
    build_it = [sys.executable, "-c", code, "build", f"{place}/code/main.py:f", *options]
    env = {**os.environ, "DHPY_CACHE": str(place / "cache")}
    measure.run(build_it, env)
    return statistics.median(measure.run(build_it, env).wall for _ in range(7))


def builds(place: Path, python: str, base: str) -> dict[str, dict[str, float]]:
    """Seconds of each kind of build, by who builds."""
    found: dict[str, dict[str, float]] = {}
    mark = time.time_ns()  # nothing of an earlier measurement may count as built
    for name in ("ours", "upstream's order"):
        folder = place / name.split("'")[0]
        folder.mkdir()

        def make(code: str, name: str = name, folder: Path = folder) -> Callable[[], object]:
            if name == "ours":
                return lambda: ours(folder, code, place / "cache", python)
            return lambda: theirs(folder, code, base)

        # A cold build: no layer of it is known, the base is.
        (folder / "first").write_text(str(mark))
        cold = seconds(make(f"# {mark}\ndef f(): return 1\n"))
        edits = [seconds(make(f"# {mark}\ndef f(): return {n}\n")) for n in (2, 3, 4)]
        same = [seconds(make(f"# {mark}\ndef f(): return 4\n")) for _ in range(5)]
        found[name] = {
            "cold": cold,
            "edit": statistics.median(edits),
            "same": statistics.median(same),
        }
    found["ours"]["command"] = command(place)
    found["upstream's order"]["command"] = found["upstream's order"]["same"]
    return found


# What a job's container runs, with the time between two of its steps; the same is told by the function and the platform.
STAMPED = """
import time; began = time.time()
from digitalhub_runtime_python import entry
print("stamps", began, time.time(), flush=True)
raise SystemExit(entry.main(["job"]))
"""
FUNCTION = """
import time
LOADED = time.time()
def f(a, b):
    print("stamps", LOADED, time.time(), flush=True)
    return a + b
"""
SHELL = "date '+stamps %s.%N'; exec python3 --check-hash-based-pycs never -c \"$0\""
STEPS = (
    "docker run, to the first process", "init process and interpreter", "the runtime's imports",
    "its HTTP client, to the request for the run", "the platform's answer", "code unpacked and loaded",
    "arguments, to the call", "results, to the report", "the platform's answer to it",
)  # fmt: skip


class Platform:
    """One run behind its API, which notes when it is asked and when it has answered."""

    def __init__(self) -> None:
        source = {"code": FUNCTION, "handler": "f"}
        self.run = {
            "id": "r", "project": "p", "kind": "python+job:run", "status": {"state": "RUNNING"},
            "spec": {"source": source, "parameters": {"a": 1, "b": 2}},
        }  # fmt: skip
        self.asked: list[tuple[str, float, float]] = []
        platform = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                begun = time.time()
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.command == "PUT":
                    platform.run = json.loads(sent)
                body = json.dumps(platform.run).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                self.wfile.write(head.encode() + body)
                platform.asked.append((self.command, begun, time.time()))

            do_GET = do_PUT = answer

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


def cold_start(slim: str) -> dict[str, float]:
    """Seconds of each step from `docker run` to the status that the platform has been told."""
    platform = Platform()
    variables = {
        "PROJECT_NAME": "p", "RUN_ID": "r", "DHCORE_ENDPOINT": f"http://127.0.0.1:{platform.port}"
    }  # fmt: skip
    given = [f"--env={name}={value}" for name, value in variables.items()]
    entry = ["--entrypoint=/usr/bin/tini", slim, "--", "sh", "-c", SHELL, STAMPED]
    began = time.time()
    told = docker("run", "--rm", "--network=host", *given, *entry)
    ended = time.time()
    stamps = [float(n) for line in told.splitlines() for n in line.split()[1:] if line.startswith("stamps")]  # fmt: skip
    first, last = platform.asked[0], [one for one in platform.asked if one[0] == "PUT"][-1]
    results = platform.run["status"].get("results")  # type: ignore[attr-defined]
    if len(stamps) != 5 or results != {"output_0": 3}:
        raise SystemExit(f"{slim} did not report as it should: {platform.asked} {told}")
    shell, python, imported, loaded, called = stamps
    moments = [began, shell, python, imported, first[1], first[2], loaded, called, last[1], last[2]]
    found = {name: after - before for name, before, after in zip(STEPS, moments, moments[1:])}
    return {**found, "reported": last[2] - began, "end": ended - last[2], "whole": ended - began}


def bare_start(base: str) -> dict[str, float]:
    """The same of an interpreter that does nothing."""
    began = time.time()
    code = "import time; print('stamps', time.time())"
    told = docker("run", "--rm", "--network=host", base, "sh", "-c", SHELL, code)
    ended = time.time()
    shell, python = (float(line.split()[1]) for line in told.splitlines())
    steps = {STEPS[0]: shell - began, STEPS[1]: python - shell}
    return {**steps, "end": ended - python, "whole": ended - began}


def starts(base: str, slim: str) -> dict[str, dict[str, float]]:
    """Medians of both, of containers that were started in turn."""
    samples: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
    for number in range(16):
        for name, one in (("ours", cold_start(slim)), ("bare", bare_start(base))):
            if number:
                samples[name].append(one)
    return {
        name: {step: statistics.median(one[step] for one in found) for step in found[0]}
        for name, found in samples.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default="3.11")
    python = parser.parse_args().python
    sys.path.insert(0, str(ROOT / "tests" / "images"))
    import docker_engine

    if reason := docker_engine.absent():
        print(f"bench/build.py is left out: {reason}")
        return
    with docker_engine.engine() as host:
        os.environ["DOCKER_HOST"] = host
        from parts import BaseImages

        image = BaseImages()
        for flavour in ("slim", "full"):
            image(python, flavour)
        report(python)


def report(python: str) -> None:
    """Measure, print the table, keep the figures."""
    base, slim = f"python:{python}-slim-bookworm", f"digitalhub-runtime-python:{python}-slim"
    sizes = {
        name: int(docker("image", "inspect", "--format", "{{.Size}}", name)) / 1e6
        for name in (base, slim, slim.replace("-slim", "-full"))
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        built = builds(place, python, slim)
    started = starts(base, slim)
    peer = built["upstream's order"]
    rows = [("measure", "ours", "upstream's order, pip", "ratio")]
    for key, text in [("cold", "cold build"), ("edit", "rebuild after a code edit"), ("same", "nothing changed"), ("command", "nothing changed, as a command")]:  # fmt: skip
        mine = built["ours"][key]
        rows.append((text, f"{mine:.2f} s", f"{peer[key]:.2f} s", f"1/{peer[key] / mine:.1f}"))
    for name, size in list(sizes.items())[1:]:
        rows.append((f"{name} over its base", f"{size - sizes[base]:.0f} MB", "≈ 830 MB", ""))
    print(measure.table(rows))
    print()
    mine, bare = started["ours"], started["bare"]
    rows = [("a job's container, cold", "ours", "bare interpreter", "over it")]
    for step in (*STEPS, "reported", "end", "whole"):
        text = {"reported": "= docker run to reported status", "end": "exit, and the engine's end of it", "whole": "= the whole docker run"}.get(step, step)  # fmt: skip
        # Nothing is reported there: the nearest to it is that the interpreter has begun.
        other = bare.get(step, bare[STEPS[0]] + bare[STEPS[1]] if step == "reported" else 0.0)
        rows.append((text, f"{1e3 * mine[step]:.0f} ms", f"{1e3 * other:.0f} ms" if other else "–", f"{1e3 * (mine[step] - other):+.0f} ms"))  # fmt: skip
    print(measure.table(rows))
    measure.save("build", {"sizes_mb": sizes, "builds_s": built, "starts_s": started})


if __name__ == "__main__":
    main()
