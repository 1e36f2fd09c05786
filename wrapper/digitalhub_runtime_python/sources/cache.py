"""Keeps what was fetched under its digest, so that the same code is transferred once.

    sha256/<digest>            a file or an archive, as it came
    git/<url and commit>/      tree/, its digest, and notes of what is not in it
    seen/<address>.json        the ETag and digest that an address had last
    tmp/                       unfinished; entries appear in the others by one atomic rename

One trust domain: whoever may read the folder may read every source in it. It may be deleted at any
time, and what was used longest ago leaves it by itself. Entries are checked against their digest on every use: after a power cut files can be empty.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources.tree import file_digest, tree_digest

log = logging.getLogger(__name__)

IN_USE = 600.0
"""Seconds after its last use in which an entry is not removed: somebody may be copying it."""
_LOOKS = 3600.0
"""Seconds between two looks at how much there is."""
_STALE = 86400.0
"""Seconds after which what a killed run has left unfinished is removed."""


def usable(settings: Settings) -> Path | None:
    """The cache's folder, or None where there is none or it cannot be written to."""
    if settings.cache is None:
        return None
    try:
        for part in ("sha256", "git", "seen", "tmp"):
            (settings.cache / part).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.cache / "tmp"):
            pass
    except OSError as exc:
        log.warning("no source is cached: %s: %s", settings.cache, exc.strerror)
        return None
    if _is_time(settings.cache / "pruned"):
        removed = prune(settings.cache, settings.max_sources)
        if removed:
            size = sum(size for _, size in removed)
            log.info("%d sources (%.0f MB) that were used longest ago leave the cache (DHPY_MAX_SOURCES)", len(removed), size / 1e6)  # fmt: skip
    return settings.cache


def prune(cache: Path, most: int, *, in_use: float = IN_USE, remove: bool = True) -> list[tuple[Path, int]]:  # fmt: skip
    """Remove what was used longest ago until the rest has at most `most` bytes; (path, bytes) of each.

    Args:
        in_use: seconds after its last use in which an entry stays, however much there is.
        remove: False: nothing is removed; what would be is returned.
    """
    found = []
    for path in [*(cache / "sha256").glob("*"), *(cache / "git").glob("*")]:
        with contextlib.suppress(OSError):  # another run removes it too
            found.append((path.stat().st_mtime, _size(path), path))
    total = sum(size for _, size, _ in found)
    removed = []
    now = time.time()
    for used, size, path in sorted(found):
        if total <= most or now - in_use < used <= now:
            break
        total -= size
        removed.append((path, size))
        if remove:
            _remove(cache, path)
    if remove:
        _sweep(cache, now - _STALE)
    return removed


def _is_time(mark: Path) -> bool:
    """Whether the last look is long ago; it is now."""
    with contextlib.suppress(OSError):
        if abs(time.time() - mark.stat().st_mtime) < _LOOKS:
            return False
    with contextlib.suppress(OSError):
        mark.touch()
        return True
    return False


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(one.lstat().st_size for one in path.rglob("*") if one.is_symlink() or not one.is_dir())  # fmt: skip


def _remove(cache: Path, path: Path) -> None:
    """First out of sight, by one rename, so that nobody finds half of it."""
    with contextlib.suppress(OSError):
        gone = Path(tempfile.mkdtemp(prefix="pruned-", dir=cache / "tmp"))
        path.rename(gone / path.name)
        shutil.rmtree(gone, ignore_errors=True)


def _sweep(cache: Path, before: float) -> None:
    """Remove what killed runs have left, and notes of files that are gone."""
    for path in (cache / "tmp").glob("*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime < before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    for note in (cache / "seen").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if not (cache / "sha256" / str(json.loads(note.read_text())["sha256"])).exists():
                note.unlink()


def _used(entry: Path) -> None:
    with contextlib.suppress(OSError):  # another user's, or read-only
        os.utime(entry)


@contextmanager
def scratch(cache: Path | None, dest: Path) -> Iterator[Path]:
    """A folder for unfinished things, on the disk where they will stay; gone afterwards."""
    parent = cache / "tmp" if cache else dest
    with tempfile.TemporaryDirectory(prefix=".dhpy-fetch-", dir=parent) as folder:
        yield Path(folder)


def key(*parts: str) -> str:
    """A file name for what only its address identifies."""
    return sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()


def file(cache: Path | None, digest: str) -> Path | None:
    """The cached file of that digest."""
    path = cache / "sha256" / digest if cache and digest else None
    if path is None or not path.is_file():
        return None
    if file_digest(path) != digest:
        log.warning("a damaged file is dropped from the cache: %s", path)
        path.unlink(missing_ok=True)
        return None
    _used(path)
    return path


def keep_file(cache: Path | None, path: Path, digest: str) -> Path:
    """Move a finished file into the cache; where it is now."""
    return path.replace(cache / "sha256" / digest) if cache else path


def tree(cache: Path | None, name: str) -> Path | None:
    """The cached folder of that name."""
    entry = cache / "git" / name if cache else None
    if entry is None or not entry.is_dir():
        return None
    digest = entry / "digest"
    _used(entry)
    if digest.is_file() and digest.read_text() == tree_digest(entry / "tree"):
        return entry / "tree"
    log.warning("a damaged folder is dropped from the cache: %s", entry)
    shutil.rmtree(entry, ignore_errors=True)
    return None


def keep_tree(
    cache: Path | None, path: Path, name: str, notes: Sequence[tuple[str, str]] = ()
) -> Path:
    """Move a finished folder into the cache, with what is to be said of it at every use; where it is now."""
    if cache is None:
        return path
    with tempfile.TemporaryDirectory(dir=cache / "tmp") as folder:
        entry = Path(folder) / name
        entry.mkdir()
        (entry / "digest").write_text(tree_digest(path))
        if notes:
            (entry / "notes.json").write_text(json.dumps(list(notes)))
        path.rename(entry / "tree")
        try:
            entry.rename(cache / "git" / name)
        except OSError:
            # Another process was faster; its tree is the same, but this one is at hand.
            (entry / "tree").rename(path)
            return path
    return cache / "git" / name / "tree"


def notes(tree: Path) -> list[tuple[str, str]]:
    """What was kept with a cached folder: (path, text) of each."""
    file = tree.parent / "notes.json"
    try:
        return [(str(path), str(text)) for path, text in json.loads(file.read_text())]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError):
        log.warning("a damaged note is dropped from the cache: %s", file)
        return []


def last_seen(cache: Path | None, address: str) -> tuple[str, Path | None]:
    """The ETag and the cached file of the last visit to an address; ("", None) at the first."""
    path = cache / "seen" / f"{address}.json" if cache else None
    if path is None or not path.is_file():
        return "", None
    try:
        seen = json.loads(path.read_text())
        etag, digest = str(seen["etag"]), str(seen["sha256"])
    except (ValueError, KeyError, TypeError):
        log.warning("a damaged note is dropped from the cache: %s", path)
        path.unlink(missing_ok=True)
        return "", None
    found = file(cache, digest)
    return (etag, found) if found else ("", None)


def remember(cache: Path | None, address: str, etag: str, digest: str) -> None:
    """Note what an address answered, for the next visit."""
    if cache is None or not etag:
        return
    with tempfile.NamedTemporaryFile("w", dir=cache / "tmp", delete=False) as note:
        json.dump({"etag": etag, "sha256": digest}, note)
    Path(note.name).chmod(0o644)  # other users of one cache read it too
    Path(note.name).replace(cache / "seen" / f"{address}.json")
