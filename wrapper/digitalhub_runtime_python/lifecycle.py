"""The walk of a run, on one screen: read this first.

load_run → fetch → load → init → compose → call → collect → report. Every mode takes these steps:
a container, a process on a laptop, the caller's own process.
"""

from __future__ import annotations

import functools
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from digitalhub_runtime_python import arguments, context, invoke, loading, outputs, report, sources
from digitalhub_runtime_python.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USER_ERROR,
    Fault,
    HandlerFault,
    Terminated,
)
from digitalhub_runtime_python.hub import Hub
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.spec import RunSpec, SourceSpec

logger = logging.getLogger(__name__)

Fetch = Callable[[SourceSpec, Path, Settings], sources.Fetched]


@dataclass
class Outcome:
    """How a run ended."""

    status: dict[str, Any] = field(default_factory=dict)
    """What was reported: `results`, `outputs`, `source`, `error`."""
    error: BaseException | None = None
    """What was raised, as it is: the user's exception, or one of our faults."""
    exit_status: int = EXIT_OK


@dataclass(frozen=True)
class ReadyFunction:
    """A function that has been fetched, imported and initialised: all that calling it needs."""

    handler: Callable[..., Any]
    signature: arguments.Signature
    outputs: list[Any]
    inputs: dict[str, Any]
    """Argument name -> resolved input."""
    injected: dict[str, Callable[[], Any]]
    """Reserved name -> what makes its value, `event` left out."""


def run_job(
    hub: Hub, settings: Settings, *, module_name: str = "", fetch: Fetch = sources.fetch
) -> Outcome:
    """Execute one run and report what became of it.

    Never raises for a failing run: the outcome has the error. A report that cannot be delivered
    raises PlatformFault, after the hub has kept the report on disk.
    """
    outcome = Outcome()
    with workspace(settings) as place:
        code = place / "code"
        secrets: tuple[str, ...] = ()
        try:
            run = hub.load_run()
            secrets = run.secrets
            with prepared(
                hub, run, settings, code, outcome.status, module_name, fetch=fetch
            ) as ready:
                event = _once(lambda: context.make_job_event(run))
                bound = arguments.compose(
                    ready.signature,
                    run.parameters,
                    arguments.Resolved(ready.inputs),
                    injected={**ready.injected, "event": event, "events": event},
                    lax=bool(run.extra.get("lax_parameters")),
                )
                value = invoke.call(ready.handler, bound)
                collected = outputs.collect(
                    value, ready.outputs, run, hub.store_output, place / "outputs"
                )
                outcome.status.update(results=collected.results, outputs=collected.outputs)
                collected.raise_for_problems()
        except BaseException as exc:  # noqa: BLE001 - reported, and handed to the caller as it is
            outcome.error = exc
            outcome.exit_status = exit_status(exc)
            error = report.redact(report.describe(exc, code), settings.secret_values(secrets))
            outcome.status["error"] = {**error, "exit_status": outcome.exit_status}
            logger.debug("the run failed", exc_info=True)
        hub.report(outcome.status)
    return outcome


@contextmanager
def prepared(
    hub: Hub,
    run: RunSpec,
    settings: Settings,
    code: Path,
    status: dict[str, Any],
    module_name: str = "",
    make_context: Callable[..., Any] = context.make_context,
    fetch: Fetch = sources.fetch,
) -> Iterator[ReadyFunction]:
    """Fetch, import and initialise a run's function; a job does it once, a service once per worker.

    Args:
        code: an empty folder for the code.
        status: gets `source`, the revision that was fetched.
        make_context: makes the Nuclio context from the two callables for `project` and `run`.
        fetch: brings the code into `code`, or says where it lies.
    """
    code.mkdir(parents=True, exist_ok=True)
    fetched = fetch(run.source, code, settings)
    if fetched.revision:
        status["source"] = {"revision": fetched.revision}
    with loading.importable(fetched.root):
        function = loading.load(
            fetched.root, fetched.main, run.source.handler, run.source.init_function, module_name
        )
        signature = arguments.read_signature(function.handler)
        inputs = _resolve_inputs(hub, run, signature)
        the_context = _once(lambda: make_context(hub.project, hub.run))
        injected: dict[str, Callable[[], Any]] = {
            "project": hub.project,
            "run": hub.run,
            "context": the_context,
        }
        if function.init is not None:
            _initialise(function.init, run, injected)
        yield ReadyFunction(function.handler, signature, function.outputs, inputs, injected)


def exit_status(exc: BaseException) -> int:
    """The status to exit with for what a run raised (the table of errors.py)."""
    if isinstance(exc, Fault):
        return exc.exit_status
    if isinstance(exc, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(exc, Terminated):
        return 128 + exc.signal
    return HandlerFault.exit_status if loading.raised_by_import(exc) else EXIT_USER_ERROR


@contextmanager
def workspace(settings: Settings) -> Iterator[Path]:
    """A folder of the run's own, removed at its end."""
    settings.workspace.mkdir(parents=True, exist_ok=True)
    # resolve(): on some systems the temporary folder is a link, and paths are compared as text.
    place = Path(tempfile.mkdtemp(prefix="dhpy-", dir=settings.workspace)).resolve()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _resolve_inputs(hub: Hub, run: RunSpec, signature: arguments.Signature) -> dict[str, Any]:
    """The run's inputs as what the signature's hints ask for; names it does not take stay keys."""

    def resolve(value: Any, form: str) -> Any:
        if isinstance(value, list):
            return [resolve(item, form) for item in value]
        return hub.resolve_input(value, form)

    return {
        name: resolve(key, arguments.input_form(signature.hints.get(name)))
        if signature.names(name) or signature.takes_any
        else key
        for name, key in run.inputs.items()
    }


def _initialise(
    init: Callable[..., Any], run: RunSpec, injected: dict[str, Callable[[], Any]]
) -> None:
    """Call `init_function(context, **init_parameters)`; its first parameter may have any name."""
    signature = arguments.read_signature(init)
    first = next(iter(signature.parameters), None)
    if first is not None and first not in run.init_parameters:
        injected = {**injected, first: injected["context"]}
    invoke.call(init, arguments.compose(signature, run.init_parameters, injected=injected))


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
    """Make a value at its first use and keep it."""
    return functools.lru_cache(maxsize=None)(make)
