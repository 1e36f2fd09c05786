"""What a repository names and keeps elsewhere: its submodules, and its files in Git LFS.

Their addresses are the repository's choice, not the user's: they get the same checks as the source itself, and
credentials only where they are on the same host. What cannot be fetched is left out, with a note that every run
of that commit is warned by.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from digitalhub_runtime_python import transfer
from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources.uri import SourceUri, parse, redact

if TYPE_CHECKING:
    from digitalhub_runtime_python.sources.git import Git

DEEPEST = 5
"""Levels of submodules within submodules."""
MOST = 100
"""Submodules of a repository, those within others included."""
_POINTER = b"version https://git-lfs.github.com/spec/"
POINTER_SIZES = range(60, 1025)
"""Bytes of a file that may be a pointer to Git LFS, by its specification."""
_POINTER_SIZE = re.compile(rb"^size (\d{1,18})$", re.M)
_SCP = re.compile(r"(?:([\w.+-]+)@)?([\w.-]+):(?!//|:)(.+)")
_CREDENTIALS = ("GIT_TOKEN", "GIT_USERNAME", "GIT_PASSWORD")


@dataclass(frozen=True)
class Note:
    """Something of a repository that is not there."""

    path: str
    text: str
    lasting: bool = True
    """The next attempt would end in the same way."""


def fetch_submodules(
    git: Git, commits: Mapping[str, str], level: int, left: list[int]
) -> list[Note]:
    """Put the submodules of a checked-out repository into their folders; what is missing afterwards.

    Args:
        commits: path -> commit of each.
        level: how deep the repository itself is.
        left: one number, of the submodules that may still be fetched.
    """
    addresses = _addresses(git)
    notes = []
    for number, (path, commit) in enumerate(sorted(commits.items())):
        place = git.repository / path
        left[0] -= 1
        try:
            if level >= DEEPEST or left[0] < 0:
                raise _refused(
                    f"there are more than {MOST}, or more than {DEEPEST} within each other"
                )
            if path not in addresses:
                raise _refused(".gitmodules does not say where it is")
            uri, settings = _source(git, addresses[path], commit)
            folder = git.repository / ".git" / f"dhpy-{number}"
            folder.mkdir()
            inner = type(git)(uri, folder, settings)
            tree, missing = inner.tree(commit, level + 1, left)
            if place.is_symlink() or place.resolve() != git.repository.resolve() / path:
                raise _refused("its folder is a link")
            shutil.rmtree(place)
            tree.rename(place)
            notes += [replace(one, path=posixpath.join(path, one.path)) for one in missing]
        except (SourceFault, OSError) as exc:
            what = exc.message if isinstance(exc, SourceFault) else str(exc)
            lasting = isinstance(exc, SourceFault) and exc.code == "source/submodule"
            notes.append(Note(path, f"the submodule {path} is not fetched, its folder is empty: {what}", lasting))  # fmt: skip
    return notes


def fetch_large_files(git: Git, sizes: Mapping[str, int]) -> list[Note]:
    """Put files of Git LFS in the place of their pointers; those that are still pointers afterwards.

    Args:
        sizes: path -> bytes of the files of the commit.
    """
    pointers = list(_pointers(git.repository, sizes))
    if not pointers:
        return []
    why = "git-lfs is not installed here; install it in the image"
    if has_lfs(git.environ):
        budget = transfer.Budget(git.uri.shown)
        for path in pointers:
            size = _POINTER_SIZE.search((git.repository / path).read_bytes())
            budget.entry()
            budget.add(int(size[1]) if size else 0)
        why = _pull(git)
        pointers = list(_pointers(git.repository, {path: sizes[path] for path in pointers}))
    if not pointers:
        return []
    shown = ", ".join(pointers[:5]) + (
        f" and {len(pointers) - 5} more" if len(pointers) > 5 else ""
    )
    common = posixpath.commonpath(pointers) if len(pointers) > 1 else pointers[0]
    return [Note(common, f"files in Git LFS are still pointers, {shown}: {why}", lasting=not has_lfs(git.environ))]  # fmt: skip


def has_lfs(environ: Mapping[str, str]) -> bool:
    """Whether git can fetch files of Git LFS here."""
    return shutil.which("git-lfs", path=environ.get("PATH")) is not None


def _pull(git: Git) -> str:
    """Fetch them; why some may be missing."""
    # The repository's own .lfsconfig could name another server, and this machine's settings filters.
    url = f"{git.uri.url.rstrip('/')}{'' if git.uri.url.rstrip('/').endswith('.git') else '.git'}/info/lfs"
    settings = [f"remote.origin.url={git.uri.url}", f"lfs.url={url}", "lfs.locksverify=false", "lfs.concurrenttransfers=4", "lfs.activitytimeout=30"]  # fmt: skip
    command = [*git.command, *(word for one in settings for word in ("-c", one)), "lfs", "pull", "origin"]  # fmt: skip
    try:
        done = git.start(command)
    except SourceFault as fault:
        return fault.message
    lines = [line.strip() for line in git.without_secrets(done.stderr).splitlines() if line.strip()]
    return redact(lines[-1])[:300] if lines else f"git lfs pull ended with {done.returncode}"


def _pointers(root: Path, sizes: Mapping[str, int]) -> Iterator[str]:
    for path, size in sorted(sizes.items()):
        file = root / path
        if size in POINTER_SIZES and not file.is_symlink() and file.is_file():
            with file.open("rb") as stream:
                if stream.read(len(_POINTER)) == _POINTER:
                    yield path


def _addresses(git: Git) -> dict[str, str]:
    """Path -> URL of what .gitmodules names."""
    file = git.repository / ".gitmodules"
    if file.is_symlink() or not file.is_file():
        return {}
    done = git.start([*git.command, "config", "--null", "--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.(path|url)$"])  # fmt: skip
    found: dict[str, dict[str, str]] = {}
    for entry in done.stdout.split("\0"):
        key, _, value = entry.partition("\n")
        name, _, field = key.rpartition(".")
        found.setdefault(name, {})[field] = value
    return {one["path"]: one["url"] for one in found.values() if {"path", "url"} <= one.keys()}


def _source(git: Git, address: str, commit: str) -> tuple[SourceUri, Settings]:
    """A submodule as a source of its own, and the settings for it."""
    base = urlsplit(git.uri.url)
    uri = parse(f"git+{absolute(git.uri.url, address)}#{commit}")
    parts = urlsplit(uri.url)
    safe = ("https", "ssh", "http") if base.scheme == "http" else ("https", "ssh")
    if parts.scheme not in safe:
        raise _refused(
            f"its address is {parts.scheme}://, which is less safe than the repository's"
        )
    if parts.netloc == base.netloc and parts.scheme == base.scheme:
        if not uri.user:
            uri = replace(uri, user=git.uri.user, password=git.uri.password)
        return uri, git.settings
    tokens = {k: v for k, v in git.settings.tokens.items() if k not in _CREDENTIALS}
    return uri, replace(git.settings, tokens=tokens)


def absolute(base: str, address: str) -> str:
    """The URL of a submodule whose address may be relative to its repository's, or in ssh's short form.

    Raises:
        SourceFault: it is neither, nor a URL over https, http or ssh.
    """
    if address.startswith(("./", "../")):
        parts = urlsplit(base)
        path = posixpath.normpath(posixpath.join(parts.path, address))
        return f"{parts.scheme}://{parts.netloc}/{path.lstrip('/')}"
    if re.match(r"(https|http|ssh)://", address):
        return address
    short = _SCP.fullmatch(address)
    if short and "://" not in address and not address.startswith("-"):
        user, host, path = short.groups()
        return f"ssh://{f'{user}@' if user else ''}{host}/{path.lstrip('/')}"
    raise _refused(f"its address {redact(address)[:80]!r} is not one over https or ssh")


def _refused(why: str) -> SourceFault:
    return SourceFault("source/submodule", f"{why}.", "Fetch it yourself, or give an archive that holds it.")  # fmt: skip


def shown(notes: Sequence[Note], subfolder: str) -> list[str]:
    """The warnings for a run of a subfolder; empty for the whole repository."""
    return [
        one.text
        for one in notes
        if not subfolder or posixpath.commonpath([subfolder, one.path]) in (subfolder, one.path)
    ]
