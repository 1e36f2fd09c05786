"""Code in an object store: s3://, and by the same client gs:// and az://. A file, an archive or a folder."""

from __future__ import annotations

from pathlib import Path

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import Fetched, blobs, cache, tree
from digitalhub_runtime_python.sources.uri import SourceUri
from digitalhub_runtime_python.transfer import Budget
from digitalhub_runtime_python.transfer.objects import Bucket


def fetch(uri: SourceUri, dest: Path, settings: Settings) -> Fetched:
    """Download a file, unpack an archive, or download every object below a trailing slash."""
    bucket = Bucket(uri, settings)
    held = cache.usable(settings)
    with cache.scratch(held, dest) as folder:
        if not bucket.key.endswith("/"):
            path, digest = _obtain(bucket, bucket.key, held, folder, sha256=uri.sha256)
            return blobs.place(path, digest, uri, dest, folder)
        if uri.archive or uri.sha256:
            raise SourceFault(
                "source/uri",
                f"{uri.shown} is a folder; zip+ and sha256= are for files.",
                "Leave them out.",
            )
        for relative, item in bucket.below(Budget(uri.shown)):
            etag = item.get("e_tag") or ""
            path, _ = _obtain(bucket, item["path"], held, folder, current=etag)
            tree.copy_file(path, dest / relative)
            if held is None:
                path.unlink()
    return Fetched(dest, None, f"sha256:{tree.tree_digest(dest)}")


def _obtain(
    bucket: Bucket,
    key: str,
    held: Path | None,
    folder: Path,
    *,
    sha256: str = "",
    current: str = "",
) -> tuple[Path, str]:
    """One object as a file, and its digest; see blobs.obtain."""

    def download(etag: str, target: Path) -> str | None:
        return bucket.download(key, target, Budget(bucket.address.shown), etag=etag)

    address = (*bucket.place, key)
    return blobs.obtain(address, held, folder, download, sha256=sha256, current=current)
