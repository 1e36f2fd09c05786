"""The pages of runs: the table, one run, several beside each other; and what their buttons do."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from typing import Any, Callable
from urllib.parse import urlencode

from starlette.responses import Response

from digitalhub_python_control import shown
from digitalhub_python_control.api import details, removal, resources
from digitalhub_python_control.api import runs as api
from digitalhub_python_control.api.web import Call, Refusal
from digitalhub_python_control.console import charts, gate, logsearch, logtext, previews
from digitalhub_python_control.console.web import Page, redirect
from digitalhub_python_control.running import logs
from digitalhub_python_control.store import times
from digitalhub_python_control.store.entities import Entity
from digitalhub_runtime_python.progress import line_of
from digitalhub_runtime_python.spec import ACTIONS
from digitalhub_runtime_python.states import ENDED, MOVES

_FILTERS = ("state", "function", "action", "q", "created")
_STATES = sorted({*MOVES, *ENDED})
_LOG = 128 * 1024
"""Bytes of a log's end that a run's page shows; the whole of it is a link away."""
_MOST_COMPARED = 12


def table(call: Call) -> Page:
    """Runs, newest first; the filters are in the address."""
    resources.check_project(call)
    filters = {name: call.query[name] for name in _FILTERS if call.query.get(name)}
    found = resources.page(call, "runs", call.project, _asked(filters), all_versions=True)
    return Page(
        "runs.html",
        {
            "runs": found["content"],
            "total": found["totalElements"],
            "first": found["pageable"]["offset"] + 1,
            "pages": found["totalPages"],
            "number": found["number"],
            "filters": filters,
            "query": urlencode(filters),
            "states": _STATES,
            "actions": ACTIONS,
        },
    )


def one(call: Call) -> Page:
    """Everything that is known of one run."""
    run = resources.find(call, "runs")
    log, omitted = read_log(call, _LOG)
    spec, status = run["spec"], run["status"]
    return Page(
        "run.html",
        {
            "run": run,
            "progress": line_of(status.get("progress")),
            "error_line": shown.error_text(status)[0],
            "failed": status.get("error") if isinstance(status.get("error"), dict) else {},
            "code": _code_around(run),
            "steps": _steps(run),
            "log": logtext.html(log),
            "omitted": omitted,
            "outputs": [
                previews.preview(call, name, key) for name, key in _mapping(status, "outputs")
            ],
            "results": [(name, _json(value)) for name, value in _mapping(status, "results")],
            "metrics": _metrics(call, run),
            "parameters": [(name, _json(value)) for name, value in _mapping(spec, "parameters")],
            "parameters_text": json.dumps(spec.get("parameters") or {}, indent=2),
            "inputs": [(name, _json(value)) for name, value in _mapping(spec, "inputs")],
            "facts": _facts(run),
            "ended": status["state"] in ENDED,
            "local": spec.get("local_execution"),
        },
    )


def log(call: Call) -> Response:
    """All of the log that is kept, as plain text."""
    resources.find(call, "runs")
    text, _ = read_log(call, 2 * call.settings.max_run_log)
    answer = Response(text, media_type="text/plain; charset=utf-8")
    return gate.protect(answer, gate.FOREIGN_POLICY)


def find_in_log(call: Call) -> Page:
    """The lines of a log that have a text (`?q=`), and what is around one of them (`&at=`)."""
    run = resources.find(call, "runs")
    home = logs.home_of(call.store.get_run_record(run["project"], run["id"]), call.settings.home)
    wanted = call.query.get("q", "")[:200]
    chosen = call.number("at", -1, -1, 2**62)
    with logsearch.Log(logs.run_folder(home, run["project"], run["id"]) / "log") as log:
        found = logsearch.search(log, wanted) if wanted else None
        lines, here = logsearch.around(log, chosen) if chosen >= 0 else (None, 0)
        size = log.size
    return Page(
        "find.html",
        {
            "run": run,
            "q": wanted,
            "size": size,
            "found": found,
            "matches": [(m.at, logtext.marked(m.text, wanted)) for m in found.lines]
            if found
            else [],
            "lines": lines and [logtext.marked(line, wanted) for line in lines],
            "here": here,
            "chosen": chosen,
            "query": urlencode({"q": wanted}, errors="replace"),
        },
    )


def read_log(call: Call, limit: int) -> tuple[str, int]:
    """(the end of a run's log, how many bytes of it are left out before that)."""
    items: Any = api.read_logs(dataclasses.replace(call, query={"limit": str(limit)}))
    text = "".join(base64.b64decode(item["content"]).decode() for item in items)
    return text, sum(item["status"]["omitted"] for item in items)


def compare(call: Call) -> Page:
    """Parameters, metrics and results of several runs, a column for each."""
    names = [value for name, value in call.queries if name == "run"][:_MOST_COMPARED]
    runs = [resources.find(call, "runs", name) for name in names]
    groups = []
    readers: list[tuple[str, Callable[[Entity], list[tuple[str, Any]]]]] = [
        ("Parameters", lambda run: _mapping(run["spec"], "parameters")),
        ("Metrics", lambda run: [(n, v[-1] if isinstance(v, list) and v else v) for n, v in _measured(call, run)]),
        ("Results", lambda run: _mapping(run["status"], "results")),
        ("Environment", _facts),
    ]  # fmt: skip
    for title, read in readers:
        columns = [dict(read(run)) for run in runs]
        names_of = sorted({name for column in columns for name in column})
        rows = [(n, [_json(c[n]) if n in c else None for c in columns]) for n in names_of]
        groups.append((title, [(n, v, len(set(v)) > 1) for n, v in rows]))
    return Page("compare.html", {"runs": runs, "groups": groups})


def act(call: Call) -> Response:
    """Stop, rerun or delete what was chosen; then the page that was open, or the new run."""
    form = call.body
    asked = (form.get("do") or [""])[0]
    ids = [call.path["id"]] if "id" in call.path else list(dict.fromkeys(form.get("run", [])))
    place = f"{gate.HOME}p/{call.project}/runs"
    if asked == "compare":
        return redirect(f"{place}/compare?{urlencode([('run', one) for one in ids])}")
    if asked not in _DOES:
        raise Refusal(400, f"There is no action {asked!r}.")
    if not ids:
        raise Refusal(400, "No run was chosen. Tick one first.")
    # All are looked for before anything is done: a wrong one changes nothing.
    runs = [resources.find(call, "runs", identity) for identity in ids]
    made = [_DOES[asked](_naming(call, run), run) for run in runs]
    if len(made) == 1 and asked != "delete":
        return redirect(f"{place}/{made[0]}")
    return redirect(place)


def _stop(call: Call, run: Entity) -> str:
    api.stop(call)
    return str(run["id"])


def _delete(call: Call, run: Entity) -> str:
    removal.remove(call, "runs", [run], cascade=False)
    return str(run["id"])


def _rerun(call: Call, run: Entity) -> str:
    if run["spec"].get("local_execution"):
        raise Refusal(400, f"Run {run['id']} was executed by the process that created it. Run that program again.")  # fmt: skip
    spec = {**run["spec"]}
    text = (call.body.get("parameters") or [""])[0]
    if text.strip():
        spec["parameters"] = read_object(text, "The parameters")
    new: Any = api.create(call.having({"kind": run["kind"], "spec": spec}))
    return str(new["id"])


_DOES = {"stop": _stop, "rerun": _rerun, "delete": _delete}


def read_object(text: str, what: str) -> dict[str, Any]:
    """A JSON object that somebody wrote into a form.

    Raises:
        Refusal: it is something else (400).
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Refusal(400, f"{what} are not JSON: {exc}. Go back and mend them.") from None
    if not isinstance(value, dict):
        raise Refusal(400, f"{what} must be a JSON object: names and their values.")
    return value


def _naming(call: Call, run: Entity) -> Call:
    return dataclasses.replace(call, path={**call.path, "id": run["id"]})


def _asked(filters: dict[str, str]) -> dict[str, str]:
    """The filters as the API takes them: a form's time has no zone, and is this machine's."""
    created = filters.get("created", "")
    return {**filters, "created": times.text(_since(created))} if created else filters


def _since(text: str) -> int:
    import datetime

    try:
        return int(datetime.datetime.fromisoformat(text).timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        raise Refusal(400, f"{text!r} is not a time. Write it as 2026-01-31T12:00.") from None


def _steps(run: Entity) -> list[dict[str, Any]]:
    """The states that the run was in, oldest first, and how long in each."""
    steps = [s for s in run["status"].get("transitions") or [] if isinstance(s, dict)][::-1]
    told = []
    for at, step in enumerate(steps):
        begun = times.parse(step["time"], "time")
        is_last = at + 1 == len(steps)
        until = None if is_last else times.parse(steps[at + 1]["time"], "time")
        took = None if until is None else f"{max(0, until - begun) / 1_000_000:.2f}s"
        told.append({**step, "took": took, "message": step.get("message")})
    return told


def _code_around(run: Entity) -> list[tuple[int, str, bool]]:
    """(number, line, whether it is the one) of the code where the run failed."""
    error = run["status"].get("error")
    source = run["spec"].get("source")
    if not isinstance(error, dict) or not isinstance(source, dict):
        return []
    at, file = error.get("line"), error.get("file")
    text = previews.source_text(source)
    if not isinstance(at, int) or not text or not isinstance(file, str) or "site-packages" in file:
        return []
    if source.get("source") and not str(source["source"]).endswith(file.rpartition("/")[2]):
        return []
    lines = text.split("\n")
    shown_lines = range(max(1, at - 4), min(len(lines), at + 3) + 1)
    return [(number, lines[number - 1], number == at) for number in shown_lines]


def _facts(run: Entity) -> list[tuple[str, Any]]:
    spec, status = run["spec"], run["status"]
    service = status.get("service") if isinstance(status.get("service"), dict) else {}
    source = status.get("source")
    facts = {
        "Python": spec.get("python_version"),
        "Image": spec.get("image"),
        "Requirements": spec.get("requirements"),
        "Resources": spec.get("resources"),
        "Revision": source.get("revision") if isinstance(source, dict) else source,
        "Environment": status.get("environment"),
        "Service": service.get("url"),
        "User": run.get("user"),
    }
    return [(name, value) for name, value in facts.items() if value]


def _metrics(call: Call, run: Entity) -> list[tuple[str, Any, Any]]:
    told = []
    for name, value in _measured(call, run):
        values = [v for v in value if _is_number(v)] if isinstance(value, list) else []
        chart = charts.line(name, values) if len(values) > 1 else None
        told.append((name, values[-1] if values else _json(value), chart))
    return told


def _measured(call: Call, run: Entity) -> list[tuple[str, Any]]:
    stored: Any = details.reading_metrics("runs")(_naming(call, run))
    return list({**dict(_mapping(run["status"], "metrics")), **stored}.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and _fits(value)


def _fits(value: float) -> bool:
    try:
        return float(value) == value or math.isnan(value)
    except OverflowError:
        return False


def _mapping(holder: dict[str, Any], name: str) -> list[tuple[str, Any]]:
    value = holder.get(name)
    return [(str(key), one) for key, one in value.items()] if isinstance(value, dict) else []


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
