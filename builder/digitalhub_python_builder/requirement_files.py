"""Reads requirements from the files that projects keep them in: one `Wanted`, whatever the form."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.dependency_groups import resolve_dependency_groups
from packaging.utils import canonicalize_name

from digitalhub_python_builder import pylock, toml, uv_sources
from digitalhub_python_builder.interpreters import find_uv, uv_environment
from digitalhub_python_builder.other_files import read_conda, read_pipfile_lock, read_poetry
from digitalhub_python_builder.requirement_lines import (
    read_file,
    read_lines,
    read_output,
    read_text,
    to_lines,
)
from digitalhub_python_builder.requirements import Wanted, parse_requirements, redact
from digitalhub_runtime_python.errors import EnvironmentFault

__all__ = ["Wanted", "read", "read_lines", "script_metadata", "to_lines"]

_SCRIPT = re.compile(
    r"(?m)^# /// script\s*$\r?\n(?P<content>(?:^#(?:| .*)$\r?\n)+?)^# ///\s*$", re.M
)
_ELSEWHERE = {
    "pdm.lock": "pdm export --pylock -o pylock.toml",
    "Pipfile": "pipenv lock, and pass Pipfile.lock",
    "conda-lock.yml": "pass environment.yml, whose pip part is read",
    "setup.py": "uv pip compile setup.py -o requirements.txt",
    "setup.cfg": "uv pip compile setup.cfg -o requirements.txt",
    "pixi.lock": "pixi project export conda-environment environment.yml",
    "uv.toml": "pass pyproject.toml or uv.lock",
    "package.json": "pass a file with Python requirements",
}
"""File names that are known and not read -> what to do instead."""


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
        environ: uv's settings, for uv.lock and named indexes; default `os.environ`.

    Raises:
        EnvironmentFault: it cannot be read, names what is not there, or contains what cannot be
            carried into an image.
    """
    try:
        return _read(Path(file), extras, groups, os.environ if environ is None else environ)
    except (ValueError, TypeError, AttributeError, LookupError) as exc:
        # A table where a list belongs, a number where text belongs: there are as many as there are keys.
        raise _fault(file, f"it is not well formed: {exc}", "Correct it, or write it again with the tool that made it.") from exc  # fmt: skip


def _read(
    file: Path, extras: Sequence[str], groups: Sequence[str], environ: Mapping[str, str]
) -> Wanted:
    if not file.is_file():
        raise EnvironmentFault(
            "environment/requirements-file", f"There is no file {file}.", "Check the path."
        )
    name = file.name
    projects = ("pyproject.toml", "uv.lock", "poetry.lock", "Pipfile.lock")
    if (extras or groups) and name not in projects and not pylock.is_name(name):
        what = f"extra {extras[0]!r}" if extras else f"group {groups[0]!r}"
        raise _fault(file, f"it has no {what}", "Extras and groups are a project's: pass pyproject.toml or its lock.")  # fmt: skip
    if name == "uv.lock":
        return _uv_lock(file, extras, groups, environ)
    if pylock.is_name(name):
        return pylock.read(file, extras, groups)
    if name == "pyproject.toml":
        return _pyproject(file, extras, groups, environ)
    if name == "poetry.lock":
        return read_poetry(file.with_name("pyproject.toml"), extras, groups)
    if name == "Pipfile.lock":
        return read_pipfile_lock(file, groups)
    if file.suffix in (".yml", ".yaml") and name not in _ELSEWHERE:
        return read_conda(file)
    if file.suffix == ".py" and name not in _ELSEWHERE:
        return _script(file, environ)
    if name in _ELSEWHERE or name.endswith((".toml", ".lock", ".json", ".cfg")):
        cure = _ELSEWHERE.get(name, "")
        raise _fault(
            file,
            "this form is not read",
            f"Do this first: {cure}." if cure else
            "Use requirements.txt, pyproject.toml, uv.lock, pylock.toml, poetry.lock, Pipfile.lock, environment.yml or a script.",
        )  # fmt: skip
    return read_file(file)


def script_metadata(text: str) -> str:
    """The TOML of a script's `# /// script` block (PEP 723); empty without one."""
    found = _SCRIPT.search(text if text.endswith("\n") else f"{text}\n")
    if found is None:
        return ""
    return "".join(f"{line[2:]}\n" for line in found["content"].splitlines())


def _script(file: Path, environ: Mapping[str, str]) -> Wanted:
    text = script_metadata(read_text(file))
    if not text:
        raise _fault(
            file, "it has no block '# /// script' with its dependencies", "Add one, or pass the file that names them."
        )  # fmt: skip
    try:
        content = toml.loads(text)
    except ValueError as exc:
        raise _fault(file, f"its block is not TOML: {exc}", "Correct it.") from exc
    asks = content.get("requires-python")
    return Wanted(pythons=((file.name, asks),) if asks else ()) + uv_sources.lowered(
        _strings(content.get("dependencies"), file, "dependencies"), content, file, environ
    )


def _pyproject(
    file: Path, extras: Sequence[str], groups: Sequence[str], environ: Mapping[str, str]
) -> Wanted:
    content = toml.load(file)
    project = content.get("project")
    poetry = (content.get("tool") or {}).get("poetry")
    if poetry and not (project and project.get("dependencies")):
        return read_poetry(file, extras, groups)
    if project is None and not content.get("dependency-groups"):
        raise _fault(
            file, "it has no [project] table and so no dependencies", "Pass the file that names them, or add [project]."
        )  # fmt: skip
    project = project or {}
    dynamic = project.get("dynamic") or ()
    lines = _strings(project.get("dependencies"), file, "dependencies")
    if "dependencies" in dynamic:
        lines += _dynamic(content, file, "dependencies")
    optional: dict[str, list[str]] = {
        canonicalize_name(k): _strings(v, file, f"extra {k}")
        for k, v in (project.get("optional-dependencies") or {}).items()
    }
    if extras and "optional-dependencies" in dynamic:
        raise _fault(file, "its extras are dynamic", "Lock it (uv lock) and pass uv.lock.")
    for extra in extras:
        lines += _expand_extra(canonicalize_name(extra), optional, project.get("name", ""), file)
    lines += _groups(content.get("dependency-groups") or {}, groups, file)
    asks = project.get("requires-python")
    python = Wanted(pythons=((file.name, asks),) if asks else ())
    return python + uv_sources.lowered(lines, content, file, environ)


def _dynamic(content: Mapping[str, Any], file: Path, what: str) -> list[str]:
    """Dependencies that setuptools takes from files; others need a build, which is refused."""
    tool = ((content.get("tool") or {}).get("setuptools") or {}).get("dynamic") or {}
    names = (tool.get(what) or {}).get("file")
    if not names:
        raise _fault(
            file, f"its {what} are dynamic: only a build would tell them", "Lock them: uv lock, or uv export -o pylock.toml."
        )  # fmt: skip
    found: list[str] = []
    for name in [names] if isinstance(names, str) else names:
        other = file.parent / name
        if not other.is_file():
            raise _fault(file, f"its {what} are in {name}, which is not there", "Check the path.")
        part = read_file(other)
        if part.options or part.constraints or part.hashes:
            raise _fault(file, f"{name} has options, which setuptools refuses", f"Pass {name} itself.")  # fmt: skip
        found += part.lines
    return found


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


def _groups(known: Mapping[str, Any], groups: Sequence[str], file: Path) -> list[str]:
    names = {canonicalize_name(name) for name in known}
    for group in groups:
        if canonicalize_name(group) not in names:
            raise _unknown(file, "group", group, known)
    try:
        return list(resolve_dependency_groups(known, *groups)) if groups else []
    except Exception as exc:  # a group of errors on some Pythons, one error on others
        inner = getattr(exc, "exceptions", (exc,))[0]
        raise _fault(file, f"its dependency groups are not well formed: {inner}", "Correct them.") from exc  # fmt: skip


def _uv_lock(
    file: Path, extras: Sequence[str], groups: Sequence[str], environ: Mapping[str, str]
) -> Wanted:
    content = toml.load(file)
    # `--frozen` takes the lock as it is; uv reads the project beside it for its name only.
    command = [find_uv(), "export", "--frozen", "--no-emit-project", "--no-header", "--quiet"]
    command += ["--no-annotate", "--no-dev", "--format", "requirements-txt", "--no-python-downloads"]  # fmt: skip
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
            "Run uv lock again, and pass uv.lock beside its pyproject.toml.",
        )
    asks = content.get("requires-python")
    return read_output(done.stdout, file) + Wanted(
        options=tuple(("--extra-index-url", url) for url in _indexes(content)),
        pythons=((file.name, asks),) if asks else (),
    )


def _indexes(content: Mapping[str, Any]) -> list[str]:
    """The indexes besides PyPI that a uv.lock names."""
    found = [(one.get("source") or {}).get("registry", "") for one in content.get("package") or ()]
    others = {url for url in found if "://" in url and "//pypi.org/" not in url}
    return sorted(others)


def _strings(value: object, file: Path, what: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _fault(file, f"its {what} are not a list of strings", "Correct it.")
    return list(value)


def _unknown(file: Path, what: str, name: str, known: Mapping[str, object]) -> EnvironmentFault:
    there = ", ".join(sorted(known)) or "none"
    return _fault(
        file, f"it has no {what} {name!r}, or one that includes itself", f"It has: {there}."
    )


def _fault(file: Path, why: str, hint: str) -> EnvironmentFault:
    return EnvironmentFault(
        "environment/requirements-file",
        f"The requirements in {Path(file).name} cannot be used: {redact(why)}.",
        hint,
    )
