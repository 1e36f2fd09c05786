"""120 MB up in parts and down again in ranges, with the SDK."""

import hashlib
import json
import os
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
import digitalhub as dh

project = dh.get_or_create_project(sys.argv[1])
content = os.urandom(1 << 20) * 120
Path("big.bin").write_bytes(content)
artifact = project.log_artifact("big", kind="artifact", source="big.bin")
del content
fresh = project.get_artifact(artifact.key)
path = fresh.download("down/", overwrite=True)


def digest(path):
    md5 = hashlib.md5()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            md5.update(piece)
    return md5.hexdigest()


Path("folder/sub").mkdir(parents=True)
for number in range(12):
    Path(f"folder/sub/{number}.txt").write_text(str(number))
folder = project.log_artifact("folder", kind="artifact", source="folder/")
down = project.get_artifact(folder.key).download("folder-down/", overwrite=True)
files = sorted(p.name for p in Path(down).rglob("*.txt"))
print("@@" + json.dumps({"same": digest(path) == digest("big.bin"), "files": files}))
