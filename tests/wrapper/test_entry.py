"""`python -m digitalhub_runtime_python job`: exit statuses, signals, deadlines, what is said and where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from walking import PATIENCE, Done, finish_job, job_environ, run_entity, run_process, start_job

SLEEPS = """
import pathlib, time

def f(folder):
    place = pathlib.Path(folder)
    try:
        (place / "started").touch()
        time.sleep(600)
    finally:
        (place / "cleaned").touch()
"""


def start_sleeping(folder: Path, code: str = SLEEPS, **environ: str) -> subprocess.Popen[str]:
    """A job that is in its handler."""
    process = start_job(folder, run_entity(code, parameters={"folder": str(folder)}), **environ)
    give_up = time.monotonic() + PATIENCE
    while not (folder / "started").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    return process


def command(*args: str, cwd: Path, **environ: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "digitalhub_runtime_python", *args],
        env=job_environ(cwd, **environ),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return Done(done.returncode, done.stdout, done.stderr, {})


def test_a_job_that_returns_exits_with_0(tmp_path: Path) -> None:
    done = run_process(tmp_path, run_entity("def f(): return 1"))
    assert (done.exit_status, done.status["results"]) == (0, {"output_0": 1})


def test_what_the_user_raises_exits_with_1_and_is_said_in_full(tmp_path: Path) -> None:
    done = run_process(tmp_path, run_entity("def f():\n    raise ValueError('no')"))
    assert done.exit_status == 1
    assert done.stderr.endswith(
        'Traceback (most recent call last):\n  File "main.py", line 2, in f\n'
        "    raise ValueError('no')\nValueError: no\n"
    )


@pytest.mark.parametrize(
    "args, said",
    [
        ([], "usage: python -m"),
        (["jobs"], "usage: python -m"),
        (["job", "extra"], "usage: python -m"),
    ],
)
def test_a_command_that_is_none_exits_with_2(tmp_path: Path, args: list[str], said: str) -> None:
    done = command(*args, cwd=tmp_path)
    assert done.exit_status == 2
    assert said in done.stderr


def test_help_and_version_go_to_standard_output(tmp_path: Path) -> None:
    for args in (["--help"], ["-h"], ["help"], ["version"]):
        done = command(*args, cwd=tmp_path)
        assert (done.exit_status, done.stderr) == (0, "")
        assert done.stdout


@pytest.mark.parametrize(
    "environ, said",
    [
        ({"DHPY_RUN_FILE": "absent.json"}, "absent.json cannot be read"),
        ({"DHPY_RUN_FILE": "text.json"}, "is not JSON"),
        ({"DHPY_RUN_FILE": "list.json"}, "The run must be a JSON object; it is list."),
        ({"DHPY_RUN_FILE": "serve.json"}, "only a job is executed like this"),
        ({"DHPY_RUN_FILE": "run.json", "DHPY_DEADLINE": "soon"}, "DHPY_DEADLINE is 'soon'."),
        ({"DHPY_RUN_FILE": "run.json", "DHPY_DEADLINE": "-1"}, "DHPY_DEADLINE is '-1'."),
        ({"DHPY_RUN_FILE": "run.json", "DHPY_DEADLINE": "inf"}, "DHPY_DEADLINE is 'inf'."),
        ({"DHPY_RUN_FILE": "run.json", "DHPY_LOG_LEVEL": "LOUD"}, "DHPY_LOG_LEVEL is 'LOUD'."),
        ({"DHPY_RUN_FILE": "run.json", "DHPY_WORKSPACE": "/dev/null/x"}, "cannot be written"),
    ],
)
def test_a_run_or_a_setting_that_cannot_be_exits_with_2_and_one_line(
    tmp_path: Path, environ: dict[str, str], said: str
) -> None:
    (tmp_path / "text.json").write_text("not JSON")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "serve.json").write_text(json.dumps({"kind": "python+serve:run"}))
    (tmp_path / "run.json").write_text(json.dumps(run_entity("def f(): pass")))
    done = command("job", cwd=tmp_path, **environ)
    assert done.exit_status == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "[usage/" in done.stderr


def test_code_that_cannot_be_fetched_exits_with_10(tmp_path: Path) -> None:
    done = run_process(tmp_path, run_entity(None, source={"source": "no/such/folder"}))
    assert done.exit_status == 10
    assert done.status["error"]["code"].startswith("source/")
    assert done.status["error"]["exit_status"] == 10


def test_a_job_without_a_platform_to_ask_exits_with_14_and_names_what_is_not_set(
    tmp_path: Path,
) -> None:
    done = command("job", cwd=tmp_path)
    assert done.exit_status == 14
    assert "The environment lacks DHCORE_ENDPOINT, PROJECT_NAME, RUN_ID." in done.stderr
    assert "[platform/not-configured]" in done.stderr


def test_sigterm_lets_the_handler_clean_up_and_exits_with_143(tmp_path: Path) -> None:
    process = start_sleeping(tmp_path)
    process.send_signal(signal.SIGTERM)
    done = finish_job(process, tmp_path)
    assert done.exit_status == 143
    assert (tmp_path / "cleaned").exists()
    assert done.status["error"]["type"] == "Terminated"
    assert done.status["error"]["message"] == "ended by signal 15"
    assert done.status["error"]["file"] == "main.py"


def test_sigterm_reaches_an_async_handler_and_gets_past_except_exception(tmp_path: Path) -> None:
    code = """
    import asyncio, pathlib

    async def f(folder):
        place = pathlib.Path(folder)
        while True:
            try:
                (place / "started").touch()
                await asyncio.sleep(600)
            except Exception:
                pass
            finally:
                (place / "cleaned").touch()
    """
    process = start_sleeping(tmp_path, code)
    process.send_signal(signal.SIGTERM)
    done = finish_job(process, tmp_path)
    assert done.exit_status == 143
    assert (tmp_path / "cleaned").exists()


def test_a_second_sigterm_kills_a_handler_that_will_not_end(tmp_path: Path) -> None:
    code = """
    import pathlib, time

    def f(folder):
        place = pathlib.Path(folder)
        while True:
            try:
                (place / "started").touch()
                time.sleep(600)
            except BaseException:
                (place / "stubborn").touch()
    """
    process = start_sleeping(tmp_path, code)
    process.send_signal(signal.SIGTERM)
    give_up = time.monotonic() + PATIENCE
    while not (tmp_path / "stubborn").exists():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert finish_job(process, tmp_path).exit_status == -signal.SIGTERM


def test_sigint_exits_with_130(tmp_path: Path) -> None:
    process = start_sleeping(tmp_path)
    process.send_signal(signal.SIGINT)
    done = finish_job(process, tmp_path)
    assert done.exit_status == 130
    assert done.status["error"]["type"] == "KeyboardInterrupt"
    assert (tmp_path / "cleaned").exists()


def test_a_pool_that_the_handler_forks_is_terminated_without_a_word(tmp_path: Path) -> None:
    code = """
    import multiprocessing, time

    def f():
        context = multiprocessing.get_context("fork")
        process = context.Process(target=time.sleep, args=(600,))
        process.start()
        process.terminate()
        process.join()
        return process.exitcode
    """
    done = run_process(tmp_path, run_entity(code))
    assert done.status["results"] == {"output_0": -signal.SIGTERM}
    assert "Terminated" not in done.stderr


@pytest.mark.parametrize(
    "body",
    ["time.sleep(600)", "threading.Event().wait()", "while True: pass", "while True: swallow()"],
)
def test_a_job_that_passes_its_deadline_exits_with_124_and_says_where_it_was(
    tmp_path: Path, body: str
) -> None:
    code = f"""
    import threading, time

    def swallow():
        try:
            time.sleep(600)
        except BaseException:
            pass

    def f():
        {body}
    """
    done = run_process(tmp_path, run_entity(code), DHPY_DEADLINE="0.5")
    assert done.exit_status == 124
    error = done.status["error"]
    assert (error["type"], error["code"]) == ("DeadlineFault", "deadline/passed")
    assert "longer than its deadline of 0.5 s" in error["message"]
    assert "in f\n" in error["traceback"]
    assert "digitalhub_runtime_python/" not in error["traceback"]
    assert "runpy" not in error["traceback"]
    assert "[deadline/passed]" in done.stderr


def test_what_was_printed_before_the_deadline_is_not_lost(tmp_path: Path) -> None:
    code = "import time\ndef f():\n    print('half way')\n    time.sleep(600)"
    done = run_process(tmp_path, run_entity(code), DHPY_DEADLINE="0.5")
    assert (done.exit_status, done.stdout) == (124, "half way\n")


def test_what_is_printed_can_be_read_while_the_function_runs(tmp_path: Path) -> None:
    code = SLEEPS.replace("(place /", "print('started'); (place /", 1)
    process = start_sleeping(tmp_path, code)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    finish_job(process, tmp_path)


def test_a_crash_in_c_code_shows_where_it_was(tmp_path: Path) -> None:
    code = "import ctypes\ndef f():\n    ctypes.string_at(0)"
    done = run_process(tmp_path, run_entity(code))
    assert done.exit_status == -signal.SIGSEGV
    assert 'main.py", line 3 in f' in done.stderr


def test_a_deadline_that_is_kept_changes_nothing(tmp_path: Path) -> None:
    done = run_process(tmp_path, run_entity("def f(): return 1"), DHPY_DEADLINE="60")
    assert (done.exit_status, done.status["results"]) == (0, {"output_0": 1})


def test_what_failed_is_the_containers_termination_message(tmp_path: Path) -> None:
    place = tmp_path / "termination-log"
    code = "def f():\n    raise ValueError('€' * 3000 + 'the end')"
    done = run_process(tmp_path, run_entity(code), DHPY_TERMINATION_LOG=str(place))
    assert done.exit_status == 1
    assert len(place.read_bytes()) == 4096
    assert place.read_bytes().endswith("€the end\n".encode())


def test_a_termination_message_is_written_for_a_fault_before_there_is_a_run(tmp_path: Path) -> None:
    place = tmp_path / "termination-log"
    command("job", cwd=tmp_path, DHPY_TERMINATION_LOG=str(place))
    assert "[platform/not-configured]" in place.read_text()


def test_a_run_that_ends_well_leaves_no_termination_message(tmp_path: Path) -> None:
    place = tmp_path / "termination-log"
    run_process(tmp_path, run_entity("def f(): pass"), DHPY_TERMINATION_LOG=str(place))
    assert not place.exists()


def test_a_termination_message_that_cannot_be_written_changes_no_exit_status(
    tmp_path: Path,
) -> None:
    done = run_process(tmp_path, run_entity("def f(): 1 / 0"), DHPY_TERMINATION_LOG="/dev/null/x")
    assert done.exit_status == 1
    assert "the termination message cannot be written" in done.stderr


def test_a_text_that_is_no_unicode_is_said_and_reported(tmp_path: Path) -> None:
    place = tmp_path / "termination-log"
    code = "def f():\n    raise ValueError('a\\ud800b')"
    done = run_process(tmp_path, run_entity(code), DHPY_TERMINATION_LOG=str(place))
    assert done.exit_status == 1
    assert done.status["error"]["message"] == "a\ud800b"
    assert place.read_text().endswith("ValueError: a?b\n")


def test_secrets_are_in_no_report_and_no_log(tmp_path: Path) -> None:
    code = """
    import os

    def f():
        raise ValueError("refused: " + os.environ["DB_LOGIN"] + " " + os.environ["DHCORE_ACCESS_TOKEN"])
    """
    secret, token = "hunter2-hunter2", "eyJhbGciOi.token"
    done = run_process(
        tmp_path,
        run_entity(code, secrets=["DB_LOGIN"]),
        DB_LOGIN=secret,
        DHCORE_ACCESS_TOKEN=token,
        DHPY_LOG_LEVEL="DEBUG",
    )
    assert done.exit_status == 1
    text = json.dumps(done.status) + done.stderr + done.stdout
    assert secret not in text
    assert token not in text
    assert done.status["error"]["message"] == "refused: ••• •••"


def test_a_secret_in_a_name_of_a_file_is_not_shown_by_our_own_faults(tmp_path: Path) -> None:
    entity = run_entity(None, source={"source": "/nowhere/hunter2-hunter2"}, secrets=["LOGIN"])
    done = run_process(tmp_path, entity, LOGIN="hunter2-hunter2")
    assert done.exit_status == 10
    assert "hunter2-hunter2" not in json.dumps(done.status["error"])


def test_the_log_can_be_json_lines(tmp_path: Path) -> None:
    entity = run_entity("def f(event): return 1", parameters={"event": 2})
    done = run_process(tmp_path, entity, DHPY_LOG_FORMAT="json")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    warning = next(line for line in lines if line["level"] == "warning")
    assert "reserved" in warning["message"]
    assert set(warning) == {"time", "level", "logger", "message"}


def test_the_workspace_is_empty_after_a_run_but_for_what_it_made(tmp_path: Path) -> None:
    run_process(tmp_path, run_entity("def f(): return b'x'"))
    assert sorted(p.name for p in (tmp_path / "work").iterdir()) == ["outputs"]
    assert sorted(p.name for p in (tmp_path / "work" / "outputs").iterdir()) == [
        "output_0",
        "status.json",
    ]


def test_a_run_works_where_its_working_folder_is_read_only(tmp_path: Path) -> None:
    place = tmp_path / "read-only"
    place.mkdir()
    (tmp_path / "run.json").write_text(json.dumps(run_entity("def f(): return 1")))
    place.chmod(0o555)
    environ = {"DHPY_RUN_FILE": str(tmp_path / "run.json"), "DHPY_WORKSPACE": str(tmp_path / "w")}
    done = command("job", cwd=place, **environ)
    assert done.exit_status == 0, done.stderr


def test_a_full_disk_is_one_output_that_is_not_stored(tmp_path: Path) -> None:
    if not Path("/dev/full").exists() or os.geteuid() != 0:
        pytest.skip("needs /dev/full and a file system to mount")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)])
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        entity = run_entity("def f(): return 1, b'x' * 2_000_000")
        (tmp_path / "run.json").write_text(json.dumps(entity))
        environ = {"DHPY_RUN_FILE": str(tmp_path / "run.json"), "DHPY_WORKSPACE": str(place)}
        done = command("job", cwd=tmp_path, **environ)
        assert done.exit_status == 13, done.stderr
        assert "No space left on device" in done.stderr
        status = json.loads((place / "outputs" / "status.json").read_text())
        assert status["results"] == {"output_0": 1}
    finally:
        subprocess.run(["umount", str(place)], check=True)
