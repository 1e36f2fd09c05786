"""What a run needs before it can start, and whose fault it is when it cannot."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from digitalhub_python_control.clientenv import client_environment
from digitalhub_python_control.settings import ControlSettings
from digitalhub_python_control.store.entities import parent_of
from digitalhub_python_control.store.records import Key
from digitalhub_python_control.store.tokens import credentials_of
from digitalhub_runtime_python.error_report import summary
from digitalhub_runtime_python.errors import Fault, UsageFault
from digitalhub_runtime_python.spec import RunSpec
from digitalhub_runtime_python.states import ENDED

if TYPE_CHECKING:
    from digitalhub_python_control.running.engines import Exit, RunEngine
    from digitalhub_python_control.store.store import RunRecord, Store

logger = logging.getLogger(__name__)

_ELSEWHERE = {
    "job": "Choose an engine that can, with DHPY_ENGINE.",
    "serve": "Serve the function without the control plane: dhpy serve FILE:HANDLER.",
    "build": "Build the image without the control plane: dhpy build FILE:HANDLER.",
}


class RunFailed(Exception):
    """A run cannot go on; the text becomes its message."""


@contextlib.contextmanager
def blamed(run: RunRecord) -> Iterator[None]:
    """What goes wrong inside is the end of this run, not a failure of the reconciler.

    Raises:
        RunFailed: with one clear line.
    """
    try:
        yield
    except Fault as fault:
        ours = fault.code.startswith("control/") and fault.code != "control/secret-key"
        if ours or fault.retry:
            # The database or the place does not answer, which is nothing that this run has done.
            raise
        raise RunFailed(str(fault)) from fault
    except Exception as exc:
        logger.exception("run %s/%s: the run engine failed", run.project, run.id)
        raise RunFailed(f"The run engine failed: {type(exc).__name__}: {exc}") from exc


def check_action(spec: RunSpec, name: str, engine: RunEngine) -> None:
    """Refuse what the engine of that name cannot do.

    Raises:
        UsageFault: the message says what it can, and where else the action can run.
    """
    if spec.action in engine.actions:
        return
    able = ", ".join(sorted(engine.actions))
    raise UsageFault(
        "usage/engine-action",
        f"The run engine {name!r} cannot do the action {spec.action!r}; it can do: {able}.",
        _ELSEWHERE[spec.action],
    )


def run_environment(
    run: RunRecord, spec: RunSpec, store: Store, settings: ControlSettings
) -> dict[str, str]:
    """The variables that tell a run what it is and how to reach the platform.

    Raises:
        UsageFault: a secret does not exist, or a variable cannot have that name or value.
    """
    secrets = store.secret_values(run.project, spec.secrets)
    missing = [name for name in spec.secrets if name not in secrets]
    if missing:
        raise UsageFault(
            "usage/secret",
            f"Project {run.project!r} has no secret {', '.join(map(repr, missing))}.",
            "Create it with project.new_secret(name, secret_value=…).",
        )
    users = {**secrets, **spec.envs}
    for name, value in users.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise UsageFault(
                "usage/env",
                f"The environment variable {name!r} of the run is not possible.",
                "Its name must not be empty or hold '=', and neither name nor value a NUL.",
            )
    own = credentials_of(run, store)
    client = client_environment(settings.url, settings, os.environ, own)
    return {**client, **users, "PROJECT_NAME": run.project, "RUN_ID": run.id}


def lender(run: RunRecord, store: Store) -> Key | None:
    """The nearest living one of those that this run was started by, who may wait for it: see places.py."""
    above: RunRecord | None = run
    while above is not None and (parent := parent_of(above.entity)) is not None:
        above = store.get_run_record(run.project, parent)
        if above is not None and above.state not in ENDED:
            return above.key
    return None


def why(fresh: RunRecord, end: Exit) -> str:
    """What the run itself reported of its end, else how its process died."""
    error = fresh.entity["status"].get("error")
    return (summary(error) if isinstance(error, Mapping) else "") or end.message


def backoff_limit(spec: Mapping[str, Any]) -> int:
    """How many times a failing job is tried again.

    Raises:
        UsageFault: it is not a number of times.
    """
    value = spec.get("backoff_limit")
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageFault(
            "usage/backoff-limit",
            f"backoff_limit is {value!r}.",
            "Set it to the number of times that a failing job is tried again, 0 or more.",
        )
    return value


def give_image(run: RunRecord, store: Store) -> None:
    """After a build the function uses the image from then on, as with Core; its version stays the same."""
    built = run.entity["status"].get("build") or {}
    image = built.get("image")
    identity = str(run.entity["spec"].get("function") or "").rpartition(":")[2]
    if image and run.entity["kind"].startswith("python+build"):
        store.change(
            "functions",
            run.project,
            identity,
            lambda function: {
                **function,
                "spec": {**function["spec"], "image": image},
                # What its image was made from stays with the version of the function.
                "status": {**(function.get("status") or {}), "build": built},
            },
        )
