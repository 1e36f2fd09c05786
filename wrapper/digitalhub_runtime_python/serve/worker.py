"""A worker: the function in the main thread, its front in another. A process of its own, forked by the supervisor."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import inspect
import io
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import nuclio_sdk

from digitalhub_runtime_python import context, error_report, lifecycle
from digitalhub_runtime_python.arguments import Arguments
from digitalhub_runtime_python.calls.assembly import assemble
from digitalhub_runtime_python.calls.event import TRIGGER
from digitalhub_runtime_python.calls.handling import Handling, is_async
from digitalhub_runtime_python.ending import Walk, conclude
from digitalhub_runtime_python.hub import Hub
from digitalhub_runtime_python.outputs import Output
from digitalhub_runtime_python.serve import openapi
from digitalhub_runtime_python.serve.board import Slot
from digitalhub_runtime_python.serve.front import Front
from digitalhub_runtime_python.serve.handover import AsyncRunner, Runner, SyncRunner
from digitalhub_runtime_python.serve.loops import new_loop
from digitalhub_runtime_python.serve.streams import Outbox
from digitalhub_runtime_python.settings import ServeSettings, Settings
from digitalhub_runtime_python.sources import Fetched
from digitalhub_runtime_python.spec import RunSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """What is served, the same for every worker."""

    run: RunSpec
    code: Fetched
    """Fetched once, so that a worker that is replaced runs what the others run."""
    make_hub: Callable[[], Hub]
    """Called in each worker: connections do not survive a fork."""
    settings: Settings
    serve: ServeSettings
    folder: Path
    """Of the service; `openapi.json` is written there."""
    debug: bool = False


class _LateHub:
    """A hub that is made when it is needed: most services need none, and its client costs a tenth of the start."""

    def __init__(self, make: Callable[[], Hub]) -> None:
        self._hub = functools.lru_cache(maxsize=None)(make)

    def load_run(self) -> RunSpec:
        return self._hub().load_run()

    def resolve_input(self, key: str, form: str, folder: Path) -> Any:
        return self._hub().resolve_input(key, form, folder)

    def store_output(self, run: RunSpec, output: Output) -> str:
        return self._hub().store_output(run, output)

    def report(self, status: Mapping[str, Any]) -> None:
        self._hub().report(status)

    def progress(self, value: Mapping[str, Any]) -> float:
        return self._hub().progress(value)

    def project(self) -> Any:
        return self._hub().project()

    def run(self) -> Any:
        return self._hub().run()


class Platform(nuclio_sdk.Platform):  # type: ignore[misc]
    """Nuclio's platform, with the addresses of functions that have no name of Nuclio's."""

    def __init__(self, addresses: dict[str, str], *, in_cluster: bool) -> None:
        kind = "kube" if in_cluster else "local"
        super().__init__(kind, connection_provider=context.connect)
        self._addresses = addresses

    def _get_function_url(
        self, function_name: str, service_name_override: str | None = None
    ) -> str:
        address = self._addresses.get(service_name_override or function_name)
        return address or str(super()._get_function_url(function_name, service_name_override))


def main(
    service: Service, index: int, slot: Slot, listener: socket.socket, control: socket.socket
) -> int:
    """Serve until the supervisor says to end; the exit status."""
    # A group of its own: Ctrl-C is the supervisor's to handle, and what the user's code starts can
    # be ended with this process.
    os.setpgid(0, 0)
    loop = new_loop()
    asyncio.set_event_loop(loop)
    in_cluster = service.settings.in_cluster
    platform = Platform(dict(service.serve.addresses), in_cluster=in_cluster)
    hub = _LateHub(service.make_hub)
    started = False
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log that comes minutes later is of no use

    def make_context(project: Callable[[], Any], run: Callable[[], Any]) -> Any:
        return context.make_context(
            project, run, platform=platform, worker_id=str(index), trigger=TRIGGER
        )

    def call(function: Callable[..., Any], arguments: Arguments) -> Any:
        # On the loop that the handler has: what init opens there, the handler uses there.
        value = function(*arguments.args, **arguments.kwargs)
        return loop.run_until_complete(_awaited(value)) if inspect.isawaitable(value) else value

    def tell(status: dict[str, Any]) -> None:
        # First the supervisor: what follows may take minutes where the platform is away.
        error = status["error"]
        message = {"error": error_report.summary(error), "status": error["exit_status"], "started": started}  # fmt: skip
        control.setblocking(True)
        with contextlib.suppress(OSError):  # a supervisor that has died waits for nothing
            control.sendall(b"F" + json.dumps(message).encode())
        hub.report(status)

    try:
        with lifecycle.prepared(
            hub,
            service.run,
            service.code,
            service.folder,
            make_context=make_context,
            call=call,
        ) as ready:
            runner, front = _assemble(service, ready, slot, listener, control, loop)
            if index == 0:
                openapi.write(service.folder, ready, service.run)
            started = True
            front_thread = threading.Thread(
                target=_run_front, args=(front, runner, control), name="front", daemon=True
            )
            front_thread.start()
            set_signals(front.drain_soon)
            runner.run()
            front_thread.join()
            _terminate(platform, loop)
    except BaseException as exc:  # noqa: BLE001 - the process ends here; what was raised is reported
        walk = Walk(service.settings, tell, service.run)
        walk.fetched(service.code)
        return conclude(exc, walk).exit_status
    return 0


def _assemble(
    service: Service,
    ready: lifecycle.ReadyFunction,
    slot: Slot,
    listener: socket.socket,
    control: socket.socket,
    loop: asyncio.AbstractEventLoop,
) -> tuple[Runner, Front]:
    make: type[Handling] = Handling
    more: dict[str, Any] = {}
    if service.serve.inference is not None:
        from digitalhub_runtime_python.calls import inference  # few are

        make = inference.InferenceHandling
        more = {
            "model": inference.Model.from_attributes(service.serve.inference),
            "takes": inference.argument_maker(ready, service.run),
        }
    handling = assemble(
        ready,
        service.run,
        service.settings,
        service.code.root,
        make,
        body_limit=service.serve.body_limit,
        debug=service.debug,
        **more,
    )
    front_loop = new_loop()
    outbox = Outbox(front_loop)
    runner: Runner
    if is_async(ready.handler):
        runner = AsyncRunner(handling, outbox, loop, service.serve.concurrency)
    else:
        runner = SyncRunner(handling, outbox, loop)
    shared = service.serve.workers > 1 or service.serve.listen_fd is not None
    front = Front(
        front_loop,
        runner,
        service.serve,
        slot,
        listener,
        control,
        shared=shared,
        log_requests=service.debug or logger.isEnabledFor(logging.DEBUG),
    )
    return runner, front


def _run_front(front: Front, runner: Runner, control: socket.socket) -> None:
    status = 70
    try:
        front.run(lambda: control.send(b"R"))
        status = 1 if front.unfinished else 0
    except BaseException:
        logger.critical("the front of this worker has failed", exc_info=True)
        raise
    finally:
        if status:
            # The main thread may sit in a handler that does not end.
            sys.stdout.flush()
            os._exit(status)
        runner.stop()


def _terminate(platform: Platform, loop: asyncio.AbstractEventLoop) -> None:
    """The callback that the function set with `context.platform.set_termination_callback`."""
    value = platform._on_signal("termination")
    if inspect.isawaitable(value):
        loop.run_until_complete(_awaited(value))
    loop.run_until_complete(loop.shutdown_asyncgens())


def exit_process(status: int) -> None:
    """End a forked process: with what atexit has, without the parent's stack."""
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def set_signals(on_terminate: Callable[[], Any]) -> None:
    """Drain on SIGTERM; SIGINT and SIGHUP are the supervisor's to act on."""
    # Handlers that do nothing, not SIG_IGN: programs that the user's code starts would inherit that.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: on_terminate())


async def _awaited(value: Any) -> Any:
    return await value
