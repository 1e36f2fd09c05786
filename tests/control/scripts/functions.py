"""Functions, local runs, exports and deletions with the SDK."""

import json
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import digitalhub as dh

name = sys.argv[1]
seen = {}
project = dh.get_or_create_project(name)
Path("code.py").write_text(
    "import math\n\n"
    "def odd(x: float):\n    return x * math.nan\n\n"
    "def bad():\n    raise ValueError('no good')\n"
)
version = "PYTHON%d_%d" % sys.version_info[:2]  # noqa: UP031
made = {"kind": "python", "python_version": version, "code_src": "code.py"}
function = project.new_function("odd", handler="odd", **made)
run = function.run("job", parameters={"x": 2.0}, local_execution=True)
seen["state"] = run.status.state
fresh = project.get_run(run.id) if sys.version_info >= (3, 10) else dh.get_run(run.key)
seen["nan"] = str(next(iter(fresh.status.results.values())))

failing = project.new_function("bad", handler="bad", **made)
try:
    failing.run("job", local_execution=True)
except Exception as exc:
    seen["raised"] = type(exc).__name__
runs = dh.list_runs(name)
seen["runs"] = sorted(one.status.state for one in runs)
seen["error"] = [one.status.message for one in runs if one.status.state == "ERROR"]
seen["of_function"] = len(dh.list_runs(name, function=function._get_executable_string()))
seen["tasks"] = len(dh.list_tasks(name))

file = function.export()
project.delete_function(function.key, cascade=True)
seen["after_cascade"] = [len(dh.list_runs(name)), len(dh.list_tasks(name))]
seen["imported"] = dh.import_function(file).key == function.key
seen["loaded"] = dh.load_function(file).key == function.key
try:
    project.new_function("bad name!", handler="odd", **made)
except Exception as exc:
    seen["bad_name"] = type(exc).__name__
dh.delete_project(name, cascade=True)
print("@@" + json.dumps(seen))
