"""What every fetched folder must be: its links stay inside, and its digest says what it holds."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.transfer import CHUNK, Budget

log = logging.getLogger(__name__)


def entries(root: Path) -> Iterator[Path]:
    """Every file and link below `root`, sorted, without following links."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in sorted(files + links):
            yield Path(folder, name)


def check_links(root: Path, what: str, paths: Iterable[Path] | None = None) -> None:
    """Refuse links that lead out of `root`, directly or over other links.

    Args:
        paths: those below `root` that count; all of them by default.

    Raises:
        SourceFault: the message names the first one.
    """
    inside = root.resolve()
    for path in entries(root) if paths is None else paths:
        if not path.is_symlink():
            continue
        target = path.readlink()
        try:
            end = path.resolve()
        except (OSError, RuntimeError):  # a loop: leads nowhere, so nowhere outside
            end = inside
        if target.is_absolute() or (end != inside and inside not in end.parents):
            raise SourceFault(
                "source/unsafe-link",
                f"In {what}, the link {path.relative_to(root)} leads out of the code: {target}.",
                "Replace the link by the file, or choose a folder that holds both.",
            )


def file_digest(path: Path) -> str:
    """The sha256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def tree_digest(root: Path) -> str:
    """The sha256 over `<sha256 of the file>  <path>` of each file, one a line, sorted by path.

    A link counts as its target's text. Times, owners and modes do not count.
    """
    lines = []
    for path in entries(root):
        if path.is_symlink():
            content = hashlib.sha256(os.fsencode(path.readlink())).hexdigest()
        else:
            content = file_digest(path)
        lines.append((os.fsencode(path.relative_to(root).as_posix()), content.encode()))
    text = b"".join(content + b"  " + name + b"\n" for name, content in sorted(lines))
    return hashlib.sha256(text).hexdigest()


def copy_file(path: Path, target: Path) -> None:
    """Copy content, and of the mode only whether it may be run."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    target.chmod(0o755 if path.stat().st_mode & 0o111 else 0o644)


def take(tree: Path, subfolder: str, dest: Path, what: str, *, keep: bool) -> list[str]:
    """Bring a checked-out or unpacked tree, or its subfolder, into `dest`; the links that are left out.

    A link to something else of the tree is followed: where that is not below the subfolder, it is copied. One that
    leads out of the tree, or is absolute, is left out with a warning.

    Args:
        keep: copy, because the tree stays in the cache; else it is moved.

    Raises:
        SourceFault: there is no such subfolder, or what links add is too large.
    """
    root = (tree / subfolder).resolve()
    if tree.resolve() not in (root, *root.parents) or not root.is_dir():
        folders = sorted(p.name for p in tree.iterdir() if p.is_dir())
        raise SourceFault(
            "source/not-found",
            f"{what} has no folder {subfolder!r}.",
            f"Folders at its top: {', '.join(folders[:10]) or 'none'}.",
        )
    ends = {path.relative_to(root): _end(path, tree.resolve()) for path in entries(root) if path.is_symlink()}  # fmt: skip
    for entry in sorted(root.iterdir()):
        if not keep:
            entry.rename(dest / entry.name)
        elif entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, dest / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, dest / entry.name, follow_symlinks=False)
    budget = Budget(what)
    for path, end in ends.items():
        if end is not None and end != root and root not in end.parents and end.exists():
            (dest / path).unlink()
            _copy(end, dest / path, budget)
    left_out = []
    for path in list(entries(dest)):
        if path.is_symlink() and _end(path, dest.resolve()) is None:
            left_out.append(path.relative_to(dest).as_posix())
            log.warning("%s: the link %s is left out, for it leads out of the code: %s", what, left_out[-1], path.readlink())  # fmt: skip
            path.unlink()
    return left_out


def _end(link: Path, root: Path) -> Path | None:
    """Where a link ends within `root`; None for one that is absolute, or leads out. A loop ends at itself."""
    if link.readlink().is_absolute():
        return None
    try:
        end = link.resolve()
    except (OSError, RuntimeError):
        return link
    return end if end == root or root in end.parents else None


def _copy(source: Path, target: Path, budget: Budget) -> None:
    """Copy what a link leads to; links in it stay links."""
    budget.entry()
    if source.is_dir() and not source.is_symlink():
        target.mkdir()
        for one in sorted(source.iterdir()):
            _copy(one, target / one.name, budget)
        return
    budget.add(source.lstat().st_size)
    shutil.copy2(source, target, follow_symlinks=False)
