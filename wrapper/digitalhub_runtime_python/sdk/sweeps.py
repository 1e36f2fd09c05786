"""Many runs of one function: started a few at a time, watched by one request, and read as one table.

Every run carries the sweep's name as a label; a sweep of the same name takes up what there is already.
"""

from __future__ import annotations

import html
import itertools
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.progress import Line
from digitalhub_runtime_python.sdk import checks, compat
from digitalhub_runtime_python.states import ENDED

logger = compat.get_logger(__name__)

_PAUSE = 0.05
_SAY_EVERY = 5.0
"""Seconds between two lines of progress where there is no terminal."""


def grid(values: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """`{"a": [1, 2], "b": [3]}` as the parameters of every combination, the last name changing first.

    Raises:
        UsageFault: usage/sweep
    """
    for name, listed in values.items():
        if isinstance(listed, (str, bytes, Mapping)) or not isinstance(listed, Iterable):
            raise UsageFault(
                "usage/sweep",
                f"grid[{name!r}] is a {type(listed).__name__}, not a list of values.",
                f"Write grid={{{name!r}: [first, second]}}.",
            )
    listed_values = [list(listed) for listed in values.values()]
    return [dict(zip(values, one)) for one in itertools.product(*listed_values)]


@dataclass
class Row:
    """One run of a sweep."""

    parameters: dict[str, Any]
    run: Any = None

    @property
    def state(self) -> str:
        return str(self.run.status.state) if self.run is not None else "not started"


@dataclass
class Sweep:
    """What became of a sweep, in the order of its parameters; an iterable of runs."""

    name: str
    function: Any
    action: str
    options: Mapping[str, Any]
    parallel: int
    rows: list[Row] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        return iter([row.run for row in self.rows])

    def __repr__(self) -> str:
        return f"<sweep {self.name} of {self.function.name}: {self.summary()}>"

    def _repr_html_(self) -> str:
        shown: str = self.frame()._repr_html_()
        return f"<p>{html.escape(repr(self))}</p>{shown}"

    def summary(self) -> str:
        """`18 COMPLETED, 2 ERROR`."""
        states = [row.state for row in self.rows]
        return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))

    @property
    def failed(self) -> list[Any]:
        """The runs that have ended without being completed."""
        runs = [row.run for row in self.rows if row.state in ENDED]
        return [run for run in runs if run.status.state != "COMPLETED"]

    def frame(self) -> Any:
        """A line for each run: its parameters, results, metrics (their last values), state, error and id."""
        import pandas as pd

        return pd.DataFrame([self._line(row) for row in self.rows])

    def best(self, name: str, largest: bool = True) -> Any:
        """The completed run with the largest (or smallest) value of a result or a metric.

        Raises:
            UsageFault: usage/sweep, when no completed run has a number of that name.
        """
        found = []
        for number, row in enumerate(self.rows):
            value = {**_metrics(row.run), **_results(row.run)}.get(name)
            if isinstance(value, (int, float)) and value == value and row.state == "COMPLETED":
                found.append((value if largest else -value, -number, row.run))
        if not found:
            raise UsageFault(
                "usage/sweep",
                f"No completed run of the sweep {self.name!r} has a number {name!r}.",
                "Return it, or log it with run.log_metric; sweep.frame() shows what there is.",
            )
        return max(found)[2]

    def retry(self) -> Sweep:
        """Run again those that failed, with the same parameters; the others stay as they are."""
        for row in self.rows:
            if row.state != "COMPLETED":
                row.run = None
        return self.work()

    def work(self) -> Sweep:
        """Start what has not been started, and wait until all have ended.

        Interrupted, what was started goes on; a sweep of the same name takes it up.
        """
        waiting = [row for row in self.rows if row.run is None]
        working = {r.run.id: r for r in self.rows if r.run is not None and r.state not in ENDED}
        since = min((r.run.metadata.created for r in working.values()), default="")
        progress = _Progress(self)
        try:
            while waiting or working:
                while waiting and len(working) < self.parallel:
                    row = waiting.pop(0)
                    row.run = self._start(row.parameters)
                    working[row.run.id] = row
                    since = since or row.run.metadata.created
                since = self._look(working, since)
                progress.say()
                if working:
                    time.sleep(_PAUSE)
        except KeyboardInterrupt:
            logger.info("what was started goes on; take it up with name=%r", self.name)
            raise
        finally:
            progress.end()
        return self

    def _start(self, parameters: dict[str, Any]) -> Any:
        labels = [_label(self.name)]
        return self.function.run(
            self.action, parameters=parameters, labels=labels, wait=False, **self.options
        )

    def _look(self, working: dict[str, Row], since: str) -> str:
        """Take what has changed since then; since when to ask the next time."""
        for run in _runs_of(self.function, updated=f"{since},"):
            since = max(since, run.metadata.updated)
            if run.id in working and run.status.state in ENDED:
                working.pop(run.id).run = run
        return since

    def _line(self, row: Row) -> dict[str, Any]:
        line = dict(row.parameters)
        for values in (_results(row.run), _metrics(row.run)):
            for name, value in values.items():
                line[f"result.{name}" if name in row.parameters else name] = value
        error = getattr(row.run.status, "error", None) if row.run is not None else None
        line["state"] = row.state
        line["error"] = f"{error.get('type')}: {error.get('message')}" if error else None
        line["run"] = row.run.id if row.run is not None else None
        return line


def sweep(
    function: Any,
    parameters: Sequence[Mapping[str, Any]],
    action: str,
    name: str | None,
    parallel: int,
    options: Mapping[str, Any],
) -> Sweep:
    """Run a function once for each of `parameters`, and wait.

    Raises:
        UsageFault: something cannot be run; nothing was started.
    """
    wanted = [dict(one) for one in parameters]
    if not wanted or parallel < 1 or action != "job":
        raise UsageFault(
            "usage/sweep",
            "A sweep runs jobs: one or more, one or more at a time.",
            "Pass parameters=[{…}, {…}] or grid={name: [values]}, and parallel=1 or more.",
        )
    if options.get("local_execution"):
        raise UsageFault(
            "usage/sweep",
            "A sweep's runs are executed by the platform.",
            "Leave out local_execution.",
        )
    for one in wanted:
        checks.check_run(action, {**options, "parameters": one})
    made = Sweep(name or uuid.uuid4().hex[:8], function, action, options, parallel)
    if name is not None:
        checks.check_entity_name(name)
        known = _known(function, name)
        made.rows = [Row(one, known.pop(_digest(one), None)) for one in wanted]
        taken = sum(row.run is not None for row in made.rows)
        if taken:
            logger.info("sweep %s: %d of its %d runs are there already", name, taken, len(wanted))
    else:
        made.rows = [Row(one) for one in wanted]
    return made.work()


def _known(function: Any, name: str) -> dict[str, Any]:
    """The runs of a sweep that are there and have not failed, by their parameters; the newest of each."""
    found: dict[str, Any] = {}
    for run in _runs_of(function):
        failed = run.status.state in ENDED and run.status.state != "COMPLETED"
        if _label(name) in (run.metadata.labels or []) and not failed:
            found.setdefault(_digest(run.spec.parameters or {}), run)
    return found


def _runs_of(function: Any, **filters: str) -> list[Any]:
    reference = function._get_executable_string()
    return compat.list_runs(function.project, function=reference, **filters)


def _label(name: str) -> str:
    return f"sweep:{name}"


def _digest(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True, default=str)


def _results(run: Any) -> dict[str, Any]:
    return dict(run.status.results or {}) if run is not None else {}


def _metrics(run: Any) -> dict[str, Any]:
    if run is None or run.status.state not in ENDED:
        return {}
    logged = getattr(run, "metrics", None) or {}  # SDK 0.14 reads none of a run that has ended
    return {n: v[-1] if isinstance(v, list) and v else v for n, v in logged.items()}


class _Progress:
    """Says how far a sweep is: in place on a terminal, else a line now and then."""

    def __init__(self, made: Sweep) -> None:
        self._sweep, self._line = made, Line(logger.info, _SAY_EVERY)

    def say(self) -> None:
        rows = self._sweep.rows
        done = sum(row.state in ENDED for row in rows)
        bar = "█" * (20 * done // len(rows))
        text = f"sweep {self._sweep.name} {bar:░<20} {done} of {len(rows)}"
        failed = len(self._sweep.failed)
        text += f", {failed} failed" if failed else ""
        self._line.show(text)

    def end(self) -> None:
        self._line.end()
