"""What the tests of reconciler and engines share: a store, runs, a stand-in for the runtime."""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path

from digitalhub_python_control.running.engines.process import ProcessEngine
from digitalhub_python_control.running.reconcile import Reconciler
from digitalhub_python_control.settings import ControlSettings
from digitalhub_python_control.store import times
from digitalhub_python_control.store.store import RunRecord, Store
from digitalhub_python_control.store.vault import Vault
from digitalhub_runtime_python.states import ENDED

STANDIN = [sys.executable, "-I", "-S", str(Path(__file__).with_name("standin.py"))]
PROJECT = "p"


def settings_in(folder: Path, **changes) -> ControlSettings:
    values = {"home": folder / "home", "cache": folder / "cache", "stop_grace": 0.5, **changes}
    values.setdefault("database_url", f"sqlite:///{values['home'] / 'dhpy.db'}")
    return ControlSettings(**values)


def store_of(settings: ControlSettings) -> Store:
    settings.home.mkdir(parents=True, exist_ok=True)
    return Store(settings.database_url, Vault(b"k" * 32))


def reconciler_of(store: Store, settings: ControlSettings, command=STANDIN) -> Reconciler:
    reconciler = Reconciler(store, {"process": ProcessEngine(settings, command)}, settings)
    store.on_change = reconciler.tell
    return reconciler


def executions_of(settings: ControlSettings) -> list[str]:
    path = settings.home / "executions"
    return path.read_text().split() if path.exists() else []


def new_run(
    store: Store,
    settings: ControlSettings,
    behaviour: str = "sleep 0",
    *,
    action="job",
    target="RUN",
    parent="",
    **spec,
) -> str:
    """Store a run that is to be executed, as the API does; its id."""
    identity = uuid.uuid4().hex
    now = times.text(times.now())
    kind = f"python+{action}:run"
    envs = [
        {"name": "BEHAVIOUR", "value": behaviour},
        {"name": "EXECUTIONS", "value": str(settings.home / "executions")},
        *spec.pop("envs", []),
    ]
    source = {"source": "main.py", "handler": "main", "base64": ""}
    entity = {
        "id": identity,
        "name": identity,
        "kind": kind,
        "project": PROJECT,
        "user": "me",
        "key": f"store://{PROJECT}/run/{kind}/{identity}:{identity}",
        "metadata": {"created": now, "updated": now, "project": PROJECT, "name": identity},
        "spec": {"source": source, "python_version": "PYTHON3_11", "envs": envs, **spec},
        "status": {"state": "READY", "transitions": []},
    }
    if parent:
        entity["status"]["parent"] = {"run": parent, "depth": 1}
    store.create("runs", entity, target=target)
    return identity


def record(store: Store, identity: str) -> RunRecord:
    found = store.get_run_record(PROJECT, identity)
    assert found is not None
    return found


def wait_for(condition, seconds: float = 30.0, what: str = ""):
    """The first true value of `condition()`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what or condition}")


def wait_ended(store: Store, identity: str, seconds: float = 30.0) -> RunRecord:
    wait_for(lambda: record(store, identity).state in ENDED, seconds, "the end of the run")
    return record(store, identity)


def wait_state(store: Store, identity: str, state: str) -> None:
    wait_for(lambda: record(store, identity).state == state, what=state)


def log_of(settings: ControlSettings, identity: str) -> str:
    path = settings.home / "runs" / PROJECT / identity / "log"
    return path.read_text() if path.exists() else ""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self").exists()
