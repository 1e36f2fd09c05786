"""The real SDK, as a user's process has it, against the real control plane on loopback.

SDK 0.14 reads the environment when it is imported, and what a plug-in registers stays for the
process: so every scenario is a script in a process of its own, in a fresh folder with a fresh home.
A script says what it saw with `show(name=value, …)`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest
from servers.control_plane import ControlPlane

PRELUDE = """
import atexit as _atexit, json as _json, os as _os, sys as _sys
_seen = {}
def show(**values):
    _seen.update(values)
_atexit.register(lambda: print("\\n@@" + _json.dumps(_seen, default=str), flush=True))
import requests as _requests
sent = []
_send = _requests.Session.send
def _spy(self, request, **kwargs):
    sent.append(f"{request.method} {request.path_url}")
    return _send(self, request, **kwargs)
_requests.Session.send = _spy
PROJECT = _os.environ["TEST_PROJECT"]
VERSION = "PYTHON%d_%d" % _sys.version_info[:2]
"""

START = """
import digitalhub as dh
from digitalhub_runtime_python.sdk import compat as _compat
project = dh.get_or_create_project(PROJECT)
def new(code=None, handler="f", name="f", **kwargs):
    if code is not None:
        kwargs["code"] = code
    return dh.new_function(project=PROJECT, name=name, kind="python", handler=handler,
                           **{"python_version": VERSION, **kwargs})
def local(code=None, action="job", run={}, **kwargs):
    return new(code, **kwargs).run(action, local_execution=True, **run)
def served_at(port):
    # A serve run whose service is at a port of this machine.
    function = new("def f(): pass", name="served")
    task = function._get_or_create_task(_compat.task_name("python", "serve"))
    run = task.run("python+serve:run", save=False)
    # Only of a local run does a platform take the status from its client.
    run.spec.local_execution, run.status.state = True, "RUNNING"
    run.status.service = {"url": f"127.0.0.1:{port}"}
    run.save()
    return run
def running():
    from digitalhub.context.api import get_context
    return get_context(PROJECT).is_running
"""


def user_code(text: str) -> str:
    """A script that has a project, and short ways to make a function and to run one locally."""
    return START + textwrap.dedent(text)


@dataclass
class Seen:
    """What a script left."""

    values: dict[str, Any]
    stdout: str
    stderr: str
    returncode: int

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"the script did not show {name!r}") from None


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """A project name that no other test uses."""
    return f"p-{abs(hash(request.node.nodeid)) % 10**10:010d}"


Script = Callable[..., Seen]

_ARROWS_END = "terminate called without an active exception"
"""pyarrow's threads that let go of a Python file may find Python ending, and then end the process so."""


@pytest.fixture
def script(control_plane: ControlPlane, project: str, tmp_path: Path) -> Script:
    """Run code as a user's script; `fails=True` where it has to end with an uncaught exception."""

    def run(
        code: str, *, fails: bool = False, files: dict[str, str] | None = None, **env: str
    ) -> Seen:
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        (tmp_path / "home").mkdir(exist_ok=True)
        for name, text in (files or {}).items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(textwrap.dedent(text), "utf-8")
        main = tmp_path / "script.py"
        main.write_text(PRELUDE + textwrap.dedent(code), "utf-8")
        environment = {
            **control_plane.environ,
            "HOME": str(tmp_path / "home"),
            "TEST_PROJECT": project,
            **env,
        }
        done = subprocess.run(
            [sys.executable, str(main)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        if done.returncode == -signal.SIGABRT and _ARROWS_END in done.stderr:
            assert "\n@@" in done.stdout  # the script itself had come to its end
            done.returncode = 0
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        stdout, _, seen = done.stdout.rpartition("\n@@")
        return Seen(json.loads(seen), stdout, done.stderr, done.returncode)

    return run
