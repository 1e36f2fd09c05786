"""pylock.toml (PEP 751), read and written."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.pylock import Package, Pylock, PylockValidationError, is_valid_pylock_path
from packaging.utils import canonicalize_name

from digitalhub_python_builder import toml
from digitalhub_python_builder.interpreters import find_uv, uv_environment
from digitalhub_python_builder.requirements import Wanted, parse_requirements, redact
from digitalhub_runtime_python.errors import EnvironmentFault

# What the marker of a lock file may ask and that of a requirement may not.
_SELECTS = re.compile(r"""(['"])(?P<name>[^'"]+)\1\s+(?P<not>not\s+)?in\s+(?P<what>extras|dependency_groups)""")  # fmt: skip
_TRUE, _FALSE = "python_full_version >= '0'", "python_full_version < '0'"


def is_name(name: str) -> bool:
    """Whether a file of that name is a pylock.toml."""
    return is_valid_pylock_path(Path(name))


def read(file: Path, extras: Sequence[str] = (), groups: Sequence[str] = ()) -> Wanted:
    """What a pylock.toml locks.

    Raises:
        EnvironmentFault: it is not well formed, or locks what cannot be carried into an image.
    """
    content = toml.load(file)
    try:
        found = Pylock.from_dict(content)
    except (PylockValidationError, ValueError) as exc:
        raise _fault(file, f"it is not a pylock.toml: {exc}", "Write it again: uv export --format pylock.toml.") from exc  # fmt: skip
    for what, asked, known in (
        ("extra", extras, found.extras or ()),
        ("group", groups, found.dependency_groups or ()),
    ):
        for name in asked:
            if canonicalize_name(name) not in {canonicalize_name(one) for one in known}:
                raise _fault(file, f"it has no {what} {name!r}", f"It has: {', '.join(known) or 'none'}.")  # fmt: skip
    chosen: dict[str, set[str]] = {
        "extras": {canonicalize_name(name) for name in extras},
        "dependency_groups": {
            canonicalize_name(n) for n in (*groups, *(found.default_groups or ()))
        },
    }
    wanted = Wanted(pythons=((file.name, str(found.requires_python)),) if found.requires_python else ())  # fmt: skip
    for package in found.packages:
        line = _line(package, file, chosen)
        if line:
            hashes = _hashes(package)
            parse_requirements([line])
            kept = ((canonicalize_name(package.name), hashes),) if hashes else ()
            index = (("--extra-index-url", package.index),) if package.index and "//pypi.org/" not in package.index else ()  # fmt: skip
            wanted += Wanted((line,), (), kept, index, origins=((line, file.name),))
    return wanted


def write(lock: str, target: Path, python: str, environ: Mapping[str, str]) -> None:
    """Write a lock of ours as a pylock.toml.

    Raises:
        EnvironmentFault: the index does not answer, or does not have what the lock names any more.
    """
    command = [
        find_uv(),
        "pip",
        "compile",
        "-",
        "--no-deps",
        "--quiet",
        "--format",
        "pylock.toml",
        "--no-header",
    ]
    command += ["--universal", "--python-version", python, "--no-python-downloads", "--no-config", "-o", str(target)]  # fmt: skip
    done = subprocess.run(
        command, input=lock, cwd=os.sep, env=uv_environment(environ), capture_output=True, text=True
    )
    if done.returncode:
        reason = " ".join(redact(done.stderr).split())[:400]
        raise EnvironmentFault(
            "environment/lock",
            f"The lock cannot be written as {target.name}: {reason}",
            "Check the package index; --upgrade locks anew.",
        )


def _line(package: Package, file: Path, chosen: Mapping[str, set[str]]) -> str:
    name = package.name

    def evaluated(match: re.Match[str]) -> str:
        inside = canonicalize_name(match["name"]) in chosen[match["what"]]
        return _TRUE if inside != bool(match["not"]) else _FALSE

    marker = f" ; {_SELECTS.sub(evaluated, str(package.marker))}" if package.marker else ""
    if package.vcs is not None:
        return f"{name} @ {_vcs_url(package.vcs, file)}{marker}"
    if package.directory is not None:
        path = (file.parent / package.directory.path).resolve()
        if path == file.parent.resolve():
            return ""  # the project itself
        part = f"#subdirectory={package.directory.subdirectory}" if package.directory.subdirectory else ""  # fmt: skip
        return f"{name} @ {path.as_uri()}{part}{marker}"
    if package.archive is not None:
        where = package.archive.url or (file.parent / str(package.archive.path)).resolve().as_uri()
        return f"{name} @ {where}{marker}"
    local = [one for one in package.wheels or () if not one.url and one.path]
    if local and len(package.wheels or ()) == 1:
        return f"{name} @ {(file.parent / str(local[0].path)).resolve().as_uri()}{marker}"
    if package.version is None:
        raise _fault(file, f"{name} has neither a version nor a place", "Write it again with the tool that made it.")  # fmt: skip
    return f"{name}=={package.version}{marker}"


def _hashes(package: Package) -> frozenset[str]:
    files: list[Any] = [
        *(package.wheels or ()),
        *(one for one in (package.sdist, package.archive) if one),
    ]
    return frozenset(f"{kind}:{value}" for one in files for kind, value in one.hashes.items())


def _vcs_url(vcs: Any, file: Path) -> str:
    where = vcs.url or (file.parent / str(vcs.path)).resolve().as_uri()
    if vcs.type != "git":
        raise _fault(file, f"it has a repository of kind {vcs.type}", "Use git.")
    part = f"#subdirectory={vcs.subdirectory}" if vcs.subdirectory else ""
    return f"git+{where}@{vcs.commit_id}{part}"


def _fault(file: Path, why: str, hint: str) -> EnvironmentFault:
    return EnvironmentFault(
        "environment/requirements-file",
        f"The requirements in {file.name} cannot be used: {redact(why)}.",
        hint,
    )
