"""`dhpy run`: one run with no platform, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
from pathlib import Path

import pandas as pd

from digitalhub_runtime_python import handler

import helper


@handler(outputs=["kept", "dropped"])
def clean(data, least: int):
    frame = data.as_df()
    return frame[frame["n"] >= least], helper.count(frame["n"] < least)


def size(data: Path):
    return len(data.read_text())


def frame(data: pd.DataFrame):
    return list(data.columns)


def typed(n: int, name: str = "x", tags: list = ()):
    return {"n": n, "name": name, "tags": list(tags)}


def broken():
    raise ValueError("bad input: row 3")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(CODE)
    (tmp_path / "helper.py").write_text("def count(flags):\n    return int(flags.sum())\n")
    (tmp_path / "data.csv").write_text("n\n1\n5\n9\n")
    return tmp_path


def dhpy(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("dhpy")), "run", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_function_written_for_entities_runs_on_local_files(folder: Path) -> None:
    done = dhpy(folder, "main.py:clean", "-i", "data=data.csv", "-p", "least=5", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["dropped = 1", "kept -> out/kept.parquet"]
    assert (folder / "out" / "kept.parquet").exists()


@pytest.mark.parametrize(("function", "result"), [("size", "8"), ("frame", '["n"]')])
def test_an_input_arrives_as_the_hint_says(folder: Path, function: str, result: str) -> None:
    done = dhpy(folder, f"main.py:{function}", "-i", "data=data.csv")
    assert done.stdout.strip() == f"output_0 = {result}"


def test_text_becomes_what_the_hints_say(folder: Path) -> None:
    words = ["-p", "n=3", "-p", "name=5", "-p", 'tags=["a", "b"]']
    done = dhpy(folder, "main.py:typed", *words, "--json")
    status = json.loads(done.stdout)
    assert status["results"]["output_0"] == {"n": 3, "name": "5", "tags": ["a", "b"]}


def test_the_users_error_is_shown_with_the_users_lines_alone(folder: Path) -> None:
    done = dhpy(folder, "main.py:broken")
    assert done.returncode == 1
    assert "digitalhub_runtime_python" not in done.stderr
    assert done.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert "main.py" in done.stderr.splitlines()[1]
    assert done.stderr.splitlines()[-1] == "ValueError: bad input: row 3"


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["main.py:cleen"], 11, "Did you mean 'clean'?"),
        (["nope.py:f"], 2, "There is no file 'nope.py'."),
        (["main.py"], 2, "is not FILE:HANDLER"),
        (["main.py:typed", "-p", "n"], 2, "'n' is not K=V"),
        (["main.py:typed", "-p", "n=three"], 12, "'n' expects int"),
        (["main.py:clean", "-i", "data=gone.csv", "-p", "least=1"], 12, "'gone.csv'"),
    ],
)
def test_bad_words_are_one_line_that_says_what_to_do(
    folder: Path, words: list[str], status: int, text: str
) -> None:
    done = dhpy(folder, *words)
    assert done.returncode == status, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "outputs").exists()
