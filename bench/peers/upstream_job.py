"""What the published image does for a job, with the published packages: the peer of `… job`.

The steps and their order are those of DigitalHub Core's job handler: read project and run, start the
execution, import the code, call it, collect its outputs, save the run.
"""

import base64
import os

import digitalhub as dh
from digitalhub_runtime_python.utils.outputs import build_new_status, parse_outputs

project = dh.get_project(os.environ["PROJECT_NAME"])
run = dh.get_run(os.environ["RUN_ID"], project=project.name)
# The run is marked as local so that no engine takes it; in a pod it is not, and the platform owns its state.
run.local_execution = lambda: False
run.start_execution()
spec = run.spec.to_dict()
namespace: dict = {}
exec(base64.b64decode(spec["source"]["base64"]), namespace)
result = namespace[spec["source"]["handler"]](**spec.get("parameters") or {})
status = build_new_status(project.name, parse_outputs(result, project.name, run.key))
run.refresh()
run.set_status({**status, **run.status.to_dict()})
run.save(update=True)
run.end_execution()
