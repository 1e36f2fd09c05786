"""`[tool.uv.sources]`: a name that is not to come from the package index, as the URL or the files that are meant."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from digitalhub_python_builder import toml
from digitalhub_python_builder.interpreters import find_uv, uv_environment
from digitalhub_python_builder.requirement_lines import read_output
from digitalhub_python_builder.requirements import Wanted, check_url, parse_requirements, redact
from digitalhub_runtime_python.errors import EnvironmentFault

_SCP = re.compile(r"(?P<user>[A-Za-z0-9._-]+@)(?P<host>[A-Za-z0-9.-]+):(?P<path>[^/].*)")


def lowered(
    lines: Sequence[str], content: Mapping[str, Any], file: Path, environ: Mapping[str, str]
) -> Wanted:
    """A project's requirements with what its `[tool.uv]` says about them.

    Args:
        content: the pyproject.toml or a script's block.
        environ: uv's settings, to look into named indexes.

    Raises:
        EnvironmentFault: a source is of a kind that cannot be carried into an image.
    """
    table = (content.get("tool") or {}).get("uv") or {}
    if table.get("override-dependencies"):
        raise _fault(file, "it has override-dependencies, which only uv knows", "Lock it: uv lock, and pass uv.lock.")  # fmt: skip
    sources = {canonicalize_name(k): v for k, v in _all_sources(content, file).items()}
    indexes = {str(one.get("name")): one for one in table.get("index") or ()}
    wanted = Wanted(
        constraints=tuple(map(str, parse_requirements(table.get("constraint-dependencies") or ()))),
        options=tuple(
            ("--index-url" if one.get("default") else "--extra-index-url", _index_url(one, file))
            for one in indexes.values()
            if not one.get("explicit")
        ),
    )
    for requirement in parse_requirements(lines):
        source = sources.get(canonicalize_name(requirement.name))
        if source is None:
            wanted += Wanted((str(requirement),), origins=((str(requirement), file.name),))
            continue
        for one in [source] if isinstance(source, Mapping) else source:
            wanted += _one(requirement, one, file, indexes, environ)
    return wanted


def _one(
    requirement: Requirement,
    source: Mapping[str, Any],
    file: Path,
    indexes: Mapping[str, Mapping[str, Any]],
    environ: Mapping[str, str],
) -> Wanted:
    marker = " and ".join(f"({one})" for one in (requirement.marker, source.get("marker")) if one)
    if source.get("extra") or source.get("group"):
        raise _fault(file, f"the source of {requirement.name} is for an extra or a group", "Lock it: uv lock, and pass uv.lock.")  # fmt: skip
    if "index" in source:
        return _from_index(requirement, marker, str(source["index"]), file, indexes, environ)
    if "git" in source:
        url = git_url(str(source["git"]))
        ref = next((str(source[k]) for k in ("rev", "tag", "branch") if source.get(k)), "")
        part = f"#subdirectory={source['subdirectory']}" if source.get("subdirectory") else ""
        url = f"{url}{f'@{ref}' if ref else ''}{part}"
    elif "url" in source:
        part = f"#subdirectory={source['subdirectory']}" if source.get("subdirectory") else ""
        url = f"{source['url']}{part}"
    elif "path" in source:
        path = (file.parent / str(source["path"])).resolve()
        if not path.exists():
            raise _fault(file, f"the source of {requirement.name} is not there: {path}", "Check the path.")  # fmt: skip
        url = path.as_uri()
    elif source.get("workspace"):
        url = _member(requirement.name, file).as_uri()
    else:
        raise _fault(file, f"the source of {requirement.name} is of an unknown kind", "Use git, url, path, workspace or index.")  # fmt: skip
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    line = f"{requirement.name}{extras} @ {url}{f' ; {marker}' if marker else ''}"
    parse_requirements([line])
    return Wanted((line,), origins=((line, f"{file.name}, tool.uv.sources"),))


def git_url(url: str) -> str:
    """A repository as pip writes it: with `git+`, and with `ssh://` for `user@host:path`."""
    scp = _SCP.fullmatch(url)
    if scp:
        return f"git+ssh://{scp['user']}{scp['host']}/{scp['path']}"
    if url.startswith("/"):
        return f"git+file://{url}"
    return url if url.startswith("git+") else f"git+{url}"


def _from_index(
    requirement: Requirement,
    marker: str,
    name: str,
    file: Path,
    indexes: Mapping[str, Mapping[str, Any]],
    environ: Mapping[str, str],
) -> Wanted:
    """The package as that index has it, held fast by its hashes: no other index can stand in for it."""
    if name not in indexes:
        raise _fault(file, f"the index {name!r} of {requirement.name} is not among [[tool.uv.index]]", "Add it.")  # fmt: skip
    url = _index_url(indexes[name], file)
    plain = Requirement(str(requirement))
    plain.marker = None
    command = [
        find_uv(),
        "pip",
        "compile",
        "-",
        "--quiet",
        "--no-deps",
        "--universal",
        "--no-header",
        "--no-annotate",
    ]
    command += ["--generate-hashes", "--no-python-downloads", "--no-config"]  # fmt: skip
    settings = {k: v for k, v in uv_environment(environ).items() if not k.startswith(("UV_INDEX", "UV_EXTRA", "UV_DEFAULT"))}  # fmt: skip
    done = subprocess.run(
        command, input=str(plain), cwd=os.sep, env={**settings, "UV_DEFAULT_INDEX": url}, capture_output=True, text=True
    )  # fmt: skip
    if done.returncode:
        reason = " ".join(redact(done.stderr).split())[:400]
        raise _fault(file, f"{requirement.name} is not to be found at its index {name!r}: {reason}", "Check the index, or lock it: uv lock.")  # fmt: skip
    part = read_output(done.stdout, file)
    lines = []
    for one in parse_requirements(part.lines):
        both = " and ".join(f"({m})" for m in (one.marker, marker) if m)
        one.marker = None
        lines.append(f"{one}{f' ; {both}' if both else ''}")
    return Wanted(tuple(lines), (), part.hashes, (("--extra-index-url", url),), origins=tuple((line, file.name) for line in lines))  # fmt: skip


def _index_url(index: Mapping[str, Any], file: Path) -> str:
    url = str(index.get("url") or "")
    check_url(f"{file.name}: index {index.get('name') or url}", url)
    return url


def _all_sources(content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The project's own sources over those of its workspace."""
    root = _workspace(file)
    shared: dict[str, Any] = {}
    if root is not None and root != file.parent:
        shared = ((toml.load(root / "pyproject.toml").get("tool") or {}).get("uv") or {}).get("sources") or {}  # fmt: skip
    own = ((content.get("tool") or {}).get("uv") or {}).get("sources") or {}
    return {**shared, **own}


def _workspace(file: Path) -> Path | None:
    for folder in (file.parent, *file.parent.parents):
        if (folder / "pyproject.toml").is_file():
            table = (toml.load(folder / "pyproject.toml").get("tool") or {}).get("uv") or {}
            if "workspace" in table:
                return folder
    return None


def _member(name: str, file: Path) -> Path:
    root = _workspace(file.resolve())
    if root is not None:
        table = toml.load(root / "pyproject.toml")["tool"]["uv"]["workspace"]
        found = [root, *(path for glob in table.get("members") or () for path in sorted(root.glob(glob)))]  # fmt: skip
        for folder in found:
            if (folder / "pyproject.toml").is_file():
                project = toml.load(folder / "pyproject.toml").get("project") or {}
                if canonicalize_name(str(project.get("name") or "")) == canonicalize_name(name):
                    return folder
    raise _fault(file, f"the workspace has no member {name}", "Check [tool.uv.workspace].")


def _fault(file: Path, why: str, hint: str) -> EnvironmentFault:
    return EnvironmentFault(
        "environment/requirements-file",
        f"The requirements in {file.name} cannot be used: {redact(why)}.",
        hint,
    )
