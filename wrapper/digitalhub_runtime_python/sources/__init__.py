"""Fetches a function's code into a folder of the run's own.

The seam: a table of schemes. Each fetcher is a plain module function
`fetch(uri, dest, settings) -> revision`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.spec import SourceSpec


@dataclass(frozen=True)
class Fetched:
    """Code on disk."""

    root: Path
    """The folder that goes on sys.path."""
    main: Path | None
    """The one file that the source names, relative to root; None for a folder or a repository."""
    revision: str | None
    """What exactly was fetched: `git:<40 hex>` or `sha256:<64 hex>`; goes to status.source."""


def fetch(source: SourceSpec, dest: Path, settings: Settings) -> Fetched:
    """Fetch the code that `source` names into the empty folder `dest`.

    Raises:
        SourceFault: it cannot be fetched, or is not safe to unpack; nothing is left in `dest`.
    """
    raise NotImplementedError
