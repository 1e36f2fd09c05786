"""Triggers: checked when they are stored, and fired when they are due.

A run that a trigger starts has an id made of the trigger's and the instant: however many control planes
share the database, and wherever one is killed, an instant has one run.
"""

from __future__ import annotations

import logging
import threading
import uuid
from typing import Any

from digitalhub_python_control.api import resources, runs
from digitalhub_python_control.api.schedules import next_time
from digitalhub_python_control.api.web import Call, Json, Refusal
from digitalhub_python_control.store import times
from digitalhub_python_control.store.entities import Entity
from digitalhub_runtime_python.errors import Fault, UsageFault

logger = logging.getLogger(__name__)

_LOOK = 0.5
"""Seconds between two looks at what is due: a schedule is exact to the second."""
_AFTER_FAILURE = 5.0
"""Seconds until the next look where one failed: a database that is away is told of once in that time."""
_LATE = 60_000_000
"""Microseconds: what is later than this was missed, see DHPY_MISSED_TRIGGERS."""
_SPACE = uuid.UUID("6f9d4cb0-3c8e-4f0b-9f4e-0d3a7d2b6a11")


def create(call: Call) -> Json:
    """POST of a trigger, whose template must make a run."""
    resources.check_project(call)
    sent = call.document()
    _check(call, sent)
    stored = resources.creating("triggers")(call)
    return _armed(call, stored["id"])  # type: ignore[call-overload, index]


def put(call: Call) -> Json:
    """PUT of a trigger: a schedule that changes counts from now; one that was stopped starts again."""
    resources.find(call, "triggers")
    _check(call, call.document())
    stored = resources.changing("triggers")(call)
    return _armed(call, stored["id"])  # type: ignore[call-overload, index]


def stop(call: Call) -> Json:
    """POST …/stop: it fires no more, until it is saved again."""
    resources.find(call, "triggers")
    return call.store.change(
        "triggers", call.project, call.id, lambda t: _with(t, {"state": "STOPPED", "next": None})
    )


class Scheduler:
    """Fires what is due, in a thread of its own.

    Args:
        call: makes the request that a run of a project is created by.
        missed: `once`: what was missed while no control plane was up is made up for by one run; `skip`: not.
    """

    def __init__(self, call: Any, missed: str = "once") -> None:
        self._call, self._missed = call, missed
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="triggers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(10)

    def look(self, now: int) -> None:
        """Fire every trigger whose time has come by `now`."""
        store = self._call("-").store
        found, _ = store.page("triggers", None, {"kind": "scheduler", "state": "RUNNING"})
        for trigger in found:
            due = trigger["status"].get("next")
            if due is not None and times.parse(due, "next") <= now:
                self._fire(trigger, times.parse(due, "next"), now)

    def _fire(self, trigger: Entity, due: int, now: int) -> None:
        call = self._call(trigger["project"])
        changes: dict[str, Any] = {"next": _instant(next_time(trigger["spec"]["schedule"], now))}
        if self._missed == "once" or now - due < _LATE:
            try:
                changes["last_run"] = _start(call, trigger, due)
                changes["last"] = times.text(due)
                changes["message"] = None
            except (Fault, Refusal) as exc:  # its function was deleted, say
                logger.error("the trigger %s cannot fire: %s", trigger["key"], exc)  # noqa: TRY400
                changes = {"state": "ERROR", "message": str(exc), "next": None}
        if "next" in changes and changes["next"] is None and "state" not in changes:
            changes["state"] = "COMPLETED"

        def moved(entity: Entity) -> Entity:
            # Another one may have fired it, or somebody stopped or changed it, meanwhile.
            same = entity["status"].get("next") == trigger["status"]["next"]
            return _with(entity, changes) if same else entity

        call.store.change("triggers", trigger["project"], trigger["id"], moved)

    def _work(self) -> None:
        pause = _LOOK
        while not self._ended.wait(pause):
            pause = _LOOK
            try:
                self.look(times.now())
            except Exception as exc:  # the database may be away for a while
                # A fault says all in its one line; of anything else the place in the code matters.
                known = isinstance(exc, Fault)
                logger.error("triggers are not looked at: %s", exc, exc_info=not known and exc)  # noqa: TRY400
                pause = _AFTER_FAILURE


def _start(call: Call, trigger: Entity, due: int) -> str:
    """Create the run of one instant; its id. Where it exists, another control plane was faster."""
    identity = uuid.uuid5(_SPACE, f"{trigger['id']}:{due}").hex
    if call.store.get("runs", trigger["project"], identity) is None:
        body = {**_run(trigger), "id": identity}
        relation = {"type": "produced_by", "dest": trigger["key"]}
        body["metadata"] = {"relationships": [relation]}
        try:
            runs.create(call.having(body))
        except Refusal as exc:
            if "Duplicated entity" not in exc.message:
                raise
    return identity


def _run(trigger: Any) -> dict[str, Any]:
    spec = trigger["spec"]
    template = {k: v for k, v in (spec.get("template") or {}).items() if v is not None}
    task = str(spec["task"])
    run = {**template, "task": task, "local_execution": False}
    return {"kind": f"{task.partition('://')[0]}:run", "spec": run}


def _check(call: Call, sent: dict[str, Any]) -> None:
    """Refuse a trigger that could never fire.

    Raises:
        UsageFault, Refusal: its kind, its schedule, its task or its template.
    """
    kind, spec = sent.get("kind"), sent.get("spec")
    if kind != "scheduler":
        raise UsageFault(
            "usage/trigger-kind",
            f"The control plane of this machine does not fire triggers of kind {str(kind)[:40]!r}.",
            "It fires those of kind 'scheduler'. DigitalHub Core has others.",
        )
    if not isinstance(spec, dict) or not isinstance(spec.get("schedule"), str):
        raise UsageFault("usage/schedule", "The trigger has no schedule.", "Pass schedule='0 30 6 * * ?'.")  # fmt: skip
    if not isinstance(spec.get("task"), str) or not isinstance(spec.get("template") or {}, dict):
        raise UsageFault("usage/reference", "The trigger names no task, or its template is not an object.", "Create it with function.trigger(…).")  # fmt: skip
    if next_time(spec["schedule"], times.now()) is None:
        raise UsageFault("usage/schedule", f"{spec['schedule']!r} never comes.", "Name a time that lies ahead.")  # fmt: skip
    run = {**_run({"spec": spec}), "metadata": {}}
    runs.check_runnable(runs.merged(call, run))


def _armed(call: Call, identity: str) -> Json:
    def armed(trigger: Entity) -> Entity:
        due = next_time(trigger["spec"]["schedule"], times.now())
        return _with(trigger, {"state": "RUNNING", "next": _instant(due), "message": None})

    return call.store.change("triggers", call.project, identity, armed)


def _with(trigger: Entity, changes: dict[str, Any]) -> Entity:
    status = {**trigger["status"], **changes}
    return {**trigger, "status": {k: v for k, v in status.items() if v is not None}}


def _instant(micros: int | None) -> str | None:
    return None if micros is None else times.text(micros)
