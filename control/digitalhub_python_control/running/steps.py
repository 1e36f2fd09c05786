"""What is to be done next about one run: a step acts once and writes down what it did.

What a run should become is in the store before anything is done about it, and every action may be
repeated; so the control plane can be killed at any line of this file and go on later.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Callable, Union

from digitalhub_python_control.running.engines import Exit, Progress, RunEngine, engine_of
from digitalhub_python_control.running.hiding import without_secrets
from digitalhub_python_control.running.launch import (
    RunFailed,
    backoff_limit,
    blamed,
    check_action,
    give_image,
    lender,
    run_environment,
    why,
)
from digitalhub_python_control.running.places import Places
from digitalhub_python_control.running.queue import Queue
from digitalhub_python_control.running.services import (
    is_service,
    pause_left,
    pausing,
    restart_handle,
    service_status,
)
from digitalhub_python_control.settings import ControlSettings
from digitalhub_python_control.store.records import Key, RunRecord
from digitalhub_python_control.store.store import Store
from digitalhub_runtime_python.errors import Fault, UsageFault
from digitalhub_runtime_python.spec import RunSpec
from digitalhub_runtime_python.states import ENDED

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 30.0
"""Seconds: the longest pause before a failed job is tried again."""
AHEAD = 16
"""Runs of an engine whose start is prepared before there is a place for them; the others stay READY."""
ANNOUNCING = (0.05, 1.0)
"""Seconds between two looks at a service that does not answer yet: the shortest and the longest."""

LOADS = 20
"""Attempts that do not count because they could not load their run; each waits for two minutes."""

_WAITING = ("READY", "PENDING")

KEPT = ("home", "crashes", "unreached")
"""Keys of a run's handle that outlive its attempts."""

Next = Union[RunRecord, float, None]
"""What follows a step: another one of the run as it now is; one after so many seconds; or nothing until
somebody tells."""


@dataclass
class Preparation:
    """The making of what an attempt needs before it can start."""

    run: RunRecord
    made: Future[dict[str, Any]] = field(default_factory=Future)


class Steps:
    """Takes single steps; those of one run never at the same time.

    Args:
        tell: is called with a run that has been prepared, or has got the place that it waited for.
    """

    def __init__(
        self,
        store: Store,
        engines: Mapping[str, RunEngine],
        settings: ControlSettings,
        tell: Callable[[Key], None],
    ) -> None:
        self._store = store
        self._engines = engines
        self._settings = settings
        self._tell = tell
        self._ahead = {name: Places(AHEAD, tell) for name in engines}
        self._working = {name: Places(one.max_jobs, tell) for name, one in engines.items()}
        self._prepared: dict[Key, Preparation] = {}
        self._preparing: Queue[Key] = Queue()
        # Attempts that were not found: only we could start them, so there is no need to look again.
        self._absent: set[tuple[Key, int]] = set()

    def take(self, run: RunRecord) -> Next:
        """Do what is next; what goes wrong in it and is the run's own is its end.

        Raises:
            Exception: nobody's fault but ours, or a place's that does not answer; worth repeating.
        """
        try:
            return self._step(run)
        except RunFailed as failure:
            self._fail(run, self._shown(run, str(failure)))
            return None
        except Fault as fault:
            if fault.retry:
                self._waits(run, fault)
            raise

    def adopt(self, run: RunRecord) -> None:
        """Count a run that goes on from before among those that work."""
        places = self._working.get(self.name(run))
        if places is not None and not is_service(run.entity) and not places.has(run.key):
            places.hold(run.key, lender(run, self._store))

    def is_quiet(self, run: RunRecord) -> bool:
        """Whether nothing is to be done about a run until somebody tells."""
        if run.state != "RUNNING" or run.target != "RUN" or self.name(run) not in self._engines:
            return False
        return self._engine(run).poll(run) == Progress("alive")

    def is_waiting(self, key: Key) -> bool:
        """Whether a run waits for a place and will be told."""
        return any(places.is_waiting(key) for places in self._ahead.values())

    def forget(self, key: Key) -> None:
        """Let go of everything that is kept for a run."""
        self._prepared.pop(key, None)
        for places in (*self._ahead.values(), *self._working.values()):
            places.release(key)

    def prepare(self) -> None:
        """Make what runs need for their start, one after another, until `close`; for threads of its own."""
        while (key := self._preparing.get()) is not None:
            preparation = self._prepared.get(key)
            if preparation is not None and not preparation.made.done():
                run, made = preparation.run, preparation.made
                try:
                    made.set_result(self._engine(run).prepare(run))
                except Exception as exc:  # noqa: BLE001 - it is raised where the result is asked for
                    made.set_exception(exc)
            self._preparing.done(key)
            self._tell(key)

    def close(self) -> None:
        self._preparing.close()

    def places(self) -> dict[str, dict[str, int]]:
        """Engine -> how many places of jobs are held and lent, and how many jobs wait for one."""
        return {name: places.count() for name, places in self._working.items()}

    def name(self, run: RunRecord) -> str:
        """The name of the engine that runs it, or will."""
        return engine_of(run, self._settings)

    def _step(self, run: RunRecord) -> Next:
        look = self._look(run)
        if run.target in ("STOP", "DELETE"):
            return self._end(run, look)
        if look.exit is not None:
            self._write_down(run, look)
            return self._finish(run, look.exit)
        if look.service is not None:
            service = service_status(look.service, run.entity["spec"])
            told = {**(look.status or {}), "service": service, "message": None}
            return self._move(run, "RUNNING", status=told)
        if look.phase == "absent":
            return self._launch(run)
        self.adopt(run)
        if run.state != "RUNNING" and not look.pending:
            # It has got its place; or a control plane was killed before it could write the start down.
            return self._move(run, "RUNNING", engine=self.name(run), status=look.status)
        self._write_down(run, look)
        return None if look.status is not None else _until_announced(run)

    def _look(self, run: RunRecord) -> Progress:
        attempt = (run.key, run.attempt)
        if attempt in self._absent or self.name(run) not in self._engines:
            return Progress("absent")
        look = self._engine(run).poll(run)
        if look.phase == "absent":
            self._absent.add(attempt)
        return look

    def _write_down(self, run: RunRecord, look: Progress) -> None:
        """Keep what the place says of the run, where that is news."""
        there = run.entity["status"]
        news = {k: v for k, v in (look.status or {}).items() if there.get(k) != v}
        if news:
            self._move(run, run.state, status=news)

    # To RUN

    def _launch(self, run: RunRecord) -> Next:
        name, key = self.name(run), run.key
        if (pause := pause_left(run.handle or {}, time.time())) > 0:
            return pause
        with blamed(run):
            engine = self._engine(run)
            spec = RunSpec.from_entity(run.entity)
            check_action(spec, name, engine)
        preparation = self._prepared.get(key)
        if preparation is None or preparation.run.attempt != run.attempt:
            return self._begin_preparing(run)
        service = is_service(run.entity)
        if not preparation.made.done():
            return None
        if not service and not self._working[name].take(key, run.seq, lender(run, self._store)):
            return None
        if self._store.plane is not None:
            taken = self._move(run, run.state, handle=run.handle or {})
            if taken is None:
                self._forget(run)
                return None
            run = taken
        if preparation.made.exception() is not None:
            self._prepared.pop(key)  # where it is to be tried again, it is made anew
        with blamed(run):
            env = run_environment(run, spec, self._store, self._settings)
            handle = engine.start(run, env, preparation.made.result())
        self._started(run)
        handle = {**_kept(run), **handle}
        if service:
            handle["began"] = time.time()
        state = run.state if handle.get("pending") else "RUNNING"
        # What it waited for until now; of an attempt before this one it goes on telling.
        waited = {"message": None} if run.state in _WAITING else {}
        moved = self._move(run, state, handle=handle, engine=name, status=waited)
        if moved is None:
            # It ended in the store while it was being started.
            engine.stop(run, force=True)
            return None
        return None if handle.get("pending") else _until_announced(moved)

    def _begin_preparing(self, run: RunRecord) -> Next:
        name = self.name(run)
        if not self._ahead[name].take(run.key, run.seq, lender(run, self._store)):
            return None
        if run.state == "READY":
            # Nobody's yet: of several control planes the first that has a place for it takes it.
            moved = self._move(run, "PENDING", engine=name, owned=False)
            if moved is None:
                self._forget(run)
                return None
            run = moved
        self._prepared[run.key] = Preparation(run)
        self._preparing.add(run.key)
        return None

    def _started(self, run: RunRecord) -> None:
        self._prepared.pop(run.key, None)
        self._absent.discard((run.key, run.attempt))
        self._ahead[self.name(run)].release(run.key)

    def _finish(self, run: RunRecord, end: Exit) -> Next:
        # What it reported lies in the store since it ended; what we have may be older.
        fresh = self._store.get_run_record(run.project, run.id)
        following = None if fresh is None else self._after(run, fresh, end)
        if following is None or (isinstance(following, RunRecord) and following.state in ENDED):
            self._settle(run)
        self._forget(run)  # last: its place is free once the store says so
        return following

    def _after(self, run: RunRecord, fresh: RunRecord, end: Exit) -> Next:
        unreached = (run.handle or {}).get("unreached", 0)
        if not end.reached and "error" not in fresh.entity["status"] and unreached < LOADS:
            return self._begin_again(run, end)
        if is_service(run.entity):
            return self._restart(run, fresh, end)
        if end.status == 0:
            # What an earlier attempt died of does not matter any more.
            again = run.attempt or end.final
            forgotten = {"message": None, "error": None} if again else {}
            give_image(fresh, self._store)
            return self._move(run, "COMPLETED", status=forgotten)
        message = self._shown(run, why(fresh, end))
        with blamed(run):
            retries = backoff_limit(run.entity["spec"])
        counted = run.attempt - (run.handle or {}).get("unreached", 0)
        if end.final or counted >= retries:
            return self._move(run, "ERROR", message=message)
        pause = min(LONGEST_PAUSE, 2.0**counted)
        text = f"attempt {counted + 1} of {retries + 1} failed: {message}"
        with blamed(run):
            self._engine(run).log(run, f"{text}; the next one begins in {pause:.0f} s")
        return self._move(
            run,
            "RUNNING",
            message=text,
            status={"error": None},
            attempt=run.attempt + 1,
            handle=self._pausing(run, pause),
        )

    def _begin_again(self, run: RunRecord, end: Exit) -> Next:
        """Start an attempt again that never came to the user's code, as one that was none."""
        before = (run.handle or {}).get("unreached", 0)
        pause = min(LONGEST_PAUSE, 2.0**before)
        with blamed(run):
            self._engine(run).log(run, f"the run could not be loaded; it begins again in {pause:.0f} s")  # fmt: skip
        handle = {**self._pausing(run, pause), "unreached": before + 1}
        return self._move(run, "RUNNING", attempt=run.attempt + 1, handle=handle)

    def _pausing(self, run: RunRecord, pause: float) -> dict[str, Any]:
        """The handle of an attempt that is to begin after a pause; what counts over attempts is kept."""
        return {**_kept(run), **pausing(pause, time.time())}

    def _restart(self, run: RunRecord, fresh: RunRecord, end: Exit) -> Next:
        """Start a service again that ended by itself, after a pause; or give it up."""
        was_up = "service" in fresh.entity["status"]
        handle = None if end.final else restart_handle(run.handle or {}, was_up)
        message = self._shown(run, why(fresh, end)) or "the service ended by itself"
        if handle is None:
            return self._move(run, "ERROR", message=message, status={"service": None})
        with blamed(run):
            self._engine(run).log(run, f"{message}; it is started again in {handle['pause']:.1f} s")
        return self._move(
            run,
            "RUNNING",
            message=f"restarted: {message}",
            status={"error": None, "service": None},
            attempt=run.attempt + 1,
            handle=handle,
        )

    def _shown(self, run: RunRecord, text: str) -> str:
        return without_secrets(text, run, self._store, self._settings) if text else text

    # To STOP and DELETE

    def _end(self, run: RunRecord, look: Progress) -> Next:
        handle = run.handle or {}
        if look.phase == "alive":
            return self._stop(run, handle)
        if run.target == "DELETE":
            with contextlib.suppress(UsageFault):
                self._engine(run).remove(run)
            self._store.delete_run(run.project, run.id)
            self._forget(run)
            return None
        by_itself = look.exit is not None and "stopping" not in handle
        self._settle(run)
        if by_itself and look.exit is not None and look.exit.status == 0:
            return self._move(run, "COMPLETED")
        return self._move(
            run, "STOPPED", status={"service": None} if is_service(run.entity) else {}
        )

    def _stop(self, run: RunRecord, handle: Mapping[str, Any]) -> Next:
        grace, asked = self._settings.stop_grace, handle.get("stopping")
        # After a restart the clock may stand anywhere.
        left = grace - (time.time() - asked) if asked else grace
        late = bool(asked) and not 0 < left <= grace
        with blamed(run):
            if late or not asked:
                self._engine(run).stop(run, force=late)
        if not asked:
            state = "STOP" if run.state == "RUNNING" else run.state
            self._move(run, state, handle={**handle, "stopping": time.time()})
        return max(grace, 1.0) if late else left

    # Shared

    def _waits(self, run: RunRecord, fault: Fault) -> None:
        """Say of a run that has not begun why it does not: nobody reads the server's log."""
        text = f"waits: {self._shown(run, fault.message)}"
        if run.state in _WAITING and run.entity["status"].get("message") != text:
            self._move(run, run.state, owned=False, message=text)

    def _settle(self, run: RunRecord) -> None:
        with contextlib.suppress(UsageFault):
            self._engine(run).settle(run)

    def _engine(self, run: RunRecord) -> RunEngine:
        name = self.name(run)
        if name not in self._engines:
            raise UsageFault(
                "usage/engine",
                f"The run needs the engine {name!r}, which this control plane does not have.",
                f"Set DHPY_ENGINE to one of {', '.join(self._engines)}.",
            )
        return self._engines[name]

    def _move(
        self, run: RunRecord, state: str, *, owned: bool = True, **changes: Any
    ) -> RunRecord | None:
        if changes.get("handle") is not None:
            # Where it lies, for a control plane of this machine that takes it over.
            changes["handle"] = {"home": str(self._settings.home), **changes["handle"]}
        moved = self._store.move_run(run.project, run.id, state, owned=owned, **changes)
        if moved is None:
            logger.info("run %s/%s is %s; not %s", run.project, run.id, run.state, state)
        return moved

    def _forget(self, run: RunRecord) -> None:
        self._absent.discard((run.key, run.attempt))
        self.forget(run.key)

    def _fail(self, run: RunRecord, message: str) -> None:
        self._forget(run)
        engine = self._engines.get(self.name(run))
        if engine is not None:
            # A log that cannot be written is often what failed.
            with contextlib.suppress(OSError):
                engine.log(run, f"error: {message}")
        if run.target == "DELETE":
            self._store.delete_run(run.project, run.id)
        else:
            self._move(run, "ERROR", message=message)


def _kept(run: RunRecord) -> dict[str, Any]:
    return {key: value for key, value in (run.handle or {}).items() if key in KEPT}


def _until_announced(run: RunRecord) -> float | None:
    """When to look again whether a service answers; None for everything else."""
    if not is_service(run.entity) or "service" in run.entity["status"]:
        return None
    shortest, longest = ANNOUNCING
    age: float = time.time() - (run.handle or {}).get("began", 0)
    return min(longest, max(shortest, age / 20))
