"""Wheels of one's own: made here of repositories, folders and source distributions, for the target; carried into images.

A lock names what it needs by version and hash alone. What no index has as a wheel is built once, in an environment of
its own with the target's Python, kept in the cache by its hash, and put into the image's context.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from platform import machine
from typing import Callable
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from digitalhub_python_builder import caches
from digitalhub_python_builder.interpreters import find_interpreter, find_uv
from digitalhub_python_builder.requirements import redact
from digitalhub_runtime_python.errors import EnvironmentFault

Log = Callable[[str], None]

HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
# Debian bookworm, which our base images have, can take newer ones; who knows what others have.
_GLIBC = 28
_EPOCH = "315532800"
"""1980-01-01, the first day that a zip can have: builds with the same sources are the same wheels."""


def target_tags(python: str, platform: str, *, built_here: bool = False) -> frozenset[Tag]:
    """The tags of wheels that an image for that Python and platform can install.

    Args:
        built_here: also those of wheels that were built on a machine like it.
    """
    machine = _MACHINES[platform]
    old = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    names = []
    for minor in range(_GLIBC, 4, -1):
        names.append(f"manylinux_2_{minor}_{machine}")
        names += [f"{old[minor]}_{machine}"] if minor in old else []
    names += [f"linux_{machine}"] if built_here else []
    version = tuple(int(part) for part in python.split("."))
    interpreter = f"cp{python.replace('.', '')}"
    return frozenset(
        [*cpython_tags(version, platforms=names), *compatible_tags(version, interpreter, names)]
    )


def fits(wheel: str, python: str, platform: str, *, built_here: bool = False) -> bool:
    """Whether an image for that Python and platform can install a wheel of that name."""
    return not target_tags(python, platform, built_here=built_here).isdisjoint(
        parse_wheel_filename(wheel)[3]
    )


def made(
    line: str,
    python: str,
    platform: str,
    environ: Mapping[str, str],
    cache: Path,
    log: Log,
) -> tuple[str, Path]:
    """(lock entry, wheel) of one requirement that names a repository, an archive or a folder, or one version.

    Args:
        line: `name @ URL`, or `name==1.0` and the hashes of its source distribution.
        environ: with which git and pip log in where that is needed.

    Raises:
        EnvironmentFault: it does not build, or not for the target.
    """
    name = re.split(r"[\s=\[]", line, maxsplit=1)[0]
    log(
        f"Building a wheel of {redact(line.splitlines()[0].rstrip(chr(92)).strip())} for Python {python} …"
    )
    with tempfile.TemporaryDirectory(prefix="dhpy-wheel-") as place:
        folder = Path(place, "wheels")
        wanted = Path(place, "wanted.txt")
        wanted.touch(mode=0o600)
        wanted.write_text(_copied(line, Path(place)) + "\n", "utf-8")
        command = [
            find_uv(),
            "tool",
            "run",
            "--quiet",
            "--python",
            str(find_interpreter(python, environ)),
        ]
        command += [
            "--from",
            "pip",
            "pip",
            "wheel",
            "--no-deps",
            "--no-cache-dir",
            "--disable-pip-version-check",
        ]
        command += ["--quiet", "--wheel-dir", str(folder), "-r", str(wanted)]  # fmt: skip
        if " @ " not in line:
            command += ["--no-binary", name]
        settings = {**environ, "SOURCE_DATE_EPOCH": _EPOCH, "UV_PYTHON_DOWNLOADS": "never", "PIP_NO_INPUT": "1"}  # fmt: skip
        if environ.get("UV_DEFAULT_INDEX"):
            settings["PIP_INDEX_URL"] = environ["UV_DEFAULT_INDEX"]
        done = subprocess.run(
            command,
            env=settings,
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        found = sorted(folder.glob("*.whl")) if folder.is_dir() else []
        if done.returncode or len(found) != 1:
            raise _failed(name, done.stderr or done.stdout)
        if not fits(found[0].name, python, platform, built_here=_MACHINES[platform] == machine()):
            raise EnvironmentFault(
                "environment/sdist",
                f"{name} has compiled parts: {found[0].name}, built here, does not run on Python {python}, {platform}.",
                f"Build it on a machine of {platform}, or name a wheel: {name} @ https://host/….whl",
            )
        return kept(found[0], cache)


def kept(wheel: Path, cache: Path) -> tuple[str, Path]:
    """(lock entry, place in the cache) of a wheel.

    Raises:
        EnvironmentFault: the cache cannot be written.
    """
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    target = cache / "wheels" / digest / wheel.name
    if not target.is_file():
        caches.folder(target.parent, cache)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as new:
            new.write(wheel.read_bytes())
        Path(new.name).replace(target)
    name, version, _, _ = parse_wheel_filename(wheel.name)
    return f"{name}=={version} \\\n    --hash=sha256:{digest}", target


def needed(lock: str, cache: Path) -> dict[str, Path]:
    """File name -> place of the wheels of one's own that a lock names."""
    found: dict[str, Path] = {}
    for digest in HASH.findall(lock):
        folder = cache / "wheels" / digest
        for wheel in folder.glob("*.whl") if folder.is_dir() else ():
            found[wheel.name] = wheel
    return dict(sorted(found.items()))


def from_folders(lock: str, folders: Sequence[Path], cache: Path) -> None:
    """Keep those wheels of local folders (`--find-links`) that a lock names."""
    digests = set(HASH.findall(lock))
    for folder in folders:
        for wheel in sorted(folder.glob("*.whl")):
            if hashlib.sha256(wheel.read_bytes()).hexdigest() in digests:
                kept(wheel, cache)


def _copied(line: str, place: Path) -> str:
    """A folder is built from a copy: builds write into it. Histories stay, for versions may come from them."""
    where = line.partition(" @ ")[2].partition(" ;")[0].strip()
    if not where.startswith("file://"):
        return line
    source = Path(unquote(urlsplit(where).path))
    if not source.is_dir():
        return line
    copy = place / "source"
    ignored = shutil.ignore_patterns(".venv", "venv", ".tox", ".nox", "node_modules", "__pycache__", "build", "*.egg-info")  # fmt: skip
    shutil.copytree(source, copy, symlinks=True, ignore=ignored)
    part = urlsplit(where).fragment
    return f"{line.partition(' @ ')[0]} @ {copy.as_uri()}{f'#{part}' if part else ''}"


def _failed(name: str, said: str) -> EnvironmentFault:
    lines = [line.strip() for line in redact(said).splitlines() if line.strip() and not line.startswith("[notice]")]  # fmt: skip
    words = " ".join(lines[-6:]) or "no wheel came of it"
    return EnvironmentFault(
        "environment/sdist",
        f"{name} cannot be built: {words[-700:]}",
        f"Build its wheel yourself and name it ({name} @ file:///…/{name}-….whl), or choose a version that has one.",
    )


def stamp(line: str) -> str:
    """What tells that a local file or folder which a requirement names has changed."""
    where = line.partition(" @ ")[2].partition(" ;")[0].strip()
    if not where.startswith("file://"):
        return ""
    path = Path(unquote(urlsplit(where).path))
    if path.is_file():
        return str(path.stat().st_mtime_ns)
    total = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(set(folders) - {".venv", "venv", ".tox", "node_modules", "__pycache__", "build"})  # fmt: skip
        for name in sorted(files):
            found = Path(folder, name).lstat()
            total.update(f"{folder}/{name} {found.st_size} {found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))  # fmt: skip
    return total.hexdigest()
