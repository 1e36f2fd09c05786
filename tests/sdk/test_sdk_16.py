"""The plug-in with the newest pre-release of SDK 0.16, in an environment of its own beside this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from servers.control_plane import ControlPlane

from digitalhub_python_builder.interpreters import find_uv

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="on the main Python only")

DRIVE = """
import json, sys
import digitalhub as dh, pandas as pd
p = dh.get_or_create_project(sys.argv[1])
code = '''
import pandas as pd
from digitalhub_runtime_python import handler
@handler(outputs=["t", "n"])
def f(project, run, a):
    run.log_metric("loss", 0.5)
    return pd.DataFrame({"x": [a]}), a
'''
seen = {"version": __import__("importlib.metadata").metadata.version("digitalhub")}
f = p.new_function(name="f", kind="python", code=code, handler="f", python_version="PYTHON3_11")
remote = f.run("job", parameters={"a": 3}, wait=True)
seen["remote"] = [remote.status.state, remote.results(), remote.output("t").as_df().x.tolist()]
local = f.run("job", parameters={"a": 4}, local_execution=True)
seen["local"] = [local.status.state, local.results(), local.output("t").as_df().x.tolist()]
data = p.log_table(name="d", data=pd.DataFrame({"q": [1, 2]}))
k = p.new_function(name="k", kind="python", code="def k(data):\\n    return len(data.as_df())\\n", handler="k", python_version="PYTHON3_11")
seen["input"] = k.run("job", inputs={"data": data.key}, wait=True).results()
seen["sweep"] = k.map([{}, {}], inputs={"data": data.key}).summary()
trigger = k.trigger("job", "scheduler", "t", {"inputs": {"data": data.key}}, schedule="0 0 0 * * ?")
seen["trigger"] = trigger.status.state
s = p.new_function(name="s", kind="python", code="def s(n):\\n    return n * 2\\n", handler="s", python_version="PYTHON3_11")
service = s.run("serve", wait=True)
seen["service"] = service.invoke(json={"n": 4}).text
service.stop()
seen["found"] = [r.id == remote.id for r in p.list_runs(function=f.key)][-1]
print("@@" + json.dumps(seen))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """An interpreter with SDK 0.16; what is already there is kept."""
    uv_program = find_uv()
    folder = ROOT / ".venvs" / "sdk-0.16"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([uv_program, "venv", "-q", "--python", sys.executable, folder], check=True)
    install = [uv_program, "pip", "install", "-q", "--python", python, "--prerelease", "allow"]
    subprocess.run([*install, "digitalhub>=0.16.0b0,<0.17", "-e", str(ROOT)], check=True)
    return python


def test_jobs_inputs_sweeps_triggers_and_services_work_with_sdk_16(
    control_plane: ControlPlane, project: str, python: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [python, "-c", DRIVE, project],
        env={**control_plane.environ, "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.rpartition("@@")[2])
    assert seen.pop("version").startswith("0.16")
    assert seen == {
        "remote": ["COMPLETED", {"n": 3}, [3]],
        "local": ["COMPLETED", {"n": 4}, [4]],
        "input": {"output_0": 2},
        "sweep": "2 COMPLETED",
        "trigger": "RUNNING",
        "service": "8",
        "found": True,
    }
