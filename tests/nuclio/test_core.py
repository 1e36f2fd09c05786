"""Core's pod contract as plain processes: the files as Core writes them, an environment without HOME."""

from __future__ import annotations

import http.client
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from digitalhub_runtime_python.errors import EnvironmentFault, UsageFault
from digitalhub_runtime_python.nuclio import installed, standin
from nuclio.core import ROOT, Core, start
from nuclio.processor import free_port


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that any user may write to, as /shared is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shared"
        path.mkdir()
        Path(folder).chmod(0o755)
        path.chmod(0o777)
        yield path


@pytest.mark.parametrize("through_script", [True, False])
def test_a_job_reports_and_exits_with_0(home: Path, through_script: bool) -> None:
    with Core(
        "def f(a, b=2):\n    print('working')\n    return a + b\n", parameters={"a": 1}
    ) as core:
        core.files(home)
        process = start(core, home, through_script=through_script)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert core.status["results"] == {"output_0": 3}
        assert core.status["state"] == "RUNNING"  # Core's to change
        assert "working" in output


@pytest.mark.parametrize(
    "code, status, said",
    [
        ("def f():\n    raise ValueError('wrong')\n", 1, "ValueError: wrong"),
        ("import nothing_of_the_kind\n", 11, "nothing_of_the_kind"),
        ("def g(): pass\n", 11, "no function 'f'"),
        ("def f(must): pass\n", 12, "'must' is missing"),
    ],
)
def test_a_failing_job_keeps_its_exit_status_and_says_why(
    home: Path, code: str, status: int, said: str
) -> None:
    with Core(code) as core:
        core.files(home)
        note = home / "termination"
        note.touch(mode=0o666)
        note.chmod(0o666)
        process = start(core, home, DHPY_TERMINATION_LOG=str(note))
        output, _ = process.communicate(timeout=60)
        assert process.returncode == status, output
        assert said in output
        assert said in note.read_text()
        error = core.status["error"]
        assert said in f"{error['type']}: {error['message']}" or said in error["message"]


def test_sigterm_reaches_a_job_through_the_shell(home: Path) -> None:
    code = """
import time
def f():
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)
"""
    with Core(code) as core:
        core.files(home)
        process = start(core, home)
        assert process.stdout is not None
        while "started" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 143
        assert "cleaned up" in output
        assert core.status["error"]["exit_status"] == 143


def test_a_service_answers_and_ends_with_0_on_sigterm(home: Path) -> None:
    with Core("def f(a): return {'twice': a * 2}\n", action="serve") as core:
        port, management = free_port(), free_port()
        core.files(home, port=port)
        process = start(core, home, DHPY_MANAGEMENT_PORT=str(management))
        try:
            assert _post(port, b'{"a": 21}') == b'{"twice":42}'
            assert _get(port, "/__internal/health") == 200
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=40)
        assert process.returncode == 0, output


def test_requirements_that_are_there_start_no_pip(home: Path) -> None:
    with Core("def f(): return 1\n") as core:
        core.files(home, requirements="msgspec\nNuclio_SDK\nurllib3\n")
        process = start(core, home, PIP_NO_INDEX="1")
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert core.status["results"] == {"output_0": 1}


def test_code_that_core_has_fetched_is_not_fetched_again(home: Path) -> None:
    with Core("") as core:
        core.run["spec"]["source"] = {
            "source": "git+https://127.0.0.1:1/no/such#main",
            "handler": "pkg.mod:f",
        }
        core.files(home)
        (home / "pkg").mkdir()
        (home / "pkg" / "mod.py").write_text("def f(): return 'from the volume'\n")
        process = start(core, home, through_script=False)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert core.status["results"] == {"output_0": "from the volume"}


def test_the_settings_of_a_handwritten_file_are_the_servers(tmp_path: Path) -> None:
    file = tmp_path / "function.yaml"
    file.write_text(
        "spec:\n  eventTimeout: 1m30s\n  triggers:\n    web: {kind: http, url: '127.0.0.1:9000', numWorkers: 3,"
        " workerAvailabilityTimeoutMilliseconds: 2500, attributes: {maxRequestBodySize: 1048576}}\n"
    )
    argv, environ = standin.translate([f"--config={file}"], {"DHPY_WORKERS": "5"})
    assert argv == ["serve"]
    assert environ == {
        "DHPY_CODE_FOLDER": str(tmp_path),
        "DHPY_HOST": "127.0.0.1",
        "DHPY_PORT": "9000",
        "DHPY_WORKERS": "5",
        "DHPY_WAIT": "2.5",
        "DHPY_BODY_LIMIT": "1048576",
        "DHPY_REQUEST_TIMEOUT": "90",
    }


@pytest.mark.parametrize(
    "text", ["", "spec: [", "[1]", "spec:\n  triggers:\n    c: {kind: cron}\n", "spec: {}"]
)
def test_a_file_that_is_no_function_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "function.yaml"
    file.write_text(text)
    with pytest.raises(UsageFault):
        standin.translate(["--config", str(file)], {})
    with pytest.raises(UsageFault):
        standin.translate(["--config", str(tmp_path / "none")], {})


def test_without_pyyaml_a_file_that_is_not_cores_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    file = tmp_path / "function.yaml"
    file.write_text("spec: {triggers: {a: {kind: job}}}")
    with pytest.raises(EnvironmentFault) as fault:
        standin.translate(["--config", str(file)], {})
    assert fault.value.code == "environment/yaml"


@pytest.mark.parametrize(
    "lines, satisfied",
    [
        ("msgspec\n", True),
        ("# only\n\nMsgSpec # a comment\n", True),
        ("msgspec==0.0.1\n", False),
        ("no-such-thing-at-all\n", False),
        ("msgspec>=0.1\n", False),  # pip's to judge
        ("msgspec[no-such-extra]\n", False),
        ("digitalhub-runtime-python\n", True),
        ("-r other.txt\n", False),
        ("msgspec @ https://127.0.0.1/x.whl\n", False),
    ],
)
def test_only_what_is_surely_there_is_taken_for_installed(
    tmp_path: Path, lines: str, satisfied: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(lines)
    assert installed.main(["--user", "-r", str(file)]) == (0 if satisfied else 1)
    assert installed.main(["--upgrade", "-r", str(file)]) == 1
    assert installed.main([]) == 1


@pytest.mark.parametrize(
    "lines, asked",
    [
        ("plain\nWith-Dashes_and.dots\n# nothing\n\nwith.dashes.and-dots==1.2", False),
        ("plain==2.0.post1\n", False),
        ("digitalhub[full]\n", True),  # what an extra needs is in a package's metadata
        ("plain==2.0\n", True),
        ("plai\n", True),
        ("plain plain\n", True),
        ("plain>=1\n", True),
        ("*\n", True),
        ("absent\nplain\n", True),
        ("plain; python_version > '3'\n", True),
    ],
)
def test_names_that_lie_in_pythons_folder_start_no_python(
    tmp_path: Path, lines: str, asked: bool
) -> None:
    site = tmp_path / "lib/python3.11/site-packages"
    for name in ("Plain-2.0.post1", "With_Dashes_and.dots-1.2", "digitalhub-0.15.11"):
        (site / f"{name}.dist-info").mkdir(parents=True)
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho started\n")
    python.chmod(0o755)
    (tmp_path / "requirements.txt").write_text(lines)
    script = tmp_path / "entrypoint.sh"
    script.write_text(
        'PYTHON_VERSION=$(python3 --version)\n$(which python3) -m pip install --user -r "$1"\n'
    )
    done = subprocess.run(
        ["/bin/bash", str(script), str(tmp_path / "requirements.txt")],
        env={"PATH": f"{python.parent}:/usr/bin:/bin", "PYTHON_VERSION": "3.11.7",
             "BASH_ENV": str(ROOT / "images/nuclio/core.sh")},
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("started" in done.stdout) == asked
    assert ("already satisfied" in done.stdout) != asked


def _post(port: int, body: bytes, seconds: float = 20) -> bytes:
    give_up = time.monotonic() + seconds
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", "/", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            if response.status == 200:
                return answer
            assert response.status == 503, answer
        except OSError:
            pass
        finally:
            connection.close()
        assert time.monotonic() < give_up
        time.sleep(0.05)


def _get(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
