"""The process engine with the real runtime, behind a real server; and what it is made of."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from reconciling import is_running
from serving import Process, reference, run_of, server_process, wait_until

from digitalhub_python_builder.interpreters import list_interpreters
from digitalhub_python_control.running.engines import (
    ENGINES,
    cgroups,
    how_it_ended,
    keeper,
    load,
    processes,
)
from digitalhub_python_control.running.engines.keepers import Keepers
from digitalhub_python_control.running.engines.process import ignored_parameters
from digitalhub_python_control.running.hiding import forms_of
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
        """What is there of it: a run is known to go on before its first line is written."""
        log = self.home / "runs" / self.project / run / "log"
        return log.read_text() if log.exists() else ""

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


def test_runs_that_are_starting_outlast_a_control_plane_that_is_away_for_seven_seconds(tmp_path):
    executions, home = tmp_path / "executions", tmp_path / "home"
    with server_process(home, DHPY_MAX_JOBS="4") as server:
        port = server.url.rpartition(":")[2]
        user = User(server, "proj")
        task = user.task(COUNT)
        parameters = {"path": str(executions), "seconds": 0, "fails": False}
        runs = [user.run(task, parameters=parameters) for _ in range(4)]
        wait_until(lambda: list(home.glob("runs/proj/*/attempt-0/started")))
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    time.sleep(7)
    with server_process(home, DHPY_PORT=port) as server:
        assert {user.ended(run)["state"] for run in runs} == {"COMPLETED"}
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
    for bad, said in (
        ("--trusted-host=x", "'--trusted-host' cannot be used"),
        ("--index-url=http://me:hidden@127.0.0.1:9", "contains a user name or password"),
        ("numpy\n--pre", r"'numpy\n--pre' is not a requirement"),
    ):
        status = user.ended(user.run(user.task("def f(): ...", requirements=[bad])))
        assert status["state"] == "ERROR"
        assert said in status["message"] and "hidden" not in status["message"]


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
    for name in sorted(set(ENGINES) - {"kubernetes"}):
        assert load(name, server.settings).actions
    # Pods have a loopback of their own; with an address that they reach, tests/kubernetes has it.
    with pytest.raises(UsageFault, match="DHPY_CALLBACK_URL"):
        load("kubernetes", server.settings)


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


@pytest.fixture
def keepers():
    keepers = Keepers()
    yield keepers
    keepers.close()


@pytest.fixture
def order(tmp_path):
    """An order to run a command of the shell; `.finished()` is its exit status."""

    def make(script: str, **changes) -> dict:
        for folder in ("attempt", "work"):
            (tmp_path / folder).mkdir(exist_ok=True)
        return {
            "attempt": str(tmp_path / "attempt"),
            "work": str(tmp_path / "work"),
            "log": str(tmp_path / "log"),
            "max_log": 1 << 20,
            "command": ["/bin/sh", "-c", script],
            "environment": {"PATH": os.environ["PATH"]},
            "cgroup": "",
            "hidden": [],
            **changes,
        }

    return make


def ended(process: processes.Process) -> None:
    wait_until(lambda: not processes.is_alive(process))


def test_a_process_is_told_from_a_later_one_with_its_pid(keepers, order):
    process = keepers.start(order("sleep 60"))
    assert processes.is_alive(process)
    others = [
        processes.Process(process.pid, process.born + "1", process.boot),
        processes.Process(process.pid, process.born, "another boot"),
    ]
    for other in others:
        assert not processes.is_alive(other)
        processes.ask_to_end(other)
        processes.end_tree(other)
    time.sleep(0.2)
    assert processes.is_alive(process)
    processes.end_tree(process)
    ended(process)


def test_a_name_of_a_process_with_brackets_and_blanks_is_understood(tmp_path):
    name = "a) 1 (b"
    script = tmp_path / name
    script.write_text("#!/bin/sh\nsleep 60\n")
    script.chmod(0o755)
    child = subprocess.Popen([str(script)])
    try:
        claim = Path(f"/proc/{child.pid}/stat").read_text().strip()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        process = processes.process_of(f"{child.pid}\n{claim}\n{boot}\n")
        wait_until(lambda: name in Path(f"/proc/{child.pid}/stat").read_text())
        assert process.born and processes.is_alive(process)
        assert child.pid in keeper.descendants(os.getpid())
    finally:
        child.kill()
        child.wait()
    assert not processes.is_alive(process)


def test_an_attempt_runs_once_however_often_it_is_started(keepers, order, tmp_path):
    others = [Keepers() for _ in range(4)]
    command = order("echo ran >> ../ran; sleep 0.5; exit 5")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: one.start(command), [keepers, *others] * 2))
    assert len(set(found)) == 1  # every one is told who runs it
    ended(found[0])
    assert keepers.start(command) == found[0]
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert (tmp_path / "attempt" / "exit").read_text() == "5\n"
    for one in others:
        one.close()


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -11 $$", 139), ("kill -9 0", 137)],
)
def test_the_keeper_writes_down_how_the_command_ended(keepers, order, tmp_path, command, status):
    ended(keepers.start(order(command)))
    assert (tmp_path / "attempt" / "exit").read_text() == f"{status}\n"


def test_a_command_that_does_not_exist_or_is_none_says_so(keepers, order, tmp_path):
    ended(keepers.start(order("", command=["/nonexistent/python"])))
    assert (tmp_path / "attempt" / "exit").read_text() == "127\n"
    assert "/nonexistent/python: not found" in (tmp_path / "log").read_text()


def test_sigterm_reaches_the_command_and_the_keeper_lives_to_write_its_end(
    keepers, order, tmp_path
):
    process = keepers.start(order("trap 'echo heard; exit 9' TERM; echo up; sleep 60 & wait"))
    wait_until(lambda: (tmp_path / "log").exists() and "up" in (tmp_path / "log").read_text())
    processes.ask_to_end(process)
    ended(process)
    assert (tmp_path / "attempt" / "exit").read_text() == "9\n"
    assert "heard" in (tmp_path / "log").read_text()


def test_keepers_go_on_without_those_that_started_them(order, tmp_path):
    keepers = Keepers()
    process = keepers.start(order("sleep 0.5; echo done"))
    keepers.close()
    assert processes.is_alive(process)
    ended(process)
    assert (tmp_path / "attempt" / "exit").read_text() == "0\n"
    assert (tmp_path / "log").read_text() == "done\n"


def test_a_parent_of_keepers_that_was_killed_is_started_again(keepers, order, tmp_path):
    first = keepers.start(order("sleep 60"))
    keepers._process.kill()
    (tmp_path / "second").mkdir()
    second = keepers.start(order("exit 3", attempt=str(tmp_path / "second")))
    ended(second)
    assert (tmp_path / "second" / "exit").read_text() == "3\n"
    assert processes.is_alive(first)
    processes.end_tree(first)
    ended(first)


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(60)
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read(): time.sleep(0.01)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux can tell")
@pytest.mark.parametrize("how", ["completed", "stopped", "keeper killed"])
@pytest.mark.parametrize("grouped", [False, True], ids=["subreaper", "cgroup"])
def test_a_daemon_that_a_run_leaves_in_a_session_of_its_own_ends_with_it(
    keepers, order, tmp_path, how, grouped
):
    cgroup = cgroups.make(str(tmp_path)) if grouped else ""
    if grouped and not cgroup:
        pytest.skip("no control groups of version 2 here, or none that may be made")
    more = "" if how == "completed" else "; sleep 60"
    command = f'"{sys.executable}" -c "$DAEMON" "$PLACE"{more}'
    place = tmp_path / "daemon"
    environment = {"DAEMON": DAEMON, "PLACE": str(place), "PATH": os.environ["PATH"], "RUN_ID": "x"}
    process = keepers.start(order(command, environment=environment, cgroup=cgroup))
    wait_until(lambda: place.exists() and place.read_text())
    daemon = int(place.read_text())
    if how == "stopped":
        processes.end_tree(process)
    elif how == "keeper killed":
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not processes.is_alive(process))
        cgroups.kill(cgroup)
        for pid in processes.marked(b"RUN_ID=x") if not grouped else ():
            processes.kill(pid)
    ended(process)
    wait_until(lambda: not is_running(daemon))
    if grouped:
        cgroups.kill(cgroup)
        wait_until(lambda: cgroups.kill(cgroup) or not Path(cgroup).exists())


def test_a_log_that_grows_is_bounded_keeps_its_end_and_says_what_was_dropped(
    keepers, order, tmp_path
):
    limit = 256 * 1024
    lines = 100_000
    ended(keepers.start(order(f"seq {lines}", max_log=limit)))
    now, before = (tmp_path / "log").read_bytes(), (tmp_path / "log.1").read_bytes()
    assert len(now) + len(before) < limit + 2 * 65536 + 200
    assert now.endswith(b"99999\n100000\n")
    dropped = re.search(rb"dhpy: the log is longer .* (\d+) bytes", now)
    assert dropped
    kept = [line for line in (before + now).splitlines() if not line.startswith(b"dhpy:")]
    # No line is broken where the second half begins, and what is missing is what is said to be.
    assert kept == [b"%d" % n for n in range(lines - len(kept) + 1, lines + 1)]
    missing = sum(len(f"{n + 1}\n") for n in range(lines - len(kept)))
    assert missing <= int(dropped[1]) <= missing + 500


def test_a_secret_that_is_printed_in_pieces_is_not_in_the_log(keepers, order, tmp_path):
    hidden = [form.decode() for form in forms_of({"MINE": "s3cret value"}, ["MINE"])]
    script = (
        "printf 'a s3c'; sleep 0.2; printf 'ret v' >&2; sleep 0.2; printf 'alue\n';"
        "printf 's3cret%%20value s3c'"
    )
    ended(keepers.start(order(script, hidden=hidden)))
    assert (tmp_path / "log").read_text() == "a •••\n••• s3c"


def test_what_is_printed_while_the_disk_is_full_is_lost_and_counted(tmp_path):
    log = keeper.Log(str(tmp_path / "log"), 1 << 20)
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    log.add(b"12345")
    (tmp_path / "log").unlink()
    log.add(b"more\n")
    assert (tmp_path / "log").read_text() == (
        "dhpy: 5 bytes of output were lost: the disk was full\nmore\n"
    )
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("obstacle", ["fifo", "folder", "link", "file"])
def test_what_a_run_puts_in_place_of_its_exit_changes_nothing(keepers, order, tmp_path, obstacle):
    make = {
        "fifo": "mkfifo ../attempt/exit",
        "folder": "mkdir -p ../attempt/exit/below",
        "link": "ln -s ../elsewhere ../attempt/exit",
        "file": "echo 0 > ../attempt/exit",
    }[obstacle]
    ended(keepers.start(order(f"{make}; exit 6")))
    assert (tmp_path / "attempt" / "exit").read_text() == "6\n"
    assert not (tmp_path / "elsewhere").exists()
