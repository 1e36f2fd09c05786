"""The control plane's commands: up, down, status, env, exec, doctor."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from digitalhub_python_control import daemon
from digitalhub_python_control.client import Client
from digitalhub_python_control.clientenv import client_environment, foreign_variables
from digitalhub_python_control.running.engines import ENGINES
from digitalhub_python_control.settings import ControlSettings
from digitalhub_runtime_python.errors import PlatformFault, UsageFault

_EXAMPLE = "dhpy exec -- python my_script.py"


_engine_option = click.option(
    "--engine", type=click.Choice(sorted(ENGINES)), help="Of runs; default: $DHPY_ENGINE, or process."
)  # fmt: skip


@click.command()
@_engine_option
@click.option("--port", type=click.IntRange(0, 65535), help="Listen here; 0 takes any free port.")
@click.option("--host", help="Listen on this address; one beyond this machine needs credentials.")
@click.option("--detach/--foreground", default=True, help="In the background, or until Ctrl-C.")
def up(port: int | None, host: str | None, detach: bool, engine: str | None) -> None:
    """Start the control plane on this machine.

    It keeps everything in one folder ($DHPY_HOME) and is the same one for all your terminals. Where
    it is up already, this says so and changes nothing.

    \b
    Examples:
      dhpy up
      dhpy up --port 0
      DHPY_USER=me DHPY_PASSWORD=… dhpy up --host 0.0.0.0
      dhpy up --engine docker
    """
    environ = dict(os.environ)
    environ.update({"DHPY_PORT": str(port)} if port is not None else {})
    environ.update({"DHPY_HOST": host} if host else {})
    environ.update({"DHPY_ENGINE": engine} if engine else {})
    settings = ControlSettings.from_env(environ)
    place = daemon.find(settings)
    if place is not None:
        click.echo(f"The control plane is up already: {place.url} (pid {place.pid})")
        click.echo(f"Look at it: {place.url}/console/")
        if port is not None and not place.url.endswith(f":{port}"):
            click.echo("To have it at another address: dhpy down, then dhpy up again.")
        if engine:
            click.echo(f"Whether its engine is {engine} was not looked at: dhpy down, then dhpy up again.")  # fmt: skip
        return
    if not detach:
        from digitalhub_python_control.server import main

        sys.exit(main(environ))
    with _progress("Starting the control plane …"):
        place = daemon.start(settings, environ)
    click.echo(f"The control plane is up: {place.url} (pid {place.pid})")
    click.echo(f"Look at it: {place.url}/console/")
    if settings.port and not place.url.endswith(f":{settings.port}"):
        click.echo(f"Port {settings.port} is taken by something else, so another one is used.")
    click.echo(f"Home: {settings.home}")
    click.echo(f'Use it:  {_EXAMPLE}\n    or:  eval "$(dhpy env)"\nEnd it:  dhpy down')


@click.command()
def down() -> None:
    """Stop the control plane. Runs go on, and `dhpy up` finds them again.

    \b
    Example:
      dhpy down
    """
    settings = ControlSettings.from_env(os.environ)
    place = daemon.find(settings)
    if place is None:
        click.echo("The control plane is not running.")
        return
    live = _live_runs(place, settings)
    daemon.stop(settings, place)
    click.echo("The control plane has stopped.")
    if live:
        click.echo(
            f"{live} of its runs {'goes' if live == 1 else 'go'} on. "
            "What is reported to it meanwhile is delivered if it is up again soon: dhpy up"
        )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(as_json: bool) -> None:
    """Say whether the control plane is up, and what it runs. Exit status 1: it is not up.

    \b
    Examples:
      dhpy status
      dhpy status --json
    """
    settings = ControlSettings.from_env(os.environ)
    place = daemon.find(settings)
    if place is None:
        told: dict[str, Any] = {"up": False, "home": str(settings.home)}
        click.echo(json.dumps(told) if as_json else "The control plane is not running: dhpy up")
        sys.exit(1)
    known = Client(place.url, settings).get("/api/status") or {}
    runs: dict[str, int] = known.get("runs", {})
    told = {"up": True, "url": place.url, "pid": place.pid, "started": place.started}
    told = {**told, "home": str(settings.home), "version": known.get("version"), "runs": runs}
    if as_json:
        click.echo(json.dumps(told))
        return
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(place.started))
    counts = ", ".join(f"{count} {state}" for state, count in sorted(runs.items())) or "none"
    rows = {
        "url": place.url,
        "pid": place.pid,
        "since": since,
        "home": settings.home,
        "runs": counts,
    }
    for name, value in rows.items():
        click.echo(f"{name:<8}{value}")


@click.command()
@click.option("--json", "form", flag_value="json", help="One JSON object, for programs.")
@click.option("--shell", "form", flag_value="shell", default=True, help="For eval (the default).")
def env(form: str) -> None:
    """Print what the SDK needs in its environment.

    The SDK reads it when it is imported, so it must be set before Python starts.

    \b
    Examples:
      eval "$(dhpy env)"
      dhpy env --json
    """
    settings = ControlSettings.from_env(os.environ)
    place = daemon.needed(settings)
    variables = client_environment(place.url, settings, os.environ)
    if form == "json":
        click.echo(json.dumps(variables))
        return
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")
    # What is set for another platform would be sent to this one.
    for name in foreign_variables(variables):
        click.echo(f"unset {name}")


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def exec_(command: tuple[str, ...]) -> None:
    """Run a command with the SDK's settings; start the control plane if need be.

    The command takes the place of this one: its output, signals and exit status are its own.

    \b
    Examples:
      dhpy exec -- python my_script.py
      dhpy exec -- jupyter lab
    """
    settings = ControlSettings.from_env(os.environ)
    program = _program(command[0])
    place = daemon.find(settings)
    if place is None:
        place = _start_or_find(settings)
        click.echo(f"The control plane is up: {place.url} (end it with: dhpy down)", err=True)
    Client(place.url, settings).get("/api/auth")
    variables = client_environment(place.url, settings, os.environ)
    foreign = foreign_variables(variables)
    environ = {k: v for k, v in os.environ.items() if k not in foreign}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(program, list(command), {**environ, **variables})  # noqa: S606 - what exec is for


@click.command()
@_engine_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(as_json: bool, engine: str | None) -> None:
    """Check what this machine has, and say what to do about the rest. Exit status 1: something fails.

    With the engine kubernetes also what the cluster allows, and whether its pods reach the control plane.

    \b
    Examples:
      dhpy doctor
      dhpy doctor --json
      dhpy doctor --engine kubernetes
    """
    from digitalhub_python_control import doctor as checks

    results = checks.examine({**os.environ, **({"DHPY_ENGINE": engine} if engine else {})})
    if as_json:
        click.echo(json.dumps([result.to_json() for result in results]))
    else:
        checks.show(results)
    if any(result.level == "fail" for result in results):
        sys.exit(1)


commands = click.Group(
    "commands", {c.name or "": c for c in (up, down, status, env, exec_, doctor)}
)


def _start_or_find(settings: ControlSettings) -> daemon.Place:
    """Start it, or find the one that somebody else has started at the same moment."""
    try:
        return daemon.start(settings, os.environ)
    except PlatformFault:
        for _ in range(100):
            place = daemon.find(settings)
            if place is not None:
                return place
            if not (settings.home / "lock").exists():
                break
            time.sleep(0.05)
        raise


def _program(name: str) -> str:
    """The path of a program; beside our own interpreter where PATH does not have it.

    Raises:
        UsageFault: it was not found.
    """
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        raise UsageFault(
            "usage/command", f"There is no program {name!r}.", "Check its name, and PATH."
        )
    return found


def _live_runs(place: daemon.Place, settings: ControlSettings) -> int:
    with contextlib.suppress(PlatformFault):
        known = Client(place.url, settings).get("/api/status") or {}
        return sum(known.get("runs", {}).get(state, 0) for state in ("RUNNING", "STOP"))
    return 0


@contextlib.contextmanager
def _progress(text: str) -> Iterator[None]:
    """A spinner on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
