"""Jobs, measured beside digitalhub-runtime-python 0.15.2 on one control plane: `make bench`.

Both sides run in turn in one session, so that what is compared is a ratio. Peers are installed once, into
~/.cache/digitalhub-python/bench.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import measure

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path.home() / ".cache" / "digitalhub-python" / "bench"
FLOOR = {"wall": 0.001, "memory": 0.1}
"""Seconds, MiB: a difference below this is below what can be measured."""
PEER = "digitalhub-runtime-python==0.15.2"
ROUNDS = int(os.environ.get("ROUNDS", "7"))

CODE = "def f(a=1, b=2):\n    return a + b\n"
LOCAL_SCRIPT = """
import digitalhub as dh
p = dh.get_or_create_project("bench")
f = p.new_function(name="f", kind="python", code=CODE, handler="f", python_version="PYTHON3_11")
run = f.run("job", parameters={"a": 1}, local_execution=True)
assert run.result("output_0") == 3, run.status.to_dict()
""".replace("CODE", repr(CODE))
REMOTE_SCRIPT = """
import digitalhub as dh, time, json, sys
p = dh.get_or_create_project("bench")
f = p.new_function(name="f", kind="python", code=CODE, handler="f", python_version="PYTHON3_11")
def one():
    start = time.time()
    run = f.run("job", parameters={"a": 1}, wait=True, log_info=False)
    took = time.time() - start
    assert run.status.state == "COMPLETED", run.status.to_dict()
    times = {t["status"]: t["time"] for t in run.status.to_dict().get("transitions", [])}
    return took, times
print(json.dumps([one() for _ in range(ROUNDS)]))
""".replace("CODE", repr(CODE))


def peer() -> str:
    """The python of the environment that has the published packages."""
    python = CACHE / "upstream-0.15.2" / "bin" / "python"
    if not python.exists():
        print(f"installing {PEER}", flush=True)
        measure.environment(python.parent.parent, "3.11", [PEER])
    return str(python)


class ControlPlane:
    """A server of our own on a free port, in a folder that goes with it."""

    def __init__(self, home: Path) -> None:
        env = {**os.environ, "DHPY_HOME": str(home), "DHPY_PORT": "0"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "digitalhub_python_control"], env=env
        )
        ready = home / "server.json"
        while not ready.exists():
            time.sleep(0.05)
            assert self.process.poll() is None, "the control plane did not start"
        self.url = json.loads(ready.read_text())["url"]
        dhpy = str(Path(sys.executable).with_name("dhpy"))
        shown = subprocess.run([dhpy, "env", "--json"], env=env, check=True, capture_output=True)
        # Both sides write no bytecode and read no profile of the user's.
        self.env = {**os.environ, **json.loads(shown.stdout), "HOME": str(home)}

    def requests(self) -> int:
        """How many API requests it has answered."""
        with urllib.request.urlopen(self.url + "/metrics") as response:
            lines = response.read().decode().splitlines()
        return int(sum(float(s.split()[-1]) for s in lines if s.startswith("dhpy_requests_total")))

    def call(self, method: str, path: str, body: object) -> dict:
        request = urllib.request.Request(
            self.url + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request) as response:
            return json.loads(response.read())

    def new_run(self) -> str:
        """A run that waits for somebody to execute it: local, so that no engine takes it."""
        source = {
            "source": "main.py",
            "handler": "f",
            "base64": base64.b64encode(CODE.encode()).decode(),
        }
        base = "/api/v1/-/bench"
        function = self.call(
            "POST",
            f"{base}/functions",
            {
                "name": "direct",
                "kind": "python",
                "project": "bench",
                "spec": {"source": source, "python_version": "PYTHON3_11"},
            },
        )
        reference = f"python://bench/direct:{function['id']}"
        task = self.call(
            "POST",
            f"{base}/tasks",
            {"kind": "python+job", "project": "bench", "spec": {"function": reference}},
        )
        spec = {
            "function": reference,
            "task": f"python+job://bench/{task['id']}",
            "local_execution": True,
            "source": source,
            "parameters": {"a": 1, "b": 2},
            "python_version": "PYTHON3_11",
        }
        return str(
            self.call(
                "POST",
                f"{base}/runs",
                {
                    "kind": "python+job:run",
                    "project": "bench",
                    "spec": spec,
                    "status": {"state": "CREATED"},
                },
            )["id"]
        )

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def main() -> None:
    ours, theirs = sys.executable, peer()
    rows = [("measure", "ours", "published 0.15.2", "ratio", "aim")]
    figures: dict[str, object] = {}

    def row(name: str, unit: str, a: float, b: float, aim: str, ratio: float | None = None) -> None:
        shown = ratio if ratio is not None else a / b
        rows.append(
            (
                name,
                f"{a:.3g} {unit}",
                f"{b:.3g} {unit}",
                f"1/{1 / shown:.1f}" if shown < 1 else f"{shown:.2f}",
                aim,
            )
        )
        figures[name] = {"ours": a, "published": b, "ratio": shown, "unit": unit, "aim": aim}

    def compare(name: str, samples: dict, figure: str, unit: str, aim: str) -> None:
        row(
            name,
            unit,
            measure.median(samples["ours"], figure),
            measure.median(samples["theirs"], figure),
            aim,
            measure.ratio(samples, "ours", "theirs", figure),
        )

    with tempfile.TemporaryDirectory() as folder:
        plane = ControlPlane(Path(folder))
        try:
            env = plane.env
            statement = "from digitalhub_runtime_python import handler"
            imports = measure.in_turn(
                {
                    "ours": lambda: measure.run([ours, "-c", statement], env),
                    "theirs": lambda: measure.run([theirs, "-c", statement], env),
                    "bare": lambda: measure.run([ours, "-c", "pass"], env),
                },
                ROUNDS,
            )
            compare("import handler, whole process", imports, "wall", "s", "")
            bare = {f: measure.median(imports["bare"], f) for f in ("wall", "memory")}
            for figure, unit, aim in (("wall", "s", "≤ 1/40"), ("memory", "MiB", "≤ 1/10")):
                a, b = (
                    max(measure.median(imports[w], figure) - bare[figure], FLOOR[figure])
                    for w in ("ours", "theirs")
                )
                row(f"import handler over the bare interpreter, {figure}", unit, a, b, aim)

            plane.call(
                "POST",
                "/api/v1/projects",
                {"name": "bench", "kind": "project", "spec": {}, "metadata": {}},
            )

            def job(command: list[str]) -> measure.Sample:
                return measure.run(
                    command,
                    {**env, "PROJECT_NAME": "bench", "RUN_ID": plane.new_run()},
                    Path(folder),
                )

            jobs = measure.in_turn(
                {
                    "ours": lambda: job([ours, "-m", "digitalhub_runtime_python", "job"]),
                    "theirs": lambda: job([theirs, str(ROOT / "bench/peers/upstream_job.py")]),
                },
                ROUNDS,
            )
            for figure, unit in (("wall", "s"), ("cpu", "s"), ("memory", "MiB")):
                compare(
                    f"trivial job, start to reported status, {figure}",
                    jobs,
                    figure,
                    unit,
                    "≤ 1/6" if figure != "memory" else "",
                )

            counts: dict[str, int] = {}

            def local(who: str, python: str) -> measure.Sample:
                before = plane.requests()
                sample = measure.run([python, "-c", LOCAL_SCRIPT], env, Path(folder))
                counts[who] = plane.requests() - before - 1  # the one that asked
                return sample

            locals_ = measure.in_turn(
                {
                    "ours": lambda: local("ours", ours),
                    "theirs": lambda: local("theirs", theirs),
                    "sdk": lambda: measure.run([ours, "-c", "import digitalhub"], env),
                },
                ROUNDS,
            )
            compare("trivial local run, whole script", locals_, "wall", "s", "")
            sdk = measure.median(locals_["sdk"], "wall")
            row(
                "trivial local run over `import digitalhub`",
                "s",
                measure.median(locals_["ours"], "wall"),
                sdk,
                "≤ 1.10",
            )
            row("trivial local run, requests", "", counts["ours"], counts["theirs"], "≤ 8")

            def remote(python: str) -> float:
                script = REMOTE_SCRIPT.replace("ROUNDS", "4")
                out = subprocess.run(
                    [python, "-c", script],
                    env=env,
                    cwd=folder,
                    check=True,
                    capture_output=True,
                    text=True,
                )
                # The first run makes the environment; the others are what a user waits for each time.
                return sorted(took for took, _ in json.loads(out.stdout.splitlines()[-1])[1:])[1]

            row(
                "remote job, run(wait=True)",
                "s",
                remote(ours),
                remote(theirs),
                "≤ 0.5 s over its work",
            )
        finally:
            plane.stop()
    measure.save("job", figures)
    print(measure.table(rows))


if __name__ == "__main__":
    main()
