"""DigitalHub Core's pods in real containers: its files, its command, its user, its default limits."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from nuclio.core import Core
from nuclio.processor import find
from parts import ROOT, BaseImages, docker, free_port

LIMITS = ("--cpus", "0.1", "--memory", "282m")  # what Core gives a task that asks for nothing
SCRIPT = ("/bin/bash", "/shared/entrypoint.sh", "--processor", "/opt/nuclio/processor", "--config",
          "/shared/function.yaml", "--requirements", "/shared/requirements.txt")  # fmt: skip
DIRECT = ("/opt/nuclio/processor", "--config", "/shared/function.yaml")


def pod(
    core: Core, home: Path, image: str, command: tuple[str, ...] = SCRIPT, *options: str, **env: str
) -> list[str]:
    """The `docker run` of a pod as Core describes it."""
    home.chmod(0o777)
    for file in home.iterdir():
        file.chmod(0o644)
    (home / "entrypoint.sh").write_text(
        (home / "entrypoint.sh").read_text().replace(str(home), "/shared")
    )
    given = {k: v.replace(str(home), "/shared") for k, v in core.env(home).items() if k != "PATH"}
    variables = [f"--env={k}={v}" for k, v in {**given, "HOME": "", **env}.items()]
    return ["docker", "run", "--network", "host", "--user", "8877:999", *LIMITS, *options,
            f"--volume={home}:/shared", *variables, "--entrypoint", command[0], image, *command[1:]]  # fmt: skip


@pytest.mark.parametrize("command", [SCRIPT, DIRECT])
@pytest.mark.parametrize("python", ["3.9", "3.10", "3.11"])
def test_a_job_in_a_pod_reports_and_exits_with_0(
    base_image: BaseImages, tmp_path: Path, python: str, command: tuple[str, ...]
) -> None:
    code = "def f(a, b=2):\n    print('working')\n    return a + b\n"
    with Core(code, parameters={"a": 1}) as core:
        core.files(tmp_path, requirements="msgspec\ndigitalhub-runtime-python\n")
        start = time.monotonic()
        done = _run(pod(core, tmp_path, base_image(python), command, "--rm", "--read-only"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert core.status["results"] == {"output_0": 3}
        assert "working" in done.stdout
        # 1.5 s on a quiet machine; upstream's image takes 29 s.
        assert time.monotonic() - start < 15


def test_a_pod_of_less_than_one_cpu_stays_on_one_unless_it_is_told_not_to(
    base_image: BaseImages, tmp_path: Path
) -> None:
    code = "import os\ndef f(): return len(os.sched_getaffinity(0))\n"
    with Core(code) as core:
        for settings, cpus in (({}, 1), ({"DHPY_CPUS": "all"}, os.cpu_count())):
            core.files(tmp_path)
            done = _run(pod(core, tmp_path, base_image("3.11"), SCRIPT, "--rm", **settings))
            assert done.returncode == 0, done.stdout + done.stderr
            assert core.status["results"] == {"output_0": cpus}


@pytest.mark.parametrize(
    "code, status, said",
    [
        ("def f():\n    raise ValueError('wrong')\n", 1, "ValueError: wrong"),
        ("def f(must): pass\n", 12, "'must' is missing"),
        ("import nothing_of_the_kind\n", 11, "nothing_of_the_kind"),
    ],
)
def test_a_failing_job_keeps_its_exit_status_and_says_why(
    base_image: BaseImages, tmp_path: Path, code: str, status: int, said: str
) -> None:
    with Core(code) as core:
        core.files(tmp_path)
        (tmp_path / "termination").touch()
        command = pod(core, tmp_path, base_image("3.11"), SCRIPT, "--rm", DHPY_TERMINATION_LOG="/shared/termination")  # fmt: skip
        (tmp_path / "termination").chmod(0o666)
        done = _run(command)
        assert done.returncode == status, done.stdout + done.stderr
        assert said in done.stdout + done.stderr
        assert said in (tmp_path / "termination").read_text()
        assert core.status["error"]["exit_status"] == status


def test_sigterm_reaches_a_job_although_a_shell_is_process_1(
    base_image: BaseImages, tmp_path: Path
) -> None:
    code = "import time\ndef f():\n    print('started', flush=True)\n    try: time.sleep(60)\n    finally: print('cleaned up')\n"
    with Core(code) as core:
        core.files(tmp_path)
        name = _start(pod(core, tmp_path, base_image("3.11"), SCRIPT, "--detach"))
        try:
            _wait_for(lambda: "started" in _logs(name))
            start = time.monotonic()
            docker("stop", "--time", "20", name)
            assert time.monotonic() - start < 15
            assert "cleaned up" in _logs(name)
            assert _exit_status(name) == 143
            assert core.status["error"]["exit_status"] == 143
        finally:
            docker("rm", "--force", name)


def test_a_service_in_a_default_pod_answers_within_its_memory_and_ends_with_0(
    base_image: BaseImages, tmp_path: Path
) -> None:
    port, management = free_port(), free_port()
    with Core("def f(a): return {'twice': a * 2}\n", action="serve") as core:
        core.files(tmp_path)
        ports = {"DHPY_PORT": str(port), "DHPY_MANAGEMENT_PORT": str(management)}
        name = _start(pod(core, tmp_path, base_image("3.11"), SCRIPT, "--detach", **ports))
        try:
            _wait_for(lambda: _post(port, {"a": 21}) == {"twice": 42})
            used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", name).stdout
            assert float(used.partition("MiB")[0]) < 82, used  # a third of upstream's 246 MiB
            docker("stop", "--time", "30", name)
            assert _exit_status(name) == 0, _logs(name)
        finally:
            docker("rm", "--force", name)


def test_a_data_frame_is_stored_within_a_default_pods_memory(
    base_image: BaseImages, tmp_path: Path
) -> None:
    code = "import pandas as pd\ndef f(): return pd.DataFrame({'n': range(1000)})\n"
    with Core(code) as core:
        core.files(tmp_path, requirements="digitalhub\ndigitalhub-runtime-python\n")
        env = {
            "DHCORE_DEFAULT_FILES_STORE": "s3://bucket",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{core.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret-secret",
            "AWS_REGION": "us-east-1",
            "S3_PATH_STYLE": "true",
        }
        done = _run(pod(core, tmp_path, base_image("3.11", "full"), SCRIPT, "--rm", **env))
        assert done.returncode == 0, done.stdout + done.stderr
        (key,) = core.status["outputs"].values()
        assert "/dataitem/table/output_0:" in key
        assert any(data.startswith(b"PAR1") for data in core.stored.values())


def test_a_base_image_of_the_users_own_runs_a_job_with_our_layer(
    base_image: BaseImages, tmp_path: Path
) -> None:
    build = ["--build-arg", f"BASE={base_image('3.11')}", "--build-arg", "PYTHON_VERSION=3.11"]
    docker("build", "--quiet", "--tag", "dhpy-test/layer", *build, "--file",
           str(ROOT / "images/nuclio/Dockerfile.layer"), str(ROOT / "images/nuclio"))  # fmt: skip
    # Core mounts the image's /opt/nuclio as a volume; Docker can be given the files.
    container = docker("create", "dhpy-test/layer", "none").stdout.strip()
    docker("cp", f"{container}:/opt/nuclio", str(tmp_path / "layer"))
    docker("rm", container)
    command = (
        *SCRIPT, "--common_requirements", "/opt/nuclio/requirements/nuclio.txt",
        "--uv_path", "/opt/nuclio/uv/uv", "--wheel_path", "/opt/nuclio/whl",
    )  # fmt: skip
    home = tmp_path / "home"
    with Core("def f(a, b=2): return a + b\n", parameters={"a": 1}) as core:
        core.files(home)
        volume = f"--volume={tmp_path / 'layer'}:/opt/nuclio:ro"
        done = _run(pod(core, home, base_image.standin("3.11"), command, "--rm", volume))
        assert done.returncode == 0, done.stdout + done.stderr
        assert core.status["results"] == {"output_0": 3}


def test_an_image_with_nuclios_processor_serves_a_nuclio_handler(
    base_image: BaseImages, tmp_path: Path
) -> None:
    program = find()
    if program is None:
        pytest.skip("no Nuclio processor on PATH, nor at $NUCLIO_PROCESSOR")
    peer = tmp_path / "peer"
    peer.mkdir()
    (peer / "processor").write_bytes(Path(program).read_bytes())
    (peer / "processor").chmod(0o755)
    (peer / "Dockerfile").write_text("FROM scratch\nCOPY processor /home/nuclio/bin/processor\n")
    docker("build", "--quiet", "--tag", "dhpy-test/nuclio-processor", str(peer))
    docker("build", "--quiet", "--tag", "dhpy-test/nuclio",
           "--build-arg", f"BASE={base_image('3.11')}",
           "--build-arg", "PROCESSOR=dhpy-test/nuclio-processor", str(ROOT / "images/nuclio"))  # fmt: skip
    port = free_port()
    code = tmp_path / "code"
    code.mkdir()
    (code / "main.py").write_text("def handler(context, event): return {'id': context.worker_id}\n")
    (code / "processor.yaml").write_text(
        "metadata: {name: f, namespace: nuclio}\nspec:\n  runtime: python:3.11\n  handler: main:handler\n"
        f"  triggers: {{http: {{kind: http, name: http, numWorkers: 1, url: '127.0.0.1:{port}'}}}}\n"
    )
    code.chmod(0o755)
    name = _start(
        ["docker", "run", "--detach", "--network", "host", "--user", "8877:999",
         f"--volume={code}:/opt/function/code:ro", f"--volume={code}:/etc/nuclio/config/processor:ro",
         "dhpy-test/nuclio"]
    )  # fmt: skip
    try:
        _wait_for(lambda: _post(port, {}) == {"id": "0"}, name)
    finally:
        docker("rm", "--force", name)


def test_a_base_without_bytecode_is_given_what_a_start_imports(base_image: BaseImages) -> None:
    bare, image = "dhpy-test/bare:3.11", "dhpy-test/on-bare:3.11"
    text = f"FROM {base_image.standin('3.11')}\nUSER 0\nRUN find /usr/local -name '*.pyc' -delete\n"
    docker("build", "--quiet", "--tag", bare, "-", input=text)
    docker("build", "--quiet", "--network", "host", "--tag", image, "--file", str(ROOT / "Dockerfile.base"),
           "--build-arg", f"BASE={bare}", str(ROOT))  # fmt: skip
    code = (
        "import os, sys, digitalhub_runtime_python.hub.core, digitalhub_runtime_python.serve.supervisor\n"
        "files = [getattr(m, '__cached__', None) for m in sys.modules.values()]\n"
        "print([f for f in files if f and not os.path.exists(f)])"
    )
    found = docker(
        "run", "--rm", "--user", "8877:999", "--entrypoint", "python3", image, "-c", code
    )
    assert found.stdout.strip() == "[]"


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def _start(command: list[str]) -> str:
    done = _run(command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _logs(name: str) -> str:
    done = docker("logs", name)
    return str(done.stdout + done.stderr)


def _exit_status(name: str) -> int:
    return int(docker("inspect", "--format", "{{.State.ExitCode}}", name).stdout)


def _post(port: int, body: dict[str, Any]) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/", json.dumps(body), headers)
        response = connection.getresponse()
        return json.loads(response.read()) if response.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


def _wait_for(condition: Any, container: str = "", seconds: float = 60) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, _logs(container) if container else ""
        time.sleep(0.05)
