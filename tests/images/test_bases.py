"""The base images: what is in them, and the job cases in each of them, as any user, on a read-only root."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import time
from pathlib import Path

import docker_engine
import pytest
from cases import LOCKED_DOWN, USERS, cases_for, differences, run_cases
from parts import ROOT, BaseImages, docker

PYTHONS = ("3.9", "3.10", "3.11")
FLAVOURS = ("slim", "full")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("python", PYTHONS)
def test_every_job_case_passes_in_the_base_image(
    base_image: BaseImages, python: str, flavour: str, user: str
) -> None:
    found_cases = cases_for(python, flavour)
    assert len(found_cases) > 60
    names = [name for name, _, _ in found_cases]
    # Another user changes nothing of how an interpreter starts: one start has to do for all of them.
    forked = user != "its own user"
    found = run_cases(base_image(python, flavour), names, *USERS[user], forked=forked)
    wrong = {
        name: w for name, _, expected in found_cases if (w := differences(found[name], expected))
    }
    assert not wrong, json.dumps(wrong, indent=1)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_slim_image_is_at_most_30_mb_over_its_base(base_image: BaseImages, python: str) -> None:
    sizes = [
        int(docker("image", "inspect", "--format", "{{.Size}}", name).stdout)
        for name in (base_image(python), base_image.standin(python))
    ]
    assert sizes[0] - sizes[1] <= 30_000_000


def test_neither_uv_nor_compilers_are_in_the_image(base_image: BaseImages) -> None:
    script = "command -v uv gcc cc make; test $? -ne 0 && id -u && touch /etc/x"
    done = docker(
        "run", "--rm", "--entrypoint", "sh", base_image("3.11"), "-c", script, check=False
    )
    assert done.stdout.split() == ["8877"] and done.returncode != 0


def test_labels_say_what_an_image_is(base_image: BaseImages) -> None:
    name = base_image("3.10", "full")
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", name).stdout)  # fmt: skip
    assert labels["io.digitalhub.python"] == "3.10"
    assert labels["io.digitalhub.flavour"] == "full"
    assert labels["org.opencontainers.image.title"] == "digitalhub-runtime-python"
    assert labels["org.opencontainers.image.version"]


def _job(folder: Path, code: str) -> list[str]:
    folder.chmod(0o755)
    entity = {
        "id": "r", "project": "p", "kind": "python+job:run",
        "spec": {"source": {"code": code, "handler": "f"}},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(entity))
    return ["-v", f"{folder}/run.json:/run.json:ro", "-e", "DHPY_RUN_FILE=/run.json"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("def f(): pass", 0),
        ("def f(): raise ValueError('no')", 1),
        ("def g(): pass", 11),
        ("def f(a): pass", 12),
        ("import os\ndef f(): os.kill(os.getpid(), 9)", 137),
        ("import ctypes\ndef f(): ctypes.string_at(0)", 139),
    ],
)
def test_exit_statuses_come_through_the_container(
    base_image: BaseImages, tmp_path: Path, code: str, status: int
) -> None:
    options = [*LOCKED_DOWN, *_job(tmp_path, code)]
    done = docker("run", "--rm", *options, base_image("3.11"), check=False)
    assert done.returncode == status, done.stderr


def test_a_stop_reaches_the_function_which_can_clean_up(
    base_image: BaseImages, tmp_path: Path
) -> None:
    code = (
        "import time\n"
        "def f():\n"
        "    print('started', flush=True)\n"
        "    try:\n        time.sleep(120)\n"
        "    finally:\n        print('cleaned up', flush=True)\n"
    )
    command = [docker_engine.debian_client(), "run", "--rm", *LOCKED_DOWN, *_job(tmp_path, code)]
    process = subprocess.Popen([*command, base_image("3.11")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "started\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)  # docker's client hands it to process 1
        assert process.stdout.read() == "cleaned up\n"
        assert process.wait(30) == 143
        assert time.monotonic() - begun < 9, "killed, not stopped"
    finally:
        process.kill()
        process.communicate()


def test_what_a_function_leaves_behind_is_reaped(base_image: BaseImages, tmp_path: Path) -> None:
    code = (
        "import subprocess, time, pathlib\n"
        "def f():\n"
        "    subprocess.run(['sh', '-c', 'sleep 0.1 & exit 0'])\n"
        "    time.sleep(1)\n"
        "    states = [p.read_text().rpartition(')')[2].split()[0] for p in pathlib.Path('/proc').glob('[0-9]*/stat')]\n"
        "    assert 'Z' not in states, states\n"
    )
    docker("run", "--rm", *LOCKED_DOWN, *_job(tmp_path, code), base_image("3.11"))


def test_the_health_check_is_the_runtimes_own(base_image: BaseImages) -> None:
    name = base_image("3.11")
    check = json.loads(docker("image", "inspect", "--format", "{{json .Config.Healthcheck.Test}}", name).stdout)  # fmt: skip
    assert check == ["CMD", "python3", "-m", "digitalhub_runtime_python.health"]
    docker("run", "--rm", "--entrypoint", "python3", name, "-m", "digitalhub_runtime_python.health")


def test_the_bake_file_has_the_rows_of_the_matrix() -> None:
    spec = importlib.util.spec_from_file_location("images_build", ROOT / "images" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert json.loads((ROOT / "docker-bake.json").read_text("utf-8")) == module.bake()
    for python in module.MATRIX["required"]:
        for flavour in module.MATRIX["flavours"]:
            assert (ROOT / "images" / "locks" / f"{python}-{flavour}.txt").is_file()
