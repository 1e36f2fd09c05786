"""Fetches a function's code into a folder of the run's own.

The seam: a table of schemes. Each fetcher is a plain module function
`fetch(uri, dest, settings) -> Fetched`, imported when its scheme is used: in a pod of 0.1 CPU each
module that is imported for nothing is a wait for someone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.spec import SourceSpec

if TYPE_CHECKING:
    from digitalhub_runtime_python.sources.uri import SourceUri

log = logging.getLogger(__name__)

SCHEMES: dict[str, str] = {
    "": "digitalhub_runtime_python.sources.local:fetch",
    "file": "digitalhub_runtime_python.sources.local:fetch",
    "http": "digitalhub_runtime_python.sources.web:fetch",
    "https": "digitalhub_runtime_python.sources.web:fetch",
    "git": "digitalhub_runtime_python.sources.git:fetch",
    "git+http": "digitalhub_runtime_python.sources.git:fetch",
    "git+https": "digitalhub_runtime_python.sources.git:fetch",
    "git+ssh": "digitalhub_runtime_python.sources.git:fetch",
    "s3": "digitalhub_runtime_python.sources.objects:fetch",
    "s3a": "digitalhub_runtime_python.sources.objects:fetch",
    "s3n": "digitalhub_runtime_python.sources.objects:fetch",
    "gs": "digitalhub_runtime_python.sources.objects:fetch",
    "az": "digitalhub_runtime_python.sources.objects:fetch",
}
"""Scheme -> fetcher; the empty scheme is a path. `zip+` may stand before all but the git ones."""


@dataclass(frozen=True)
class Fetched:
    """Code on disk."""

    root: Path
    """The folder that goes on sys.path."""
    main: Path | None
    """The one file that the source names, relative to root; None for a folder or a repository."""
    revision: str | None
    """What exactly was fetched: `git:<40 hex>` or `sha256:<64 hex>`; goes to status.source."""
    left_out: tuple[str, ...] = ()
    """Paths of links that lead out of the code, which are not there."""


def fetch(source: SourceSpec, dest: Path, settings: Settings) -> Fetched:
    """Fetch the code that `source` names into the empty folder `dest`.

    Code in the spec itself (`base64`, then `code`) goes before `source`, which then is its name.

    Raises:
        SourceFault: it cannot be fetched, or is not safe to unpack; nothing is left in `dest`.
        FileExistsError: `dest` is not empty; it is left as it was.
    """
    dest.mkdir(parents=True, exist_ok=True)
    if any(dest.iterdir()):
        raise FileExistsError(f"{dest} is not empty")
    try:
        fetched = _fetch(source, dest, settings)
    except BaseException as exc:  # an interrupt, too, must leave nothing behind
        _empty(dest)
        if isinstance(exc, OSError):
            raise SourceFault(
                "source/disk",
                f"The code cannot be read or written: {exc.strerror or exc}: {exc.filename or dest}.",
                "Check the free space and the permissions there.",
            ) from exc
        raise
    log.debug("code is %s", fetched.revision)
    return fetched


def _fetch(source: SourceSpec, dest: Path, settings: Settings) -> Fetched:
    if source.base64 is not None or source.code is not None:
        from digitalhub_runtime_python.sources import inline

        return inline.fetch(source, dest)
    if not (source.source or "").strip():
        raise SourceFault(
            "source/missing",
            "The function has no code: none of source, code and base64 is set.",
            "Set code_src, code or base64 when you create the function.",
        )
    from digitalhub_runtime_python.sources.uri import parse

    uri = parse(source.source or "")
    if settings.code_folder is not None and uri.scheme:
        named = Path(uri.file_name)
        main = named if (settings.code_folder / named).is_file() else None
        return Fetched(settings.code_folder.resolve(), main, None)
    log.info("fetching code from %s", uri.shown)
    fetched = _fetcher(uri)(uri, dest, settings)
    if fetched.main is not None:
        from digitalhub_runtime_python.foreign import refuse_foreign

        refuse_foreign(dest / fetched.main, uri.shown)
    for path in fetched.left_out:
        if _is_needed(path, source.handler or ""):
            raise SourceFault(
                "source/unsafe-link",
                f"In {uri.shown}, the handler {source.handler!r} needs the link {path}, which leads out of the code.",
                "Replace the link by the file, or choose a folder that holds both.",
            )
    return fetched


def _is_needed(path: str, handler: str) -> bool:
    """Whether the handler's own file is a path, or below it."""
    named = handler.rpartition(":")[0] if ":" in handler else handler.rpartition(".")[0]
    file = named if named.endswith(".py") else f"{named.replace('.', '/')}.py"
    folder = file[:-3]
    return path in (file, folder) or file.startswith(f"{path}/")


def _fetcher(uri: SourceUri) -> Callable[[SourceUri, Path, Settings], Fetched]:
    target = SCHEMES.get(uri.scheme)
    if target is None:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES if scheme)
        hint = f"Use a path or one of {known}; zip+ before it for an archive."
        if uri.scheme == "store":
            hint = "Give the artifact's own path (spec.path, such as s3://…). " + hint
        raise SourceFault(
            "source/scheme",
            f"The scheme {uri.scheme}:// of {uri.shown} is not supported for code.",
            hint,
        )
    module, _, attribute = target.partition(":")
    fetcher: Callable[[SourceUri, Path, Settings], Fetched]
    fetcher = getattr(import_module(module), attribute)
    return fetcher


def _empty(folder: Path) -> None:
    import shutil  # only after an error

    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
