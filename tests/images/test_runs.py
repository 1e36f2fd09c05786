"""Builds, jobs and services through the SDK on the control plane, in containers."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cases import USERS
from parts import ROOT, BaseImages, docker

import digitalhub_python_control
from digitalhub_python_control.clientenv import client_environment
from digitalhub_python_control.settings import ControlSettings

# The seeds' example, with pins that have wheels for this Python and fit each other.
BUILD_EXAMPLE = """
    function = project.new_function(
        name="build-example", kind="python", python_version="PYTHON3_11",
        code="def main():\\n    import numpy, pandas, sklearn\\n    return [numpy.__name__, pandas.__name__, sklearn.__version__]\\n",
        handler="main",
        requirements=["numpy", 'pandas>1, <3', "scikit-learn==1.5.2"],
    )
    build = function.run("build", instructions=["apt-get install -y git"], wait=True)
    assert build.status.state == "COMPLETED", build.status.to_dict()
    log = "".join(text_of(one) for one in build.logs())
    function = project.get_function("build-example")
    run = function.run("job", wait=True)
    assert run.status.state == "COMPLETED", run.status.to_dict()
    git = subprocess.run([DOCKER, "run", "--rm", "--entrypoint", "git", function.spec.image, "--version"], capture_output=True, text=True)
    print(json.dumps({"image": function.spec.image, "run_image": build.image, "status": build.status.to_dict(), "log": log,
                      "results": run.status.results, "git": git.stdout}))
"""
HEAD = """
    import base64, json, os, subprocess, time
    import digitalhub as dh
    DOCKER = os.environ["TEST_DOCKER"]
    def text_of(one):
        return one.text or "" if hasattr(one, "text") else base64.b64decode(one.get("content") or "").decode()
    project = dh.get_or_create_project("containers")
"""


class Plane:
    """The control plane in a process of its own, with the Docker run engine."""

    def __init__(self, home: Path, **environ: str) -> None:
        own = {k: v for k, v in os.environ.items() if not k.startswith(("DHCORE", "AWS_", "S3_"))}
        self._env = {**own, "DHPY_HOME": str(home), "DHPY_PORT": "0", "DHPY_ENGINE": "docker", "DHPY_BUILD_NETWORK": "host", **environ}  # fmt: skip
        self._home = home
        self.start()

    def start(self) -> None:
        (self._home / "server.json").unlink(missing_ok=True)
        with (self._home / "server.log").open("ab") as log:
            command = [sys.executable, "-m", digitalhub_python_control.__name__]
            self.process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log)
        give_up = time.monotonic() + 60
        while not (self._home / "server.json").exists():
            assert self.process.poll() is None and time.monotonic() < give_up, self.log()
            time.sleep(0.05)
        self.url = json.loads((self._home / "server.json").read_text())["url"]

    def log(self) -> str:
        return (self._home / "server.log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(30)

    def run(
        self, code: str, *arguments: str, cwd: Path | None = None, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """Run a script that uses the SDK."""
        settings = ControlSettings.from_env(self._env)
        env = {**self._env, **client_environment(self.url, settings, {})}
        env["TEST_DOCKER"] = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
        # SDK 0.15 announces what 0.16 will call its methods; 0.14 knows no other names.
        env["PYTHONWARNINGS"] = "ignore"
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(
            command, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, (
            f"{done.stdout[-3000:]}{done.stderr[-3000:]}\n{self.log()[-3000:]}"
        )
        return done

    def script(self, code: str) -> Any:
        """Run a script that uses the SDK; the JSON of its last line."""
        done = self.run(textwrap.dedent(HEAD) + textwrap.dedent(code))
        return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def plane(base_image: BaseImages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    base_image("3.11", "full")
    home = tmp_path_factory.mktemp("plane")
    started = Plane(home, DHPY_CACHE=str(tmp_path_factory.mktemp("cache")))
    yield started
    started.stop()


def _function(code: str, **spec: str) -> str:
    arguments = ", ".join(f"{k}={v}" for k, v in spec.items())
    return f'project.new_function(name="f", kind="python", python_version="PYTHON3_11", handler="f", code={textwrap.dedent(code)!r}, {arguments})'


def test_the_build_example_of_the_docs_builds_and_its_job_imports_what_it_asks_for(
    plane: Plane,
) -> None:
    # The engine outlives a test run; what exists is not built again, nor what its instructions made.
    for name in ("dhpy/containers-build-example", "dhpy/prepared"):
        every = ["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={name}"]
        for image in docker(*every).stdout.split():
            docker("rmi", "--force", image)
    found = plane.script(BUILD_EXAMPLE)
    assert found["results"] == {"output_0": ["numpy", "pandas", "1.5.2"]}
    assert found["git"].startswith("git version")
    assert found["image"] == found["run_image"] == found["status"]["build"]["image"]
    assert found["status"]["build"]["digest"].startswith("sha256:")
    dockerfile = base64.b64decode(found["status"]["dockerfile"]).decode()
    assert "apt-get install -y git" in dockerfile and dockerfile.startswith("#")
    assert "Successfully built" in found["log"], "the build's output is the run's log"


def test_jobs_run_in_containers_with_their_variables_secrets_limits_and_volumes(
    plane: Plane,
) -> None:
    code = """
        import os, pathlib
        def f(a: int):
            kept = pathlib.Path('/keep/count')
            count = int(kept.read_text()) + 1 if kept.exists() else 1
            kept.write_text(str(count))
            pathlib.Path('/scratch/x').write_text('x')
            limit = next(p for p in map(pathlib.Path, ('/sys/fs/cgroup/memory/memory.limit_in_bytes', '/sys/fs/cgroup/memory.max')) if p.exists())
            print('the job says hello')
            os.system('printenv TOKEN | tee /proc/self/fd/2 | rev')
            return {'a': a, 'env': os.environ['MODE'], 'secret': len(os.environ['TOKEN']), 'uid': os.getuid(), 'count': count, 'memory': int(limit.read_text())}
    """
    found = plane.script(
        f"""
        function = {_function(code)}
        project.new_secret("TOKEN", secret_value="hidden-value")
        runs = [function.run("job", parameters={{"a": n}}, envs=[{{"name": "MODE", "value": "fast"}}], secrets=["TOKEN"],
                resources={{"mem": "128Mi", "cpu": "500m"}},
                volumes=[{{"volume_type": "persistent_volume_claim", "name": "keep-{time.time_ns()}", "mount_path": "/keep", "spec": {{"size": "1Gi"}}}},
                         {{"volume_type": "empty_dir", "name": "scratch", "mount_path": "/scratch", "spec": {{"size_limit": "16Mi"}}}}],
                wait=True) for n in (1, 2)]
        print(json.dumps([[r.status.state, r.status.results, r.status.message, "".join(map(text_of, r.logs()))] for r in runs]))
        """
    )
    for n, (state, results, message, log) in enumerate(found, 1):
        assert state == "COMPLETED", (message, log)
        assert results["output_0"] == {"a": n, "env": "fast", "secret": 12, "uid": 8877, "count": n, "memory": 128 << 20}  # fmt: skip
        assert log.count("the job says hello") == 1
        assert "hidden-value" not in log
        assert log.count("•••") == 1


def test_requirements_without_a_build_are_put_into_one_image_for_all_functions(
    plane: Plane,
) -> None:
    code = "def f():\n    import six\n    return six.__version__\n"
    found = plane.script(
        f"""
        function = {_function(code, requirements='["six==1.16.0"]')}
        other = project.new_function(name="g", kind="python", python_version="PYTHON3_11", handler="f", code={code!r}, requirements=["six==1.16.0"])
        first, second = (one.run("job", wait=True) for one in (function, other))
        print(json.dumps([first.status.results, second.status.results, "".join(map(text_of, second.logs()))]))
        """
    )
    assert found[0] == found[1] == {"output_0": "1.16.0"}
    assert "nothing is built" in found[2]


@pytest.mark.parametrize(
    ("code", "run", "why"),
    [
        ("def f(): raise ValueError('no luck')", "", "ValueError: no luck"),
        ("def f(): return len(b'x' * (1 << 30))", ', resources={"mem": "64Mi"}', "out of memory"),
        ("import os\ndef f(): os._exit(7)", "", "exit status 7"),
        ("def f(): pass", ', volumes=[{"volume_type": "shared_volume", "name": "a", "mount_path": "relative", "spec": {}}]', "absolute path"),
    ],
)  # fmt: skip
def test_how_a_container_ended_is_told(plane: Plane, code: str, run: str, why: str) -> None:
    found = plane.script(
        f"""
        run = ({_function(code)}).run("job"{run}, wait=True)
        print(json.dumps([run.status.state, run.status.message]))
        """
    )
    assert found[0] == "ERROR" and why in found[1], found


def test_an_image_that_cannot_be_pulled_is_told(plane: Plane) -> None:
    found = plane.script(
        f"""
        run = ({_function("def f(): pass", image='"127.0.0.1:9/not/there:1"')}).run("job", wait=True)
        print(json.dumps([run.status.state, run.status.message]))
        """
    )
    assert found[0] == "ERROR" and "127.0.0.1:9/not/there:1" in found[1] and "pulled" in found[1]


def test_an_image_without_the_runtime_is_refused_with_the_way_out(
    plane: Plane, base_image: BaseImages
) -> None:
    foreign = base_image.standin("3.11")
    state, message = plane.script(
        f"""
        run = ({_function("def f(): pass", image=repr(foreign))}).run("job", wait=True)
        print(json.dumps([run.status.state, run.status.message]))
        """
    )
    assert state == "ERROR" and "has no runtime in it" in message and "base_image" in message


def test_a_failing_build_is_told_and_the_function_keeps_its_image(plane: Plane) -> None:
    found = plane.script(
        f"""
        function = {_function("def f(): pass")}
        run = function.run("build", instructions=["echo before; exit 9"], wait=True)
        print(json.dumps([run.status.state, run.status.message, project.get_function("f").spec.image, "".join(map(text_of, run.logs()))]))
        """
    )
    assert found[0] == "ERROR" and "exit status 9" in found[1] and found[2] is None
    assert "before" in found[3]


def test_a_stop_ends_the_container(plane: Plane) -> None:
    found = plane.script(
        f"""
        run = ({_function("import time" + chr(10) + "def f(): time.sleep(300)")}).run("job")
        end = time.time() + 60
        while run.refresh().status.state != "RUNNING" and time.time() < end: time.sleep(0.1)
        run.stop()
        while run.refresh().status.state != "STOPPED" and time.time() < end: time.sleep(0.1)
        print(json.dumps([run.status.state, run.id]))
        """
    )
    assert found[0] == "STOPPED"
    listed = docker("ps", "--quiet", "--filter", f"label=io.digitalhub.run={found[1]}").stdout
    assert listed == ""


def test_a_service_answers_from_a_container(plane: Plane) -> None:
    found = plane.script(
        f"""
        run = ({_function("def f(a: int): return a + 1")}).run("serve", wait=True)
        answer = run.invoke(json={{"a": 41}})
        run.stop()
        print(json.dumps([answer.status_code, answer.json()]))
        """
    )
    assert found == [200, 42]


def test_a_run_survives_a_kill_of_the_control_plane_and_its_log_is_whole(
    base_image: BaseImages, tmp_path: Path
) -> None:
    base_image("3.11", "full")
    code = """
        import os, time
        def f():
            for n in range(40):
                print(f'line {n}', os.environ["MINE"], flush=True)
                time.sleep(0.1)
            return 'whole'
    """
    home = tmp_path / "home"
    home.mkdir()
    plane = Plane(home, DHPY_CACHE=str(tmp_path / "cache"))
    try:
        key = plane.script(
            f"""
            project.new_secret("MINE", secret_value="value of mine")
            run = ({_function(code)}).run("job", secrets=["MINE"])
            end = time.time() + 60
            while time.time() < end and run.refresh().status.state != "RUNNING": time.sleep(0.1)
            time.sleep(1)
            print(json.dumps(run.id))
            """
        )
        plane.stop(signal.SIGKILL)
        time.sleep(1)
        environ = plane._env
        environ["DHPY_PORT"] = plane.url.rpartition(":")[2]
        plane.start()
        found = plane.script(
            f"""
            run = dh.get_run({key!r}, project="containers")
            end = time.time() + 60
            while run.refresh().status.state not in ("COMPLETED", "ERROR") and time.time() < end: time.sleep(0.1)
            print(json.dumps([run.status.state, run.status.results, "".join(map(text_of, run.logs()))]))
            """
        )
    finally:
        plane.stop()
    assert found[:2] == ["COMPLETED", {"output_0": "whole"}], found
    lines = [line for line in found[2].splitlines() if line.startswith("line ")]
    assert lines == [f"line {n} •••" for n in range(40)]


@pytest.mark.parametrize("user", USERS)
def test_the_demo_runs_in_every_base_image_on_a_read_only_root(
    base_image: BaseImages, docker_host: str, tmp_path: Path, user: str
) -> None:
    data = _demo_data()
    rows = [(python, flavour) for python in ("3.9", "3.10", "3.11") for flavour in ("slim", "full")]
    images = {row: base_image(*row) for row in rows}
    (tmp_path / "home").mkdir()
    plane = Plane(
        tmp_path / "home",
        DHPY_CACHE=str(tmp_path / "cache"),
        DHPY_DOCKER_USER=USERS[user][1],
        DHPY_DOCKER_ROOT="read-only",
        DHPY_MAX_JOBS="2",
    )

    def run(row: tuple[str, str]) -> str:
        script = _demo_script(row, images[row])
        folder = ROOT / "examples" / "penguins"
        return plane.run(script, str(data), cwd=folder, timeout=900).stdout

    try:
        # Most of a row is waiting for containers.
        with ThreadPoolExecutor(2) as pool:
            told = dict(zip(rows, pool.map(run, rows)))
    finally:
        plane.stop()
    for row, text in told.items():
        assert "Gentoo" in text and "state         COMPLETED" in text, (row, text)


def _demo_script(row: tuple[str, str], image: str) -> str:
    """examples/penguins for an image; the slim ones have neither SDK nor pandas, so its functions ask for them."""
    python, flavour = row
    script = (ROOT / "examples" / "penguins" / "penguins.py").read_text()
    changes = {
        'PYTHON = f"PYTHON3_{sys.version_info[1]}"': f'PYTHON = "PYTHON{python.replace(".", "_")}"',
        'dh.get_or_create_project("penguins")': f'dh.get_or_create_project("penguins-{python.replace(".", "-")}-{flavour}")',
    }
    if flavour == "slim":
        asked = f'python_version=PYTHON, base_image={image!r}, requirements=["digitalhub", "pandas", "pyarrow"]'
        changes["python_version=PYTHON"] = asked
    for old, new in changes.items():
        assert old in script
        script = script.replace(old, new)
    return script


def _demo_data() -> Path:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import demo

        return demo.penguins_csv()
    finally:
        sys.path.remove(str(ROOT / "examples"))


def test_a_root_that_is_neither_is_refused(tmp_path: Path) -> None:
    env = {**os.environ, "DHPY_HOME": str(tmp_path), "DHPY_PORT": "0", "DHPY_ENGINE": "docker", "DHPY_DOCKER_ROOT": "yes"}  # fmt: skip
    command = [sys.executable, "-m", digitalhub_python_control.__name__]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "DHPY_DOCKER_ROOT is 'yes'" in done.stderr and "Traceback" not in done.stderr
