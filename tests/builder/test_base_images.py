"""Base images without a clone and a daemon, made through the command; the container suites run the ones of Docker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from standin_layout import write_base

CLI = [sys.executable, "-c", "from digitalhub_runtime_python.cli import main; main()"]
SITE = "usr/local/lib/python3.11/site-packages"


def _dhpy(cache: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    alone = {"DHPY_CACHE": str(cache), "DOCKER_HOST": "unix:///nowhere", "CONTAINERD_ADDRESS": "/nowhere"}  # fmt: skip
    return subprocess.run([*CLI, *args], env={**os.environ, **alone, **env}, capture_output=True, text=True)  # fmt: skip


def _image(layout: Path) -> tuple[dict[str, Any], set[str]]:
    """(configuration, names of all files) of the image of an OCI layout."""

    def blob(digest: str) -> Path:
        return layout / "blobs" / "sha256" / digest[7:]

    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(blob(index["manifests"][0]["digest"]).read_text())
    names: set[str] = set()
    for layer in manifest["layers"]:
        with tarfile.open(blob(layer["digest"])) as tar:
            names |= set(tar.getnames())
    return json.loads(blob(manifest["config"]["digest"]).read_text())["config"], names


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache, and the slim base image of 3.11 in it and in `out`."""
    place = tmp_path_factory.mktemp("base")
    base = write_base(place / "python")
    given = ["--python", "3.11", "--flavour", "slim", "--base-image", f"oci:{base}"]
    done = _dhpy(place / "cache", "images", "build", *given, "--output", f"oci:{place / 'out'}")
    assert (done.returncode, done.stdout) == (0, "digitalhub-runtime-python:3.11-slim\n"), (
        done.stderr
    )
    return place


def test_a_base_image_holds_the_runtime_its_packages_and_what_nuclio_looks_for(made: Path) -> None:
    config, names = _image(made / "out")
    assert {"opt/dhpy/digitalhub_runtime_python/entry.py", f"{SITE}/dhpy.pth", "opt/nuclio/processor", "shared"} <= names  # fmt: skip
    assert any(name.startswith(f"{SITE}/msgspec/") for name in names)
    assert config["Labels"]["io.digitalhub.python"] == "3.11" and config["User"] == "8877"
    assert config["Entrypoint"][0] == "python3" and "DHPY_HOST=0.0.0.0" in config["Env"]


def test_functions_are_built_on_it_by_its_name_and_have_its_entry_point(
    made: Path, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text("def f():\n    return 1\n")
    given = ["--python-version", "PYTHON3_11", "--flavour", "slim", "--output", f"oci:{tmp_path / 'out'}"]  # fmt: skip
    done = _dhpy(made / "cache", "build", f"{tmp_path / 'main.py'}:f", *given)
    assert done.returncode == 0, done.stderr
    config, names = _image(tmp_path / "out")
    assert config["Entrypoint"][0] == "python3" and "opt/function/code/main.py" in names


def test_what_was_built_here_is_listed_with_its_size(made: Path) -> None:
    (row,) = [
        one
        for one in json.loads(_dhpy(made / "cache", "images", "list", "--json").stdout)
        if one["image"] == "digitalhub-runtime-python:3.11-slim"
    ]
    assert row["platform"].startswith("linux/") and row["size"] > 1_000_000
    assert "digitalhub-runtime-python:3.11-slim" in _dhpy(made / "cache", "images", "list").stdout


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["build", "--python", "2.7"], "usage/python-version"),
        (["build", "--python", "3.11", "--push"], "usage/registry"),
        (["push", "127.0.0.1:1/nothing:1"], "build/image-missing"),
        (["build", "--python", "3.11", "--base-image", "oci:/nowhere"], "build/base-image-missing"),
    ],
)
def test_what_cannot_be_is_one_line_with_its_code(
    tmp_path: Path, args: list[str], code: str
) -> None:
    done = _dhpy(tmp_path, "images", *args)
    assert done.returncode in (2, 15) and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.rstrip().endswith(f"[{code}]")
