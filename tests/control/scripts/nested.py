"""A run that does with its own token what the SDK can do: entities, files, secrets, a run of its own."""

import json
import sys
from importlib.metadata import version

import digitalhub as dh

CODE = """
import digitalhub as dh

def child(n):
    return n + 1

def parent(project, other):
    run = project.get_function("child").run("job", parameters={"n": 1}, wait=True)
    with open("note.txt", "w") as file:
        file.write("from a run")
    note = project.log_artifact("note", kind="artifact", source="note.txt")
    again = open(project.get_artifact(note.key).download("got", overwrite=True)).read()
    secret = project.get_secret("key").read_secret_value()
    try:
        dh.get_project(other).get_secret("key").read_secret_value()
        reached = "all of it"
    except Exception as exc:
        reached = type(exc).__name__
    return {"child": run.result("output_0"), "note": again, "secret": secret, "other": reached}
"""

project = dh.get_or_create_project(sys.argv[1])
project.new_secret("key", secret_value="own")
other = dh.get_or_create_project(sys.argv[1] + "x")
other.new_secret("key", secret_value="foreign")
python = f"PYTHON3_{sys.version_info[1]}"
for name, needs in (("child", []), ("parent", ["digitalhub==" + version("digitalhub")])):
    function = project.new_function(
        name, kind="python", python_version=python, code=CODE.replace("import digitalhub as dh\n", "", not needs),
        handler=name, requirements=needs,
    )  # fmt: skip
run = function.run("job", parameters={"other": other.name}, wait=True)
print(
    "@@"
    + json.dumps(
        {"state": run.status.state, "message": run.status.message, "result": run.result("output_0")}
    )
)
