"""`python -m digitalhub_runtime_python serve`: serves a run's function; the container's way in."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import pickle
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from digitalhub_runtime_python import cpus, log
from digitalhub_runtime_python.ending import Walk, conclude
from digitalhub_runtime_python.errors import Fault, UsageFault
from digitalhub_runtime_python.hub import Hub
from digitalhub_runtime_python.hub.opening import apply_envs, open_hub
from digitalhub_runtime_python.imports import load_msgspec, without
from digitalhub_runtime_python.lifecycle import workspace
from digitalhub_runtime_python.settings import ServeSettings, Settings
from digitalhub_runtime_python.sources import Fetched
from digitalhub_runtime_python.spec import RunSpec

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)


def main(argv: list[str], environ: Mapping[str, str] = os.environ) -> int:
    """Serve the run that the environment names; the exit status."""
    options = vars(_parser().parse_args(argv)) if argv else {}
    debug = options.pop("debug", False)
    settings = Settings.from_env(environ)
    given = {_VARIABLES[k]: v for k, v in options.items() if v is not None}
    serve = ServeSettings.from_env({**environ, **given})
    log.configure(settings.log_level, settings.log_format)
    if settings.cpus == "auto":
        cpus.stay_on_one()
    return serve_run(lambda: open_hub(settings), settings, serve, debug=debug)


def _parser() -> argparse.ArgumentParser:
    import argparse  # a container's command has no options

    parser = argparse.ArgumentParser(
        prog="python -m digitalhub_runtime_python serve",
        description="Serve the function of run $RUN_ID of project $PROJECT_NAME, or of the run in "
        "$DHPY_RUN_FILE, over HTTP. Every option has a variable, see: dhpy help reference/serving",
    )
    parser.add_argument("--host", help="address to listen on ($DHPY_HOST)")
    parser.add_argument("--port", help="of the function; 0 takes a free one ($DHPY_PORT)")
    parser.add_argument("--management-port", help="of health and metrics ($DHPY_MANAGEMENT_PORT)")  # fmt: skip
    parser.add_argument("--workers", help="processes ($DHPY_WORKERS)")
    parser.add_argument("--debug", action="store_true", help="send tracebacks to clients")
    return parser


_VARIABLES = {
    "host": "DHPY_HOST",
    "port": "DHPY_PORT",
    "management_port": "DHPY_MANAGEMENT_PORT",
    "workers": "DHPY_WORKERS",
}
"""Option -> the variable that it goes before, with whose limits."""


def serve_run(
    hub: Callable[[], Hub], settings: Settings, serve: ServeSettings, *, debug: bool = False
) -> int:
    """Fetch a run's code, and serve it until a signal ends it; the exit status."""
    _require_fork()
    _import_engine()  # first: the process that fetches needs half of it too
    with workspace(settings) as place:
        prepared = _in_a_process(settings, lambda walk: _fetch(hub, place / "code", walk))
        if isinstance(prepared, int):
            return prepared
        run, code = prepared
        apply_envs(run, settings)
        try:
            return serve_code(run, code, hub, settings, serve, place, debug=debug)
        except Fault as fault:  # an address that is in use, say
            walk = Walk(settings, run=run)
            walk.fetched(code)
            return _conclude(fault, walk, hub)


def serve_code(
    run: RunSpec,
    code: Fetched,
    hub: Callable[[], Hub],
    settings: Settings,
    serve: ServeSettings,
    place: Path,
    *,
    debug: bool = False,
    watch: Iterator[bool] | None = None,
    announce: Callable[[str, str], None] | None = None,
) -> int:
    """Serve code that lies on this machine until a signal ends it; the exit status.

    Args:
        place: a folder of the service's own.
        watch: see Supervisor.
        announce: called with the URLs of the function and of the management port once both answer.

    Raises:
        UsageFault: serve/address, where a port cannot be listened on.
    """
    _import_engine()
    from digitalhub_runtime_python.serve import sockets, supervisor
    from digitalhub_runtime_python.serve.worker import Service

    _require_fork()
    if serve.listen_fd is not None:
        listener = sockets.inherited(serve.listen_fd)
    else:
        listener = sockets.listen(serve.host, serve.port)
    with listener, sockets.listen(serve.host, serve.management_port) as manager:
        url, management_url = _url(listener), _url(manager)

        def on_ready() -> None:
            logger.info("serving on %s, management on %s", url, management_url)
            if serve.ready_file is not None:
                _write_ready(serve.ready_file, url, management_url)
            if announce is not None:
                announce(url, management_url)

        service = Service(run, code, hub, settings, serve, place, debug)
        try:
            return supervisor.Supervisor(
                service, listener, manager, on_ready=on_ready, watch=watch
            ).run()
        finally:
            if serve.ready_file is not None:
                serve.ready_file.unlink(missing_ok=True)


def _import_engine() -> None:
    # Not above: `serve --help` needs none of it. http.client is for handlers that call other functions.
    load_msgspec()
    with without("http.client"):
        importlib.import_module("digitalhub_runtime_python.serve.supervisor")


def _fetch(hub: Callable[[], Hub], place: Path, walk: Walk) -> tuple[RunSpec, Fetched]:
    """The run and its code, whose revision is reported."""
    from digitalhub_runtime_python import sources

    opened = hub()
    walk.report = opened.report
    walk.run = opened.load_run()
    code = sources.fetch(walk.run.source, place, walk.settings)
    walk.fetched(code)
    if walk.status:
        opened.report(walk.status)
    return walk.run, code


def _conclude(exc: BaseException, walk: Walk, hub: Callable[[], Hub]) -> int:
    """End a service that has not begun; the hub is opened elsewhere, see `_in_a_process`."""

    def end(_: Walk) -> int:
        walk.report = hub().report
        return conclude(exc, walk).exit_status

    return int(_in_a_process(walk.settings, end))


def _in_a_process(settings: Settings, make: Callable[[Walk], Any]) -> Any:
    """What `make` returns in a process of its own, or the exit status where it fails.

    The clients of stores and of the platform start threads and cost megabytes; the supervisor,
    which forks, must have neither.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        status = 70
        walk = Walk(settings)
        try:
            os.close(reader)
            data = pickle.dumps(make(walk))
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(data)
            status = 0
        except BaseException as exc:  # noqa: BLE001 - the process ends here; what was raised is reported
            status = conclude(exc, walk).exit_status
        finally:
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        return status if status > 0 else 128 - status
    return pickle.loads(data)  # noqa: S301 - our own process wrote it


def _require_fork() -> None:
    if not hasattr(os, "fork"):
        raise UsageFault(
            "serve/platform",
            "Serving needs processes that fork, which this system has not.",
            "Serve in a container, or under WSL.",
        )


def _url(listener: Any) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _write_ready(file: Path, url: str, management_url: str) -> None:
    # Whole or not at all: whoever waits for the file reads it at once.
    part = file.with_name(f"{file.name}.part")
    content = {"url": url, "management_url": management_url, "pid": os.getpid()}
    part.write_text(json.dumps(content), "utf-8")
    part.replace(file)
