"""Makes Nuclio's Context and Event for every mode, so that one handler is given the same things everywhere."""

from __future__ import annotations

import functools
import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from nuclio_sdk import Context, Event

    from digitalhub_runtime_python.spec import RunSpec


@functools.lru_cache(maxsize=1)
def context_class() -> type[Context]:
    """nuclio_sdk's Context with `project` and `run`, which import the SDK when they are read."""
    import nuclio_sdk  # here: a handler that asks for no context does not pay for it

    class RunContext(nuclio_sdk.Context):  # type: ignore[misc]
        """Nuclio's context; `init` may set whatever it likes on it, the handler sees it."""

        _resolvers: dict[str, Callable[[], Any]]
        _progress: Callable[[Any, Any, Any], None] | None = None

        def progress(self, done: Any = None, total: Any = None, text: Any = "") -> None:
            """Say how far the run is. Never raises, never waits; nothing happens where nobody listens.

            Args:
                done: how much is done, a number.
                total: how much there is to do, in the same unit.
                text: what is being done, some words.
            """
            if self._progress is not None:
                self._progress(done, total, text)

        def __getattr__(self, name: str) -> Any:
            # Called only for what is not set: whatever a user assigns wins, and stays.
            resolvers = self.__dict__.get("_resolvers", {})
            if name not in resolvers:
                raise AttributeError(f"the context has no attribute {name!r}")
            value = resolvers[name]()
            setattr(self, name, value)
            return value

    return RunContext


def make_context(
    project: Callable[[], Any],
    run: Callable[[], Any],
    *,
    logger: Any = None,
    platform: Any = None,
    worker_id: int | str = 0,
    trigger: Any = None,
    progress: Callable[[Any, Any, Any], None] | None = None,
) -> Context:
    """A context whose `project` and `run` are made by the two callables at their first use.

    Args:
        progress: takes what the handler says of its progress; None: nobody listens.
    """
    import nuclio_sdk

    context = context_class()(
        logger=logger or make_logger(),
        platform=platform or nuclio_sdk.Platform("local", connection_provider=connect),
        worker_id=worker_id,
        trigger=trigger or nuclio_sdk.TriggerInfo("job", "job"),
    )
    context._resolvers = {"project": project, "run": run}
    context._progress = progress
    return context


def connect(*args: Any, **kwargs: Any) -> Any:
    """What a platform calls another function with; its own default is looked up when the platform is made."""
    import http.client  # for the few functions that call others: 5 ms of a start

    return http.client.HTTPConnection(*args, **kwargs)


def make_logger(level: int = logging.DEBUG) -> Any:
    """Nuclio's logger (`info`, `info_with`, …), writing to standard output."""
    import nuclio_sdk
    import nuclio_sdk.logger

    log = nuclio_sdk.Logger(level, "digitalhub.function")
    log.set_handler("default", sys.stdout, nuclio_sdk.logger.HumanReadableFormatter())
    log._logger.propagate = False  # else the root logger would print each line again
    return log


def make_job_event(run: RunSpec) -> Event:
    """The event of a job: its body is the run's parameters, its id the run's."""
    import nuclio_sdk

    return nuclio_sdk.Event(
        body=dict(run.parameters),
        content_type="application/json",
        trigger=nuclio_sdk.TriggerInfo("job", "job"),
        _id=run.id,
        method="POST",
        path="/",
        timestamp=time.time(),
    )
