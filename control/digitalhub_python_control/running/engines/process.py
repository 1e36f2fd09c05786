"""Runs as processes of this machine: each in its own session and folder, with a keeper (keeper.py).

Everything that matters is on disk, in runs/<project>/<id>/attempt-N: `started` (who keeps it, made by
exactly one process) and `exit` (how it ended). So runs go on when the control plane dies, and one
that is started again finds them. A run may have the rights to change these files, so that a file never
says that a run has ended: its keeper's process does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from digitalhub_python_builder.environments import ensure_environment, ensure_runtime, prune
from digitalhub_python_builder.interpreters import inherited_environment
from digitalhub_python_control.running import logs
from digitalhub_python_control.running.engines import (
    Exit,
    Hidden,
    Progress,
    Tell,
    cgroups,
    how_it_ended,
    keeper,
    processes,
    reached,
)
from digitalhub_python_control.running.engines.endings import Endings
from digitalhub_python_control.running.engines.keepers import Keepers
from digitalhub_python_control.running.engines.processes import Process
from digitalhub_python_control.running.hiding import forms_of
from digitalhub_python_control.running.plain_files import read_text
from digitalhub_python_control.running.services import is_service
from digitalhub_runtime_python.spec import RunSpec, interpreter_version

if TYPE_CHECKING:
    from digitalhub_python_control.settings import ControlSettings
    from digitalhub_python_control.store.store import RunRecord

logger = logging.getLogger(__name__)

_LOST = (
    "lost: its process has gone without a trace, so it was killed (SIGKILL) "
    "or the machine was restarted"
)
_RUNTIME = ("-m", "digitalhub_runtime_python")

_KNOWN = 5.0
"""Seconds for which an environment is taken to be as it was: looking costs as much as a third of a run."""

BUILD_COMMAND = (sys.executable, "-m", "digitalhub_python_control.running.building")
"""A build is a process of ours, in our own environment; what it builds is not."""
_BUILD_VARIABLES = (
    "DOCKER_", "BUILDAH_", "CONTAINERS_", "REGISTRY_AUTH_FILE", "KANIKO_EXECUTOR",
    "XDG_RUNTIME_DIR", "DHPY_BUILD_", "DHPY_IMAGES", "DHPY_REGISTRY",
)  # fmt: skip

MEANINGLESS = {
    "image": "the run uses an interpreter of this machine",
    "base_image": "the run uses an interpreter of this machine",
    "resources": "processes of this machine share its memory, CPUs and GPUs",
    "volumes": "a process sees the folders of this machine",
    "node_selector": "there is one machine",
    "affinity": "there is one machine",
    "tolerations": "there is one machine",
    "runtime_class": "there is no container",
    "priority_class": "runs are started in the order of their creation",
    "profile": "there are no resource profiles",
}
"""Parameters of a task that a process on this machine cannot honour, and why; said in the run's log."""


class ProcessEngine:
    """The engine of a laptop: no containers, no cluster.

    Args:
        settings: `home`, `cache`, `max_jobs`, `max_run_log` and `environment_days` are used.
        command: what to run instead of the runtime, with no environment made for it.
    """

    actions = frozenset({"job", "serve", "build"})

    def __init__(self, settings: ControlSettings, command: Sequence[str] | None = None) -> None:
        self.max_jobs = settings.max_jobs
        self._home = settings.home
        self._cache = settings.cache
        self._days = settings.environment_days
        self._command = command
        self._max_log = settings.max_run_log
        self._keepers = Keepers()
        self._endings = Endings()
        self._tell: Tell = lambda project, run_id: None
        self._known: dict[str, tuple[tuple[Path, Path], float]] = {}
        self._started: dict[Path, Process] = {}  # until the store has it

    def watch(self, tell: Tell, hidden: Hidden) -> None:
        del hidden  # keepers outlive us: each is given it with its order
        self._tell = tell
        self._endings.start()

    def close(self) -> None:
        self._endings.close()
        self._keepers.close()

    def prepare(self, run: RunRecord) -> dict[str, Any]:
        self._folder(run).mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._command is not None:
            return {"command": list(self._command)}
        spec = RunSpec.from_entity(run.entity)
        if spec.action == "build":
            return {"command": list(BUILD_COMMAND)}
        python, runtime = self._environment_of(run, interpreter_version(spec.python_version))
        command = [str(python), *_RUNTIME, spec.action]
        return {"command": command, "python": str(python), "runtime": str(runtime)}

    def _environment_of(self, run: RunRecord, version: str) -> tuple[Path, Path]:
        """The interpreter for a run, and the folder of the runtime that goes with it."""
        # As they were sent: a string in place of a list must be refused, not taken apart.
        requirements = run.entity["spec"].get("requirements") or ()
        key = json.dumps([version, requirements])
        known, since = self._known.get(key, (None, 0.0))
        if known is not None and time.monotonic() - since < _KNOWN and known[0].exists():
            return known
        made = (
            ensure_environment(
                version, requirements, self._cache, lambda line: self.log(run, line)
            ),
            ensure_runtime(self._cache),
        )
        if "/" not in key:  # a file that a requirement names may be another one at once
            self._known = {**dict(list(self._known.items())[-100:]), key: (made, time.monotonic())}
        return made

    def start(
        self, run: RunRecord, env: Mapping[str, str], prepared: Mapping[str, Any]
    ) -> dict[str, Any]:
        attempt, work = self._attempt(run), self._folder(run) / "work"
        attempt.mkdir(parents=True, exist_ok=True, mode=0o700)
        work.mkdir(exist_ok=True, mode=0o700)
        if run.attempt == 0 and not is_build(run):
            for line in ignored_parameters(run.entity["spec"]):
                self.log(run, line)
        environment = {
            **self._environment(run, env, prepared),
            **self._service_environment(run),
        }
        order = {
            "attempt": str(attempt),
            "work": str(work),
            "log": str(self._folder(run) / "log"),
            "max_log": self._max_log,
            "command": prepared["command"],
            "environment": environment,
            "hidden": _as_texts(forms_of(environment, run.entity["spec"].get("secrets") or ())),
            "cgroup": cgroups.make(str(attempt)),
        }
        process = self._started[attempt] = self._keepers.start(order)
        self._hear_of(run, process)
        handle = {**process.to_json(), "attempt": run.attempt, "cgroup": order["cgroup"]}
        return {**handle, **{k: prepared[k] for k in ("python", "runtime") if k in prepared}}

    def poll(self, run: RunRecord) -> Progress:
        process = self._process(run)
        if process is None:
            return Progress("absent")
        # The process says whether it lives, never a file, which the run could have written.
        if processes.is_alive(process):
            self._hear_of(run, process)
            announced = "service" in run.entity["status"] or not is_service(run.entity)
            return Progress("alive", service=None if announced else _read_ready(self._attempt(run)))
        attempt = self._attempt(run)
        cgroups.kill(self._cgroup(run))
        end = _read_exit(attempt) or self._lost(run)
        self._started.pop(attempt, None)
        return Progress("ended", end)

    def stop(self, run: RunRecord, *, force: bool) -> None:
        process = self._process(run)
        if process is None:
            return
        if not force:
            processes.ask_to_end(process)
            return
        cgroups.kill(self._cgroup(run))
        processes.end_tree(process)

    def settle(self, run: RunRecord) -> None:
        pass  # all that counts is on disk, and small

    def remove(self, run: RunRecord) -> None:
        self._started.pop(self._attempt(run), None)
        logs.remove_run_folder(logs.home_of(run, self._home), run.project, run.id)

    def log(self, run: RunRecord, line: str) -> None:
        logs.add_line(logs.home_of(run, self._home), run.project, run.id, line)

    def sweep(self, handles: Iterable[Mapping[str, Any]]) -> None:
        keep = [Path(h[key]) for h in handles for key in ("python", "runtime") if h.get(key)]
        for folder in prune(self._cache, self._days, keep):
            logger.info("removed %s: no run used it for %s days", folder, self._days)

    def unfinished(self) -> Collection[tuple[str, str]]:
        found = set()
        for claim in (self._home / "runs").glob("*/*/attempt-*/started"):
            process = processes.read_claim(claim)
            if process is not None and processes.is_alive(process):
                found.add((claim.parts[-4], claim.parts[-3]))
        return found

    def _folder(self, run: RunRecord) -> Path:
        return logs.run_folder(logs.home_of(run, self._home), run.project, run.id)

    def _attempt(self, run: RunRecord) -> Path:
        return self._folder(run) / f"attempt-{run.attempt}"

    def _process(self, run: RunRecord) -> Process | None:
        """Who keeps the attempt: who was started to, or else who claimed it unknown to the store."""
        handle, attempt = run.handle or {}, self._attempt(run)
        if handle.get("attempt") == run.attempt and "pid" in handle:
            return Process.from_json(handle)
        return self._started.get(attempt) or processes.read_claim(attempt / "started")

    def _cgroup(self, run: RunRecord) -> str:
        known = (run.handle or {}).get("cgroup")
        return known if isinstance(known, str) else cgroups.make(str(self._attempt(run)))

    def _environment(
        self, run: RunRecord, env: Mapping[str, str], prepared: Mapping[str, Any]
    ) -> dict[str, str]:
        mine = {
            # What a function prints is in the log at once, and a crash of the interpreter says where.
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            "DHPY_WORKSPACE": str(self._folder(run) / "work"),
            "DHPY_CACHE": str(self._cache),
            "DHPY_TERMINATION_LOG": str(self._attempt(run) / "termination"),
        }
        environment = {**inherited_environment(os.environ), **mine, **env}
        if is_build(run):
            environment = {**build_environment(os.environ), **environment}
        if "python" in prepared:
            # Programs that the requirements bring along are found first, as in an activated
            # environment; and the runtime before a package of the same name from an index.
            programs = Path(prepared["python"]).parent
            _put_first(environment, "PATH", str(programs))
            _put_first(environment, "PYTHONPATH", prepared["runtime"])
            environment["VIRTUAL_ENV"] = str(programs.parent)
        return environment

    def _service_environment(self, run: RunRecord) -> dict[str, str]:
        """What a service is told: a port of its own, kept over restarts, and where to say that it is up."""
        if not is_service(run.entity):
            return {}
        before = [_read_ready(self._folder(run) / f"attempt-{n}") for n in range(run.attempt)]
        known = [urlsplit(str(ready["url"])).port for ready in before if ready]
        return {
            "DHPY_HOST": "127.0.0.1",
            "DHPY_PORT": str(known[-1] if known else 0),
            "DHPY_MANAGEMENT_PORT": "0",
            "DHPY_WORKERS": str(run.entity["spec"].get("replicas") or 1),
            "DHPY_READY_FILE": str(self._attempt(run) / "ready"),
        }

    def _hear_of(self, run: RunRecord, process: Process) -> None:
        project, identity = run.key
        self._endings.add(process, lambda: self._tell(project, identity))

    def _lost(self, run: RunRecord) -> Exit:
        """How an attempt ended whose keeper could not write that down; written down now."""
        # The run is over and may be started again, so what the keeper has left must not go on.
        for pid in processes.marked(f"RUN_ID={run.id}".encode()):
            logger.warning("run %s has lost its keeper; ending its process %s", run.id, pid)
            processes.kill(pid)
        line = f"{128 + signal.SIGKILL} {_LOST}"
        with contextlib.suppress(OSError):
            folder = os.open(self._attempt(run), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                keeper.write(folder, "exit", line)
            finally:
                os.close(folder)
        return _exit(line)


def is_build(run: RunRecord) -> bool:
    return str(run.entity.get("kind", "")).startswith("python+build")


def build_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings of build engines and registries, which no function's own run may see."""
    return {name: value for name, value in environ.items() if name.startswith(_BUILD_VARIABLES)}


def ignored_parameters(spec: Mapping[str, Any]) -> list[str]:
    """One line for each parameter of a run that has no meaning for a process of this machine."""
    return [
        f"{name} is ignored: {why}."
        for name, why in MEANINGLESS.items()
        if any(spec[name].values() if isinstance(spec.get(name), dict) else [spec.get(name)])
    ]


def _as_texts(forms: Iterable[bytes]) -> list[str]:
    """As JSON can carry them."""
    return [form.decode("utf-8", "surrogatepass") for form in forms]


def _read_exit(attempt: Path) -> Exit | None:
    try:
        end = _exit(read_text(attempt / "exit") or "")
    except ValueError:  # a crash of the machine may leave an empty file, which says nothing
        return None
    return replace(end, reached=reached(end.status, read_text(attempt / "termination")))


def _read_ready(attempt: Path) -> dict[str, Any] | None:
    """What a service of that attempt wrote when it answered first."""
    return ready_from(read_text(attempt / "ready"))


def ready_from(text: str | None) -> dict[str, Any] | None:
    """What a service wrote when it answered; None where that is no such thing."""
    try:
        ready = json.loads(text or "")
        return ready if urlsplit(str(ready["url"])).port else None
    except (ValueError, KeyError, TypeError):
        return None


def _exit(line: str) -> Exit:
    status, _, lost = line.strip().partition(" ")
    return Exit(int(status), lost or how_it_ended(int(status)))


def _put_first(environment: dict[str, str], name: str, folder: str) -> None:
    rest = environment.get(name)
    environment[name] = f"{folder}{os.pathsep}{rest}" if rest else folder
