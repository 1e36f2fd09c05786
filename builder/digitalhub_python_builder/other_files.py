"""Poetry's, pipenv's and conda's files as one `Wanted`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from digitalhub_python_builder import toml
from digitalhub_python_builder.requirement_lines import read_output
from digitalhub_python_builder.requirements import Wanted, parse_requirements, redact
from digitalhub_python_builder.uv_sources import git_url
from digitalhub_runtime_python.errors import EnvironmentFault
from digitalhub_runtime_python.nesting import read_json, read_yaml


def read_poetry(file: Path, extras: Sequence[str] = (), groups: Sequence[str] = ()) -> Wanted:
    """A Poetry project: what its tables ask for, held by the versions and hashes of poetry.lock where there is one.

    Raises:
        EnvironmentFault: a table or the lock says what cannot be carried into an image.
    """
    if not file.is_file():
        raise _fault(Path("poetry.lock"), "its pyproject.toml is not beside it", "Pass both, or poetry export -f requirements.txt.")  # fmt: skip
    content = toml.load(file)
    table = (content.get("tool") or {}).get("poetry") or {}
    lock_file = file.with_name("poetry.lock")
    lock = toml.load(lock_file) if lock_file.is_file() else {}
    tables = _poetry_tables(table, extras, groups, file)
    dependencies = dict(table.get("dependencies") or {})
    python = dependencies.pop("python", None)
    pythons = [(file.name, _poetry_specifier(str(python), file))] if python else []
    lines: list[str] = []
    project = content.get("project") or {}
    lines += [str(one) for one in parse_requirements(project.get("dependencies") or ())]
    for extra in extras:
        lines += (project.get("optional-dependencies") or {}).get(extra) or []
    if project.get("requires-python"):
        pythons.append((file.name, str(project["requires-python"])))
    for name, value in tables:
        for one in value if isinstance(value, list) else [value]:
            lines.append(_poetry_line(name, one, file, locked=bool(lock)))
    if not lines:
        raise _fault(file, "it names no dependencies", "Pass the file that names them.")
    wanted = Wanted(tuple(lines), pythons=tuple(pythons), origins=tuple((line, file.name) for line in lines))  # fmt: skip
    return wanted + _poetry_pins(lock, lock_file) if lock else wanted


def read_pipfile_lock(file: Path, groups: Sequence[str] = ()) -> Wanted:
    """A Pipfile.lock: its default packages, and those of other categories by name (`dev` for `develop`).

    Raises:
        EnvironmentFault: it is not well formed.
    """
    try:
        content = read_json(file.read_text("utf-8-sig"))
        meta = content.get("_meta") or {}
        sections = [content["default"]]
        for group in groups:
            name = "develop" if group in ("dev", "dev-packages") else group
            if name not in content:
                raise _fault(file, f"it has no group {group!r}", f"It has: {', '.join(sorted(set(content) - {'_meta'}))}.")  # fmt: skip
            sections.append(content[name])
    except (ValueError, KeyError, AttributeError) as exc:
        raise _fault(file, "it is not a Pipfile.lock", "Write it again: pipenv lock.") from exc
    version = (meta.get("requires") or {}).get("python_version")
    wanted = Wanted(
        options=tuple(
            ("--index-url" if number == 0 else "--extra-index-url", str(one["url"]))
            for number, one in enumerate(meta.get("sources") or ())
            if "//pypi.org/" not in str(one["url"])
        ),
        pythons=((file.name, f"=={version}.*"),) if version else (),
    )
    for section in sections:
        for name, entry in section.items():
            extras = f"[{','.join(entry['extras'])}]" if entry.get("extras") else ""
            marker = f" ; {entry['markers']}" if entry.get("markers") else ""
            if "git" in entry:
                part = f"#subdirectory={entry['subdirectory']}" if entry.get("subdirectory") else ""
                where = f" @ {git_url(entry['git'])}@{entry.get('ref', 'HEAD')}{part}"
            elif entry.get("path") or entry.get("file"):
                place = str(entry.get("file") or entry.get("path"))
                where = f" @ {place if '://' in place else (file.parent / place).resolve().as_uri()}"  # fmt: skip
            else:
                where = str(entry.get("version") or "").replace("*", "")
            line = f"{name}{extras}{where}{marker}"
            parse_requirements([line])
            hashes = frozenset(entry.get("hashes") or ())
            kept = ((canonicalize_name(name), hashes),) if hashes else ()
            wanted += Wanted((line,), (), kept, origins=((line, file.name),))
    return wanted


def read_conda(file: Path) -> Wanted:
    """The pip part of a conda environment; its other packages are named in a note, for pip has none of them.

    Raises:
        EnvironmentFault: it is not a conda environment, or has no pip part.
    """
    try:
        (content,) = read_yaml(file.read_text("utf-8-sig"))
        items = content["dependencies"]
        packages = [one for one in items if isinstance(one, str)]
        lines = [str(x) for one in items if isinstance(one, dict) for x in one.get("pip") or ()]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise _fault(file, "it is not a conda environment", "Pass environment.yml, or a file with pip requirements.") from exc  # fmt: skip
    names = {re.split(r"[\s=<>!~]", one.rpartition("::")[2].strip())[0]: one for one in packages}
    python = names.pop("python", "")
    others = sorted(set(names) - {"pip", "setuptools", "wheel"})
    if not lines:
        listed = ", ".join(others[:6]) or "nothing"
        raise _fault(
            file, f"it has no pip part; conda's own packages ({listed}) cannot be installed by pip",
            "Write what the function needs below '- pip:', or take a base image that has it.",
        )  # fmt: skip
    wanted = read_output("\n".join(lines), file)
    version = re.search(r"=+\s*(\d+\.\d+)", python)
    notes: tuple[str, ...] = ()
    if others:
        notes = (
            f"warning: {file.name}: only its pip part is read; conda's packages are not installed: {', '.join(others)}.",
        )
    return wanted + Wanted(
        pythons=((file.name, f"=={version[1]}.*"),) if version else (), notes=notes
    )


def _poetry_tables(
    table: Mapping[str, Any], extras: Sequence[str], groups: Sequence[str], file: Path
) -> Iterator[tuple[str, Any]]:
    known = {canonicalize_name(k): v for k, v in (table.get("extras") or {}).items()}
    for extra in extras:
        if canonicalize_name(extra) not in known:
            raise _fault(file, f"it has no extra {extra!r}", f"It has: {', '.join(sorted(known)) or 'none'}.")  # fmt: skip
    optional = {canonicalize_name(n) for e in extras for n in known[canonicalize_name(e)]}
    for name, value in (table.get("dependencies") or {}).items():
        left_out = isinstance(value, dict) and value.get("optional")
        if name != "python" and (not left_out or canonicalize_name(name) in optional):
            yield name, value
    sections = {k: v.get("dependencies") or {} for k, v in (table.get("group") or {}).items()}
    if table.get("dev-dependencies"):
        sections.setdefault("dev", table["dev-dependencies"])
    for group in groups:
        if group not in sections:
            raise _fault(file, f"it has no group {group!r}", f"It has: {', '.join(sorted(sections)) or 'none'}.")  # fmt: skip
        yield from sections[group].items()


def _poetry_line(name: str, value: Any, file: Path, *, locked: bool) -> str:
    entry = {"version": value} if isinstance(value, str) else dict(value)
    extras = f"[{','.join(entry['extras'])}]" if entry.get("extras") else ""
    markers = [f"({entry['markers']})"] if entry.get("markers") else []
    if entry.get("python"):
        markers += [f"python_version {one[:2] if one[1] in '=' else one[:1]} '{one.lstrip('<>=!~')}'" for one in _poetry_specifier(str(entry["python"]), file).split(",")]  # fmt: skip
    if entry.get("platform"):
        markers.append(f"sys_platform == '{entry['platform']}'")
    marker = f" ; {' and '.join(markers)}" if markers else ""
    if "git" in entry:
        ref = next((str(entry[k]) for k in ("rev", "tag", "branch") if entry.get(k)), "")
        part = f"#subdirectory={entry['subdirectory']}" if entry.get("subdirectory") else ""
        where = f" @ {git_url(str(entry['git']))}{f'@{ref}' if ref else ''}{part}"
    elif "url" in entry:
        where = f" @ {entry['url']}"
    elif entry.get("path") or entry.get("file"):
        where = f" @ {(file.parent / str(entry.get('path') or entry['file'])).resolve().as_uri()}"
    elif entry.get("source") and not locked:
        raise _fault(
            file, f"{name} comes from the source {entry['source']!r}, and without poetry.lock another index could stand in for it",
            "Run poetry lock, and pass poetry.lock.",
        )  # fmt: skip
    else:
        # The lock has the versions; what it may not be is then no matter.
        where = "" if locked else _poetry_specifier(str(entry.get("version") or "*"), file)
    line = f"{name}{extras}{where}{marker}"
    parse_requirements([line])
    return line


def _poetry_specifier(text: str, file: Path) -> str:
    """Poetry's constraint as PEP 440's: `^1.2` is `>=1.2,<2`."""
    if "|" in text:
        raise _fault(file, f"the constraint {text!r} is an alternative, which pip has no words for", "Run poetry lock, and pass poetry.lock.")  # fmt: skip
    parts = [_one_specifier(one.strip()) for one in re.split(r"[,\s](?=\s*[<>=!~^\d*])", re.sub(r"([<>=!~^])\s+", r"\1", text)) if one.strip()]  # fmt: skip
    return ",".join(part for part in parts if part)


def _one_specifier(text: str) -> str:
    if text in ("*", ""):
        return ""
    numbers = [int(n) for n in re.findall(r"\d+", text.split("-")[0].split("+")[0])]
    if text.startswith("^"):
        at = next((i for i, n in enumerate(numbers) if n), len(numbers) - 1)
        upper = [*numbers[:at], numbers[at] + 1]
        return f">={text[1:]},<{'.'.join(map(str, upper))}"
    if text.startswith("~") and not text.startswith("~="):
        upper = [*numbers[: max(1, min(2, len(numbers)) - 1)], numbers[min(2, len(numbers)) - 1] + 1] if len(numbers) > 1 else [numbers[0] + 1]  # fmt: skip
        return f">={text[1:]},<{'.'.join(map(str, upper))}"
    if re.match(r"\d", text):
        return f"=={text}"
    return text if not text.startswith("=") or text.startswith("==") else f"={text}"


def _poetry_pins(lock: Mapping[str, Any], file: Path) -> Wanted:
    packages = lock.get("package") or []
    names = [canonicalize_name(str(one["name"])) for one in packages]
    old_files = (lock.get("metadata") or {}).get("files") or {}  # before Poetry 1.3
    wanted = Wanted()
    for one, name in zip(packages, names):
        source = one.get("source") or {}
        files = one.get("files") or old_files.get(one["name"]) or []
        hashes = frozenset(str(f["hash"]) for f in files if f.get("hash"))
        options: tuple[tuple[str, str], ...] = ()
        constraint = f"{one['name']}=={one['version']}"
        if source.get("type") == "git":
            constraint = f"{one['name']} @ {git_url(source['url'])}@{source['resolved_reference']}"
            hashes = frozenset()
        elif source.get("type") in ("directory", "file", "url"):
            constraint, hashes = "", frozenset()
        elif source.get("type") == "legacy":
            options = (("--extra-index-url", str(source["url"])),)
        markers = one.get("markers")
        if isinstance(markers, str) and constraint and "extra" not in markers:
            constraint += f" ; {markers}"
        elif names.count(name) > 1:
            constraint = ""  # which version is whose is in nobody's marker; their hashes hold it
        kept = ((name, hashes),) if hashes else ()
        wanted += Wanted((), (constraint,) if constraint else (), kept, options)
    return wanted


def _fault(file: Path, why: str, hint: str) -> EnvironmentFault:
    return EnvironmentFault(
        "environment/requirements-file",
        f"The requirements in {file.name} cannot be used: {redact(why)}.",
        hint,
    )
