"""Brings every run to its target: one thread that looks, acts once, writes down, and looks again.

What a run should become is in the store before anything is done about it, and every action may be
repeated; so the control plane can be killed at any line of this file and go on later. An engine's
failure becomes the run's ERROR; a failure of the store is nobody's fault but ours: it is logged and
everything is tried again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from digitalhub_python_control.running.engines import Exit, Progress, RunEngine, engine_of, load_all
from digitalhub_python_control.running.launch import (
    RunFailed,
    backoff_limit,
    blamed,
    check_action,
    give_image,
    run_environment,
)
from digitalhub_python_control.running.services import is_service, restart_handle, service_status
from digitalhub_python_control.settings import ControlSettings
from digitalhub_python_control.store.store import RunRecord, Store
from digitalhub_runtime_python.error_report import summary
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.spec import RunSpec
from digitalhub_runtime_python.states import ENDED

logger = logging.getLogger(__name__)

BUSY = 0.02
"""Seconds between two looks while something runs: the end of a run is noticed within that."""
WATCHING = 0.1
"""The same while only services run, which may go on for weeks."""
IDLE = 2.0
"""Seconds between two looks at the store while nothing wakes us."""
LONGEST_PAUSE = 30.0
"""Seconds: the longest pause before a retry, of a job or after a failure of the store."""
PREPARING = 2
"""How many environments are made at the same time; the network and uv's own threads do the rest."""
AHEAD = 16
"""Runs whose start is prepared before there is a place for them; the others wait as they are, READY."""
SWEEPING = 6 * 3600.0
"""Seconds between two removals of what nobody uses any more."""

_TIMERS = {"stopping", "not_before"}
"""Keys of a handle that mean that something is to be done when time has passed."""

_Key = tuple[str, str, int]


def make(store: Store, settings: ControlSettings) -> Reconciler:
    """The reconciler with the engine that the settings name.

    Raises:
        UsageFault: there is no such engine.
    """
    return Reconciler(store, load_all(settings.engine, settings), settings)


class Reconciler:
    """Converges runs; `start` it once, `wake` it after every change, `close` it to let runs go on.

    Args:
        store: where runs and their targets are.
        engines: name -> engine; `settings.engine` names the one for new runs.
        settings: with the address that the server really has.
    """

    def __init__(
        self, store: Store, engines: Mapping[str, RunEngine], settings: ControlSettings
    ) -> None:
        self._store = store
        self._engines = engines
        self._settings = settings
        self._awake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="reconciler", daemon=True)
        self._preparing = threading.BoundedSemaphore(PREPARING)
        self._prepared: dict[_Key, Future[dict[str, Any]]] = {}
        # Attempts that were not found: only we could start them, so there is no need to look again.
        self._absent: set[_Key] = set()
        self._working: Counter[str] = Counter()
        self._doubtful: set[str] = set()
        self._runs: list[RunRecord] = []
        self._alive: list[RunRecord] = []
        self._timed = False
        self._read_at = self._swept_at = float("-inf")
        self._strays_ended = False

    def start(self) -> None:
        """Adopt what goes on already, then converge in a thread of its own."""
        self._thread.start()

    def wake(self) -> None:
        """Look at the store now; may be called from any thread."""
        self._awake.set()

    def close(self) -> None:
        """End the thread. Runs go on; the next reconciler adopts them."""
        self._closing.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _loop(self) -> None:
        failures = 0
        while not self._closing.is_set():
            if self._awake.is_set():
                self._awake.clear()
                self._read_at = float("-inf")
            try:
                pause = self.converge()
                failures = 0
            except Exception:
                # The thread must live: a full disk or a locked database passes.
                failures += 1
                pause = min(LONGEST_PAUSE, 0.25 * 2**failures)
                logger.exception("the reconciler failed; it tries again in %.1f s", pause)
                self._read_at = float("-inf")
                self._closing.wait(pause)
            else:
                self._awake.wait(pause)

    def converge(self) -> float:
        """Act once on every run that is not where it should be; seconds until the next look."""
        now = time.monotonic()
        if now - self._read_at >= IDLE:
            self._runs, self._read_at = self._store.unsettled_runs(), now
        elif not self._timed and all(self._look(run) == Progress("alive") for run in self._alive):
            # Nothing has changed: neither in the store, or we had been woken, nor among the processes.
            return self._pause()
        self._tidy(now)
        looks = [(run, self._look(run)) for run in self._runs]
        self._alive = [run for run, look in looks if look.phase == "alive"]
        self._timed = any(_TIMERS & (run.handle or {}).keys() for run in self._runs)
        jobs = (run for run in self._alive if not is_service(run.entity))
        self._working = Counter(self._name(run) for run in jobs)
        acted = [self._act(run, look) for run, look in looks]
        if any(acted):
            self._read_at = float("-inf")
            return 0.0
        return self._pause()

    def _pause(self) -> float:
        if self._timed or any(not is_service(run.entity) for run in self._alive):
            return BUSY
        return WATCHING if self._alive else IDLE

    def _act(self, run: RunRecord, look: Progress) -> bool:
        """`_step`, with what goes wrong in it blamed on the run."""
        if self._closing.is_set():
            return False
        try:
            return self._step(run, look)
        except RunFailed as failure:
            self._fail(run, str(failure))
            return True

    def _look(self, run: RunRecord) -> Progress:
        if _key(run) in self._absent:
            return Progress("absent")
        try:
            look = self._engine(run).poll(run)
            if look.phase == "absent":
                self._absent.add(_key(run))
            return look
        except UsageFault:
            return Progress("absent")
        except Exception:
            # Too many open files, say: no reason to give up a run that may be alive.
            if run.id not in self._doubtful:
                logger.exception("run %s/%s cannot be looked at", run.project, run.id)
                self._doubtful.add(run.id)
            return Progress("alive" if run.state in ("RUNNING", "STOP") else "absent")

    def _step(self, run: RunRecord, look: Progress) -> bool:
        """One action at most; whether something was done."""
        if run.target in ("STOP", "DELETE"):
            return self._end(run, look)
        if look.exit is not None:
            return self._finish(run, look.exit)
        if look.service is not None:
            service = service_status(look.service, run.entity["spec"])
            return self._move(run, "RUNNING", status={"service": service, "message": None})
        if look.phase == "alive":
            # Started by a control plane that was killed before it could write that down.
            return run.state != "RUNNING" and self._move(run, "RUNNING", engine=self._name(run))
        return self._launch(run)

    # To RUN

    def _launch(self, run: RunRecord) -> bool:
        name, key = self._name(run), _key(run)
        future = self._prepared.get(key)
        if time.time() < (run.handle or {}).get("not_before", 0):
            return False
        if future is None and len(self._prepared) >= AHEAD:
            return False
        with blamed(run):
            engine = self._engine(run)
            spec = RunSpec.from_entity(run.entity)
            check_action(spec, name, engine)
        if future is None:
            if run.state == "READY" and not self._move(run, "PENDING", engine=name):
                return False
            self._prepared[key] = self._in_thread(engine, run)
            return True
        service = is_service(run.entity)
        if not future.done() or (self._working[name] >= engine.max_jobs and not service):
            return False
        self._forget(run)
        with blamed(run):
            env = run_environment(run, spec, self._store, self._settings)
            handle = engine.start(run, env, future.result())
        self._working[name] += not service
        if service:
            handle = {
                **handle,
                "began": time.time(),
                "crashes": (run.handle or {}).get("crashes", 0),
            }
        if not self._move(run, "RUNNING", handle=handle, engine=name):
            # It ended in the store while it was being started.
            engine.stop(run, force=True)
        return True

    def _in_thread(self, engine: RunEngine, run: RunRecord) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()

        def work() -> None:
            with self._preparing:
                try:
                    future.set_result(engine.prepare(run))
                except Exception as exc:  # noqa: BLE001 - it is raised where the result is asked for
                    future.set_exception(exc)
            self.wake()

        # Not a pool of concurrent.futures: Python waits for its threads at exit, for minutes here.
        threading.Thread(target=work, name=f"prepare {run.id}", daemon=True).start()
        return future

    def _finish(self, run: RunRecord, end: Exit) -> bool:
        fresh = self._store.get_run_record(run.project, run.id)
        if fresh is None:
            return True
        if is_service(run.entity):
            return self._restart(run, fresh, end)
        if end.status == 0:
            # What an earlier attempt died of does not matter any more.
            forgotten = {"message": None} if run.attempt else {}
            give_image(fresh, self._store)
            return self._move(run, "COMPLETED", status=forgotten)
        message = _why(fresh, end)
        with blamed(run):
            retries = backoff_limit(run.entity["spec"])
        if run.attempt >= retries:
            return self._move(run, "ERROR", message=message)
        pause = min(LONGEST_PAUSE, 2.0**run.attempt)
        text = f"attempt {run.attempt + 1} of {retries + 1} failed: {message}"
        with blamed(run):
            self._engine(run).log(run, f"{text}; the next one begins in {pause:.0f} s")
        return self._move(
            run,
            "RUNNING",
            message=text,
            status={"error": None},
            attempt=run.attempt + 1,
            handle={"not_before": time.time() + pause},
        )

    def _restart(self, run: RunRecord, fresh: RunRecord, end: Exit) -> bool:
        """Start a service again that ended by itself, after a pause; or give it up."""
        handle = restart_handle(run.handle or {}, "service" in fresh.entity["status"])
        message = _why(fresh, end) or "the service ended by itself"
        if handle is None:
            return self._move(run, "ERROR", message=message, status={"service": None})
        pause = handle["not_before"] - time.time()
        with blamed(run):
            self._engine(run).log(run, f"{message}; it is started again in {pause:.1f} s")
        return self._move(
            run,
            "RUNNING",
            message=f"restarted: {message}",
            status={"error": None, "service": None},
            attempt=run.attempt + 1,
            handle=handle,
        )

    # To STOP and DELETE

    def _end(self, run: RunRecord, look: Progress) -> bool:
        handle = run.handle or {}
        if look.phase == "alive":
            return self._stop(run, handle)
        self._forget(run)
        if run.target == "DELETE":
            with contextlib.suppress(UsageFault):
                self._engine(run).remove(run)
            self._store.delete_run(run.project, run.id)
            return True
        by_itself = look.exit is not None and "stopping" not in handle
        if by_itself and look.exit == Exit(0):
            return self._move(run, "COMPLETED")
        return self._move(
            run, "STOPPED", status={"service": None} if is_service(run.entity) else {}
        )

    def _stop(self, run: RunRecord, handle: Mapping[str, Any]) -> bool:
        asked = handle.get("stopping")
        with blamed(run):
            # After a restart the clock may stand anywhere.
            late = asked and not 0 <= time.time() - asked <= self._settings.stop_grace
            if late or not asked:
                self._engine(run).stop(run, force=bool(late))
        if asked:
            return False
        state = "STOP" if run.state == "RUNNING" else run.state
        return self._move(run, state, handle={**handle, "stopping": time.time()})

    # Shared

    def _name(self, run: RunRecord) -> str:
        return engine_of(run, self._settings.engine)

    def _engine(self, run: RunRecord) -> RunEngine:
        name = self._name(run)
        if name not in self._engines:
            raise UsageFault(
                "usage/engine",
                f"The run needs the engine {name!r}, which this control plane does not have.",
                f"Set DHPY_ENGINE to one of {', '.join(self._engines)}.",
            )
        return self._engines[name]

    def _move(self, run: RunRecord, state: str, **changes: Any) -> bool:
        moved = self._store.move_run(run.project, run.id, state, **changes)
        if not moved:
            logger.warning("run %s/%s is %s; not %s", run.project, run.id, run.state, state)
        return moved

    def _forget(self, run: RunRecord) -> None:
        self._prepared.pop(_key(run), None)
        self._absent.discard(_key(run))

    def _fail(self, run: RunRecord, message: str) -> None:
        self._forget(run)
        engine = self._engines.get(self._name(run))
        if engine is not None:
            # A log that cannot be written is often what failed.
            with contextlib.suppress(OSError):
                engine.log(run, f"error: {message}")
        if run.target == "DELETE":
            self._store.delete_run(run.project, run.id)
        else:
            self._move(run, "ERROR", message=message)

    def _tidy(self, now: float) -> None:
        """End processes of runs that have ended in the store; now and then, remove what is old."""
        if not self._strays_ended:
            for engine in self._engines.values():
                self._end_strays(engine)
            self._strays_ended = True
        if now - self._swept_at < SWEEPING:
            return
        self._swept_at = now
        handles = [run.handle for run in self._runs if run.handle]
        for engine in self._engines.values():
            threading.Thread(target=engine.sweep, args=(handles,), daemon=True).start()

    def _end_strays(self, engine: RunEngine) -> None:
        for project, run_id in engine.unfinished():
            run = self._store.get_run_record(project, run_id)
            if run is not None and run.state in ENDED and run.target != "DELETE":
                logger.warning("run %s/%s is %s but alive; ending it", project, run_id, run.state)
                engine.stop(run, force=True)


def _why(fresh: RunRecord, end: Exit) -> str:
    """What the run itself reported of its end, else how its process died."""
    error = fresh.entity["status"].get("error")
    return (summary(error) if isinstance(error, Mapping) else "") or end.message


def _key(run: RunRecord) -> _Key:
    return run.project, run.id, run.attempt
