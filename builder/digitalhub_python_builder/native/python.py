"""Where Python lives in a base image, read from its configuration and files."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name

from digitalhub_python_builder.native.tree import Tree
from digitalhub_runtime_python.errors import EnvironmentFault

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIBRARY = re.compile(r"(.*/)?lib(?:64)?/python(3\.\d+)/os\.py")
_INFO = re.compile(r"([^/]+?)-([^/-]+)\.dist-info")
_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
_NEWEST_MANYLINUX = 40
"""The newest glibc 2.x that uv knows a name for; a newer one runs what was made for it."""


@dataclass(frozen=True)
class Python:
    """The Python of an image; paths are absolute and free of links."""

    version: str
    """`3.11`; empty where there is no Python."""
    program: str = ""
    """What `python3` is on the image's PATH."""
    prefix: str = ""
    site: str = ""
    """Where packages are put."""
    paths: tuple[str, ...] = ()
    """Where it finds packages, `site` first."""
    libc: str = ""
    """`glibc 2.36`, `musl`, or empty where it cannot be told."""
    found: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """Installed distribution -> (version, path of its dist-info)."""

    def tag(self, platform: str) -> str:
        """The platform as uv names it."""
        machine = _MACHINES[platform]
        if self.libc == "musl":
            return f"{machine}-unknown-linux-musl"
        glibc = re.fullmatch(r"glibc 2\.(\d+)", self.libc)
        minor = min(int(glibc[1]), _NEWEST_MANYLINUX) if glibc else 28
        known = [one for one in (17, *range(27, _NEWEST_MANYLINUX + 1)) if one <= minor and one not in (29, 30)]  # fmt: skip
        return f"{machine}-manylinux_2_{known[-1] if known else 17}"


def locate(tree: Tree, config: Mapping[str, Any]) -> Python:
    """The Python that `python3` starts in an image; one with an empty version where there is none."""
    variables = dict(
        one.partition("=")[::2] for one in (config.get("config") or {}).get("Env") or ()
    )
    folders = [one for one in variables.get("PATH", _PATH).split(":") if one.startswith("/")]
    for folder in folders:
        path = posixpath.join(folder, "python3")
        if tree.is_file(path):
            return _python(tree, path)
    return Python("")


def _python(tree: Tree, path: str) -> Python:
    program = f"/{tree.resolve(path)}"
    # A virtual environment has its settings beside the folder of its python3, which leads out of it.
    own = posixpath.dirname(posixpath.dirname(f"/{_folder(tree, path)}"))
    settings = tree.text(f"{own}/pyvenv.cfg")
    base = posixpath.dirname(posixpath.dirname(program))
    version = _version(tree, base, program)
    if not version:
        return Python("")
    if settings:
        site = _site(tree, own, version)
        shared = re.search(r"include-system-site-packages\s*=\s*true", settings, re.I)
        paths = [site, *(_paths(tree, base, version) if shared else [])]
        prefix, started = own, path
    else:
        paths = _paths(tree, base, version)
        prefix, started = _prefix_of(paths[0]), path
    libc = _libc(tree)
    return Python(
        version, started, prefix, paths[0], tuple(paths), libc, _distributions(tree, paths)
    )


def _folder(tree: Tree, path: str) -> str:
    """A path whose folder is free of links; itself it may be one."""
    return posixpath.join(tree.resolve(posixpath.dirname(path)), posixpath.basename(path))


def _version(tree: Tree, base: str, program: str) -> str:
    named = re.search(r"python(3\.\d+)$", program)
    found = {m[2] for one in tree.nodes if (m := _LIBRARY.fullmatch(f"/{one}")) and (m[1] or "").rstrip("/") == base}  # fmt: skip
    if named and (not found or named[1] in found):
        return named[1]
    return found.pop() if len(found) == 1 else ""


def _paths(tree: Tree, base: str, version: str) -> list[str]:
    """Where an interpreter looks for packages, the folder that pip installs to first."""
    library = f"{base}/lib/python{version}"
    # Debian's own keeps what dpkg installs apart from what others do.
    if base == "/usr" and tree.is_folder("/usr/lib/python3/dist-packages"):
        return [f"/usr/local/lib/python{version}/dist-packages", "/usr/lib/python3/dist-packages"]
    return [_site(tree, base, version), *([f"{library}/dist-packages"] if tree.is_folder(f"{library}/dist-packages") else [])]  # fmt: skip


def _site(tree: Tree, prefix: str, version: str) -> str:
    for library in ("lib", "lib64"):
        path = f"{prefix}/{library}/python{version}/site-packages"
        if tree.is_folder(path):
            return f"/{tree.resolve(path)}"
    return f"{prefix}/lib/python{version}/site-packages"


def _prefix_of(site: str) -> str:
    return posixpath.normpath(posixpath.join(site, "..", "..", ".."))


def _libc(tree: Tree) -> str:
    if any(re.fullmatch(r"(usr/)?lib/ld-musl-\w+\.so\.1", path) for path in tree.nodes):
        return "musl"
    versions = [v for p, v in tree.contents.items() if "libc" in p.rpartition("/")[2] and v]
    return f"glibc {versions[0]}" if versions else ""


def _distributions(tree: Tree, paths: Sequence[str]) -> dict[str, tuple[str, str]]:
    """What is installed, by its normalised name; of two, the one that Python finds first."""
    found: dict[str, tuple[str, str]] = {}
    places = {path.lstrip("/"): number for number, path in enumerate(paths)}
    ordered = sorted(tree.nodes, key=lambda one: (places.get(posixpath.dirname(one), 99), one))
    for path in ordered:
        folder, name = posixpath.split(path)
        if folder in places and (match := _INFO.fullmatch(name)):
            found.setdefault(canonicalize_name(match[1]), (match[2], f"/{path}"))
    return found


def check(python: Python, reference: str, wanted: str) -> None:
    """Refuse an image whose Python is another.

    Raises:
        EnvironmentFault: it is.
    """
    if python.version != wanted:
        what = f"has Python {python.version}" if python.version else "has no python3"
        raise EnvironmentFault(
            "build/base-image-python",
            f"The base image {reference} {what}; the function wants {wanted}.",
            "Choose a base image with that Python, or change the function's python_version.",
        )
