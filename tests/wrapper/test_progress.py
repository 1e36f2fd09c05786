"""`context.progress`: it reaches the platform while the handler works, and never holds the handler up."""

from __future__ import annotations

import io
import math
import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moody import MoodyPlatform, moody_platform
from walking import PATIENCE, job_environ, run_entity, run_process, walk

from digitalhub_runtime_python.progress import Line, Progress, line_of, value_of

WAITING = """
import pathlib, time
def f(context):
    context.progress(3, 10, "epoch 3")
    end = time.monotonic() + 120
    while not pathlib.Path({go!r}).exists() and time.monotonic() < end:
        time.sleep(0.01)
    context.progress(9, 10)
    return 1
"""


def wait_until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def start(platform: MoodyPlatform, folder: Path) -> subprocess.Popen[str]:
    environ = {**job_environ(folder), **platform.environ(folder / "work")}
    command = [sys.executable, "-m", "digitalhub_runtime_python", "job"]
    return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)


def progress_of(platform: MoodyPlatform) -> Any:
    return platform.run["status"].get("progress")


def test_it_is_in_the_runs_status_while_the_handler_works_and_its_last_word_after(
    tmp_path: Path,
) -> None:
    go = tmp_path / "go"
    with moody_platform(run_entity(WAITING.format(go=str(go)))) as platform:
        process = start(platform, tmp_path)
        wait_until(lambda: progress_of(platform))
        assert progress_of(platform) == {"done": 3, "total": 10, "text": "epoch 3"}
        assert "results" not in platform.run["status"]
        go.touch()
        assert process.wait(PATIENCE) == 0, process.communicate()
        process.communicate()
        assert progress_of(platform) == {"done": 9, "total": 10}
        assert platform.run["status"]["results"] == {"output_0": 1}


def test_a_thousand_values_cost_the_platform_a_few_requests(tmp_path: Path) -> None:
    code = "def f(context):\n    for n in range(1001): context.progress(n, 1000)\n"
    with moody_platform(run_entity(code)) as platform:
        process = start(platform, tmp_path)
        assert process.wait(PATIENCE) == 0, process.communicate()
        process.communicate()
        assert progress_of(platform) == {"done": 1000, "total": 1000}
        # One for each second that the loop took, which nobody knows on a machine that is busy.
        assert sum(r.startswith("PUT") for r in platform.requests) < 100


@pytest.mark.parametrize("mood", [500, 404, "drop", "cut", "list", "html"])
def test_a_platform_in_trouble_costs_the_run_nothing(tmp_path: Path, mood: Any) -> None:
    code = "def f(context):\n    context.progress(1, 2)\n    return 7\n"
    with moody_platform(run_entity(code)) as platform:
        platform.moods = [None, mood]
        process = start(platform, tmp_path)
        # The mood may meet the report instead, where a 404 is not a trouble that passes.
        assert process.wait(PATIENCE) in ((0, 14) if mood == 404 else (0,)), process.communicate()
        process.communicate()
        if process.returncode == 0:
            assert platform.run["status"]["results"] == {"output_0": 7}
            assert progress_of(platform) == {"done": 1, "total": 2}


def test_a_run_that_fails_says_how_far_it_had_come_and_names_no_secret(tmp_path: Path) -> None:
    code = """
    def f(context):
        context.progress(4, 5, "with hunter22")
        raise ValueError("no")
    """
    outcome = walk(tmp_path, code, environ={"DHCORE_PASSWORD": "hunter22"})
    assert outcome.exit_status == 1
    assert outcome.status["progress"] == {"done": 4, "total": 5, "text": "with •••"}
    assert outcome.status["error"]["type"] == "ValueError"


def test_the_init_function_has_it_too_and_a_run_that_says_nothing_has_none(tmp_path: Path) -> None:
    code = "def init(c): c.progress(text='loading')\ndef f(): return 1"
    outcome = walk(tmp_path, code, source={"init_function": "init"})
    assert outcome.status["progress"] == {"text": "loading"}
    assert "progress" not in walk(tmp_path / "other", "def f(context): return 1").status


def test_a_process_that_the_handler_forks_may_say_something_and_nobody_hears_it(
    tmp_path: Path,
) -> None:
    code = """
    import os
    def f(context):
        pid = os.fork()
        if not pid:
            context.progress(1, 2)
            os._exit(0)
        return os.waitpid(pid, 0)[1]
    """
    done = run_process(tmp_path, run_entity(code))
    assert done.status["results"] == {"output_0": 0} and "progress" not in done.status


# --- the thread that tells -------------------------------------------------------------------------


def test_saying_something_never_waits_for_the_platform() -> None:
    asked, answer, told = threading.Event(), threading.Event(), []

    def tell(value: Any) -> float:
        told.append(value)
        asked.set()
        assert answer.wait(PATIENCE)
        return 0.0

    progress = Progress(tell)
    progress.say(0, 100)
    assert asked.wait(PATIENCE)
    for n in range(1, 101):
        progress.say(n, 100)
    assert told == [{"done": 0, "total": 100}]
    answer.set()
    wait_until(lambda: len(told) == 2)
    assert told[1] == {"done": 100, "total": 100}  # what came meanwhile is left out
    progress.close()
    progress.say(7)
    assert progress.latest == {"done": 100, "total": 100}


def test_nothing_is_told_after_the_end_and_the_end_waits_for_what_is_on_its_way() -> None:
    asked, told = threading.Event(), []

    def tell(value: Any) -> float:
        asked.set()
        time.sleep(0.2)
        told.append(value)
        return 60.0

    progress = Progress(tell)
    progress.say(1)
    assert asked.wait(PATIENCE)
    progress.say(2)
    progress.close()
    progress.close()
    assert told == [{"done": 1}] and progress.latest == {"done": 2}


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __float__ = None


@given(
    st.tuples(*[st.one_of(st.none(), st.floats(), st.integers(), st.text(), st.builds(Rude))] * 3)
)
def test_whatever_is_said_nothing_is_raised_and_what_is_kept_can_be_shown(said: Any) -> None:
    progress = Progress(lambda value: 0.0)
    progress.say(*said)
    progress.close()
    assert "\n" not in line_of(progress.latest)


# --- how it looks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        ({"done": 30, "total": 50, "text": "epoch 3"}, "████████████░░░░░░░░ 30 of 50, 60 %, epoch 3"),
        ({"done": 0, "total": 5}, "░░░░░░░░░░░░░░░░░░░░ 0 of 5, 0 %"),
        ({"done": 7, "total": 5}, "████████████████████ 7 of 5, 100 %"),
        ({"done": 12345}, "12,345"),
        ({"done": 1, "total": 0, "text": "x"}, "1, x"),
        ({"text": "\x1b[2Jred\u202e"}, "[2Jred"),
        ({"done": "many", "total": []}, ""),
        (None, ""),
        ([1], ""),
    ],
)  # fmt: skip
def test_a_progress_is_one_line_whatever_a_status_has(progress: Any, line: str) -> None:
    assert line_of(progress) == line


def test_values_are_numbers_and_one_short_line() -> None:
    assert value_of(1.0, 3, " a\nb ") == {"done": 1, "total": 3, "text": "a b"}
    assert value_of(None, None, "x" * 500) == {"text": "x" * 200}
    for bad in (math.nan, math.inf, "many", object()):
        with pytest.raises((TypeError, ValueError)):
            value_of(bad, None, "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_that_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    line = Line()
    for text in ("12345", "12345", "1"):
        line.show(text)
    line.end()
    line.end()
    assert terminal.getvalue() == "\r12345\r1    \n"


def test_elsewhere_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    said: list[str] = []
    often, seldom = Line(said.append, every=0), Line(said.append, every=3600)
    for text in ("1", "2", "2", ""):
        often.show(text)
        seldom.show(text)
    often.end()
    assert said == ["1", "2"] and sys.stderr.getvalue() == ""


def test_dhpy_run_shows_it_on_a_terminal(tmp_path: Path) -> None:
    go = tmp_path / "go"
    (tmp_path / "main.py").write_text(WAITING.format(go=str(go)))
    command = [str(Path(sys.executable).with_name("dhpy")), "run", "main.py:f"]
    ours, theirs = pty.openpty()
    seen = b""
    try:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        while b"3 of 10, 30 %, epoch 3" not in seen:
            seen += os.read(ours, 1000)  # raises where the command has ended
        go.touch()
        assert process.wait(PATIENCE) == 0
    finally:
        os.close(ours)
