"""The walk of a run, on one screen: read this first.

load_run → fetch → load → init → compose → call → collect → report. Every mode takes these steps:
a container, a process on a laptop, the caller's own process.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from digitalhub_runtime_python import (
    arguments,
    context,
    error_report,
    invoke,
    isolation,
    loading,
    outputs,
    sources,
    surroundings,
)
from digitalhub_runtime_python.ending import Ending, Walk, conclude
from digitalhub_runtime_python.errors import ArgumentFault, Fault, UsageFault
from digitalhub_runtime_python.hub import Hub
from digitalhub_runtime_python.progress import Progress
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.spec import RunSpec


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
    hub: Hub,
    settings: Settings,
    *,
    module_name: str = "",
    code: sources.Fetched | None = None,
    quiet: bool = False,
    own_process: bool = False,
) -> Ending:
    """Execute one run, report what became of it, and say on standard error what failed.

    Never raises for a failing run, nor for a report that cannot be delivered: the ending has both.

    Args:
        module_name: import the code under this name, where runs share a process.
        code: the code, where it lies already; None fetches it.
        quiet: say nothing; the caller raises what was raised.
        own_process: the process is the run's alone, and its working folder becomes the code's.
    """
    walk = Walk(settings, hub.report, quiet=quiet)
    progress = Progress(hub.progress, walk.hide)
    raised: BaseException | None = None
    with ExitStack() as stack:
        try:
            run = walk.run = _loaded(hub)
            place = stack.enter_context(workspace(settings))
            walk.root = code.root if code else place / "code"
            code = code or sources.fetch(run.source, walk.root, settings)
            walk.fetched(code)
            making = functools.partial(context.make_context, progress=progress.say)
            ready = stack.enter_context(
                prepared(hub, run, code, place, module_name, making, own_process=own_process)
            )
            value = _call(ready, run)
            progress.close()
            collected = outputs.collect(
                value, ready.outputs, run, hub.store_output, place / "outputs"
            )
            walk.status.update(results=collected.results, outputs=collected.outputs)
            collected.raise_for_problems()
        except BaseException as exc:  # noqa: BLE001 - reported, and handed to the caller as it is
            raised = exc
            if walk.root is not None and not own_process:
                surroundings.explain(exc, walk.root)
            walk.failed(exc)
        finally:
            progress.close()
            walk.status.update({"progress": progress.latest} if progress.latest else {})
    return conclude(raised, walk)


@contextmanager
def prepared(
    hub: Hub,
    run: RunSpec,
    code: sources.Fetched,
    place: Path,
    module_name: str = "",
    make_context: Callable[..., Any] = context.make_context,
    call: Callable[..., Any] = invoke.call,
    *,
    own_process: bool = True,
) -> Iterator[ReadyFunction]:
    """Import and initialise a run's function; a job does it once, a service once per worker.

    Args:
        code: where the function's code lies.
        place: a folder of the run's own, where its inputs go.
        make_context: makes the Nuclio context from the two callables for `project` and `run`.
        call: calls the init function; a service has a loop of its own for one that is async.
        own_process: see run_job.
    """
    source = run.source
    with ExitStack() as stack:
        aside = stack.enter_context(isolation.importable(code.root))
        if own_process:
            file = loading.file_of(code.root, code.main, source.handler)
            stack.enter_context(surroundings.at_home(code.root, file))
        function = loading.load(
            code.root, code.main, source.handler, source.init_function, aside, module_name
        )
        signature = arguments.read_signature(function.handler)
        if run.action == "job":
            # Before inputs are fetched and init runs, which may take minutes.
            given = (run.parameters, arguments.Resolved(run.inputs))
            arguments.check(signature, *given, injected=arguments.RESERVED, lax=run.lax_parameters)
        inputs = _resolve_inputs(hub, run, signature, place / "inputs" / os.urandom(4).hex())
        the_context = _once(lambda: make_context(hub.project, hub.run))
        injected: dict[str, Callable[[], Any]] = {
            "project": hub.project,
            "run": hub.run,
            "context": the_context,
        }
        if function.init is not None:
            _initialise(function.init, run, injected, call)
        yield ReadyFunction(function.handler, signature, function.outputs, inputs, injected)


@contextmanager
def workspace(settings: Settings) -> Iterator[Path]:
    """A folder of the run's own, removed at its end.

    Raises:
        UsageFault: usage/workspace, it cannot be made.
    """
    # resolve(): on some systems the temporary folder is a link, and paths are compared as text.
    place = settings.workspace.absolute().resolve() / f"dhpy-{os.urandom(6).hex()}"
    try:
        place.mkdir(mode=0o700, parents=True)
    except OSError as exc:
        raise UsageFault(
            "usage/workspace",
            f"The workspace {settings.workspace} cannot be written: {exc.strerror}.",
            "Set DHPY_WORKSPACE to a folder that can be.",
        ) from exc
    try:
        yield place
    finally:
        import shutil  # with what it needs 2 ms, which a service has time for at its end

        shutil.rmtree(place, ignore_errors=True)


def _loaded(hub: Hub) -> RunSpec:
    run = hub.load_run()
    if run.action != "job":
        raise UsageFault(
            "usage/action",
            f"Run {run.id!r} is of kind {run.kind!r}, and only a job is executed like this.",
            "Run the function with the action job.",
        )
    return run


def _call(ready: ReadyFunction, run: RunSpec) -> Any:
    event = _once(lambda: context.make_job_event(run))
    bound = arguments.compose(
        ready.signature,
        run.parameters,
        arguments.Resolved(ready.inputs),
        injected={**ready.injected, "event": event, "events": event},
        lax=run.lax_parameters,
    )
    try:
        return invoke.call(ready.handler, bound)
    except SystemExit as exc:
        if exc.code:
            raise
        return ()  # sys.exit(0): it ended well, and returned nothing


def _resolve_inputs(
    hub: Hub, run: RunSpec, signature: arguments.Signature, folder: Path
) -> dict[str, Any]:
    """The run's inputs as what the signature's hints ask for; names it does not take stay keys.

    Each has a folder of its own below `folder`, also where two are the same file.
    """
    numbers = itertools.count()

    def resolve(name: str, value: Any, form: str) -> Any:
        if isinstance(value, list):
            return [resolve(name, item, form) for item in value]
        if isinstance(value, dict):
            return {key: resolve(name, item, form) for key, item in value.items()}
        try:
            return hub.resolve_input(value, form, folder / str(next(numbers)))
        except ArgumentFault as fault:
            raise ArgumentFault(fault.code, f"{name!r}: {fault.message}", fault.hint) from fault
        except Fault:
            raise
        except Exception as exc:
            raise ArgumentFault(
                "arguments/input",
                f"{name!r}: the input {value!r} cannot be loaded as {form}: "
                f"{type(exc).__name__}: {error_report.first_line(exc)}",
                "Check what is stored there.",
            ) from exc

    return {
        name: resolve(name, key, arguments.input_form(signature.hints.get(name)))
        if signature.names(name) or signature.takes_any
        else key
        for name, key in run.inputs.items()
    }


def _initialise(
    init: Callable[..., Any],
    run: RunSpec,
    injected: dict[str, Callable[[], Any]],
    call: Callable[..., Any],
) -> None:
    """Call `init_function(context, **init_parameters)`; its first parameter may have any name."""
    signature = arguments.read_signature(init)
    first = signature.first_positional()
    if first not in (None, *injected, *run.init_parameters):
        injected = {**injected, str(first): injected["context"]}
    bound = arguments.compose(
        signature,
        run.init_parameters,
        injected=injected,
        lax=run.lax_parameters,
        what="the init function",
    )
    call(init, bound)


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
    """Make a value at its first use and keep it."""
    return functools.lru_cache(maxsize=None)(make)
