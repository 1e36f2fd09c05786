"""More entities than fit on a page, made and listed with the SDK."""

import json
import sys
import warnings

warnings.simplefilter("ignore")
import digitalhub as dh

project = dh.get_or_create_project(sys.argv[1])
for number in range(60):
    project.new_artifact(f"a{number}", kind="artifact", path=f"s3://bucket/{number}")
names = [one.name for one in project.list_artifacts()]
print("@@" + json.dumps({"names": names}))
