"""The control plane's commands as a user types them; each test has a home and a HOME of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from serving import run_of

DHPY = [sys.executable, "-c", "from digitalhub_runtime_python.cli import main; main()"]
KEPT = ("PATH", "LANG", "SSL_CERT_FILE", "UV_CACHE_DIR", "DHPY_CACHE", "LD_LIBRARY_PATH")


@dataclass
class Terminal:
    """A user at a terminal."""

    env: dict[str, str]
    folder: Path

    @property
    def home(self) -> Path:
        return Path(self.env["DHPY_HOME"])

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*DHPY, *arguments],
            env={**self.env, **env},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def dhpy(self, *arguments: str, status: int = 0, **env: str) -> str:
        """Run a command; what it printed, checked for its exit status."""
        process = self.start(*arguments, **env)
        out, err = process.communicate(timeout=120)
        assert process.returncode == status, (arguments, process.returncode, out, err)
        return out if status == 0 else out + err

    def place(self) -> dict:
        return json.loads((self.home / "server.json").read_text())

    def api(self) -> httpx.Client:
        return httpx.Client(base_url=f"{self.place()['url']}/api/v1", timeout=60)


@pytest.fixture
def terminal(tmp_path):
    env = {name: os.environ[name] for name in KEPT if name in os.environ}
    # What is cached is shared with everybody, as on a user's machine; all else is the test's own.
    env.setdefault("DHPY_CACHE", str(Path.home() / ".cache" / "digitalhub-python"))
    env.setdefault("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    env.update(HOME=str(tmp_path / "user"), DHPY_HOME=str(tmp_path / "home"), DHPY_PORT="0")
    (tmp_path / "user").mkdir()
    terminal = Terminal(env, tmp_path)
    yield terminal
    terminal.start("down").communicate()


def function_run(api: httpx.Client, code: str, **spec) -> str:
    """Create a project, a function, a task and a run of it; the run's id."""
    api.post("/projects", json={"name": "proj", "kind": "project"})
    source = {"handler": "f", "code": code, "source": "main.py"}
    function = api.post(
        "/-/proj/functions",
        json={
            "kind": "python",
            "name": "f",
            "spec": {"python_version": "PYTHON3_11", "source": source},
        },
    ).json()
    reference = f"python://proj/f:{function['id']}"
    task = api.post(
        "/-/proj/tasks", json={"kind": "python+job", "spec": {"function": reference}}
    ).json()
    answer = api.post("/-/proj/runs", json=run_of(task, **spec))
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def test_up_starts_it_once_and_down_ends_it(terminal):
    first = terminal.dhpy("up")
    url = terminal.place()["url"]
    assert first.startswith(f"The control plane is up: {url} ")
    assert "dhpy exec -- python my_script.py" in first
    second = terminal.dhpy("up")
    assert second.startswith(f"The control plane is up already: {url} ")
    told = json.loads(terminal.dhpy("status", "--json"))
    assert (told["up"], told["url"], told["runs"]) == (True, url, {})
    assert url in terminal.dhpy("status")
    assert "has stopped" in terminal.dhpy("down")
    assert "not running" in terminal.dhpy("down")
    assert json.loads(terminal.dhpy("status", "--json", status=1)) == {
        "up": False,
        "home": str(terminal.home),
    }


def test_up_at_another_port_says_how_to_move_it(terminal):
    terminal.dhpy("up")
    assert "dhpy down, then dhpy up" in terminal.dhpy("up", "--port", "1")


def test_up_in_the_foreground_ends_with_a_signal(terminal):
    process = terminal.start("up", "--foreground")
    while not (terminal.home / "server.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    assert terminal.dhpy("status")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_taken_port_is_one_clear_line(terminal):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = terminal.dhpy("up", "--port", port, status=14)
    assert said.count("\n") == 1
    assert f"port {port}" in said and "DHPY_PORT" in said


def test_the_default_port_is_not_needed(terminal):
    del terminal.env["DHPY_PORT"]
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 8321)):
        said = terminal.dhpy("up")
        assert "Port 8321 is taken" in said
        assert not terminal.place()["url"].endswith(":8321")


def test_a_home_that_cannot_be_written_is_one_clear_line(terminal):
    (terminal.folder / "file").write_text("")
    said = terminal.dhpy("up", status=14, DHPY_HOME=str(terminal.folder / "file" / "home"))
    assert said.count("\n") == 1
    assert str(terminal.folder / "file") in said and "DHPY_HOME" in said


def test_a_read_only_home_is_one_clear_line(terminal):
    home = terminal.home
    if os.geteuid() == 0 and Path("/sys/kernel").exists():
        home = Path("/sys/kernel/dhpy")  # which even root cannot write
    else:
        home.mkdir(mode=0o500)
    said = terminal.dhpy("up", status=14, DHPY_HOME=str(home))
    assert said.count("\n") == 1
    assert str(home) in said and "DHPY_HOME" in said


def test_an_address_for_others_needs_credentials(terminal):
    said = terminal.dhpy("up", "--host", "0.0.0.0", status=2)
    assert "DHPY_USER" in said and said.count("\n") == 1


def test_what_a_killed_server_left_behind_is_not_taken_for_a_server(terminal):
    terminal.dhpy("up")
    os.kill(terminal.place()["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while "not running" not in terminal.dhpy("status", status=1):
        assert time.monotonic() < deadline
    assert (terminal.home / "server.json").exists()
    assert "not running" in terminal.dhpy("down")
    assert terminal.dhpy("up").startswith("The control plane is up: ")


def test_down_never_ends_another_process_that_has_the_pid_now(terminal):
    terminal.home.mkdir()
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        stale = {"pid": bystander.pid, "url": "http://127.0.0.1:9", "started": 0}
        (terminal.home / "server.json").write_text(json.dumps(stale))
        assert "not running" in terminal.dhpy("down")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_env_is_for_eval_and_for_programs(terminal):
    assert "dhpy up" in terminal.dhpy("env", status=14)
    terminal.dhpy("up")
    variables = json.loads(terminal.dhpy("env", "--json"))
    url = terminal.place()["url"]
    assert variables["DHCORE_ENDPOINT"] == url
    assert variables["AWS_ENDPOINT_URL"] == f"{url}/s3"
    assert variables["DHCORE_DEFAULT_FILES_STORE"] == "s3://digitalhub"
    script = 'eval "$1"; echo "$DHCORE_ENDPOINT ${DHCORE_ACCESS_TOKEN-none} $AWS_REGION"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", terminal.dhpy("env")],
        env={**terminal.env, "DHCORE_ACCESS_TOKEN": "of another platform"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{url} none {variables['AWS_REGION']}\n", done.stderr


def test_exec_starts_the_control_plane_and_passes_everything_on(terminal):
    code = (
        "import os, sys; print(sys.argv[1:], os.environ['DHCORE_ENDPOINT'], "
        "os.environ.get('DHCORE_ACCESS_TOKEN')); sys.exit(7)"
    )
    said = terminal.dhpy(
        "exec", "--", sys.executable, "-c", code, "--help", "a b", status=7, DHCORE_ACCESS_TOKEN="x"
    )
    url = terminal.place()["url"]
    assert f"['--help', 'a b'] {url} None" in said
    assert "dhpy down" in said
    # It is up now, and nothing is said.
    assert terminal.dhpy("exec", "true") == ""


def test_exec_of_an_unknown_program_starts_nothing(terminal):
    said = terminal.dhpy("exec", "--", "no-such-program-dhpy", status=2)
    assert "no-such-program-dhpy" in said
    assert not (terminal.home / "server.json").exists()


def test_exec_at_the_same_time_starts_one_control_plane(terminal):
    show = "import os; print(os.environ['DHCORE_ENDPOINT'])"
    processes = [terminal.start("exec", "--", sys.executable, "-c", show) for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert {out for out, _ in outputs} == {terminal.place()["url"] + "\n"}


SDK_SCRIPT = """
import digitalhub as dh, pathlib
p = dh.get_or_create_project("proj")
pathlib.Path("note.txt").write_text("hello")
p.log_artifact(name="note", kind="artifact", source="note.txt")
print("as", dh.get_project("proj").user, pathlib.Path(p.get_artifact("note").download(overwrite=True)).read_text())
"""


def test_the_sdk_uses_this_one_whatever_profile_or_platform_the_user_has(terminal):
    (terminal.folder / "user" / ".dhcore.ini").write_text(
        "[DEFAULT]\ncurrent_environment = work\n"
        "[work]\ndhcore_endpoint = http://127.0.0.1:9\ndhcore_user = other\n"
        "dhcore_password = other\ndhcore_access_token = other\ndhcore_refresh_token = other\n"
        "aws_access_key_id = other\naws_secret_access_key = other\n"
    )
    foreign = {
        "DHCORE_ENDPOINT": "http://127.0.0.1:9",
        "DHCORE_ACCESS_TOKEN": "other",
        "DHCORE_REFRESH_TOKEN": "other",
        "DHCORE_PERSONAL_ACCESS_TOKEN": "other",
        "AWS_SESSION_TOKEN": "other",
        "DH_NAME": "work",
    }
    # A proxy that is not there; what is on this machine must not be asked of it.
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    mine = {"DHPY_USER": "me", "DHPY_PASSWORD": "of mine"}
    said = terminal.dhpy(
        "exec", "--", sys.executable, "-c", SDK_SCRIPT, **foreign, **proxies, **mine
    )
    assert said.splitlines()[-1] == "as me hello"


def test_wrong_credentials_are_said_before_the_command_runs(terminal):
    terminal.dhpy("up", DHPY_USER="me", DHPY_PASSWORD="right")
    said = terminal.dhpy("exec", "--", "echo", "ran", status=14)
    assert "asks for credentials" in said and "ran" not in said
    said = terminal.dhpy("status", status=14, DHPY_TOKEN="wrong")
    assert "asks for credentials" in said and "wrong" not in said


def test_logs_shows_the_error_first_then_the_log(terminal):
    terminal.dhpy("up")
    code = "def f():\n    print('on the way')\n    raise ValueError('no good')\n"
    with terminal.api() as api:
        run = function_run(api, code)
    said = terminal.dhpy("logs", run, "--follow")
    assert "on the way" in said
    said = terminal.dhpy("logs", run)
    assert said.startswith("ValueError: no good (main.py, line 3)\nTraceback")
    assert "on the way" in said
    assert terminal.dhpy("logs", run, "--project", "proj") == said
    assert terminal.dhpy("logs", f"store://proj/run/python+job:run/{run}:{run}") == said


def test_logs_of_a_run_that_does_not_exist_names_it(terminal):
    terminal.dhpy("up")
    assert "no run 'abc' in any project" in terminal.dhpy("logs", "abc", status=2)
    assert "no project 'p'" in terminal.dhpy("logs", "abc", "--project", "p", status=2)


def test_logs_that_are_followed_come_as_they_are_written_and_once(terminal):
    terminal.dhpy("up")
    code = "import time\ndef f():\n    for i in range(5):\n        print('line', i)\n        time.sleep(0.2)\n"
    with terminal.api() as api:
        run = function_run(api, code)
    said = terminal.dhpy("logs", run, "--follow")
    assert [said.count(f"line {i}\n") for i in range(5)] == [1] * 5


def test_a_run_goes_on_over_down_and_up(terminal):
    terminal.dhpy("up")
    port = terminal.place()["url"].rpartition(":")[2]
    code = "import time\ndef f():\n    time.sleep(2)\n    return 'done'\n"
    with terminal.api() as api:
        run = function_run(api, code)
        while api.get(f"/-/proj/runs/{run}").json()["status"]["state"] != "RUNNING":
            time.sleep(0.02)
    assert "1 of its runs goes on" in terminal.dhpy("down")
    terminal.dhpy("up", "--port", port)
    terminal.dhpy("logs", run, "--follow")
    with terminal.api() as api:
        status = api.get(f"/-/proj/runs/{run}").json()["status"]
    assert status["state"] == "COMPLETED"
    assert status["results"] == {"output_0": "done"}


def levels(terminal, **env) -> dict[str, dict]:
    process = terminal.start("doctor", "--json", **env)
    out, err = process.communicate(timeout=120)
    results = {one["what"]: one for one in json.loads(out)}
    failing = any(one["level"] == "fail" for one in results.values())
    assert process.returncode == (1 if failing else 0), err
    assert all(one["advice"] for one in results.values() if one["level"] != "ok")
    return results


def test_doctor_finds_nothing_wrong_with_a_machine_that_works(terminal):
    results = levels(terminal)
    assert not [one for one in results.values() if one["level"] == "fail"]
    lines = terminal.dhpy("doctor").splitlines()
    assert len(lines) == len(results)
    assert lines[0].startswith("ok    uv")


def test_doctor_names_what_is_wrong(terminal):
    (terminal.folder / "file").write_text("")
    ini = terminal.folder / "user" / ".dhcore.ini"
    ini.write_text("[dhpy]\ndhcore_access_token = x\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        results = levels(
            terminal,
            DHPY_PORT=str(taken.getsockname()[1]),
            DHPY_CACHE=str(terminal.folder / "file" / "cache"),
        )
    assert {what for what, one in results.items() if one["level"] == "fail"} == {
        "cache",
        "server",
        "sdk profile",
    }
    ini.write_text("[DEFAULT]\ncurrent_environment = work\n[work]\ndhcore_user = x\n")
    assert levels(terminal)["sdk profile"]["level"] == "warn"
    ini.write_text("no ini file\n")
    assert levels(terminal)["sdk profile"]["level"] == "fail"
    assert levels(terminal, DHPY_PORT="many")["settings"]["level"] == "fail"


def test_doctor_finds_the_control_plane_that_is_up(terminal):
    terminal.dhpy("up")
    assert terminal.place()["url"] in levels(terminal)["server"]["text"]


@pytest.mark.parametrize("command", ["up", "down", "status", "env", "exec", "logs", "doctor"])
def test_every_command_helps_with_an_example(terminal, command):
    assert f"dhpy {command}" in terminal.dhpy(command, "--help").partition("Example")[2]
