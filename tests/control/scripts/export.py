"""A project written to YAML, deleted with all that is in it, and brought back."""

import json
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import digitalhub as dh

name = sys.argv[1]
seen = {}
project = dh.get_or_create_project(name)
Path("data.txt").write_text("bytes")
logged = project.log_artifact("data", kind="artifact", source="data.txt", embedded=True)
project.log_model("model", kind="model", source="data.txt")
seen["exported"] = Path(logged.export()).is_file()
entity_file = logged.export()
file = dh.get_project(name).export()
seen["project_file"] = Path(file).is_file()

dh.delete_project(name, cascade=True, clean_context=True)
seen["gone"] = name not in [one.name for one in dh.list_projects()]
again = dh.import_project(file)
seen["artifacts"] = [one.name for one in again.list_artifacts()]
seen["same_id"] = again.get_artifact("data").id == logged.id

try:
    dh.import_artifact(entity_file)
except Exception as exc:
    seen["duplicate"] = type(exc).__name__
again.delete_artifact("data", delete_all_versions=True)
seen["after_delete"] = [one.name for one in again.list_artifacts()]
seen["loaded"] = dh.load_artifact(entity_file).name
seen["loaded_again"] = dh.load_artifact(entity_file).name
seen["after_load"] = [one.name for one in again.list_artifacts()]
seen["project_loaded"] = dh.load_project(file).name
other = dh.get_or_create_project(name + "-b")
moved = dh.import_artifact(entity_file, context=other.name)
seen["moved"] = [one.key for one in other.list_artifacts()] == [
    logged.key.replace(name, other.name)
]
dh.delete_project(name, cascade=True)
print("@@" + json.dumps(seen))
