"""The commands for runs and what they leave: runs, show, outputs, stop, rm, rerun, functions, prune."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from digitalhub_python_control import shown
from digitalhub_python_control.client import Client, Entity, path_of
from digitalhub_python_control.clientenv import client_environment
from digitalhub_python_control.logs_cli import PROJECT, follow_run, open_client
from digitalhub_python_control.settings import ControlSettings
from digitalhub_python_control.store import times
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.spec import ACTIONS
from digitalhub_runtime_python.states import ENDED, SDK_STATES

_LOOK = 0.3
"""Seconds between two looks at what is followed."""
_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")
_RUNS = click.argument("names", metavar="RUN...", nargs=-1, required=True)


@click.command()
@PROJECT
@click.option("--state", "states", multiple=True, metavar="STATE", help="E.g. ERROR; may be given again.")  # fmt: skip
@click.option("--function", help="Only runs of this function.")
@click.option("--action", type=click.Choice(ACTIONS), help="Only runs of this action.")
@click.option("--since", metavar="AGE", help="Created within this time, e.g. 90s, 30m, 12h, 7d.")
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="The newest so many.")  # fmt: skip
@click.option("-w", "--watch", is_flag=True, help="Go on until all of them have ended.")
@_JSON
def runs(
    project: str | None,
    states: Sequence[str],
    function: str | None,
    action: str | None,
    since: str | None,
    limit: int,
    watch: bool,
    as_json: bool,
) -> None:
    """List runs, the newest first. Every command takes a run's id, the beginning of it, or `last`.

    \b
    Examples:
      dhpy runs
      dhpy runs --state ERROR --since 7d
      dhpy runs --project demo --watch
    """
    if watch and as_json:
        raise click.UsageError("--watch and --json do not go together.")
    filters = _filters(states, action, since)
    client, _ = open_client()

    def look() -> list[Entity]:
        # A function's name is part of a longer one's, so what the server finds is looked through.
        found = client.listed("runs", project, filters, None if function else limit)
        wanted = (r for r in found if not function or shown.function_of(r) == function)
        return [run for run, _ in zip(wanted, range(limit))]

    if function:
        filters["function"] = f"/{function}:"
    if watch:
        _watch(look)
    elif as_json:
        click.echo(json.dumps(look()))
    else:
        click.echo(shown.runs_table(look()))


@click.command()
@_RUNS
@PROJECT
@_JSON
def show(names: Sequence[str], project: str | None, as_json: bool) -> None:
    """Show what is known of a run: times, parameters, results, outputs, metrics, its error.

    \b
    Examples:
      dhpy show last
      dhpy show 3f1c --json
    """
    client, _ = open_client()
    found = [client.find_run(name, project) for name in names]
    for run in found:
        run["status"]["metrics"] = client.get(f"{path_of(run)}/metrics") or {}
    if as_json:
        click.echo(json.dumps(found[0] if len(found) == 1 else found))
        return
    for number, run in enumerate(found):
        click.echo("" if number else None, nl=bool(number))
        click.echo(shown.run_page(run, client.url))


@click.command()
@_RUNS
@PROJECT
def stop(names: Sequence[str], project: str | None) -> None:
    """Stop runs. One that has ended stays as it is.

    \b
    Examples:
      dhpy stop last
      dhpy stop 3f1c 9a77
    """
    client, _ = open_client()
    for run in [client.find_run(name, project) for name in names]:
        if run["status"]["state"] in ENDED:
            click.echo(f"{run['id']} has ended: {run['status']['state']}")
            continue
        stopped = client.post(f"{path_of(run)}/stop") or {"status": {"state": "DELETED"}}
        ended = stopped["status"]["state"] in ENDED
        click.echo(f"{run['id']} {'has stopped' if ended else 'is being stopped'}")


@click.command()
@_RUNS
@PROJECT
@click.option("--force", is_flag=True, help="Also runs that have not ended; they are stopped.")
def rm(names: Sequence[str], project: str | None, force: bool) -> None:
    """Delete runs and their logs. What they stored in the project stays.

    \b
    Examples:
      dhpy rm 3f1c 9a77
      dhpy rm last --force
    """
    client, _ = open_client()
    found = [client.find_run(name, project) for name in names]
    live = [run["id"] for run in found if run["status"]["state"] not in ENDED]
    if live and not force:
        raise UsageFault("usage/live-run", f"Not ended: {', '.join(live)}. Nothing was deleted.", "Stop them first (dhpy stop), or add --force.")  # fmt: skip
    for run in found:
        client.delete(path_of(run))
        click.echo(f"{run['id']} deleted")


@click.command()
@_RUNS
@PROJECT
@click.option("-p", "--parameter", "parameters", multiple=True, metavar="K=V", help="Another value of a parameter; V is JSON, or else text.")  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Print the new run's log until it has ended.")
def rerun(
    names: Sequence[str], project: str | None, parameters: Sequence[str], follow: bool
) -> None:
    """Run again with the same function, parameters, inputs and resources. Prints the new run's id.

    \b
    Examples:
      dhpy rerun last
      dhpy rerun 3f1c -p epochs=10 --follow
    """
    from digitalhub_runtime_python.local import json_pairs

    changed = json_pairs(tuple(parameters))
    client, _ = open_client()
    found = [client.find_run(name, project) for name in names]
    for run in found:
        if run["spec"].get("local_execution"):
            raise UsageFault("usage/local", f"Run {run['id']} was executed by the process that created it. Nothing was started.", "Run that program again.")  # fmt: skip
    for run in found:
        spec = {**run["spec"]}
        spec["parameters"] = {**(spec.get("parameters") or {}), **changed}
        path = f"/api/v1/-/{run['project']}/runs"
        new = client.post(path, {"kind": run["kind"], "spec": spec})
        click.echo(new["id"])
        follow_run(client, new, "") if follow else None


@click.command()
@click.argument("run", metavar="RUN")
@PROJECT
@click.option("--download", is_flag=True, help="Bring stored outputs into a folder.")
@click.option("-o", "--output-dir", type=click.Path(file_okay=False, path_type=Path), default=Path("outputs"), show_default=True, help="The folder, with one of its own for each output.")  # fmt: skip
@_JSON
def outputs(run: str, project: str | None, download: bool, output_dir: Path, as_json: bool) -> None:
    """List what RUN gave: results, and stored outputs with their place; or download those.

    \b
    Examples:
      dhpy outputs last
      dhpy outputs 3f1c --download -o results
    """
    client, settings = open_client()
    entity = client.find_run(run, project)
    results = entity["status"].get("results") or {}
    stored = {n: _stored(client, key) for n, key in (entity["status"].get("outputs") or {}).items()}
    if download:
        for name, one in stored.items():
            one["downloaded"] = str(_download(client, settings, name, one, output_dir))
    if as_json:
        click.echo(json.dumps({"results": results, "outputs": stored}))
    else:
        click.echo(shown.outputs_table(results, stored))


@click.command()
@PROJECT
@_JSON
def functions(project: str | None, as_json: bool) -> None:
    """List functions, the latest version of each, and how their last run ended.

    \b
    Examples:
      dhpy functions
      dhpy functions --project demo --json
    """
    client, _ = open_client()
    found = list(client.listed("functions", project, {}))
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo(shown.functions_table(found))


@click.command()
@PROJECT
@click.option("--runs", "age", metavar="AGE", help="Runs that ended longer ago than this, e.g. 30d, with their logs.")  # fmt: skip
@click.option("--caches", is_flag=True, help="Environments that were not used for DHPY_ENVIRONMENT_DAYS, and fetched code above DHPY_MAX_SOURCES; both are made again when needed.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Remove it. Without this it is only listed.")
def prune(project: str | None, age: str | None, caches: bool, yes: bool) -> None:
    """List what can go, and remove it with --yes. What runs stored in a project stays.

    \b
    Examples:
      dhpy prune --runs 30d
      dhpy prune --runs 30d --caches --yes
    """
    if not age and not caches:
        raise click.UsageError("Say what: --runs AGE, --caches, or both.")
    before = times.now() - seconds_of(age) * 1_000_000 if age else 0
    client, settings = open_client()
    old = list(_ended_before(client, project, before)) if age else []
    unused = _unused_environments(settings, remove=yes) if caches else []
    sources = _old_sources(settings, remove=yes) if caches else []
    for run in old:
        client.delete(path_of(run)) if yes else None
        click.echo(f"run  {run['id']}  {shown.function_of(run)}  {run['status']['state']}  {run['metadata']['updated']}")  # fmt: skip
    for folder in unused:
        click.echo(f"environment  {folder}")
    for path, size in sources:
        click.echo(f"source  {path}  {size / 1e6:.1f} MB")
    done = "removed" if yes else "would be removed; add --yes to do it"
    click.echo(f"{len(old)} runs, {len(unused)} environments and {len(sources)} sources {done}.")


def seconds_of(age: str) -> int:
    """`90s`, `30m`, `12h`, `7d` in seconds.

    Raises:
        UsageFault: usage/age
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if not age[:-1].isdecimal() or age[-1:] not in units or len(age) > 9:
        raise UsageFault("usage/age", f"{age!r} is not a time span.", "Write e.g. 90s, 30m, 12h or 7d.")  # fmt: skip
    return int(age[:-1]) * units[age[-1]]


def _filters(states: Sequence[str], action: str | None, since: str | None) -> dict[str, str]:
    wanted = [state.upper() for state in states]
    unknown = [state for state in wanted if state not in SDK_STATES]
    if unknown:
        raise UsageFault("usage/state", f"There is no state {unknown[0]!r}.", f"States are: {', '.join(sorted(SDK_STATES))}.")  # fmt: skip
    filters = {"state": ",".join(wanted)} if wanted else {}
    if action:
        filters["action"] = action
    if since:
        filters["created"] = f"{times.text(times.now() - seconds_of(since) * 1_000_000)},"
    return filters


def _watch(look: Any) -> None:
    """Show the table again whenever it changes: in place on a terminal, else one below the other."""
    said = ""
    while True:
        found = look()
        table = shown.runs_table(found, moving=False)
        if table != said:
            click.clear()  # does nothing where there is no terminal
            click.echo(table)
            said = table
        if all(run["status"]["state"] in ENDED for run in found):
            return
        time.sleep(_LOOK)


def _stored(client: Client, key: str) -> dict[str, Any]:
    """What is known of a stored output; `key` alone where it is not an entity that is there."""
    one: dict[str, Any] = {"key": key}
    if not key.startswith("store://"):
        return one
    project, kind_of, _, tail = key[len("store://") :].split("/", 3)
    found = client.get(f"/api/v1/-/{project}/{kind_of}s/{tail.rpartition(':')[2]}")
    if found is not None:
        files = found["status"].get("files") or []
        one.update(kind=found["kind"], path=found["spec"].get("path"))
        one["bytes"] = sum(int(f.get("size") or 0) for f in files if isinstance(f, dict)) or None
    return one


def _download(
    client: Client, settings: ControlSettings, name: str, one: Mapping[str, Any], folder: Path
) -> Path | None:
    """Bring one output into its folder; where it is now, or None where it has no file.

    Raises:
        UsageFault: usage/output-dir, when something else is at its place already.
    """
    from digitalhub_runtime_python.hub.files import load
    from digitalhub_runtime_python.settings import Settings

    if not one.get("path"):
        return None
    target = folder / Path(name).name
    if target.exists():
        raise UsageFault("usage/output-dir", f"{target} exists already.", "Name another folder with -o, or remove it.")  # fmt: skip
    target.mkdir(parents=True)
    environ = {**os.environ, **client_environment(client.url, settings, os.environ)}
    return Path(load(str(one["path"]), "path", Settings.from_env(environ), target))


def _ended_before(client: Client, project: str | None, before: int) -> Iterator[Entity]:
    filters = {"state": ",".join(sorted(ENDED)), "updated": f",{times.text(before)}"}
    yield from client.listed("runs", project, filters)


def _unused_environments(settings: ControlSettings, *, remove: bool) -> list[Path]:
    from digitalhub_python_builder import environments

    days = float(settings.environment_days)
    return environments.prune(settings.cache, days, remove=remove)


def _old_sources(settings: ControlSettings, *, remove: bool) -> list[tuple[Path, int]]:
    from digitalhub_runtime_python.settings import Settings
    from digitalhub_runtime_python.sources import cache

    most = Settings.from_env(settings.environ).max_sources
    return cache.prune(settings.cache, most, remove=remove)
