"""The project's base images: their names, their locks, and how one is told from others."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from digitalhub_python_builder.references import parse

FILES = re.compile(r"(oci|oci-archive|docker-archive):(.+)")
"""A base image that is a file or a folder: `oci:/path[:name]`, `docker-archive:/path.tar`."""
LABEL = "io.digitalhub.runtime"
"""On every image that has the runtime."""
INIT = "io.digitalhub.init"
"""`none` on those of them where Python is process 1."""


def folder() -> Path:
    """The folder `images`: in the source tree, or where the package carries it."""
    here = Path(__file__).resolve().parent
    installed = here / "images"
    return installed if installed.is_dir() else here.parents[1] / "images"


@lru_cache(maxsize=1)
def matrix() -> dict[str, Any]:
    """images/matrix.json: the Pythons and flavours that there are."""
    content: dict[str, Any] = json.loads((folder() / "matrix.json").read_text("utf-8"))
    return content


def reference(python: str, flavour: str, environ: Mapping[str, str]) -> str:
    """The base image of a Python and flavour; `DHPY_IMAGES` names the registry they are in."""
    prefix = environ.get("DHPY_IMAGES", "").strip().rstrip("/")
    name = f"{prefix}/{matrix()['name']}" if prefix else matrix()["name"]
    return f"{name}:{python}-{flavour}"


def lock_of(python: str, flavour: str) -> str:
    """The lock that a base image was made from; empty where there is none."""
    file = folder() / "locks" / f"{python}-{flavour}.txt"
    return file.read_text("utf-8") if file.is_file() else ""


def has_runtime(reference: str, labels: Mapping[str, str]) -> bool:
    """Whether an image is one of ours, or was made from one."""
    return labels.get(LABEL) == "python" or is_own(reference)


def is_own(reference: str) -> bool:
    """Whether a reference is the name of one of the project's base images."""
    return not FILES.match(reference) and parse(reference).repository.rpartition("/")[2] == matrix()["name"]  # fmt: skip


def flavour_of(reference: str, labels: Mapping[str, str]) -> str:
    """`slim` or `full`; of an image that says neither, full."""
    tag = "" if FILES.match(reference) else parse(reference).tag
    return labels.get("io.digitalhub.flavour") or ("slim" if tag.endswith("-slim") else "full")


def host_platform() -> str:
    """This machine as a platform of images: `linux/amd64`."""
    return "linux/arm64" if platform.machine() in ("arm64", "aarch64") else "linux/amd64"
