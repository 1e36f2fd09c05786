"""How a run ends is the same in every mode: exit status, termination message, what is reported, standard error.

One table of what goes wrong, and each row as a job, as a service and under Nuclio; what has no handler to call, as a
build too. A mode that ends in a way of its own fails here.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from digitalhub_runtime_python.nuclio.functions import OWN_HANDLER
from nuclio.driver import Gone, Processor

FINE = "def f(): return 1"
GOES_WRONG: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "a name that the module lacks": ("def g(): pass", {}, {}),
    "a syntax error": ("def f(:\n    pass", {}, {}),
    "an import that fails": ("import no_such_module_here\ndef f(): pass", {}, {}),
    "a module that raises": ("raise ValueError('at import')", {}, {}),
    "a module that exits": ("import sys\nsys.exit(3)", {}, {}),
    "an init that raises": ("def f(): pass\ndef init(context): raise KeyError('in init')", {"init_function": "init"}, {}),
    "a source that is not there": (FINE, {"source": "/nowhere/main.py", "base64": None, "handler": "f"}, {}),
    "a repository that is not there": (FINE, {"source": "git+file:///nowhere/repository", "base64": None}, {}),
    "a platform that is not there": (FINE, {}, {"DHCORE_ENDPOINT": "http://127.0.0.1:9", "DHPY_RUN_FILE": "", "RUN_ID": "r", "PROJECT_NAME": "p", "DHPY_REPORT_TIMEOUT": "1"}),
    "a setting that cannot be": (FINE, {}, {"DHPY_LOG_LEVEL": "LOUD"}),
    "a run file that is not there": (FINE, {}, {"DHPY_RUN_FILE": "/nowhere/run.json"}),
    "no run at all": (FINE, {}, {"DHPY_RUN_FILE": ""}),
}  # fmt: skip
"""What -> the code, what of the source is different, what of the environment is."""


@dataclass
class Ended:
    status: int
    note: str
    """The termination message."""
    reported: dict[str, Any] | None
    """`error` of the status, without what differs by nature: the traceback's place in a mode's own code."""
    is_said: bool
    """Standard error has the termination message, in full."""


def _entity(code: str, source: dict[str, Any], action: str) -> dict[str, Any]:
    made = {"source": "main.py", "base64": base64.b64encode(code.encode()).decode(), "handler": "f"}
    spec = {"source": {k: v for k, v in {**made, **source}.items() if v is not None}}
    return {
        "kind": f"python+{action}:run", "id": "r", "project": "p", "name": "r",
        "spec": {**spec, "function": "python://p/f:1", "task": f"python+{action}://p/1"},
    }  # fmt: skip


def _ended(mode: str, folder: Path, what: str) -> Ended:
    code, source, more = GOES_WRONG[what]
    folder.mkdir()
    action = "job" if mode == "job" else "serve"
    run, note = folder / "run.json", folder / "termination"
    run.write_text(json.dumps(_entity(code, source, action)))
    note.touch()
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DH", "AWS_", "S3_", "RUN_ID", "PROJECT"))}  # fmt: skip
    env = {
        **own, "DHPY_RUN_FILE": str(run), "DHPY_WORKSPACE": str(folder / "work"), "DHPY_TERMINATION_LOG": str(note),
        "DHPY_PORT": "0", "DHPY_MANAGEMENT_PORT": "0", **more,
    }  # fmt: skip
    env = {name: value for name, value in env.items() if value}
    if mode == "nuclio":
        given = {**dict.fromkeys(set(os.environ) - set(env), ""), **env}
        with Processor(folder, OWN_HANDLER, env=given, wait=False) as processor:
            with pytest.raises(Gone) as gone:
                processor.wait_ready()
            stderr, status = str(gone.value), processor.process.returncode
    else:
        command = [sys.executable, "-m", "digitalhub_runtime_python", mode]
        done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=120)  # fmt: skip
        stderr, status = done.stderr, done.returncode
    place = folder / "work" / "outputs" / "status.json"
    reported = json.loads(place.read_text()).get("error") if place.exists() else None
    text = _alike(note.read_text(), folder)
    return Ended(status, text, _plain(reported, folder), text.strip() in _alike(stderr, folder))


def _plain(error: dict[str, Any] | None, folder: Path) -> dict[str, Any] | None:
    kept = ("type", "code", "message", "hint", "exit_status", "file", "line")
    return None if error is None else {k: _alike(str(error[k]), folder) for k in kept if k in error}


def _alike(text: str, folder: Path) -> str:
    """Without what is another one each time; the driver's workers run in its own folder."""
    return re.sub(
        r"dhpy-[0-9a-f]{12}", "dhpy-…", text.replace(str(folder), "…").replace(str(Path.cwd()), "…")
    )


@pytest.mark.parametrize("what", list(GOES_WRONG))
def test_every_mode_ends_alike(tmp_path: Path, what: str) -> None:
    ends = {mode: _ended(mode, tmp_path / mode, what) for mode in ("job", "serve", "nuclio")}
    first = ends["job"]
    assert first.status not in (0, 70) and first.note and first.is_said, ends
    for mode, end in ends.items():
        assert end == first, (mode, ends)
