"""Locked requirements as layers: installed by uv for the image's Python, one layer per big wheel.

A layer depends on its wheel and on where Python lives, on nothing else: equal wheels are equal layers in
every image.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import posixpath
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from packaging.utils import canonicalize_name

from digitalhub_python_builder.interpreters import find_interpreter, find_uv, uv_environment
from digitalhub_python_builder.native import layers
from digitalhub_python_builder.native.layers import Entry, Layer
from digitalhub_python_builder.native.python import Python
from digitalhub_python_builder.native.store import Store, canonical, cpus, digest_of
from digitalhub_python_builder.native.tree import Tree
from digitalhub_python_builder.requirements import redact
from digitalhub_runtime_python.errors import EnvironmentFault

Log = Callable[[str], None]

BIG = 4 << 20
"""Bytes of an installed wheel from which it has a layer of its own."""
MOST = 48
"""Layers of that kind; what is smaller than the largest of these goes together. An image has 127 at most."""
_VERSION = 1
"""Part of every key: raise it when the same wheel makes another layer."""
_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?(?:==([^\s;\\]+)|\s*@\s*(\S+))")
_UNCOMPILED = frozenset({"test", "tests"})
"""Folders whose modules are seldom imported: half of what large packages have."""
_SCRIPT = """\
#!{program}
import sys
from {module} import {first}
if __name__ == "__main__":
    sys.exit({call}())
"""


@dataclass(frozen=True)
class Package:
    """One requirement of a lock."""

    name: str
    version: str
    """Of one from a repository or a URL, that."""
    text: str
    """Its lines in the lock."""
    direct: bool = False


@dataclass(frozen=True)
class Target:
    """What packages are installed for."""

    python: Python
    platform: str
    compiler: str
    """An interpreter of the image's version on this machine; empty for none: no bytecode then."""
    folders: Mapping[str, Entry]
    """The folders of the base image."""
    compression: str = "gzip"

    def key(self, package: Package) -> str:
        """What a package's layer depends on."""
        where = [self.python.program, self.python.prefix, self.python.site, self.python.version]
        parts = [_VERSION, package.name, package.text, where, self.python.tag(self.platform), bool(self.compiler), self.compression]  # fmt: skip
        return digest_of(canonical(parts))


def parse(lock: str) -> list[Package]:
    """The packages of a lock, by name."""
    found = []
    for entry in re.split(r"\n(?=\S)", lock.strip()):
        match = _PIN.match(entry)
        if match:
            direct = "--hash=" not in entry
            found.append(Package(canonicalize_name(match[1]), match[2] or match[3], entry, direct))
    return sorted(found, key=lambda one: one.name)


def wanted(lock: str, python: Python) -> list[Package]:
    """What of a lock the base image lacks, or has in another version."""
    return [one for one in parse(lock) if python.found.get(one.name, ("",))[0] != one.version]


def replaced(packages: Sequence[Package], python: Python, tree: Tree, log: Log) -> dict[str, Entry]:
    """What hides the files of those packages that the base image has in another version."""
    gone: set[str] = set()
    for package in packages:
        version, info = python.found.get(package.name, ("", ""))
        if not version:
            continue
        record = tree.text(f"{info}/RECORD")
        if not record:
            log(f"{package.name} {version} of the base image has no RECORD: its files stay below the new ones.")  # fmt: skip
            continue
        site = posixpath.dirname(info)
        gone |= _recorded(record, site, tree) | {one.lstrip("/") for one in (f"{info}/RECORD",)}
        gone |= {p for p in tree.nodes if p.startswith(f"{info.lstrip('/')}/")}
    return layers.whiteouts(_topmost(gone, tree, python))


def make(
    packages: Sequence[Package], target: Target, store: Store, environ: Mapping[str, str], log: Log
) -> list[Layer]:
    """The layers of packages, made where they are not there yet.

    Raises:
        EnvironmentFault: uv cannot install one for the target.
    """
    sizes = {one.name: store.noted("wheels", target.key(one)) for one in packages}
    if any(size is None for size in sizes.values()):
        return _installed(packages, packages, target, store, environ, log)
    groups = _grouped(packages, {k: int(v) for k, v in sizes.items()})
    known = [_known(group, target, store) for group in groups]
    missing = [one for group, layer in zip(groups, known) if layer is None for one in group]
    if missing:
        return _installed(packages, missing, target, store, environ, log)
    return [layer for layer in known if layer is not None]


def compiler_for(version: str, environ: Mapping[str, str]) -> str:
    """An interpreter of a version on this machine; empty where there is none."""
    own = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        return str(own)
    # Interpreters of pyenv and uv lie beside each other, whatever PATH and home say.
    for folder in sorted(own.parents[2].glob(f"*{version}*"), reverse=True):
        program = folder / "bin" / f"python{version}"
        if program.is_file() and os.access(program, os.X_OK):
            return str(program)
    try:
        return str(find_interpreter(version, environ))
    except EnvironmentFault:
        return ""


def compiled(files: Mapping[str, Entry], compiler: str, place: Path) -> dict[str, Entry]:
    """The bytecode of the modules among files; `place` holds it."""
    jobs, found = [], {}
    version = re.search(r"3\.?(\d+)", _cache_tag(compiler)) if compiler else None
    if version is None:
        return {}
    for number, (path, entry) in enumerate(sorted(files.items())):
        folder, name = posixpath.split(path)
        if not name.endswith(".py") or entry.content is None or _UNCOMPILED & set(folder.split("/")):  # fmt: skip
            continue
        source = entry.content
        if isinstance(source, bytes):
            source = place / f"{number}.py"
            source.write_bytes(entry.content if isinstance(entry.content, bytes) else b"")
        target = place / f"{number}.pyc"
        jobs.append([str(source), f"/{path}", str(target)])
        found[f"{folder}/__pycache__/{name[:-3]}.{_cache_tag(compiler)}.pyc"] = Entry(target)
    done = subprocess.run(
        [compiler, "-S", "-B", str(Path(__file__).with_name("bytecode.py"))],
        input=json.dumps(jobs),
        # With the same seed sets have the same order.
        env={"PYTHONHASHSEED": "0", "PATH": os.defpath, "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise EnvironmentFault(
            "build/failed",
            f"The bytecode could not be made by {compiler}: {done.stderr.strip()[-300:]}",
            "See whether that interpreter starts; without it images have no bytecode.",
        )
    return {path: entry for path, entry in found.items() if Path(str(entry.content)).exists()}


def _cache_tag(compiler: str) -> str:
    version = re.search(r"python3\.(\d+)$", compiler) or re.search(r"3\.(\d+)", compiler)
    return f"cpython-3{version[1]}" if version else ""


def _grouped(packages: Sequence[Package], sizes: Mapping[str, int]) -> list[list[Package]]:
    """The packages of each layer: the big ones alone, by name, then all others."""
    ranked = sorted(packages, key=lambda one: (-sizes[one.name], one.name))
    big = {one.name for one in ranked[:MOST] if sizes[one.name] >= BIG}
    alone = [[one] for one in packages if one.name in big]
    rest = [one for one in packages if one.name not in big]
    return [*alone, rest] if rest else alone


def _group_key(group: Sequence[Package], target: Target) -> str:
    return digest_of(canonical([target.key(one) for one in group]))


def _known(group: Sequence[Package], target: Target, store: Store) -> Layer | None:
    noted = store.noted("groups", _group_key(group, target))
    return Layer(**noted) if noted and store.has(noted["digest"]) else None


def _installed(
    packages: Sequence[Package], missing: Sequence[Package], target: Target,
    store: Store, environ: Mapping[str, str], log: Log,
) -> list[Layer]:  # fmt: skip
    log(
        f"Installing {len(missing)} packages for Python {target.python.version} on {target.platform} …"
    )
    with store.scratch() as place:
        prefix = place / "prefix"
        _install(missing, target, prefix, environ, log)
        files = _by_package(prefix, missing, target)
        for one in missing:
            size = sum(_size(entry) for entry in files[one.name].values())
            store.note("wheels", target.key(one), size)
        sizes = {one.name: int(store.noted("wheels", target.key(one)) or 0) for one in packages}

        def layer_of(numbered: tuple[int, list[Package]]) -> Layer:
            number, group = numbered
            known = _known(group, target, store)
            if known is not None:
                return known
            begun = time.monotonic()
            held = {path: entry for one in group for path, entry in files[one.name].items()}
            work = place / str(number)
            work.mkdir()
            held.update(compiled(held, target.compiler, work))
            title = f"{group[0].name} {group[0].version}" if len(group) == 1 else f"{len(group)} packages: {', '.join(one.name for one in group)}"  # fmt: skip
            made = layers.write(store, layers.with_parents(held, target.folders), title=redact(title), compression=target.compression)  # fmt: skip
            store.note("groups", _group_key(group, target), made.record)
            seconds = time.monotonic() - begun
            return dataclasses.replace(made, cause="new", seconds=seconds)

        groups = _grouped(packages, sizes)
        # The largest first: the last one to end is then a small one.
        order = sorted(enumerate(groups), key=lambda one: -max(sizes[p.name] for p in one[1]))
        with ThreadPoolExecutor(max_workers=min(4, cpus())) as pool:
            made = dict(zip((number for number, _ in order), pool.map(layer_of, order)))
    return [made[number] for number in range(len(groups))]


def _install(
    packages: Sequence[Package], target: Target, prefix: Path, environ: Mapping[str, str], log: Log
) -> None:
    for direct in (False, True):
        texts = [one.text for one in packages if one.direct == direct]
        if not texts:
            continue
        listed = prefix.with_name(f"requirements-{int(direct)}.txt")
        listed.write_text("".join(f"{text}\n" for text in texts), "utf-8")
        # What is built must be built by the interpreter that it is for, where there is one.
        interpreter = target.compiler if direct and target.compiler else sys.executable
        command = [
            find_uv(), "pip", "install", "--no-config", "--quiet", "--python", interpreter, "--prefix", str(prefix),
            "--python-version", target.python.version, "--python-platform", target.python.tag(target.platform),
            "--no-deps", "--break-system-packages", "--requirement", str(listed),
            *([] if direct else ["--require-hashes", "--only-binary", ":all:"]),
        ]  # fmt: skip
        done = subprocess.run(
            command, env=uv_environment(environ), cwd=os.sep, capture_output=True, text=True, check=False
        )  # fmt: skip
        if done.returncode:
            said = " ".join(redact(done.stderr).replace("×", " ").replace("╰─▶", " ").split())
            raise EnvironmentFault(
                "environment/install",
                f"The requirements cannot be installed for Python {target.python.version} on {target.platform}"
                f"{f' ({target.python.libc})' if target.python.libc else ''}: {said[:600]}",
                "Change the version or the base image; what has no wheel for the target needs an engine that builds in the image.",
            )


def _by_package(
    prefix: Path, packages: Sequence[Package], target: Target
) -> dict[str, dict[str, Entry]]:
    """What each package has installed, by the path it will have."""
    infos: dict[str, tuple[Path, Path]] = {}
    for site in sorted({info.parent for info in prefix.rglob("*.dist-info") if info.is_dir()}):
        for info in site.glob("*.dist-info"):
            infos[canonicalize_name(info.name.partition("-")[0])] = (site, info)
    found = {}
    for package in packages:
        if package.name not in infos:
            raise EnvironmentFault(
                "environment/install",
                f"{package.name} was installed without its metadata.",
                "Look at the requirement; it may be named differently in its project.",
            )
        found[package.name] = _files_of(*infos[package.name], prefix, package, target)
    return found


def _files_of(
    site: Path, info: Path, prefix: Path, package: Package, target: Target
) -> dict[str, Entry]:  # fmt: skip
    _check_tags(info, package, target)
    files: dict[str, Entry] = {}
    for line in (info / "RECORD").read_text("utf-8").splitlines():
        name = _record_path(line)
        source = Path(os.path.normpath(site / name))
        if prefix not in source.parents or not source.is_file() or name.endswith(".pyc"):
            continue
        if source.parent == info and source.name in ("RECORD", "REQUESTED"):
            continue
        path = _target_path(source, site, prefix, target).lstrip("/")
        runs = source.stat().st_mode & 0o100
        files[path] = Entry(source, 0o755 if runs else 0o644)
        if source.name == "direct_url.json" and source.parent == info:
            files[path] = Entry(redact(source.read_text("utf-8")).encode())
        elif source.parent.name in ("bin", "Scripts") and source.parent.parent == prefix:
            files[path] = Entry(_script(source, info, target), 0o755)
    own = f"{target.python.site}/{info.name}".lstrip("/")
    files[f"{own}/RECORD"] = Entry(_record(files, f"{own}/RECORD", target))
    return files


def _target_path(source: Path, site: Path, prefix: Path, target: Target) -> str:
    if site in source.parents:
        return f"{target.python.site}/{source.relative_to(site).as_posix()}"
    inside = source.relative_to(prefix).as_posix()
    # Headers lie below this machine's version.
    inside = re.sub(r"^include/(site/)?python3\.\d+/", lambda m: f"include/{m[1] or ''}python{target.python.version}/", inside)  # fmt: skip
    return f"{target.python.prefix}/{inside}"


def _script(source: Path, info: Path, target: Target) -> bytes:
    """A console script with the image's interpreter; one that the wheel wrote keeps its own text."""
    points = info / "entry_points.txt"
    text = points.read_text("utf-8") if points.is_file() else ""
    pattern = rf"^\s*{re.escape(source.name)}\s*=\s*([\w.]+)\s*:\s*([\w.]+)"
    for section in re.split(r"^\[", text, flags=re.M):
        if section.startswith(("console_scripts]", "gui_scripts]")) and (match := re.search(pattern, section, re.M)):  # fmt: skip
            call = match[2]
            script = _SCRIPT.format(program=target.python.program, module=match[1], first=call.partition(".")[0], call=call)  # fmt: skip
            return script.encode()
    data = source.read_bytes()
    if not data.startswith(b"#!"):
        return data
    # uv has put this machine's interpreter in, in one line or, where its path is long, in three.
    long = re.match(rb"#!/bin/sh\n'''exec' .*\n' '''\n", data)
    first, rest = (long[0], data[long.end() :]) if long else data.split(b"\n", 1)
    return f"#!{target.python.program}\n".encode() + rest if long or b"python" in first else data


def _check_tags(info: Path, package: Package, target: Target) -> None:
    """Refuse what was built here for here; what is pure, or for the target, goes in."""
    wheel = info / "WHEEL"
    text = wheel.read_text("utf-8") if wheel.is_file() else ""
    tags = re.findall(r"^Tag:\s*(\S+)-(\S+)-(\S+)\s*$", text, re.M)
    machine = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}[target.platform]
    nodot = target.python.version.replace(".", "")
    for interpreter, abi, platform in tags:
        fits = interpreter.startswith(("py3", "py2.py3")) or f"cp{nodot}" in interpreter or "abi3" in abi  # fmt: skip
        if fits and (platform == "any" or machine in platform):
            return
    if tags:
        raise EnvironmentFault(
            "environment/install",
            f"{package.name} {redact(package.version)} was built for {'-'.join(tags[0])}, not for Python {target.python.version} on {target.platform}.",
            "Take a version that has a wheel, or build on a machine like the target.",
        )


def _record(files: Mapping[str, Entry], own: str, target: Target) -> bytes:
    site = target.python.site
    lines = [f"{posixpath.relpath(own, site.lstrip('/'))},,"]
    for path, entry in files.items():
        data = entry.content if isinstance(entry.content, bytes) else Path(str(entry.content)).read_bytes()  # fmt: skip
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        name = posixpath.relpath(path, site.lstrip("/"))
        name = f'"{name}"' if "," in name else name
        lines.append(f"{name},sha256={digest},{len(data)}")
    return "".join(f"{line}\n" for line in sorted(lines)).encode()


def _record_path(line: str) -> str:
    """The path of a line of a RECORD."""
    if line.startswith('"'):
        return line[1:].partition('",')[0].replace('""', '"')
    return line.rsplit(",", 2)[0]


def _recorded(record: str, site: str, tree: Tree) -> set[str]:
    """Files of a RECORD, and the bytecode of its modules, as far as the base image has them."""
    found = set()
    for line in record.splitlines():
        path = posixpath.normpath(posixpath.join(site, _record_path(line))).lstrip("/")
        if path.startswith("..") or path not in tree.nodes or tree.nodes[path][0] == "d":
            continue
        found.add(path)
        folder, name = posixpath.split(path)
        if name.endswith(".py"):
            start = f"{folder}/__pycache__/{name[:-3]}.cpython-"
            found |= {p for p in tree.bytecode(folder) if p.startswith(start)}
    return found


def _topmost(gone: set[str], tree: Tree, python: Python) -> list[str]:
    """Paths to hide: a folder of packages where nothing of it is left, else its files."""
    kept = {path.lstrip("/") for path in (*python.paths, f"{python.prefix}/bin")}
    left: dict[str, int] = {}
    for path in tree.nodes:
        if path not in gone and tree.nodes[path][0] != "d":
            parent = posixpath.dirname(path)
            while parent:
                left[parent] = left.get(parent, 0) + 1
                parent = posixpath.dirname(parent)
    hidden = set()
    for path in gone:
        while (parent := posixpath.dirname(path)) not in kept and not left.get(parent):
            if not any(parent.startswith(f"{one}/") for one in kept):
                break
            path = parent
        hidden.add(path)
    return sorted(hidden)


def _size(entry: Entry) -> int:
    if isinstance(entry.content, Path):
        return entry.content.stat().st_size
    return len(entry.content or b"")
