"""What a worker calls for each event: any Nuclio handler as it is, or the function of a run of ours."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Awaitable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import nuclio_sdk

from digitalhub_runtime_python import context
from digitalhub_runtime_python.arguments import Arguments
from digitalhub_runtime_python.calls import media, replies
from digitalhub_runtime_python.calls.handling import Handling, is_async
from digitalhub_runtime_python.calls.replies import Reply
from digitalhub_runtime_python.errors import HandlerFault

if TYPE_CHECKING:
    from digitalhub_runtime_python.ending import Walk

OWN_HANDLER = "digitalhub_runtime_python:run"
"""The handler that stands for the function of the run that the environment names."""
CORE_HANDLER = "handler:handler"
"""What DigitalHub Core writes as handler; its handler.py needs another runtime's modules."""
_FORM = re.compile(r"^([\w|-]+(\.[\w|-]+)*):(\w+)$")

Finish = Callable[[Any], Any]
"""What awaits an awaitable, and returns anything else as it is."""


@dataclass(frozen=True)
class Function:
    """A function that is imported and initialised."""

    handling: Handling
    takes_batches: bool
    """Whether it is given a batch whole; else it is called for each event of it."""
    wants_loop: bool
    """Whether it, or its init, wants an event loop that runs between events too."""
    names_loop: bool = False
    """Whether a plain one may ask for the event loop, which has to be there then."""


class Calling(Handling):
    """The serving engine's calls, but for files: those the processor sends by itself."""

    def _whole(self, value: Any, event: Any) -> Reply:
        value = media.replaced(value, event.accepted, whole=True)
        headers = value.headers or {} if isinstance(value, nuclio_sdk.Response) else {}
        if any(str(name).lower() == "x-nuclio-filestream-path" for name in headers):
            return replies.to_reply(value, lambda: event.id)
        return super()._whole(value, event)


def load(
    handler: str,
    the_context: Any,
    finish: Finish,
    stack: ExitStack,
    walks: list[Walk],
    environ: Mapping[str, str] = os.environ,
) -> Function:
    """Import what `--handler` names and run its init.

    Args:
        stack: is closed when the worker ends.
        walks: gets that of a run of ours, for its end.

    Raises:
        HandlerFault: there is no such module or function.
        Exception: whatever the module or its init raises, as it is.
    """
    of_a_run = environ.get("PROJECT_NAME") and environ.get("RUN_ID")
    if handler == OWN_HANDLER or (handler == CORE_HANDLER and of_a_run):
        return _load_own(the_context, finish, stack, walks, environ)
    return _load_plain(handler, the_context, finish, stack)


def _load_plain(handler: str, the_context: Any, finish: Finish, stack: ExitStack) -> Function:
    match = _FORM.match(handler)
    if not match:
        raise HandlerFault(
            "handler/missing",
            f"The handler {handler!r} is not module:function.",
            "Set spec.handler, e.g. main:handler.",
        )
    name, attribute = match.group(1), match.group(3)
    _go_home(name.partition(".")[0], stack)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            from digitalhub_runtime_python.loading import mark_import

            mark_import(exc)
            raise
        raise HandlerFault(
            "handler/module",
            f"There is no module {exc.name!r} on the path.",
            f"PYTHONPATH is {os.environ.get('PYTHONPATH', '')!r}; put {exc.name}.py into one of its folders.",
        ) from exc
    except (Exception, SystemExit) as exc:
        from digitalhub_runtime_python.loading import mark_import

        mark_import(exc)
        raise
    call = getattr(module, attribute, None)
    if not callable(call):
        known = [n for n, v in vars(module).items() if inspect.isroutine(v)]
        raise HandlerFault(
            "handler/not-found",
            f"Module {name!r} has no function {attribute!r}.",
            f"It has {', '.join(known) or 'none'}.",
        )
    # Nuclio looks where the function was written, which is elsewhere for one that is imported.
    home = sys.modules.get(getattr(call, "__module__", None) or name, module)
    init = getattr(home, "init_context", None)
    if init is not None:
        finish(init(the_context))
    bound = Calling(call, lambda event: Arguments((the_context, event), {}), names=[], root=None)
    wants_loop = is_async(call) or (init is not None and is_async(init))
    return Function(bound, takes_batches=True, wants_loop=wants_loop, names_loop=_names_loop(call))


def _names_loop(call: Callable[..., Any]) -> bool:
    code = getattr(inspect.unwrap(call), "__code__", None)
    return "asyncio" in sys.modules or "asyncio" in getattr(code, "co_names", ())


def _go_home(package: str, stack: ExitStack) -> None:
    """Make the folder that a top-level module lies in the working folder."""
    from digitalhub_runtime_python import surroundings

    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return  # the import says it
    if spec is None or not spec.origin or not spec.has_location:
        return
    file = Path(spec.origin)
    root = file.parent.parent if spec.submodule_search_locations else file.parent
    stack.enter_context(surroundings.at_home(root, file))


def _load_own(
    the_context: Any,
    finish: Finish,
    stack: ExitStack,
    walks: list[Walk],
    environ: Mapping[str, str],
) -> Function:
    from digitalhub_runtime_python import lifecycle, sources
    from digitalhub_runtime_python.calls.assembly import assemble
    from digitalhub_runtime_python.ending import Walk
    from digitalhub_runtime_python.hub.opening import open_hub
    from digitalhub_runtime_python.settings import Settings

    walk = Walk(Settings.from_env(environ))
    walks.append(walk)
    hub = open_hub(walk.settings)
    walk.report = hub.report
    run = walk.run = hub.load_run()
    place = stack.enter_context(lifecycle.workspace(walk.settings))
    code = sources.fetch(run.source, place / "code", walk.settings)
    walk.fetched(code)

    def adopt(project: Callable[[], Any], run_entity: Callable[[], Any]) -> Any:
        the_context._resolvers = {"project": project, "run": run_entity}
        return the_context

    ready = stack.enter_context(
        lifecycle.prepared(
            hub,
            run,
            code,
            place,
            make_context=adopt,
            call=lambda function, bound: finish(function(*bound.args, **bound.kwargs)),
        )
    )
    calling = assemble(ready, run, walk.settings, code.root, Calling)
    if walk.status:
        hub.report(walk.status)
    return Function(
        calling,
        takes_batches=False,
        wants_loop=is_async(ready.handler),
        names_loop=_names_loop(ready.handler),
    )


def make_context(
    options: Mapping[str, str], logger: Any, acknowledge: Callable[[Any], Awaitable[None]]
) -> Any:
    """The context of a worker."""
    made = context.make_context(
        lambda: None,
        lambda: None,
        logger=logger,
        platform=nuclio_sdk.Platform(
            options["platform-kind"],
            namespace=options["namespace"],
            connection_provider=context.connect,
            on_control_callback=acknowledge,
        ),
        worker_id=options["worker-id"],  # text, as the processor gives it
        trigger=nuclio_sdk.TriggerInfo(
            options.get("trigger-kind", ""), options.get("trigger-name", "")
        ),
    )
    made._resolvers = {}  # a run of ours brings its own
    return made
