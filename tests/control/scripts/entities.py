"""A user's day with the SDK: projects and everything in them that needs no function."""

import json
import sys
import warnings

warnings.simplefilter("ignore")
import digitalhub as dh
import pandas as pd

name = sys.argv[1]
seen = {}

project = dh.get_or_create_project(name)
seen["created"] = project.key
seen["again"] = dh.get_or_create_project(name).key
seen["listed"] = name in [one.name for one in dh.list_projects()]

# Artifacts
with open("note.txt", "w") as file:
    file.write("hello")
artifact = project.log_artifact("note", kind="artifact", source="note.txt")
seen["artifact_path"] = artifact.spec.path
fresh = project.get_artifact(artifact.key)
with open(fresh.download("down/", overwrite=True)) as file:
    seen["downloaded"] = file.read()
seen["artifact_state"] = fresh.status.state
second = project.log_artifact("note", kind="artifact", source="note.txt")
seen["latest"] = project.get_artifact("note").id == second.id
seen["versions"] = len(project.get_artifact_versions("note"))
seen["listed_artifacts"] = len(project.list_artifacts())

try:
    project.new_artifact("note", kind="artifact", uuid=artifact.id, path="s3://bucket/x")
except Exception as exc:
    seen["duplicate"] = type(exc).__name__

# Dataitems
frame = pd.DataFrame({"x": [1, 2, 3], "y": [0.5, float("nan"), 1.5]})
item = project.log_dataitem("table", kind="table", data=frame)
back = project.get_dataitem(item.key).as_df()
seen["frame"] = [list(map(int, back["x"])), int(back["y"].isna().sum())]

# Models and metrics
model = project.log_model("model", kind="model", source="note.txt")
model.log_metric("loss", [0.5, 0.25])
model.log_metrics({"accuracy": 0.75})
fresh_model = project.get_model(model.key)
metrics = fresh_model.metrics if hasattr(fresh_model, "metrics") else fresh_model.status.metrics
seen["metrics"] = {key: metrics[key] for key in ("loss", "accuracy")}

# Secrets
project.new_secret("token", secret_value="s3cr3t-välue")
seen["secret"] = project.get_secret("token").read_secret_value()
project.get_secret("token").set_secret_value("other")
seen["secret_changed"] = project.get_secret("token").read_secret_value()

# Labels and search
labelled = project.new_artifact("labelled", kind="artifact", path="s3://bucket/some/file.txt")
labelled.metadata.labels = ["red", "big one"]
labelled.metadata.description = "A description of the thing"
labelled.save(update=True)


def found(**kwargs):
    result = project.search_entity(**kwargs)
    living = result[0] if isinstance(result, tuple) else result
    return sorted(one.name for one in living)


seen["search_label"] = found(labels=["red"])
seen["search_label_none"] = found(labels=["re"])
seen["search_name"] = found(name="note", entity_types=["artifact"])
seen["search_words"] = found(query="description thing")
seen["search_types"] = found(entity_types=["model", "dataitem"])

# What is not there
try:
    project.get_artifact(f"store://{name}/artifact/artifact/none:{'0' * 32}")
except Exception as exc:
    seen["missing"] = type(exc).__name__
artifact.export()
print("@@" + json.dumps(seen))
