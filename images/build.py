"""Builds the base images of images/matrix.json with `docker build`, or with buildx bake elsewhere.

    python images/build.py [--python 3.11] [--flavour slim] [--network host] [--push]
    python images/build.py --bake > docker-bake.json    the same rows for `docker buildx bake`

A Python whose own image cannot be had is left out with the reason, unless the matrix requires it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MATRIX = json.loads((HERE / "matrix.json").read_text("utf-8"))


def version() -> str:
    text = (ROOT / "wrapper/digitalhub_runtime_python/_version.py").read_text("utf-8")
    return text.split('"')[1]


def rows(pythons: list[str], flavours: list[str]) -> list[dict[str, str]]:
    """One row per image: its Python, its flavour, its base and its name."""
    return [
        {
            "python": python,
            "flavour": flavour,
            "base": MATRIX["base"].format(python=python),
            "name": f"{MATRIX['name']}:{python}-{flavour}",
        }
        for python in pythons
        for flavour in flavours
    ]


def arguments(row: dict[str, str]) -> dict[str, str]:
    """The build arguments of Dockerfile.base for a row."""
    return {
        "PYTHON_VERSION": row["python"],
        "FLAVOUR": row["flavour"],
        "BASE": row["base"],
        "VERSION": version(),
    }


def bake() -> dict[str, Any]:
    """docker-bake.json: every row, and the build stage of each Python, as targets."""
    targets: dict[str, Any] = {}
    for row in rows(MATRIX["pythons"], list(MATRIX["flavours"])):
        key = f"{row['python'].replace('.', '_')}-{row['flavour']}"
        shared = {"context": ".", "dockerfile": "Dockerfile.base", "args": arguments(row)}
        shared["platforms"] = MATRIX["platforms"]
        targets[key] = {**shared, "tags": [row["name"], f"{row['name']}-{version()}"]}
        if row["flavour"] == "slim":
            tag = row["name"].replace("-slim", "-build")
            targets[key.replace("-slim", "-build")] = {**shared, "target": "build", "tags": [tag]}
    required = [
        f"{p.replace('.', '_')}-{f}" for p in MATRIX["required"] for f in MATRIX["flavours"]
    ]
    return {"group": {"default": {"targets": required}}, "target": targets}


def build(row: dict[str, str], network: str = "", target: str = "", docker: str = "docker") -> bool:
    """Build one row; whether it went well."""
    name = row["name"].replace(f"-{row['flavour']}", "-build") if target else row["name"]
    command = [docker, "build", "--progress=plain", "--file", "Dockerfile.base", "--tag", name]
    command += [part for k, v in arguments(row).items() for part in ("--build-arg", f"{k}={v}")]
    command += ["--network", network] if network else []
    command += ["--target", target] if target else []
    env = {**os.environ, "DOCKER_BUILDKIT": "1"}
    return subprocess.run([*command, "."], cwd=ROOT, env=env, check=False).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", action="append", choices=MATRIX["pythons"])
    parser.add_argument("--flavour", action="append", choices=list(MATRIX["flavours"]))
    parser.add_argument("--network", default="", help="the network of RUN, e.g. host")
    parser.add_argument("--docker", default="docker", help="the docker client to use")
    parser.add_argument(
        "--build-stage", action="store_true", help="keep the build stages as images too"
    )
    parser.add_argument("--push", action="store_true")
    parser.add_argument(
        "--bake", action="store_true", help="print docker-bake.json and build nothing"
    )
    given = parser.parse_args()
    if given.bake:
        print(json.dumps(bake(), indent=2))
        return
    failed = []
    for row in rows(given.python or MATRIX["pythons"], given.flavour or list(MATRIX["flavours"])):
        print(f"=== {row['name']}", flush=True)
        done = build(row, given.network, docker=given.docker)
        if done and given.build_stage and row["flavour"] == "slim":
            done = build(row, given.network, "build", given.docker)
        if done and given.push:
            done = subprocess.run([given.docker, "push", row["name"]], check=False).returncode == 0
        if not done:
            failed.append(row)
    for row in failed:
        needed = row["python"] in MATRIX["required"] or bool(given.python)
        print(f"{row['name']}: not built; {'see above' if needed else 'left out'}", flush=True)
    if any(row["python"] in MATRIX["required"] or given.python for row in failed):
        sys.exit(1)


if __name__ == "__main__":
    main()
