"""The build context: the Dockerfile and the files that it copies, the same bytes each time."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from digitalhub_python_builder.dockerfile import render, split_lock
from digitalhub_python_builder.plan import Content, Plan
from digitalhub_python_builder.selection import Log, selected
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.sources import inline
from digitalhub_runtime_python.spec import SourceSpec

LIMIT = 256 << 20
"""Bytes of a context. More is data, not code, and each build would send it again."""


def files(plan: Plan) -> dict[str, Content]:
    """Relative path -> content of everything in the context, the Dockerfile included."""
    hashed, direct = split_lock(plan.requirements)
    found: dict[str, Content] = {"Dockerfile": render(plan).encode()}
    if hashed:
        found["requirements.txt"] = hashed.encode()
    if direct:
        found["direct.txt"] = direct.encode()
    found.update({f"wheels/{name}": content for name, content in plan.wheels.items()})
    if plan.ca_bundle:
        found["ca-bundle.pem"] = plan.ca_bundle
    found.update({f"runtime/{name}": content for name, content in plan.runtime.items()})
    found.update({f"code/{name}": content for name, content in plan.code.items()})
    return dict(sorted(found.items()))


def write_tar(plan: Plan, target: IO[bytes]) -> None:
    """Write the context as an uncompressed tar: sorted, no times, no owners."""
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files(plan).items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mode = _mode(content)
            tar.addfile(member, io.BytesIO(data))


def write_folder(plan: Plan, folder: Path) -> None:
    """Write the context as files, for engines that take a folder."""
    for name, content in files(plan).items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        target.chmod(_mode(content))
    for parent in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        parent.chmod(0o755)


def code_of(
    source: SourceSpec, folder: Path | None = None, log: Log = lambda line: None
) -> dict[str, Content]:
    """The files of a function's code that belong in its image.

    Code at a URL is not among them: it is fetched when the function starts.

    Args:
        folder: the folder that the file of the function lies in; it goes in as a whole, but for
            what its ignore files name, and what looks like a secret.
        log: is told what was left out.

    Raises:
        SourceFault: the code is not readable as what it says it is.
        UsageFault: the folder is larger than a context may be.
    """
    if folder is not None:
        found: dict[str, Content] = dict(selected(folder, log))
        check_size(found)
        return found
    if source.base64 is not None or source.code is not None:
        with tempfile.TemporaryDirectory() as place:
            fetched = inline.fetch(source, Path(place))
            main = fetched.main or Path("main.py")
            return {main.as_posix(): Path(place, main).read_bytes()}
    return {}


def package_files(package: Path) -> dict[str, Content]:
    """The files of an installed package, without bytecode: `name/module.py` -> path."""
    return {
        path.relative_to(package.parent).as_posix(): path
        for path in sorted(package.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


def check_size(found: dict[str, Content], limit: int = LIMIT) -> None:
    """Refuse a context that is larger than `limit` bytes, naming what is largest in it.

    Raises:
        UsageFault: it is.
    """
    sizes = {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size
        for name, content in found.items()
    }
    total = sum(sizes.values())
    if total > limit:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        named = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
        raise UsageFault(
            "build/context-size",
            f"The code has {total / 2**20:.1f} MiB, a build takes {limit / 2**20:.0f} MiB; largest: {named}.",
            "Name what is not code in a .dhignore file beside the function.",
        )


def _mode(content: Content) -> int:
    runs = not isinstance(content, bytes) and content.stat().st_mode & 0o111
    return 0o755 if runs else 0o644
