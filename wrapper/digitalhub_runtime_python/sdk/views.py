"""How functions, runs and sweeps look in a console and in a notebook."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from typing import Any

from digitalhub_runtime_python import error_report
from digitalhub_runtime_python.progress import line_of

_MOST = 200
"""Characters of a value that are shown."""


def run_line(run: Any) -> str:
    """`<run 3f1c9a77 of train: COMPLETED>`, with the error of one that failed."""
    error = run.status.error if isinstance(getattr(run.status, "error", None), dict) else {}
    reason = f", {_clip(error_report.summary(error))}" if error else ""
    return f"<run {run.id[:8]} of {function_name(run)}: {run.status.state}{reason}>"


def function_line(function: Any) -> str:
    return f"<function {function.name} of {function.project}, version {function.id[:8]}>"


def run_page(run: Any) -> str:
    """A run as HTML: state, parameters, results, outputs, and the error with its traceback."""
    status = run.status
    rows: list[tuple[str, Any]] = [
        ("function", function_name(run)),
        ("state", status.state),
        ("progress", line_of(status.progress)),
        ("parameters", run.spec.parameters),
        ("inputs", run.spec.inputs),
        ("results", status.results),
        ("outputs", status.outputs),
        ("key", run.key),
    ]
    error = status.error if isinstance(status.error, dict) else {}
    page = table((("run", run.id), *((n, v) for n, v in rows if v)))
    if not error and not (status.state == "ERROR" and status.message):
        return page
    text = error.get("traceback") or (error_report.summary(error) if error else status.message)
    return f"{page}<pre style='color:#b00020'>{html.escape(str(text))}</pre>"


def table(rows: Iterable[tuple[str, Any]]) -> str:
    """Names and values as an HTML table; a mapping is a line for each of its entries."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{_value(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def function_name(run: Any) -> str:
    return str(run.spec.function or "").rpartition("/")[2].partition(":")[0]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{html.escape(str(n))} = {_value(v)}" for n, v in value.items())
    if isinstance(value, str):
        return html.escape(_clip(value))
    return html.escape(_clip(json.dumps(value, default=str)))


def _clip(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"
