"""Makes what answers calls from a function and its run: one way, for our own server and for Nuclio's workers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from digitalhub_runtime_python.calls.binding import BODY_LIMIT, make_binder
from digitalhub_runtime_python.calls.handling import Handling

if TYPE_CHECKING:
    from digitalhub_runtime_python.lifecycle import ReadyFunction
    from digitalhub_runtime_python.settings import Settings
    from digitalhub_runtime_python.spec import RunSpec


def assemble(
    ready: ReadyFunction,
    run: RunSpec,
    settings: Settings,
    root: Path,
    make: type[Handling] = Handling,
    body_limit: int = BODY_LIMIT,
    **more: Any,
) -> Handling:
    """What calls the function for each event.

    Args:
        root: the folder of the code, to name files relative to it.
        body_limit: bytes that a body sent as gzip or deflate may have.
        make: the kind of Handling; `more` are arguments of its own.

    Raises:
        ArgumentFault: the run's parameters or inputs do not fit the function.
    """
    secrets = settings.secret_values(run.secrets)
    return make(
        ready.handler,
        make_binder(ready, run, body_limit),
        names=[d if isinstance(d, str) else str(d["name"]) for d in ready.outputs],
        root=root,
        secrets=secrets,
        **more,
    )
