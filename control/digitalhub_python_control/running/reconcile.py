"""Brings every run to its target: workers that are told which run to look at.

The API tells of a run that is new or shall stop, an engine of one that has ended, a timer of one whose
time has come; once a minute all are looked at, in case nobody told. Workers take steps (steps.py)
until a run is where it should be, or waits for somebody. An engine's failure becomes the run's ERROR; a
failure of the store is nobody's fault but ours: it is logged, and the run is taken up again later.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Mapping
from typing import Callable, TypeVar

from digitalhub_python_control.running.engines import RunEngine, load_all
from digitalhub_python_control.running.hiding import forms_of_run
from digitalhub_python_control.running.queue import Queue
from digitalhub_python_control.running.steps import Steps
from digitalhub_python_control.settings import ControlSettings
from digitalhub_python_control.store.planes import Planes, identity
from digitalhub_python_control.store.records import Key, RunRecord
from digitalhub_python_control.store.store import Store
from digitalhub_runtime_python.errors import Fault
from digitalhub_runtime_python.states import ENDED

logger = logging.getLogger(__name__)

T = TypeVar("T")

WORKERS = 4
"""Runs that are worked on at the same time: mostly they wait, for the store or for an engine."""
PREPARING = 2
"""How many environments are made at the same time; the network and uv's own threads do the rest."""
LOOKING = 60.0
"""Seconds between two looks at everything."""
COMPLAINING = 5.0
"""Seconds: what fails is said once in that time, not once for each of 1,000 runs."""
SWEEPING = 6 * 3600.0
"""Seconds between two removals of what nobody uses any more."""


def make(store: Store, settings: ControlSettings) -> Reconciler:
    """The reconciler with the engine that the settings name.

    Raises:
        UsageFault: there is no such engine.
    """
    return Reconciler(store, load_all(settings.engine, settings), settings)


class Reconciler:
    """Converges runs; `start` it once, `tell` it of every change, `close` it to let runs go on.

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
        self._queue: Queue[Key] = Queue()
        self._steps = Steps(store, engines, settings, self._queue.add)
        self._closing = threading.Event()
        self._awake = threading.Event()
        self._planes = None
        if store.can_be_shared:
            self._planes = Planes(store, identity(settings.home), self.tell, self.look)
        works = [(self._work, WORKERS), (self._steps.prepare, PREPARING), (self._watch, 1)]
        # Daemons: an environment that is being made must not hold up the server's end.
        self._threads = [
            threading.Thread(target=work, name=f"reconciler {work.__name__}", daemon=True)
            for work, count in works
            for _ in range(count)
        ]
        self._complained_at = self._swept_at = float("-inf")

    def start(self) -> None:
        """Adopt what goes on already, then converge in threads of its own."""
        hidden = functools.partial(forms_of_run, store=self._store, settings=self._settings)
        for engine in self._engines.values():
            engine.watch(self.tell, hidden)
        for thread in self._threads:
            thread.start()
        if self._planes is not None:
            self._planes.start()

    def tell(self, project: str, identity: str) -> None:
        """Something about a run may have changed; may be called from any thread."""
        self._queue.add((project, identity))

    def places(self) -> dict[str, dict[str, int]]:
        """Engine -> how many places of jobs are held and lent, and how many jobs wait for one."""
        return self._steps.places()

    def close(self) -> None:
        """End the threads. Runs go on; the next reconciler adopts them."""
        self._closing.set()
        self._awake.set()
        self._queue.close()
        self._steps.close()
        deadline = time.monotonic() + 10
        for thread in self._threads:
            if thread.is_alive() and thread.name != "reconciler prepare":
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._planes is not None:
            self._planes.close()
        for engine in self._engines.values():
            engine.close()

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            try:
                self._converge(key)
                self._queue.forget(key)
            except Exception as exc:  # noqa: BLE001 - a full disk or a locked database passes
                self._complain(exc, f"{self._queue.again(key):.1f} s")
            finally:
                self._queue.done(key)

    def _converge(self, key: Key) -> None:
        """Take steps until the run is where it should be, or has to wait."""
        run = self._store.get_run_record(*key)
        while run is not None and self._is_ours(run) and not self._closing.is_set():
            following = self._steps.take(run)
            if isinstance(following, (int, float)):
                self._queue.add_after(key, following)
            if not isinstance(following, RunRecord):
                return
            run = following
        if not self._closing.is_set():
            self._steps.forget(key)

    def _is_ours(self, run: RunRecord) -> bool:
        """Whether something is to be done about a run, and by us."""
        return is_unsettled(run) and run.owner in (None, self._store.plane)

    def look(self) -> None:
        """Look at everything now; may be called from any thread."""
        self._awake.set()

    def _watch(self) -> None:
        """Look at everything, now and then: the safety net under those who tell."""
        nothing: list[RunRecord] = []
        for run in self._try(self._begun, nothing):
            if run.state in ("RUNNING", "STOP"):
                self._steps.adopt(run)
        self._try(self._end_strays, None)
        while not self._closing.is_set():
            self._awake.clear()
            self._try(self._look_at_all, None)
            self._awake.wait(LOOKING)

    def _begun(self) -> list[RunRecord]:
        return [run for run in self._store.unsettled_runs(ready=False) if self._is_ours(run)]

    def _look_at_all(self) -> None:
        runs = self._begun()
        for run in runs:
            # Nobody else may ask an engine about a run that a worker has in hand; nor is there a need.
            if self._queue.claim(run.key):
                try:
                    quiet = self._steps.is_quiet(run)
                finally:
                    self._queue.done(run.key)
                if not quiet:
                    self._queue.add(run.key)
        for key in self._store.ready_runs():
            if not self._steps.is_waiting(key):
                self._queue.add(key)
        if time.monotonic() - self._swept_at > SWEEPING:
            self._swept_at = time.monotonic()
            for engine in self._engines.values():
                engine.sweep([run.handle for run in runs if run.handle])

    def _end_strays(self) -> None:
        """End the processes of runs that have ended in the store."""
        for engine in self._engines.values():
            for project, run_id in engine.unfinished():
                run = self._store.get_run_record(project, run_id)
                if run is not None and run.state in ENDED and run.target != "DELETE":
                    logger.warning(
                        "run %s/%s is %s but alive; ending it", project, run_id, run.state
                    )
                    engine.stop(run, force=True)

    def _try(self, do: Callable[[], T], otherwise: T) -> T:
        try:
            return do()
        except Exception as exc:  # noqa: BLE001 - the thread must live
            self._complain(exc, "a while")
            return otherwise

    def _complain(self, exc: Exception, pause: str) -> None:
        now = time.monotonic()
        if now - self._complained_at < COMPLAINING:
            return
        self._complained_at = now
        # A fault says all in its one line; of anything else the place in the code matters.
        known = isinstance(exc, Fault)
        logger.error(
            "the reconciler failed; it tries again in %s: %s",
            pause,
            exc,
            exc_info=not known and exc,
        )


def is_unsettled(run: RunRecord) -> bool:
    """Whether a run is ours, and not yet what it should be."""
    return run.target == "DELETE" or (run.target is not None and run.state not in ENDED)
