"""`dhpy`: the command line. Each command's code is loaded when the command is called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from digitalhub_runtime_python import pages
from digitalhub_runtime_python._version import __version__
from digitalhub_runtime_python.errors import Fault

# Command -> where it is, and its line in --help: so that help needs no import of any of them.
COMMANDS = {
    "run": ("digitalhub_runtime_python.local:run", "Run a function once, with no platform."),
    "serve": ("digitalhub_runtime_python.serve.cli:serve", "Serve a function over HTTP."),
    "invoke": ("digitalhub_runtime_python.serve.cli:invoke", "Call a served function."),
    "dockerfile": (
        "digitalhub_python_builder.cli:dockerfile",
        "Print the Dockerfile of a function's image.",
    ),
    "lock": ("digitalhub_python_builder.cli:lock_", "Lock a function's requirements."),
    "build": ("digitalhub_python_builder.cli:build_", "Build a function's image."),
    "images": ("digitalhub_python_builder.images_cli:images", "Make and list images."),
    "manifests": (
        "digitalhub_runtime_python.nuclio.cli:manifests",
        "Print what deploys a function.",
    ),
    "up": ("digitalhub_python_control.cli:up", "Start the control plane on this machine."),
    "down": ("digitalhub_python_control.cli:down", "Stop it."),
    "status": ("digitalhub_python_control.cli:status", "Say whether it is up, and what runs."),
    "env": ("digitalhub_python_control.cli:env", "Print the SDK's settings for it."),
    "exec": ("digitalhub_python_control.cli:exec_", "Run a command with the SDK's settings."),
    "runs": ("digitalhub_python_control.runs_cli:runs", "List runs."),
    "show": ("digitalhub_python_control.runs_cli:show", "Show what is known of a run."),
    "logs": ("digitalhub_python_control.logs_cli:logs", "Print a run's error and its log."),
    "outputs": ("digitalhub_python_control.runs_cli:outputs", "List or download what a run gave."),
    "stop": ("digitalhub_python_control.runs_cli:stop", "Stop runs."),
    "rm": ("digitalhub_python_control.runs_cli:rm", "Delete runs."),
    "rerun": ("digitalhub_python_control.runs_cli:rerun", "Run again as before."),
    "functions": ("digitalhub_python_control.runs_cli:functions", "List functions."),
    "prune": (
        "digitalhub_python_control.runs_cli:prune",
        "Remove old runs and unused environments.",
    ),
    "control-plane": (
        "digitalhub_python_control.installing.cli:control_plane",
        "Install the control plane in a cluster.",
    ),
    "help": ("digitalhub_runtime_python.cli:help_", "Print a page of the documentation."),
    "doctor": ("digitalhub_python_control.cli:doctor", "Check what this machine has."),
}


class _Commands(click.Group):
    """The group that loads a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1) if args else []
            if not close:
                raise
            raise click.UsageError(f"{exc.message} Did you mean {close[0]!r}?", ctx) from exc

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dhpy")
def dhpy() -> None:
    """Python functions as jobs, services and images.

    \b
    Try:
      dhpy run main.py:train -p epochs=3
      dhpy exec -- python my_script.py     # any script that uses the digitalhub SDK
    """


@click.command("help")
@click.argument("topic", required=False)
def help_(topic: str | None) -> None:
    """Print the page TOPIC, or what a fault's code means; without TOPIC, list what there is.

    \b
    Examples:
      dhpy help errors
      dhpy help reference/outputs
      dhpy help arguments/mismatch
    """
    if topic in COMMANDS:
        command = dhpy.get_command(click.get_current_context(), str(topic))
        with click.Context(command, info_name=f"dhpy {topic}") as context:  # type: ignore[arg-type]
            click.echo(context.get_help())
        return
    if topic is None:
        click.echo("Topics: dhpy help TOPIC")
        for name in pages.topics():
            click.echo(f"  {name}")
        return
    text = pages.find(topic)
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    with console.pager(styles=True):
        console.print(Markdown(text))


def main() -> None:
    """The console script: a fault is one line and its exit status, never a traceback."""
    for sentence in pages.unknown_variables(os.environ):
        sys.stderr.write(f"dhpy: {sentence}\n")
    try:
        dhpy()
    except Fault as fault:
        sys.stderr.write(f"dhpy: {fault} [{fault.code}]\n")
        sys.exit(fault.exit_status)
