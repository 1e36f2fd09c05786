"""Code on this machine: a file, a folder without what its ignore rules name, or a zip."""

from __future__ import annotations

import difflib
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from digitalhub_runtime_python import transfer
from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import Fetched, blobs, tree
from digitalhub_runtime_python.sources.uri import SourceUri

log = logging.getLogger(__name__)

IGNORE_FILE = ".dhignore"
"""In the folder's top; gitignore's syntax. .gitignore does not count: generated code may be needed."""
IGNORED = (
    ".git", "__pycache__", "*.pyc", ".venv", ".tox", ".nox", "node_modules", ".ipynb_checkpoints",
    ".mypy_cache", ".pytest_cache", ".ruff_cache", ".DS_Store",
)  # fmt: skip
"""Never code: histories, environments and caches. A `!pattern` in `.dhignore` takes one back.

An environment of another name is known by its `pyvenv.cfg`."""


def fetch(uri: SourceUri, dest: Path, settings: Settings) -> Fetched:
    """Copy a file or a folder, or unpack a zip."""
    try:
        path = Path(uri.url).expanduser()
    except RuntimeError:  # ~somebody, who is nobody
        path = Path(uri.url)
    if not path.exists():
        raise _missing(path, uri)
    if path.is_dir():
        if uri.archive or uri.sha256:
            raise SourceFault(
                "source/uri",
                f"{path} is a folder; zip+ and sha256= are for files.",
                "Leave them out.",
            )
        return _copy_folder(path, dest)
    if not path.is_file():
        raise SourceFault(
            "source/not-found",
            f"{path} is neither a file nor a folder.",
            "Name a file or a folder.",
        )
    digest = tree.file_digest(path)
    blobs.check_digest(uri, digest)
    if uri.archive:
        blobs.unpack(path, uri, dest)
        return Fetched(dest, None, f"sha256:{digest}")
    tree.copy_file(path, dest / path.name)
    return Fetched(dest, Path(path.name), f"sha256:{digest}")


def carried(folder: Path) -> Iterator[Path]:
    """The files and links of a folder that belong to its code: all that no ignore rule names.

    Yields:
        Paths below `folder`, as they are in it; sorted within each folder.
    """
    ignore_file = folder / IGNORE_FILE
    lines = ignore_file.read_text().splitlines() if ignore_file.is_file() else []
    rules = compile_rules([*IGNORED, IGNORE_FILE, *lines])
    for parent, folders, files in os.walk(folder):
        here = Path(parent).relative_to(folder)
        folders[:] = sorted(
            n for n in folders
            if not ignored(rules, (here / n).as_posix(), True, is_environment(Path(parent, n)))
        )  # fmt: skip
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in sorted([*files, *links]):
            if name in links or not ignored(rules, (here / name).as_posix(), False):
                yield Path(parent, name)


def _copy_folder(folder: Path, dest: Path) -> Fetched:
    budget = transfer.Budget(f"The folder {folder}")
    # The run's own folder can lie below the code's; it is not a part of it.
    own = dest.resolve()
    found = []
    for path in carried(folder):
        if own not in path.parent.resolve().parents and own != path.parent.resolve():
            budget.entry()
            budget.add(path.lstat().st_size)
            found.append(path)
    for path in found:
        target = dest / path.relative_to(folder)
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.readlink())
        elif stat.S_ISREG(mode):
            tree.copy_file(path, target)
        else:
            log.warning("not copied, for it is not a file: %s", path)
    tree.check_links(dest, str(folder))
    return Fetched(dest, None, f"sha256:{tree.tree_digest(dest)}")


Rule = tuple[re.Pattern[str], bool, bool]
"""Pattern over the path, takes back (`!`), folders only."""


def compile_rules(lines: list[str]) -> list[Rule]:
    """Lines in gitignore's syntax as rules, in order."""
    rules = []
    for line in lines:
        text = re.sub(r"(?<!\\)\s+$", "", line)
        if not text or text.startswith("#"):
            continue
        back = text.startswith("!")
        text = text[1:] if back else text
        only_folders = text.endswith("/")
        text = text[:-1] if only_folders else text
        anchored = "/" in text
        pattern = _translate(text[1:] if text.startswith("/") else text)
        rules.append(
            (re.compile(pattern if anchored else f"(?:.*/)?{pattern}", re.S), back, only_folders)
        )
    return rules


def is_environment(folder: Path) -> bool:
    """Whether a folder is a virtual environment, whatever its name."""
    return (folder / "pyvenv.cfg").is_file()


def ignored(rules: list[Rule], path: str, is_folder: bool, default: bool = False) -> bool:
    """Whether the last rule that fits a relative path names it; parents are not looked at.

    Args:
        default: what counts where no rule fits.
    """
    for pattern, back, only_folders in reversed(rules):
        if (is_folder or not only_folders) and pattern.fullmatch(path):
            return not back
    return default


_TOKEN = re.compile(r"(?P<any>(?:^|(?<=/))\*\*+/)|(?P<rest>(?<=/)\*\*+$)|(?P<star>\*+)|(?P<one>\?)"
                    r"|(?P<set>\[[!^]?\]?[^\]]*\])|\\(?P<escaped>.)|(?P<text>.)", re.S)  # fmt: skip


def _translate(glob: str) -> str:
    """One pattern of gitignore as a regular expression: `*` stays within a name, `**` does not."""

    def regex(match: re.Match[str]) -> str:
        if match["set"]:
            body = match["set"][1:-1]
            negated = body[0] in "!^"
            body = re.sub(r"([\\\[\]&~|])", r"\\\1", body[1:] if negated else body)
            return f"(?!/)[{'^' if negated else ''}{body}]"
        simple = {"any": "(?:.*/)?", "rest": ".+", "star": "[^/]*", "one": "[^/]"}
        for group, replacement in simple.items():
            if match[group]:
                return replacement
        return re.escape(match["escaped"] or match["text"])

    return _TOKEN.sub(regex, glob)


def _missing(path: Path, uri: SourceUri) -> SourceFault:
    if re.match(r"[^/:\s]+@[^/:\s]+:", uri.url):
        hint = f"For a repository over ssh write git+ssh://{uri.url.replace(':', '/', 1)}."
    else:
        folder = path.parent
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=1)
        hint = (
            f"Did you mean {folder / near[0]}?" if near else f"It was looked for in {Path.cwd()}."
        )
    return SourceFault("source/not-found", f"There is no file or folder {path}.", hint)
