"""Starts, watches and stops runs: one module per kind of place a run can live in.

The seam: a table of names and the Protocol below. An engine knows neither the store nor HTTP. Every
call may be repeated, also by a control plane that was killed in between and started again.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Literal, Protocol, cast

from digitalhub_runtime_python.errors import PlatformFault, UsageFault
from digitalhub_runtime_python.spec import ACTIONS, action_of

if TYPE_CHECKING:
    from digitalhub_python_control.settings import ControlSettings
    from digitalhub_python_control.store.store import RunRecord

ENGINES = {
    "process": "digitalhub_python_control.running.engines.process:ProcessEngine",
    "docker": "digitalhub_python_control.running.engines.docker:DockerEngine",
    "kubernetes": "digitalhub_python_control.running.engines.kubernetes:KubernetesEngine",
}
"""Name -> `module:attribute` of a class that takes the settings and is a RunEngine."""

BUILDS_ELSEWHERE = {"docker": "process", "kubernetes": "process"}
"""Engine -> the engine of its builds, where it has none itself: a build is a process of ours."""
BUILD_IMAGE = "DHPY_KUBERNETES_BUILD_IMAGE"
"""The image of pods that build, the control plane's own; without one the engine `kubernetes` has no builds itself."""

# What the exit statuses of errors.py mean, for a run that could not report its error itself.
_MEANINGS = {
    2: "the run is not well formed",
    10: "the code could not be fetched",
    11: "the handler could not be imported",
    12: "the arguments do not fit the handler",
    13: "an output could not be stored",
    14: "the platform could not be reached",
    15: "the environment could not be had",
    124: "the deadline has passed",
    125: "it could not be started; see its log",
    127: "the interpreter was not found; see its log",
}


_NOT_LOADED = ("[platform/unreachable]", "[platform/failed]")


@dataclass(frozen=True)
class Exit:
    """How an attempt of a run ended."""

    status: int
    """0 is success; 128 + n stands for signal n, as in a shell."""
    message: str = ""
    """How it died, where the run itself could not say; empty for success."""
    reached: bool = True
    """False: the user's code has certainly not run; see `reached`."""
    final: bool = False
    """The place has done all retries itself, or knows that none helps: the run is over."""


@dataclass(frozen=True)
class Progress:
    """What an engine knows about the current attempt of a run."""

    phase: Literal["absent", "alive", "ended"]
    exit: Exit | None = None
    """Set when the attempt has ended."""
    service: Mapping[str, Any] | None = None
    """Of a service that answers and has no `status.service` yet: its `url` and `management_url`, and
    `status`, fields of `status.service` that the place knows better."""
    pending: bool = False
    """Alive, but it waits for its place and does not run yet."""
    status: Mapping[str, Any] | None = None
    """What the place says of the run, as keys of its status: `message`, `pods`, `events`."""


Tell = Callable[[str, str], None]
"""`tell(project, run_id)`: something about that run may have changed, so `poll` is worth a call.

It returns at once and may be called from any thread, before `start` has returned, for runs that nobody
knows, and many times over (it coalesces): an engine that is not sure tells."""


Hidden = Callable[["RunRecord"], "list[bytes]"]
"""What a run's log may not show, as `redaction.forms` makes it; raises a Fault where that cannot be told now."""


class RunEngine(Protocol):
    """A place where runs live. `run.attempt` tells the attempts of one run apart.

    Every method is called by the reconciler's workers: never twice at once for one run, but at the same
    time for different ones. A call may take as long as one request to the place takes; what takes
    minutes belongs into `prepare`. A Fault whose `retry` is true is not a fault of the run: the call is
    repeated after a pause that grows. Any other exception ends the run in ERROR with its message.
    """

    actions: frozenset[str]
    """What it can do, out of `job`, `serve` and `build`."""
    max_jobs: int
    """How many jobs it works on at once; the others wait. Services do not count: they never end."""

    def watch(self, tell: Tell, hidden: Hidden) -> None:
        """Begin to tell of runs whose attempt has started, ended, or become a service that answers.

        Args:
            hidden: asked before the output of a run is copied into its log.

        Called once, before any other method but `prepare`; returns at once, and watches in threads of
        the engine's own until `close`. Runs that go on from before are told of as well, at the latest
        once they were polled. What is not told is found by the reconciler's slow look, a minute later.
        """
        ...

    def close(self) -> None:
        """End the threads of `watch`; runs go on."""
        ...

    def prepare(self, run: RunRecord) -> dict[str, Any]:
        """Make what a start needs and may take minutes; called in a thread of its own.

        Raises:
            Fault: it cannot be provided; the message tells the user what to change.
        """
        ...

    def start(
        self, run: RunRecord, env: Mapping[str, str], prepared: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Start the attempt and return its handle (JSON); an attempt never runs twice.

        A handle with `pending` is of a place that queues: `poll` says when the attempt runs.
        """
        ...

    def poll(self, run: RunRecord) -> Progress:
        """Where the attempt is now; from what `watch` has gathered where that is as fresh."""
        ...

    def stop(self, run: RunRecord, *, force: bool) -> None:
        """Ask the attempt to end, or end it; does not wait, and succeeds on what is gone."""
        ...

    def settle(self, run: RunRecord) -> None:
        """The store has how the run ended: let go of what the place keeps for that; the log stays.

        Returns at once; called again for a run of before that `unfinished` still names.
        """
        ...

    def remove(self, run: RunRecord) -> None:
        """Remove everything that all attempts of an ended run have left."""
        ...

    def log(self, run: RunRecord, line: str) -> None:
        """Add a line of our own to the run's log."""
        ...

    def sweep(self, handles: Iterable[Mapping[str, Any]]) -> None:
        """Remove what no run needs any more; `handles` are those of the runs that are going on."""
        ...

    def unfinished(self) -> Collection[tuple[str, str]]:
        """Project and id of every run that has something alive here, known to the store or not."""
        ...


def engine_of(run: RunRecord, settings: ControlSettings) -> str:
    """The name of a run's engine: the one that it was started with, or for a new run by its action."""
    action = action_of(str(run.entity["kind"]))
    return run.engine or choose(action, settings.engine, settings.environ)


def choose(action: str, chosen: str, environ: Mapping[str, str] | None = None) -> str:
    """The name of the engine for new runs with that action, where the settings name `chosen`."""
    if chosen == "kubernetes" and (environ or {}).get(BUILD_IMAGE, "").strip():
        return chosen
    return BUILDS_ELSEWHERE.get(chosen, chosen) if action == "build" else chosen


def load_all(chosen: str, settings: ControlSettings) -> dict[str, RunEngine]:
    """By name, every engine that runs may need where the settings name `chosen`; raises as `load`."""
    # With one engine's builds elsewhere before: they go on there.
    names = {
        choose(action, chosen, given) for action in ACTIONS for given in ({}, settings.environ)
    }
    return {name: load(name, settings) for name in sorted(names, key=lambda name: name != chosen)}


def load(name: str, settings: ControlSettings) -> RunEngine:
    """The engine of that name.

    Raises:
        UsageFault: it does not exist; the message lists those that do.
    """
    if name not in ENGINES:
        raise UsageFault(
            "usage/engine",
            f"There is no run engine {name!r}.",
            f"Set DHPY_ENGINE to one of {', '.join(ENGINES)}.",
        )
    module, _, attribute = ENGINES[name].partition(":")
    return cast("RunEngine", getattr(importlib.import_module(module), attribute)(settings))


def reached(status: int, termination: str | None) -> bool:
    """Whether an attempt may have come to the user's code.

    It has not where it could not even load its run: it exits with 14 and its last word is why, while a
    report that was not delivered, after the user's code, has another code (platform/report).

    Args:
        status: its exit status.
        termination: what it wrote to `DHPY_TERMINATION_LOG`.
    """
    last = (termination or "").strip()
    return status != PlatformFault.exit_status or not last.endswith(_NOT_LOADED)


def how_it_ended(status: int) -> str:
    """An exit status in words: `killed by signal 9 (SIGKILL): …`, `exit status 12 (…)`."""
    if status == 0:
        return ""
    number = status - 128
    if number in {int(one) for one in signal.Signals}:
        name = signal.Signals(number).name
        more = "; often the machine was out of memory" if name == "SIGKILL" else ""
        return f"killed by signal {number} ({name}){more}"
    meaning = _MEANINGS.get(status)
    return f"exit status {status} ({meaning})" if meaning else f"exit status {status}"
