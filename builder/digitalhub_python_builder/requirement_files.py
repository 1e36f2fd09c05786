"""Reads requirements from the files that projects keep them in: one list, whatever the form.

requirements.txt, pyproject.toml (with extras and groups), uv.lock, pylock.toml.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from packaging.utils import canonicalize_name

from digitalhub_python_builder.interpreters import find_uv, uv_environment
from digitalhub_python_builder.requirements import parse_requirements, redact
from digitalhub_runtime_python.errors import EnvironmentFault

_HASH = re.compile(r"\s--hash[= ](\S+)")
_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)[= ]\s*(\S+)")


@dataclass(frozen=True)
class Wanted:
    """Requirements before they are locked."""

    lines: tuple[str, ...] = ()
    """PEP 508."""
    constraints: tuple[str, ...] = ()
    hashes: tuple[tuple[str, frozenset[str]], ...] = ()
    """Name -> the hashes that its file allows; only those are let through."""

    def __add__(self, other: Wanted) -> Wanted:
        return Wanted(
            self.lines + other.lines,
            self.constraints + other.constraints,
            self.hashes + other.hashes,
        )


def read(
    file: Path,
    extras: Sequence[str] = (),
    groups: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Wanted:
    """The requirements in a file; its name says which form it has.

    Args:
        extras: optional dependencies of a project that are wanted too.
        groups: dependency groups of a project that are wanted too.
        environ: uv's settings, for uv.lock.

    Raises:
        EnvironmentFault: it cannot be read, names what is not there, or holds what cannot be
            carried into an image.
    """
    if not file.is_file():
        raise EnvironmentFault(
            "environment/requirements-file", f"There is no file {file}.", "Check the path."
        )
    name = file.name
    if name == "uv.lock":
        return _uv_lock(file, extras, groups, environ or {})
    if name.endswith(".toml") and name.startswith("pylock"):
        return _pylock(_toml(file), file)
    if name == "pyproject.toml":
        return _pyproject(_toml(file), file, extras, groups)
    if name.endswith((".toml", ".lock")):
        raise _fault(
            file,
            "this form is not known",
            "Use requirements.txt, pyproject.toml, uv.lock or pylock.toml.",
        )
    return _requirements_txt(file.read_text("utf-8"), file, ())


def _requirements_txt(text: str, file: Path, above: tuple[Path, ...]) -> Wanted:
    wanted = Wanted()
    for line in _logical_lines(text):
        include = _INCLUDE.fullmatch(line)
        if include:
            other = (file.parent / include[1]).resolve()
            if other in above or not other.is_file():
                raise _fault(
                    file,
                    f"it includes {include[1]}, which is not there or includes it",
                    "Check the path.",
                )
            part = _requirements_txt(other.read_text("utf-8"), other, (*above, file.resolve()))
            if line.startswith(("-c", "--constraint")):
                part = Wanted((), part.lines + part.constraints, part.hashes)
            wanted += part
            continue
        hashes = frozenset(_HASH.findall(line))
        (requirement,) = parse_requirements([_HASH.sub("", line)]) or (None,)
        if requirement is not None:
            kept = ((canonicalize_name(requirement.name), hashes),) if hashes else ()
            wanted += Wanted((str(requirement),), (), kept)
    return wanted


def _logical_lines(text: str) -> list[str]:
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def _pyproject(
    content: Mapping[str, Any], file: Path, extras: Sequence[str], groups: Sequence[str]
) -> Wanted:
    project = content.get("project") or {}
    if "dependencies" in (project.get("dynamic") or ()):
        raise _fault(
            file, "its dependencies are dynamic", "Lock them: uv lock, or uv export -o pylock.toml."
        )
    optional: dict[str, list[str]] = {
        canonicalize_name(k): v for k, v in (project.get("optional-dependencies") or {}).items()
    }
    lines = list(project.get("dependencies") or ())
    for extra in extras:
        lines += _expand_extra(canonicalize_name(extra), optional, project.get("name", ""), file)
    known: dict[str, list[Any]] = {
        canonicalize_name(k): v for k, v in (content.get("dependency-groups") or {}).items()
    }
    for group in groups:
        lines += _expand_group(canonicalize_name(group), known, file, ())
    return Wanted(tuple(str(requirement) for requirement in parse_requirements(lines)))


def _expand_extra(
    extra: str, optional: Mapping[str, list[str]], own: str, file: Path, above: tuple[str, ...] = ()
) -> list[str]:
    if extra not in optional or extra in above:
        raise _unknown(file, "extra", extra, optional)
    lines: list[str] = []
    for requirement in parse_requirements(optional[extra]):
        if own and canonicalize_name(requirement.name) == canonicalize_name(own):
            for other in sorted(requirement.extras):
                lines += _expand_extra(
                    canonicalize_name(other), optional, own, file, (*above, extra)
                )
        else:
            lines.append(str(requirement))
    return lines


def _expand_group(
    group: str, known: Mapping[str, list[Any]], file: Path, above: tuple[str, ...]
) -> list[str]:
    if group not in known or group in above:
        raise _unknown(file, "group", group, known)
    lines: list[str] = []
    for item in known[group]:
        if isinstance(item, dict):
            other = canonicalize_name(str(item.get("include-group", "")))
            lines += _expand_group(other, known, file, (*above, group))
        else:
            lines.append(item)
    return lines


def _pylock(content: Mapping[str, Any], file: Path) -> Wanted:
    lines, hashes = [], []
    for package in content.get("packages") or ():
        name = str(package.get("name", ""))
        marker = f" ; {package['marker']}" if package.get("marker") else ""
        if package.get("version") and (package.get("wheels") or package.get("sdist")):
            lines.append(f"{name}=={package['version']}{marker}")
        elif "vcs" in package:
            lines.append(f"{name} @ {_vcs_url(package['vcs'], file)}{marker}")
        elif "archive" in package and package["archive"].get("url"):
            lines.append(f"{name} @ {package['archive']['url']}{marker}")
        elif package.get("directory", {}).get("path") == ".":
            continue  # the project itself
        else:
            raise _fault(
                file, f"{name} is a folder of this machine", "An image can hold only what an index or a repository has."
            )  # fmt: skip
        found = [*package.get("wheels", ()), package.get("sdist") or {}]
        allowed = {f"{kind}:{v}" for one in found for kind, v in one.get("hashes", {}).items()}
        if allowed:
            hashes.append((canonicalize_name(name), frozenset(allowed)))
    parsed = tuple(str(requirement) for requirement in parse_requirements(lines))
    return Wanted(parsed, (), tuple(hashes))


def _vcs_url(vcs: Mapping[str, Any], file: Path) -> str:
    if vcs.get("type") != "git" or not vcs.get("url"):
        raise _fault(file, "it has a repository that is not git", "Use git.")
    part = f"#subdirectory={vcs['subdirectory']}" if vcs.get("subdirectory") else ""
    return f"git+{vcs['url']}@{vcs.get('commit-id', 'HEAD')}{part}"


def _uv_lock(
    file: Path, extras: Sequence[str], groups: Sequence[str], environ: Mapping[str, str]
) -> Wanted:
    # `--frozen` takes the lock as it is; uv reads the project beside it for its name only.
    command = [find_uv(), "export", "--frozen", "--no-emit-project", "--no-header", "--quiet"]
    command += ["--no-annotate", "--no-dev", "--format", "requirements-txt"]
    command += [part for extra in extras for part in ("--extra", extra)]
    command += [part for group in groups for part in ("--group", group)]
    done = subprocess.run(
        command, cwd=file.parent, env=uv_environment(environ), capture_output=True, text=True
    )
    if done.returncode:
        lines = redact(done.stderr).strip().splitlines()
        raise _fault(
            file,
            lines[0].removeprefix("error: ") if lines else "uv cannot read it",
            "Run uv lock again.",
        )
    lines = [line for line in _logical_lines(done.stdout) if line.startswith(("-e", "./", "../"))]
    if lines:
        raise _fault(
            file, f"{lines[0]} is a folder of this machine", "An image can hold only what an index or a repository has."
        )  # fmt: skip
    return _requirements_txt(done.stdout, file, ())


def _toml(file: Path) -> dict[str, Any]:
    parser: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    loads: Callable[[str], dict[str, Any]] = parser.loads
    try:
        return loads(file.read_text("utf-8"))
    except ValueError as exc:
        raise _fault(file, f"it is not TOML: {exc}", "Correct it.") from exc


def _unknown(file: Path, what: str, name: str, known: Mapping[str, object]) -> EnvironmentFault:
    there = ", ".join(sorted(known)) or "none"
    return _fault(
        file, f"it has no {what} {name!r}, or one that includes itself", f"It has: {there}."
    )


def _fault(file: Path, why: str, hint: str) -> EnvironmentFault:
    return EnvironmentFault(
        "environment/requirements-file",
        f"The requirements in {file.name} cannot be used: {why}.",
        hint,
    )
