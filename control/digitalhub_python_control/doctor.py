"""Looks at this machine for everything that has ever kept the control plane or a run from working."""

from __future__ import annotations

import configparser
import importlib.metadata
import pkgutil
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import click
from packaging.requirements import Requirement
from packaging.version import Version

from digitalhub_python_builder.environments import DISTRIBUTION
from digitalhub_python_builder.interpreters import find_uv, list_interpreters
from digitalhub_python_control import daemon
from digitalhub_python_control.client import Client
from digitalhub_python_control.clientenv import PROFILE
from digitalhub_python_control.settings import ControlSettings
from digitalhub_runtime_python import __version__
from digitalhub_runtime_python.errors import Fault
from digitalhub_runtime_python.spec import PYTHON_VERSIONS

_GIB = 1 << 30
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Result:
    """One line of the examination."""

    what: str
    level: Literal["ok", "warn", "fail"]
    text: str
    advice: str = ""
    """What to do; empty where there is nothing to do."""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def examine(environ: Mapping[str, str]) -> list[Result]:
    """Every check, in the order in which things go wrong."""
    results = [_uv(environ), _interpreters(environ), _sdk(), _plugins()]
    try:
        settings = ControlSettings.from_env(environ)
    except Fault as fault:
        return [*results, Result("settings", "fail", fault.message, fault.hint)]
    return [
        *results,
        _folder("home", settings.home, "DHPY_HOME"),
        _folder("cache", settings.cache, "DHPY_CACHE"),
        _space(settings),
        _server(settings),
        _ini(environ),
        *_engine(environ, settings),
    ]


def show(results: list[Result]) -> None:
    """Print the results: a table on a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        for one in results:
            click.echo(f"{one.level:<5} {one.what:<13} {one.text} {one.advice}".rstrip())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for one in results:
        colour = _COLOURS[one.level]
        advice = f"\n[bold]{_escaped(one.advice)}[/]" if one.advice else ""
        table.add_row(f"[{colour}]{one.level}[/]", one.what, _escaped(one.text) + advice)
    Console().print(table)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _uv(environ: Mapping[str, str]) -> Result:
    try:
        path = find_uv()
    except Fault as fault:
        return Result("uv", "fail", fault.message, fault.hint)
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    if done.returncode:
        return Result("uv", "fail", f"{path} does not run.", "Install it again: pip install uv")
    return Result("uv", "ok", f"{done.stdout.strip()} at {path}")


def _interpreters(environ: Mapping[str, str]) -> Result:
    try:
        found = list_interpreters(environ)
    except (Fault, OSError) as exc:
        return Result("interpreters", "fail", str(exc), "See uv above.")
    usable = [version for version in PYTHON_VERSIONS.values() if version in found]
    missing = [version for version in ("3.9", "3.10", "3.11") if version not in usable]
    text = f"Python {', '.join(usable)}"
    if not missing:
        return Result("interpreters", "ok", text)
    return Result(
        "interpreters",
        "warn",
        f"{text}; not {', '.join(missing)}.",
        f"Functions of those need: uv python install {' '.join(missing)}",
    )


def _sdk() -> Result:
    try:
        version = importlib.metadata.version("digitalhub")
    except importlib.metadata.PackageNotFoundError:
        return Result("digitalhub", "fail", "The SDK is not installed.", "pip install digitalhub")
    declared = (Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or ())
    wanted = next((one.specifier for one in declared if one.name == "digitalhub"), None)
    if wanted is not None and Version(version) not in wanted:
        return Result(
            "digitalhub",
            "fail",
            f"The SDK is {version}, and {wanted} is needed.",
            f"pip install 'digitalhub{wanted}'",
        )
    return Result("digitalhub", "ok", f"SDK {version}")


def _plugins() -> Result:
    """One plug-in that cannot be imported, or a second one of our name, breaks all kinds of the SDK."""
    installed = importlib.metadata.version(DISTRIBUTION)
    if installed != __version__:
        return Result(
            "plug-ins",
            "fail",
            f"{DISTRIBUTION} {installed} was installed over this one ({__version__}).",
            f"Remove it and install this one again: pip uninstall {DISTRIBUTION}",
        )
    names = [m.name for m in pkgutil.iter_modules() if m.name.startswith("digitalhub_runtime_")]
    broken = [name for name in names if not _can_import(name)]
    if broken:
        return Result(
            "plug-ins",
            "fail",
            f"{', '.join(broken)} cannot be imported, and then the SDK loads no plug-in at all.",
            "Upgrade or uninstall it.",
        )
    return Result("plug-ins", "ok", ", ".join(sorted(names)))


def _can_import(name: str) -> bool:
    # In a process of its own: some of them take seconds, and change what is imported after them.
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], capture_output=True, check=False, timeout=120
    )
    return done.returncode == 0


def _folder(what: str, path: Path, variable: str) -> Result:
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as exc:
        return Result(
            what,
            "fail",
            f"{existing} cannot be written: {exc.strerror}.",
            f"Set {variable} to a folder you may write.",
        )
    return Result(what, "ok", str(path))


def _space(settings: ControlSettings) -> Result:
    rooms = {}
    for path in (settings.home, settings.cache):
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        rooms[path] = shutil.disk_usage(existing).free / _GIB
    path, free = min(rooms.items(), key=lambda item: item[1])
    text = f"{free:.1f} GiB free for {path}"
    if free < 1:
        return Result("disk", "fail", text, "An environment takes half a GiB: make room.")
    if free < 5:
        return Result("disk", "warn", text, "An environment takes half a GiB.")
    return Result("disk", "ok", text)


def _server(settings: ControlSettings) -> Result:
    place = daemon.find(settings)
    if place is not None:
        try:
            Client(place.url, settings).get("/api/auth")
        except Fault as fault:
            return Result("server", "fail", fault.message, fault.hint)
        return Result("server", "ok", f"up at {place.url}")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.create_server((settings.host, settings.port), family=family):
            pass
    except OSError as exc:
        return Result(
            "server",
            "fail",
            f"down, and port {settings.port} of {settings.host} cannot be opened: {exc.strerror}.",
            "Set DHPY_PORT to a free port, or to 0 for any.",
        )
    return Result("server", "ok", f"down; port {settings.port} is free")


def _engine(environ: Mapping[str, str], settings: ControlSettings) -> list[Result]:
    if settings.engine != "kubernetes":
        return []
    from digitalhub_python_control.running.kubernetes.examining import examine

    place = daemon.find(settings)
    return [Result(*one) for one in examine(environ, settings, place.url if place else None)]


def _ini(environ: Mapping[str, str]) -> Result:
    """The SDK's own settings file, whose credentials go before those of the environment."""
    path = Path(environ.get("DH_CONFIG") or Path.home() / ".dhcore.ini")
    if not path.exists():
        return Result("sdk profile", "ok", f"no {path}")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, configparser.Error, UnicodeDecodeError) as exc:
        reason = str(exc).splitlines()[0]
        return Result(
            "sdk profile", "fail", f"{path} cannot be read: {reason}", "Mend or remove it."
        )
    if parser.has_section(PROFILE) and _credentials(parser[PROFILE]):
        return Result(
            "sdk profile",
            "fail",
            f"[{PROFILE}] in {path} holds credentials, which the SDK would send to this one.",
            f"Remove that section; the name {PROFILE!r} is for the control plane of this machine.",
        )
    name = environ.get("DH_NAME") or parser.defaults().get("current_environment") or "__default"
    if name != PROFILE and parser.has_section(name):
        return Result(
            "sdk profile",
            "warn",
            f"Scripts that are not started by `dhpy exec` use the profile [{name}] of {path}.",
            "Start them with: dhpy exec -- python …",
        )
    return Result("sdk profile", "ok", f"{path}, no profile in use")


def _credentials(section: Mapping[str, Any]) -> list[str]:
    endings = ("token", "user", "password", "key", "secret")
    return [key for key in section if key.lower().endswith(endings)]
