"""Code behind http:// and https://: one file, or an archive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import Fetched, blobs, cache
from digitalhub_runtime_python.sources.uri import SourceUri
from digitalhub_runtime_python.transfer import Budget, web


def fetch(uri: SourceUri, dest: Path, settings: Settings) -> Fetched:
    """Download a file into `dest`, or unpack an archive there."""

    def check(headers: Mapping[str, str]) -> None:
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "text/html" and not uri.archive:
            raise SourceFault(
                "source/web-page",
                f"{uri.shown} is a web page, not Python.",
                "Give the raw file's address, or git+https:// for a repository.",
            )

    def download(etag: str, target: Path) -> str | None:
        budget = Budget(uri.shown)
        return web.download(uri, target, budget, settings.environ, etag=etag, check=check)

    held = cache.usable(settings)
    with cache.scratch(held, dest) as folder:
        address = (uri.url, uri.user)
        path, digest = blobs.obtain(address, held, folder, download, sha256=uri.sha256)
        return blobs.place(path, digest, uri, dest, folder)
