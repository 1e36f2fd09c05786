"""Builds of one function's image: ours, and upstream's order of the Dockerfile with pip, on the same base.

    python bench/build.py [--python 3.11]

Starts a Docker Engine where none answers, and builds the base images. Size over the base, a cold build, a
rebuild after an edit of the code, and one with nothing changed; and a container's cold start.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
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
    return found


def starts(base: str, slim: str, place: Path) -> dict[str, float]:
    """Seconds of `docker run`: the bare interpreter, the runtime, a job to its reported status."""
    entity = {
        "id": "r", "project": "p", "kind": "python+job:run",
        "spec": {"source": {"code": "def f(a, b): return a + b", "handler": "f"}, "parameters": {"a": 1, "b": 2}},
    }  # fmt: skip
    (place / "run.json").write_text(json.dumps(entity))
    place.chmod(0o755)
    run = ["run", "--rm", "--network=none"]
    job = ["-v", f"{place}/run.json:/run.json:ro", "-e", "DHPY_RUN_FILE=/run.json", slim, "job"]
    kinds = {
        "bare interpreter": [*run, base, "python3", "-c", "pass"],
        "+ our image": [*run, "--entrypoint=python3", slim, "-c", "pass"],
        "+ init process": [*run, "--entrypoint=/usr/bin/tini", slim, "--", "python3", "-c", "pass"],
        "+ entry point (version)": [*run, slim, "version"],
        "+ a job, to its report": [*run, *job],
    }
    samples: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(12):
        for name, command in kinds.items():
            taken = seconds(lambda command=command: docker(*command))
            if number:
                samples[name].append(taken)
    return {name: statistics.median(taken) for name, taken in samples.items()}


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
        import bases

        bases.ensure(python)
        for flavour in ("slim", "full"):
            command = [sys.executable, "images/build.py", "--python", python, "--flavour", flavour]
            command += ["--network", "host", "--docker", docker_engine.debian_client()]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
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
        started = starts(base, slim, place)
    peer = built["upstream's order"]
    rows = [("measure", "ours", "upstream's order, pip", "ratio")]
    for key, text in [("cold", "cold build"), ("edit", "rebuild after a code edit"), ("same", "nothing changed")]:  # fmt: skip
        mine = built["ours"][key]
        rows.append((text, f"{mine:.2f} s", f"{peer[key]:.2f} s", f"1/{peer[key] / mine:.1f}"))
    for name, size in list(sizes.items())[1:]:
        rows.append((f"{name} over its base", f"{size - sizes[base]:.0f} MB", "≈ 830 MB", ""))
    before = started["bare interpreter"]
    for name, taken in started.items():
        rows.append((f"docker run: {name}", f"{taken:.3f} s", "", f"{taken - before:+.3f} s"))
        before = taken
    print(measure.table(rows))
    measure.save("build", {"sizes_mb": sizes, "builds_s": built, "starts_s": started})


if __name__ == "__main__":
    main()
