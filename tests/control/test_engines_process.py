"""The process engine with the real runtime, behind a real server; and what it is made of."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from serving import Process, reference, run_of, server_process, wait_until

from digitalhub_python_builder.interpreters import list_interpreters
from digitalhub_python_control.running.engines import ENGINES, how_it_ended, load, processes
from digitalhub_python_control.running.engines.process import ignored_parameters
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.spec import PYTHON_VERSIONS
from digitalhub_runtime_python.states import ENDED

OWN = f"PYTHON{sys.version_info[0]}_{sys.version_info[1]}"


class User:
    """Somebody who runs functions of one project."""

    def __init__(self, server: Process, project: str) -> None:
        # One connection per request, as the SDKs do: nothing stays open over a kill.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=f"{server.url}/api/v1", timeout=60, limits=limits)
        self.project = project
        self.home = server.home
        self._ask("POST", "/projects", {"name": project, "kind": "project"})

    def task(self, code: str, python_version: str = OWN, requirements=(), action="job") -> dict:
        source = {"handler": "f", "code": code, "source": "main.py"}
        spec = {
            "source": source,
            "python_version": python_version,
            "requirements": list(requirements),
        }
        function = self._ask(
            "POST", self._path("functions"), {"kind": "python", "name": "f", "spec": spec}
        )
        spec = {"function": reference(function)}
        return self._ask("POST", self._path("tasks"), {"kind": f"python+{action}", "spec": spec})

    def run(self, task: dict, **spec) -> str:
        return self._ask("POST", self._path("runs"), run_of(task, **spec))["id"]

    def status(self, run: str) -> dict:
        return self._ask("GET", self._path(f"runs/{run}"))["status"]

    def ended(self, run: str) -> dict:
        wait_until(lambda: self.status(run)["state"] in ENDED, 120)
        return self.status(run)

    def log(self, run: str) -> str:
        return (self.home / "runs" / self.project / run / "log").read_text()

    def _path(self, rest: str) -> str:
        return f"/-/{self.project}/{rest}"

    def _ask(self, method: str, path: str, body=None) -> dict:
        answer = self.http.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def user(server, request):
    user = User(server, f"p-{abs(hash(request.node.name)) % 10**8}-{os.getpid()}")
    yield user
    user.http.close()


COUNT = """import os, time
def f(path, seconds, fails):
    with open(path, "a") as file:
        file.write(os.environ["RUN_ID"] + "\\n")
    time.sleep(seconds)
    if fails:
        raise ValueError("as asked")
    return seconds
"""


def test_fifty_runs_of_the_runtime_survive_a_kill_of_the_control_plane(tmp_path):
    chance, executions = random.Random(7), tmp_path / "executions"
    home = tmp_path / "home"
    with server_process(home) as server:
        port = server.url.rpartition(":")[2]
        user = User(server, "proj")
        task = user.task(COUNT)
        runs = {}
        for number in range(50):
            seconds, fails = round(chance.uniform(0, 0.2), 3), number % 10 == 0
            parameters = {"path": str(executions), "seconds": seconds, "fails": fails}
            runs[user.run(task, parameters=parameters)] = parameters
        wait_until(lambda: executions.exists() and len(executions.read_text().split()) >= 5)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    time.sleep(0.3)
    with server_process(home, DHPY_PORT=port) as server:
        for run, parameters in runs.items():
            status = user.ended(run)
            if parameters["fails"]:
                assert (status["state"], status["message"]) == (
                    "ERROR",
                    "ValueError: as asked (main.py, line 7)",
                )
            else:
                assert status["state"] == "COMPLETED", status
                assert status["results"] == {"output_0": parameters["seconds"]}
        user.http.close()
    assert sorted(executions.read_text().split()) == sorted(runs)


@pytest.mark.parametrize("python_version", ["PYTHON3_9", "PYTHON3_10", "PYTHON3_11", "PYTHON3_13"])
def test_a_run_gets_the_python_version_of_its_function(user, python_version):
    version = PYTHON_VERSIONS[python_version]
    if version not in list_interpreters(os.environ):
        pytest.skip(f"no Python {version} on this machine")
    code = "import sys\ndef f():\n    return '%d.%d' % sys.version_info[:2]\n"
    status = user.ended(user.run(user.task(code, python_version)))
    assert status.get("results") == {"output_0": version}, status


def test_requirements_are_there_and_their_programs_are_found(user):
    code = (
        "import shutil, tabulate\n"
        "def f():\n    return tabulate.__name__ + str(shutil.which('tabulate') is not None)\n"
    )
    run = user.run(user.task(code, requirements=["tabulate==0.9.0"]))
    assert user.ended(run).get("results") == {"output_0": "tabulateTrue"}


def test_a_requirement_that_does_not_exist_fails_the_run_with_uvs_reason(user):
    run = user.run(user.task("def f(): ...", requirements=["no-such-package-dhpy"]))
    status = user.ended(run)
    assert status["state"] == "ERROR"
    assert "no-such-package-dhpy was not found" in status["message"]
    assert "\n" not in status["message"]
    log = user.log(run)
    assert "dhpy: Making an environment for Python" in log
    assert "dhpy: error: The requirements cannot be installed" in log


def test_a_requirement_that_is_no_requirement_fails_the_run_and_is_named(user):
    for bad in (["--index-url=http://127.0.0.1:9"], ["numpy\n--pre"]):
        status = user.ended(user.run(user.task("def f(): ...", requirements=bad)))
        assert status["state"] == "ERROR"
        assert status["message"].startswith(f"{bad[0]!r} is not a requirement")


def test_a_python_that_this_machine_lacks_fails_the_run_with_those_that_it_has(user):
    absent = [name for name, v in PYTHON_VERSIONS.items() if v not in list_interpreters(os.environ)]
    if not absent:
        pytest.skip("this machine has them all")
    status = user.ended(user.run(user.task("def f(): ...", absent[0])))
    assert f"Python {PYTHON_VERSIONS[absent[0]]} is not installed" in status["message"]
    assert PYTHON_VERSIONS[OWN] in status["message"]


def test_a_stop_ends_a_run_within_two_seconds_also_a_stubborn_one(user):
    code = (
        "import time\n"
        "def f():\n"
        "    print('working', flush=True)\n"
        "    while True:\n"
        "        try: time.sleep(60)\n"
        "        except BaseException: pass\n"
    )
    run = user.run(user.task(code))
    wait_until(lambda: user.status(run)["state"] == "RUNNING" and "working" in user.log(run))
    began = time.monotonic()
    user.http.post(f"/-/{user.project}/runs/{run}/stop", json={})
    assert user.ended(run)["state"] == "STOPPED"
    assert time.monotonic() - began < 2.0


def test_the_end_of_a_run_is_noticed_at_once(user):
    run = user.run(
        user.task("import time\ndef f():\n    time.sleep(0.5)\n    return time.time()\n")
    )
    status = user.ended(run)
    assert status["state"] == "COMPLETED", status
    # What lies between is the report, Python's own end, and our look: a bound with much room.
    assert time.time() - status["results"]["output_0"] < 2


def test_two_runs_never_share_a_folder_and_nothing_of_ours_is_imported_from_it(user):
    code = (
        "import os, pathlib\n"
        "def f(n):\n"
        "    pathlib.Path('json.py').write_text('raise SystemExit(3)')\n"
        "    return os.getcwd()\n"
    )
    task = user.task(code)
    runs = [user.run(task, parameters={"n": n}) for n in range(2)]
    folders = {user.ended(run)["results"]["output_0"] for run in runs}
    assert len(folders) == 2


def test_a_deleted_project_ends_its_runs(server):
    user = User(server, f"gone-{os.getpid()}")
    run = user.run(user.task("import time\ndef f():\n    time.sleep(60)\n"))
    wait_until(lambda: user.status(run)["state"] == "RUNNING")
    folder = user.home / "runs" / user.project / run
    claim = folder / "attempt-0" / "started"
    wait_until(claim.exists)
    process = processes.read_claim(claim)
    assert process is not None and processes.is_alive(process)
    user.http.delete(f"/projects/{user.project}?cascade=true")
    wait_until(lambda: not processes.is_alive(process))
    wait_until(lambda: not folder.exists())
    user.http.close()


def test_every_engine_of_the_table_can_be_loaded(server):
    for name in ENGINES:
        assert load(name, server.settings).actions


def test_an_unknown_engine_is_refused_with_those_that_there_are(server):
    with pytest.raises(UsageFault, match=r"no run engine 'cloud'.*process"):
        load("cloud", server.settings)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, ""),
        (1, "exit status 1"),
        (15, "exit status 15 (the environment could not be had)"),
        (137, "killed by signal 9 (SIGKILL); often the machine was out of memory"),
        (143, "killed by signal 15 (SIGTERM)"),
        (255, "exit status 255"),
    ],
)
def test_an_exit_status_is_said_in_words(status, words):
    assert how_it_ended(status) == words


def test_parameters_that_mean_nothing_here_are_listed_and_empty_ones_are_not():
    lines = ignored_parameters(
        {
            "volumes": [{"name": "v"}],
            "resources": {"cpu": None, "mem": ""},
            "image": "x",
            "envs": [1],
        }
    )
    assert [line.split()[0] for line in lines] == ["image", "volumes"]


def test_a_process_is_told_from_a_later_one_with_its_pid(tmp_path):
    process = processes.spawn(["/bin/sleep", "60"], {}, tmp_path / "log")
    try:
        assert processes.is_alive(process)
        assert not processes.is_alive(
            processes.Process(process.pid, process.born + "1", process.boot)
        )
        assert not processes.is_alive(processes.Process(process.pid, process.born, "another boot"))
        processes.end_group(processes.Process(process.pid, "1", process.boot), force=True)
        assert processes.is_alive(process)
    finally:
        processes.end_group(process, force=True)
        wait_until(lambda: processes.reap(process) is not None)
    assert not processes.is_alive(process)


def test_a_name_of_a_process_with_brackets_and_blanks_is_understood(tmp_path):
    script = tmp_path / "a) 1 (b"
    script.write_text("#!/bin/sh\nsleep 60\n")
    script.chmod(0o755)
    process = processes.spawn([str(script)], {"PATH": os.environ["PATH"]}, tmp_path / "log")
    try:
        assert process.born and processes.is_alive(process)
    finally:
        processes.end_group(process, force=True)
        wait_until(lambda: processes.reap(process) is not None)


SHIM = Path(processes.__file__).with_name("shim.sh")


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/dash", "/bin/busybox"])
def test_an_attempt_runs_once_however_often_it_is_started(tmp_path, shell):
    if not Path(shell).exists():
        pytest.skip(f"no {shell} here")
    shells = [shell, "sh"] if shell.endswith("busybox") else [shell]
    (tmp_path / "attempt").mkdir()
    (tmp_path / "work").mkdir()
    command = "echo ran >> ../ran; sleep 0.3; exit 5"
    started = [
        subprocess.Popen(
            [
                *shells,
                str(SHIM),
                str(tmp_path / "attempt"),
                str(tmp_path / "work"),
                "sh",
                "-c",
                command,
            ],
            start_new_session=True,
        )
        for _ in range(8)
    ]
    statuses = sorted(process.wait() for process in started)
    assert statuses == [-9, 0, 0, 0, 0, 0, 0, 0]  # the one that ran ends its own group
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert (tmp_path / "attempt" / "exit").read_text() == "5\n"


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/dash"])
def test_the_shell_writes_the_exit_status_when_the_whole_group_is_terminated(tmp_path, shell):
    if not Path(shell).exists():
        pytest.skip(f"no {shell} here")
    (tmp_path / "attempt").mkdir()
    process = subprocess.Popen(
        [shell, str(SHIM), str(tmp_path / "attempt"), str(tmp_path), "sleep", "60"],
        start_new_session=True,
    )
    wait_until((tmp_path / "attempt" / "started").exists)
    time.sleep(0.3)  # until it runs the command: nothing tells
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(10)
    assert (tmp_path / "attempt" / "exit").read_text() == "143\n"
