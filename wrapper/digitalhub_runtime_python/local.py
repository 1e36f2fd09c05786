"""`dhpy run`: one run of a function that lies on this machine, with no platform."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable, TypeVar

import click

from digitalhub_runtime_python import log
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.nesting import read_json
from digitalhub_runtime_python.progress import Line, line_of
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import Fetched
from digitalhub_runtime_python.spec import (
    PYTHON_VERSIONS,
    RunSpec,
    SourceSpec,
    interpreter_version,
    python_name,
)

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.command("run", short_help="Run a function once, with no platform.")
@click.argument("target", metavar="FILE:HANDLER")
@click.option("-p", "--parameter", "parameters", multiple=True, metavar="K=V", help="A parameter; V is converted to the type hint.")  # fmt: skip
@click.option("-i", "--input", "inputs", multiple=True, metavar="K=PATH", help="An input: a local file or folder.")  # fmt: skip
@click.option("--init-function", help="Call this function of the file first, with the context.")
@click.option("--init-parameter", "init_parameters", multiple=True, metavar="K=V", help="A parameter of the init function.")  # fmt: skip
@click.option("-o", "--output-dir", type=click.Path(path_type=Path), default=Path("outputs"), show_default=True, help="Where frames, files and objects that it returns go.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
def run(
    target: str,
    parameters: tuple[str, ...],
    inputs: tuple[str, ...],
    init_function: str | None,
    init_parameters: tuple[str, ...],
    output_dir: Path,
    as_json: bool,
) -> None:
    """Run HANDLER of FILE once and print what it returned.

    \b
    Examples:
      dhpy run main.py:train -p epochs=3 -p name=first
      dhpy run src/etl.py:clean -i data=raw.csv -o out
    """
    import os

    from digitalhub_runtime_python.hub.offline import OfflineHub
    from digitalhub_runtime_python.lifecycle import run_job

    settings = Settings.from_env(os.environ)
    log.configure(settings.log_level, settings.log_format)
    file, handler = split_target(target)
    spec = RunSpec(
        id="local",
        project="local",
        action="job",
        source=SourceSpec(source=file.name, handler=handler, init_function=init_function),
        parameters=pairs(parameters),
        inputs=pairs(inputs),
        init_parameters=pairs(init_parameters),
        lax_parameters=True,
    )
    line = Line()
    hub = OfflineHub(spec, output_dir, on_progress=lambda value: line.show(line_of(value)))
    ending = run_job(hub, settings, code=in_place(file), own_process=True)
    line.end()
    if as_json:
        click.echo(json.dumps(ending.status, indent=2))
    else:
        _print_returned(ending.status)
    sys.exit(ending.exit_status)


class PythonVersion(click.ParamType):  # type: ignore[type-arg]
    """A Python version on a command line: `3.11` or `PYTHON3_11`; its value is the latter."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = str(python_name(value))
        interpreter_version(found)
        return found


def python_option(help: str) -> Callable[[_Command], _Command]:
    """The option that names a function's Python, with both its names."""
    default = f"3.{sys.version_info[1]}"
    names = ("--python", "--python-version", "python_version")
    return click.option(*names, type=PythonVersion(), default=default, show_default=True, help=f"{help} {', '.join(PYTHON_VERSIONS.values())}, or as PYTHON3_11.")  # fmt: skip


def split_target(target: str) -> tuple[Path, str]:
    """(file, handler) of `FILE:HANDLER`.

    Raises:
        UsageFault: usage/target, when it has another form or the file is not there.
    """
    name, _, handler = target.rpartition(":")
    if not name or not handler:
        raise UsageFault(
            "usage/target", f"{target!r} is not FILE:HANDLER.", "Write e.g. main.py:train."
        )
    file = Path(name).absolute()
    if not file.is_file():
        raise UsageFault("usage/target", f"There is no file {name!r}.", "Check the path.")
    return file, handler


def in_place(file: Path) -> Fetched:
    """The code where it lies: a run on the user's own machine must not copy the user's folder."""
    return Fetched(root=file.parent.resolve(), main=Path(file.name), revision=None)


def pairs(items: tuple[str, ...]) -> dict[str, Any]:
    """`("k=v", …)` as a dict of text.

    Raises:
        UsageFault: usage/pair, for an item without `=`.
    """
    for item in items:
        if "=" not in item:
            raise UsageFault("usage/pair", f"{item!r} is not K=V.", "Write e.g. -p epochs=3.")
    return {key: value for key, _, value in (item.partition("=") for item in items)}


def json_pairs(items: tuple[str, ...]) -> dict[str, Any]:
    """As `pairs`, with each value read as JSON where it is JSON, else as text."""
    return {name: _json_or_text(text) for name, text in pairs(items).items()}


def _json_or_text(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError:
        return text


def _print_returned(status: dict[str, Any]) -> None:
    for name, value in status.get("results", {}).items():
        click.echo(f"{name} = {json.dumps(value)}")
    for name, path in status.get("outputs", {}).items():
        click.echo(f"{name} -> {path}")
