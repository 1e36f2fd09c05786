"""`dhpy logs`, and what the commands for runs share: the control plane they ask, and following a run."""

from __future__ import annotations

import os
import time

import click

from digitalhub_python_control import daemon, shown
from digitalhub_python_control.client import Client, Entity, path_of
from digitalhub_python_control.settings import ControlSettings
from digitalhub_runtime_python.states import ENDED

_LOOK = 0.3
"""Seconds between two looks at a log that is followed."""
PROJECT = click.option("--project", help="Look in this project alone.")


@click.command()
@click.argument("run", metavar="RUN")
@PROJECT
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--tail", type=click.IntRange(0), metavar="LINES", help="Only the last so many lines.")  # fmt: skip
@click.option("--all", "whole", is_flag=True, help="All that is kept of a long log, not its end alone.")  # fmt: skip
def logs(run: str, project: str | None, follow: bool, tail: int | None, whole: bool) -> None:
    """Print what went wrong with RUN, then its log.

    Of a long log the end is printed, and how much was left out. The error's traceback is printed once.

    \b
    Examples:
      dhpy logs last --follow
      dhpy logs 3f1c9a --tail 50
    """
    if whole and tail is not None:
        raise click.UsageError("--all and --tail do not go together.")
    client, settings = open_client()
    entity = client.find_run(run, project)
    error = shown.error_text(entity["status"])
    text, omitted = _log_of(client, entity, settings, error, tail, whole)
    shown.echo_error(error)
    if omitted:
        click.echo(f"dhpy: {omitted}; dhpy logs {run} --all has what is kept", err=True)
    click.echo(text, nl=False)
    follow_run(client, entity, text) if follow else None


def open_client() -> tuple[Client, ControlSettings]:
    settings = ControlSettings.from_env(os.environ)
    client = Client(daemon.needed(settings).url, settings)
    click.get_current_context().call_on_close(client.close)
    return client, settings


def _log_of(
    client: Client,
    run: Entity,
    settings: ControlSettings,
    error: tuple[str, str],
    tail: int | None,
    whole: bool,
) -> tuple[str, str]:
    """The text to print, and what is said of what was left out."""
    text, omitted = client.log_text(run, 2 * settings.max_run_log if whole else None)
    if tail is None:
        text = shown.without_traceback(text, error)
        return text, f"{omitted:,} bytes before this were left out" if omitted else ""
    limit = settings.max_log
    while omitted and text.count("\n") <= tail:
        limit *= 4
        text, omitted = client.log_text(run, limit)
    lines = shown.without_traceback(text, error).splitlines(keepends=True)
    kept = lines[len(lines) - tail :] if tail < len(lines) else lines
    left = len(lines) - len(kept)
    more = " and more" if omitted else ""
    return "".join(kept), f"{left:,} lines{more} before this were left out" if left else ""


def follow_run(client: Client, run: Entity, text: str) -> None:
    """Print what comes until the run has ended, then its error in one line."""
    if run["status"]["state"] in ENDED:
        return
    told = client.log_text(run)[0] if text else ""
    while True:
        now = client.get(path_of(run))
        if now is None:
            return
        written, _ = client.log_text(now)
        click.echo(shown.added(told, written), nl=False)
        told = written
        if now["status"]["state"] in ENDED:
            line, traceback = shown.error_text(now["status"])
            shown.echo_error((line, "" if traceback.strip() in written else traceback))
            return
        time.sleep(_LOOK)
