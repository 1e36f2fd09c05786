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
from digitalhub_runtime_python.errors import Fault, UsageFault
from digitalhub_runtime_python.hub import Hub
from digitalhub_runtime_python.hub.opening import open_hub
from digitalhub_runtime_python.imports import load_msgspec, without
from digitalhub_runtime_python.lifecycle import exit_status, workspace
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
        "$DHPY_RUN_FILE, over HTTP. Every option has a variable, see docs/reference/serving.md.",
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
        prepared = _in_a_process(lambda: _fetch(hub(), place / "code", settings))
        if isinstance(prepared, int):
            return prepared
        run, code = prepared
        return serve_code(run, code, hub, settings, serve, place, debug=debug)


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
        UsageFault: serve/address, where a port cannot be had.
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


def _fetch(hub: Hub, place: Path, settings: Settings) -> tuple[RunSpec, Fetched]:
    """The run and its code; a failure is reported to the hub."""
    from digitalhub_runtime_python import error_report, sources

    run: RunSpec | None = None
    try:
        run = hub.load_run()
        code = sources.fetch(run.source, place, settings)
    except BaseException as exc:
        secrets = settings.secret_values(run.secrets if run else ())
        error = error_report.redact(error_report.describe(exc), secrets)
        if run is not None:
            hub.report({"error": {**error, "exit_status": exit_status(exc)}})
        raise
    if code.revision:
        hub.report({"source": {"revision": code.revision}})
    return run, code


def _in_a_process(make: Callable[[], Any]) -> Any:
    """What `make` returns in a process of its own, or the exit status where it fails.

    The clients of stores and of the platform start threads and cost megabytes; the supervisor,
    which forks, must have neither.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        status = 70
        try:
            os.close(reader)
            data = pickle.dumps(make())
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(data)
            status = 0
        except Fault as fault:
            sys.stderr.write(f"{fault} [{fault.code}]\n")
            status = fault.exit_status
        except BaseException as exc:
            logger.critical("the service cannot start", exc_info=True)
            status = exit_status(exc)
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
