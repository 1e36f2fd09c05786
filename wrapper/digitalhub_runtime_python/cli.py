"""`dhpy`: the command line. Each command's code is loaded when the command is called."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

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
    "logs": ("digitalhub_python_control.cli:logs", "Print a run's error and its log."),
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


def main() -> None:
    """The console script: a fault is one line and its exit status, never a traceback."""
    try:
        dhpy()
    except Fault as fault:
        sys.stderr.write(f"dhpy: {fault} [{fault.code}]\n")
        sys.exit(fault.exit_status)
