"""`dhpy dockerfile` and `dhpy build` as a user types them, as far as no engine is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from standin_layout import write_base

CLI = [sys.executable, "-c", "from digitalhub_runtime_python.cli import main; main()"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("def train(): pass\n")
    return tmp_path / "code" / "main.py"


def _dhpy(file: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DHPY_CACHE": str(file.parents[1] / "cache"), **environ}
    return subprocess.run([*CLI, *arguments], env=env, capture_output=True, text=True)


def test_dockerfile_prints_what_build_would_build(file: Path) -> None:
    done = _dhpy(
        file, "dockerfile", f"{file}:train", "--python-version", "PYTHON3_10", "--requirement", "six",
        "--instruction", "apt-get install -y git", "--label", "team=a", "--env", "MODE=b", "--flavour", "slim",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "FROM digitalhub-runtime-python:3.10-slim" in lines
    assert any(
        line.endswith("EXIT; apt-get update -qq && apt-get install -y git") for line in lines
    )
    assert lines[-1] == "COPY --chown=0:0 code/ /opt/function/code/"
    order = [line.split(" ")[0] for line in lines if line.split(" ")[0].isupper()]
    assert order == ["FROM", "ENV", "USER", "RUN", "COPY", "RUN", "LABEL", "USER", "WORKDIR", "ENTRYPOINT", "CMD", "COPY"]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "code", "status"),
    [
        (("--instruction", "true\nUSER root"), "build/instruction", 2),
        (("--requirement", "--index-url=https://evil.invalid"), "environment/requirement", 15),
        (("--requirement", "six\n--pre"), "environment/requirement", 15),
        (("--python-version", "PYTHON2_7"), "usage/python-version", 2),
        (("--base-image", "a b"), "build/base-image", 2),
        (("--label", "a=b\nRUN x"), "build/label", 2),
        (("--env", "A=b\nRUN x"), "build/env", 2),
        (("--env", "A"), "usage/pair", 2),
        (("--secret", "NO_SUCH_VARIABLE"), "build/secret", 2),
        (("--secret", "A=/no/such/file"), "build/secret", 2),
        (("--requirements-file", "/no/such/file"), "environment/requirements-file", 15),
        (("--requirement", "scikit-learn==1.2.0", "--python-version", "PYTHON3_12"), "environment/lock", 15),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["dockerfile", "build"])
def test_what_is_wrong_is_one_line_with_its_code(
    file: Path, command: str, options: tuple[str, ...], code: str, status: int
) -> None:
    if command == "build" and code == "environment/lock":
        return  # it asks for an engine and its base image first
    done = _dhpy(file, command, f"{file}:train", *options)
    assert done.returncode == status and not done.stdout
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("dhpy: ") and lines[-1].endswith(f"[{code}]")
    assert "Traceback" not in done.stderr


def test_build_without_an_engine_says_which_were_looked_for(file: Path) -> None:
    nothing = {"PATH": "/nowhere", "DOCKER_HOST": "unix:///nowhere"}
    done = _dhpy(file, "build", f"{file}:train", **nothing)
    assert done.returncode == 15
    assert "dhpy images build" in done.stderr
    assert done.stderr.rstrip().endswith("[build/base-image-missing]")
    done = _dhpy(file, "build", f"{file}:train", "--engine", "docker", **nothing)
    assert done.stderr.rstrip().endswith("[build/engine-absent]")
    layout = write_base(file.parents[1] / "base")
    given = [
        "--base-image",
        f"oci:{layout}",
        "--instruction",
        "true",
        "--python-version",
        "PYTHON3_11",
    ]
    done = _dhpy(file, "build", f"{file}:train", *given, **nothing)
    assert done.returncode == 15
    assert "No Docker Engine answers" in done.stderr and "no buildah on PATH" in done.stderr
    assert done.stderr.rstrip().endswith("[build/no-engine]")


def test_an_index_with_a_password_is_not_in_what_is_printed(file: Path) -> None:
    done = _dhpy(
        file, "dockerfile", f"{file}:train", "--index-url", "https://me:hidden@host.invalid/"
    )
    assert done.returncode == 0 and "hidden" not in done.stdout + done.stderr


def test_a_build_that_finds_its_image_there_imports_no_client_it_does_not_need() -> None:
    code = "import sys, digitalhub_python_builder.cli, digitalhub_python_builder.engines.docker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"docker", "requests", "urllib3", "digitalhub"} & set(done.stdout.split())


def test_lock_writes_a_pylock_that_is_read_again(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "pylock.toml"
    options = ("--python-version", "PYTHON3_11", "--flavour", "slim")
    done = _dhpy(file, "lock", f"{file}:train", "--requirement", "six==1.16.0", *options, "-o", str(target))  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = _dhpy(file, "lock", f"{file}:train", "--requirements-file", str(target), *options)
    first = _dhpy(file, "lock", f"{file}:train", "--requirement", "six==1.16.0", *options)
    pins = [line for line in first.stdout.splitlines() if "==" in line]
    assert [line for line in again.stdout.splitlines() if "==" in line] == pins
    # The file leaves out those that no Python of the lock's range can install.
    assert set(again.stdout.split()) <= set(first.stdout.split())
    assert any(line.startswith("six==1.16.0") for line in pins)
    wrong = _dhpy(file, "lock", f"{file}:train", "-o", str(tmp_path / "x.toml"))
    assert wrong.returncode == 2 and wrong.stderr.rstrip().endswith("[usage/output]")


def test_a_script_that_names_its_requirements_is_taken_at_its_word(file: Path) -> None:
    file.write_text('# /// script\n# dependencies = ["six==1.16.0"]\n# ///\ndef train(): pass\n')
    done = _dhpy(file, "lock", f"{file}:train", "--flavour", "slim")
    assert "six==1.16.0" in done.stdout and "# /// script" in done.stderr
