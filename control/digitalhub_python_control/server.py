"""One server process: lock the home, open the store, listen, say so in `server.json`, end cleanly."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digitalhub_python_control import server_log
from digitalhub_python_control.api.app import create_app
from digitalhub_python_control.api.triggers import Scheduler
from digitalhub_python_control.api.web import request_of
from digitalhub_python_control.console import live, routes
from digitalhub_python_control.files.objects import Objects
from digitalhub_python_control.hosting import Host
from digitalhub_python_control.settings import ControlSettings
from digitalhub_python_control.store.store import Store
from digitalhub_python_control.store.vault import open_vault
from digitalhub_runtime_python.errors import EXIT_OK, Fault, PlatformFault

if TYPE_CHECKING:
    from digitalhub_python_control.running.reconcile import Reconciler

logger = logging.getLogger(__name__)

_LAST_REQUESTS = 5
"""Seconds that open requests get to finish when the server stops."""


def main(environ: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. A fault is one line on stderr."""
    try:
        settings = ControlSettings.from_env(environ)
        server_log.configure(settings)
        serve(settings)
    except Fault as exc:
        sys.stderr.write(f"{exc} [{exc.code}]\n")
        return exc.exit_status
    return EXIT_OK


def serve(settings: ControlSettings) -> None:
    """Run the control plane until it is told to stop.

    Raises:
        Fault: it cannot start; the message says why.
    """
    with locked(settings), listening(settings) as listener:
        settings = dataclasses.replace(settings, port=listener.getsockname()[1])
        with home_faults(settings.home):
            vault = open_vault(settings.home / "secret.key")
        store = Store(settings.database_url, vault)
        with home_faults(settings.home):
            private(settings.home)  # once the database is there; a start that fails says one line
        reconciler = _reconciler(store, settings)
        scheduler: Scheduler | None = None
        try:
            with home_faults(settings.home):
                app = create_app(settings, store, reconciler, routes.pages())
            _sweep(app.state.objects)
            if reconciler is not None:
                reconciler.start()
            scheduler = Scheduler(partial(request_of, app), settings.missed_triggers)
            scheduler.start()
            _run(settings, app, listener)
        finally:
            if scheduler is not None:
                scheduler.close()
            if reconciler is not None:
                reconciler.close()
            store.close()


@contextmanager
def locked(settings: ControlSettings) -> Iterator[None]:
    """Hold the home: two servers on one would both act on the same runs.

    Raises:
        PlatformFault: another server has it, or it cannot be written.
    """
    with home_faults(settings.home):
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (settings.home / "lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlatformFault(
                "control/already-running",
                f"A server works in {settings.home} already{_where(settings.home)}.",
                "Use it, stop it, or set DHPY_HOME to another folder.",
            ) from None
        yield


def private(home: Path) -> None:
    """Take from others what a home lets them read: database, key, logs, files.

    Raises:
        OSError: it is not ours.
    """
    for path in (home, *home.glob("dhpy.db*"), *home.glob("server.log*")):
        mode = path.lstat().st_mode
        if not path.is_symlink() and mode & 0o077:
            path.chmod(mode & 0o700)
            if path == home:
                logger.warning("others could read %s, and cannot any longer", home)


@contextmanager
def listening(settings: ControlSettings) -> Iterator[socket.socket]:
    """A listening socket on the settings' address.

    Raises:
        PlatformFault: the address is taken, or does not belong to this machine.
    """
    asked = bool(settings.environ.get("DHPY_PORT", "").strip())
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as exc:
        taken = exc.errno == errno.EADDRINUSE
        if taken and not asked and settings.port:
            logger.warning("port %d is taken; another one is used", settings.port)
            with listening(dataclasses.replace(settings, port=0)) as listener:
                yield listener
            return
        raise PlatformFault(
            "control/port-taken" if taken else "control/address",
            f"Cannot listen on {settings.host} port {settings.port}: {exc.strerror or exc}.",
            "Set DHPY_PORT to a free port, or to 0 for any."
            if taken
            else "Set DHPY_HOST to an address of this machine, and DHPY_PORT to a port you may use.",
        ) from exc
    with listener:
        yield listener


@contextmanager
def home_faults(home: Path) -> Iterator[None]:
    """Turns what the file system refuses into one clear line."""
    try:
        yield
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        raise PlatformFault(
            "control/disk-full" if full else "control/home",
            f"Cannot write {exc.filename or home}: {exc.strerror or exc}.",
            "Free some space on its disk." if full else "Set DHPY_HOME to a folder you may write.",
        ) from exc


def _run(settings: ControlSettings, app: Any, listener: socket.socket) -> None:
    place = settings.home / "server.json"

    def ready() -> None:
        content = {"pid": os.getpid(), "url": settings.url, "started": int(time.time())}
        with home_faults(settings.home):
            fresh = place.with_suffix(".new")
            fresh.write_text(json.dumps(content))
            fresh.replace(place)
        logger.info("listening on %s, home %s", settings.url, settings.home)

    # Open pages would keep it waiting.
    host = Host(app, listener, grace=_LAST_REQUESTS, on_stop=partial(live.close, app))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: host.stop())
    try:
        host.run(ready)
    finally:
        with suppress(OSError):
            place.unlink(missing_ok=True)


def _sweep(objects: Objects) -> None:
    """Remove in the background what a crash left; requests do not wait for it."""

    def work() -> None:
        with suppress(OSError, Fault):  # tried again at the next start
            if removed := objects.sweep(started):
                logger.info("removed %d files that a crash left", removed)

    started = time.time()
    threading.Thread(target=work, name="sweep", daemon=True).start()


def _reconciler(store: Store, settings: ControlSettings) -> Reconciler | None:
    name = "digitalhub_python_control.running.reconcile"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name != name:
            raise
        logger.warning("no reconciler: runs are stored, and nothing runs them")
        return None
    reconciler: Reconciler = module.make(store, settings)
    return reconciler


def _where(home: Path) -> str:
    with suppress(OSError, ValueError, KeyError):
        place = json.loads((home / "server.json").read_text())
        return f": pid {place['pid']}, {place['url']}"
    return ""
