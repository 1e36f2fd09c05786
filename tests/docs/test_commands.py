"""The commands agree with each other, take Python versions as people write them, and help without a clone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from digitalhub_runtime_python import pages
from digitalhub_runtime_python.cli import COMMANDS, dhpy
from digitalhub_runtime_python.errors import Fault

IMAGE = ("--image", "registry/f:1")


@pytest.fixture
def main(tmp_path: Path) -> str:
    file = tmp_path / "main.py"
    file.write_text(
        "def init(context, size: int): ...\ndef f(n: int = 1, name=''):\n    return n\n"
    )
    return str(file)


def call(*words: str) -> Result:
    return CliRunner().invoke(dhpy, list(words))


def fault(*words: str) -> Fault:
    raised = call(*words).exception
    assert isinstance(raised, Fault), raised
    return raised


def options() -> dict[str, set[str]]:
    """Short option -> the long ones that it stands for, over all commands."""
    found: dict[str, set[str]] = {}
    for name in COMMANDS:
        command = dhpy.get_command(click.Context(dhpy), name)
        assert command is not None
        for parameter in command.params:
            short = [o for o in parameter.opts if len(o) == 2]
            long = [o for o in parameter.opts if o.startswith("--")]
            for option in short:
                found.setdefault(option, set()).update(long[:1])
    return found


def test_a_short_option_means_one_thing_in_all_commands() -> None:
    # Where the one writes a file, the other fills a folder.
    found = {short: long - {"--output-dir"} or long for short, long in options().items()}
    assert {short: long for short, long in found.items() if len(long) != 1} == {}


@pytest.mark.parametrize("version", ["3.10", "PYTHON3_10"])
@pytest.mark.parametrize("option", ["--python", "--python-version"])
def test_a_python_version_is_taken_in_both_forms(main: str, version: str, option: str) -> None:
    made = call("manifests", f"{main}:f", *IMAGE, "--json", option, version)
    assert json.loads(made.output)["spec"]["runtime"] == "python:3.10"


@pytest.mark.parametrize("command", ["manifests", "dockerfile", "build", "lock"])
@pytest.mark.parametrize("version", ["2.7", "3", "python3.11", "PYTHON2_7"])
def test_a_python_version_that_is_not_there_is_refused(
    main: str, command: str, version: str
) -> None:
    image = IMAGE if command == "manifests" else ()
    refused = fault(command, f"{main}:f", *image, "--python", version)
    assert refused.code == "usage/python-version" and "PYTHON3_11" in str(refused)


@pytest.mark.parametrize("command", ["manifests", "dockerfile", "build", "lock"])
def test_a_handler_that_is_not_there_and_code_that_is_no_python_are_refused(
    main: str, command: str
) -> None:
    image = IMAGE if command == "manifests" else ()
    assert fault(command, f"{main}:g", *image).code == "handler/not-found"
    Path(main).write_text("def f(:\n")
    assert fault(command, f"{main}:f", *image).code == "handler/syntax"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (["--memory", "12XB"], "usage/deployment"),
        (["--memory", "128Mi:1GB"], "usage/deployment"),
        (["--cpu", "half"], "usage/deployment"),
        (["-p", "m=1"], "arguments/mismatch"),
        (["-p", "n=many"], "arguments/mismatch"),
        (["--init-function", "init", "--init-parameter", "size=x"], "arguments/mismatch"),
        (["--init-function", "nope"], "handler/not-found"),
    ],
)
def test_manifests_refuses_what_could_not_be_deployed(
    main: str, given: list[str], code: str
) -> None:
    assert fault("manifests", f"{main}:f", *IMAGE, *given).code == code


@pytest.mark.parametrize(
    "given",
    [
        ["-p", "n=3", "--memory", "128Mi:1.5Gi", "--cpu", "100m:1"],
        ["--init-function", "init", "--init-parameter", "size=2"],
    ],
)
def test_manifests_takes_what_can_be(main: str, given: list[str]) -> None:
    assert call("manifests", f"{main}:f", *IMAGE, *given).exit_code == 0


def test_a_decorated_handler_takes_what_its_decorator_says(main: str) -> None:
    Path(main).write_text("import deco\n@deco.wrap\ndef f(): ...\n@handler()\ndef g(n: int): ...\n")
    assert call("manifests", f"{main}:f", *IMAGE, "-p", "any=1").exit_code == 0
    assert fault("manifests", f"{main}:g", *IMAGE, "-p", "any=1").code == "arguments/mismatch"


def test_a_file_to_send_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    said = fault("invoke", "-d", f"@{tmp_path}/nope")
    assert said.code == "usage/invoke" and f"{tmp_path}/nope" in str(said)


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        ("errors", "# Errors"),
        ("reference/run", "# "),
        ("guides/jobs", "# "),
        ("arguments/mismatch", "exit status 12"),
        ("run", "Usage: dhpy run"),
        (None, "reference/errors"),
    ],
)
def test_help_has_pages_codes_and_commands(topic: str | None, text: str) -> None:
    assert text in call("help", *([topic] if topic else [])).output


def test_a_topic_that_is_not_there_names_the_nearest() -> None:
    assert "'errors'" in str(fault("help", "erors"))


def test_every_topic_that_a_message_names_is_there() -> None:
    root = Path(__file__).resolve().parents[2]
    import re

    for package in ("wrapper", "builder", "control"):
        for file in (root / package).rglob("*.py"):
            text = file.read_text("utf-8")
            if file.name == "cli.py" and "help_" in text:
                continue
            for topic in re.findall(r"dhpy help ([a-z/-]+)", text):
                assert pages.find(topic)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("DHPY_WORKER", "DHPY_WORKERS"), ("DHPY_LOGLEVEL", "DHPY_LOG_LEVEL"), ("DHPY_ZZZ", "")],
)
def test_a_variable_that_does_nothing_is_warned_of(name: str, nearest: str) -> None:
    (said,) = pages.unknown_variables([name, "PATH", "DHPY_HOME", "DHPY_TEST_X"])
    assert name in said and (f"Did you mean {nearest}?" in said) == bool(nearest)
    code = "from digitalhub_runtime_python.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        env={**os.environ, name: "x"},
        capture_output=True,
        text=True,
    )
    assert f"dhpy: {said}\n" in result.stderr and result.returncode == 0


def test_no_variable_that_the_program_reads_is_warned_of() -> None:
    import re

    root = Path(__file__).resolve().parents[2]
    named = {
        name
        for package in ("wrapper", "builder", "control")
        for file in (root / package).rglob("*.py")
        for name in re.findall(r'"(DHPY_[A-Z0-9_]*[A-Z0-9])"', file.read_text("utf-8"))
    }
    assert pages.unknown_variables(named) == []
