"""How runs, functions and outputs look on a terminal. Pure: entities in, text out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from digitalhub_python_control.store import times
from digitalhub_python_control.store.entities import parent_of
from digitalhub_runtime_python.error_report import summary
from digitalhub_runtime_python.progress import line_of
from digitalhub_runtime_python.states import ENDED

Entity = Mapping[str, Any]
_SHORT = 8
"""Digits of an id in a table: enough to name a run among 10,000."""
_COLOURS = {"COMPLETED": "green", "ERROR": "red", "RUNNING": "cyan"}


def runs_table(runs: Sequence[Entity], *, moving: bool = True) -> str:
    """One line for each run; `moving`: with how long those that work have worked until now."""
    rows = [
        (
            run["id"][:_SHORT],
            function_of(run),
            action_of(run),
            run["status"]["state"],
            moment(run["metadata"]["created"]),
            duration(run, moving=moving),
            run["project"],
            _what(run),
        )
        for run in runs
    ]
    heads = ("RUN", "FUNCTION", "ACTION", "STATE", "CREATED", "TOOK", "PROJECT", "")
    return _table(heads, rows) if rows else "There are no such runs."


def functions_table(functions: Sequence[Entity]) -> str:
    rows = [
        (
            function["name"],
            str(function["spec"].get("python_version") or ""),
            str((function["spec"].get("source") or {}).get("handler") or ""),
            moment(function["metadata"]["created"]),
            function["project"],
            function["id"],
        )
        for function in functions
    ]
    heads = ("FUNCTION", "PYTHON", "HANDLER", "CREATED", "PROJECT", "VERSION")
    return _table(heads, rows) if rows else "There are no functions."


def outputs_table(results: Mapping[str, Any], stored: Mapping[str, Mapping[str, Any]]) -> str:
    """Results with their values; stored outputs with kind, size and place."""
    lines = [f"{name} = {_value(value)}" for name, value in results.items()]
    for name, one in stored.items():
        size = f", {one['bytes']:,} bytes" if one.get("bytes") else ""
        kind = f" ({one['kind']}{size})" if one.get("kind") else ""
        where = one.get("downloaded") or one.get("path") or one["key"]
        lines.append(f"{name} -> {where}{kind}")
    return "\n".join(lines) or "The run has no results and no outputs."


def run_page(run: Entity, url: str) -> str:
    """Everything that is known of one run, a line for each thing; its error last."""
    spec, status = run["spec"], run["status"]
    service = status.get("service") or {}
    rows: dict[str, Any] = {
        "run": run["id"],
        "function": f"{function_of(run)} ({action_of(run)})",
        "project": run["project"],
        "state": status["state"],
        "progress": line_of(status.get("progress")),
        "created": moment(run["metadata"]["created"]),
        "took": duration(run),
        "user": run.get("user"),
        "started by": parent_of(run),
        "image": spec.get("image"),
        "python": spec.get("python_version"),
        "service": service.get("url") if isinstance(service, dict) else None,
    }
    lines = [f"{name:<12}{value}" for name, value in rows.items() if value]
    for title, values in (
        ("parameters", spec.get("parameters")),
        ("inputs", spec.get("inputs")),
        ("results", status.get("results")),
        ("outputs", status.get("outputs")),
        ("metrics", status.get("metrics")),
    ):
        if values:
            lines += [title, *(f"  {name} = {_value(value)}" for name, value in values.items())]
    lines.append(f"{'console':<12}{url}/console/p/{run['project']}/runs/{run['id']}")
    return "\n".join(lines + [line for line in error_text(status) if line])


def error_text(status: Mapping[str, Any]) -> tuple[str, str]:
    """(one line that says what went wrong, its traceback); both empty where nothing did."""
    error = status.get("error")
    if isinstance(error, Mapping):
        return summary(error), str(error.get("traceback") or "")
    failed = status.get("state") == "ERROR" and status.get("message")
    return (str(status["message"]), "") if failed else ("", "")


def echo_error(error: tuple[str, str]) -> None:
    line, traceback = error
    if line:
        click.secho(line, fg="red", bold=True)
    if traceback:
        click.echo(traceback, nl=not traceback.endswith("\n"))


def without_traceback(log: str, error: tuple[str, str]) -> str:
    """A log without the traceback that was shown above it."""
    traceback = error[1].strip("\n")
    return log.replace(f"{traceback}\n", "", 1) if traceback else log


def added(old: str, new: str) -> str:
    """What `new` has more than `old`; only the end of a long log is answered."""
    if new.startswith(old):
        return new[len(old) :]
    at = new.rfind(old[-500:])
    return new[at + len(old[-500:]) :] if at >= 0 else new


def function_of(run: Entity) -> str:
    """The name of a run's function."""
    return str(run["spec"].get("function") or "").rpartition("/")[2].partition(":")[0]


def action_of(run: Entity) -> str:
    return str(run["kind"]).partition("+")[2].partition(":")[0]


def moment(text: str) -> str:
    """An instant in this machine's time zone, to the second."""
    import datetime

    micros = times.parse(text, "time")
    local = datetime.datetime.fromtimestamp(micros / 1_000_000, datetime.timezone.utc).astimezone()
    return local.strftime("%Y-%m-%d %H:%M:%S")


def duration(run: Entity, *, moving: bool = True) -> str:
    """How long the run has worked: `0.4s`, `3m 12s`, `2h 5m`; empty before it has begun."""
    steps = [step for step in run["status"].get("transitions") or [] if isinstance(step, dict)]
    began = [step["time"] for step in steps if step.get("status") == "RUNNING"]
    if not began:
        return ""
    ended = [step["time"] for step in steps if step.get("status") in ENDED]
    if not ended and not moving:
        return "…"
    until = times.parse(ended[0], "time") if ended else times.now()
    seconds = max(0.0, (until - times.parse(began[-1], "time")) / 1_000_000)
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes = int(seconds) // 60
    return f"{minutes // 60}h {minutes % 60}m" if minutes >= 60 else f"{minutes}m {int(seconds) % 60}s"  # fmt: skip


def _what(run: Entity) -> str:
    """What a table says at a line's end: the error, where the service is, or how far it is."""
    line = error_text(run["status"])[0]
    service = run["status"].get("service")
    if not line and run["status"]["state"] not in ENDED:
        url = service.get("url") if isinstance(service, dict) else None
        line = str(url or line_of(run["status"].get("progress")))
    if parent := parent_of(run):
        line = f"by {parent[:_SHORT]}{': ' if line else ''}{line}"
    return line if len(line) <= 60 else f"{line[:59]}…"


def _value(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 500 else f"{text[:499]}…"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest value; the state in colour where there is a terminal."""
    widths = [max(len(str(row[at])) for row in (heads, *rows)) for at in range(len(heads))]
    lines = []
    for row in (heads, *rows):
        cells = [click.style(f"{cell:<{w}}", fg=_COLOURS.get(cell)) for cell, w in zip(row, widths)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
