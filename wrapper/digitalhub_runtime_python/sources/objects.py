"""Code in an object store: s3://, and by the same client gs:// and az://. A file, an archive or a folder."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

import obstore
from obstore.exceptions import (
    BaseError,
    NotModifiedError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.object_store import IDENTITIES, open_bucket
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import Fetched, blobs, cache, tree
from digitalhub_runtime_python.sources.uri import SourceUri

FAILURES = (BaseError, FileNotFoundError)
"""What the client raises; it says that there is no such object with Python's own error."""


def fetch(uri: SourceUri, dest: Path, settings: Settings) -> Fetched:
    """Download a file, unpack an archive, or download every object below a trailing slash."""
    scheme, _, rest = uri.url.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket or not key:
        raise SourceFault(
            "source/uri",
            f"{uri.shown} names no object.",
            "Write s3://bucket/folder/file.py, or s3://bucket/folder/ for all that is in a folder.",
        )
    bucket_place = Place(uri, scheme, bucket, settings)
    with cache.scratch(bucket_place.held, dest) as folder:
        if not key.endswith("/"):
            path, digest = bucket_place.obtain(key, folder, sha256=uri.sha256)
            return blobs.place(path, digest, uri, dest, folder)
        _folder(bucket_place, key, dest, folder)
    return Fetched(dest, None, f"sha256:{tree.tree_digest(dest)}")


class Place:
    """A bucket, and the cache beside it."""

    def __init__(self, uri: SourceUri, scheme: str, bucket: str, settings: Settings) -> None:
        self.uri = uri
        self.held = cache.usable(settings)
        self.endpoint = settings.store_options.get("AWS_ENDPOINT_URL", "")
        self.address = (scheme, self.endpoint, bucket)
        self.anonymous = not any(name in settings.store_options for name in IDENTITIES)
        try:
            self.store = open_bucket(scheme, bucket, settings.store_options)
        except (BaseError, ValueError) as exc:
            raise _fault(uri, exc, self.anonymous) from exc

    def obtain(
        self, key: str, folder: Path, *, sha256: str = "", current: str = ""
    ) -> tuple[Path, str]:
        """One object as a file, and its digest; see blobs.obtain."""

        def download(etag: str, target: Path) -> str | None:
            try:
                return _get(self.store, key, etag, target, self.uri)
            except NotModifiedError:
                return None
            except FAILURES as exc:
                raise _fault(self.uri, exc, self.anonymous) from exc

        address = (*self.address, key)
        return blobs.obtain(address, self.held, folder, download, sha256=sha256, current=current)

    def listing(self, prefix: str) -> list[Any]:
        """Path, size and ETag of every object below a prefix."""
        budget = tree.Budget(self.uri.shown)
        found = []
        try:
            for batch in obstore.list(self.store, prefix=prefix):
                for item in batch:
                    budget.entry()
                    budget.add(item["size"])
                    found.append(item)
        except FAILURES as exc:
            raise _fault(self.uri, exc, self.anonymous) from exc
        return found


def _get(store: Any, key: str, etag: str, target: Path, uri: SourceUri) -> str:
    answer = obstore.get(store, key, options={"if_none_match": etag} if etag else None)
    with target.open("wb") as file:
        blobs.write(map(bytes, answer.stream(tree.CHUNK)), file, tree.Budget(uri.shown))
    return str(answer.meta.get("e_tag") or "")


def _folder(place: Place, prefix: str, dest: Path, folder: Path) -> None:
    uri = place.uri
    if uri.archive or uri.sha256:
        raise SourceFault(
            "source/uri",
            f"{uri.shown} is a folder; zip+ and sha256= are for files.",
            "Leave them out.",
        )
    items = place.listing(prefix)
    # Consoles mark a folder by an empty object of its name.
    folders = {str(parent) for item in items for parent in PurePosixPath(item["path"]).parents}
    items = [item for item in items if item["size"] or item["path"] not in folders]
    if not items:
        raise SourceFault(
            "source/not-found", f"There is nothing below {uri.shown}.", "Check bucket and folder."
        )
    for item in items:
        target = dest / _relative(uri, item["path"], prefix)
        path, _ = place.obtain(item["path"], folder, current=item.get("e_tag") or "")
        tree.copy_file(path, target)
        if place.held is None:
            path.unlink()


def _relative(uri: SourceUri, key: str, prefix: str) -> PurePosixPath:
    try:
        return tree.member_path(key[len(prefix.rstrip("/")) :].lstrip("/"))
    except ValueError as exc:
        raise SourceFault(
            "source/unsafe-path",
            f"Below {uri.shown} is an object whose name {exc}: {key!r}.",
            "Remove or rename it.",
        ) from exc


def _fault(uri: SourceUri, exc: Exception, anonymous: bool) -> SourceFault:
    # The client's text is a page of its own structures; of a listing it makes no kinds of error.
    text = str(exc)
    reason = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status: (\d{3})", text)
    refused = isinstance(exc, (PermissionDeniedError, UnauthenticatedError))
    if isinstance(exc, FileNotFoundError) or (status and status[1] == "404"):
        code, what, hint = "source/not-found", "does not exist", "Check bucket and key."
    elif (refused or (status and status[1] in ("401", "403"))) and anonymous:
        code, what = "source/auth-required", "may not be read without credentials"
        hint = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    elif refused or (status and status[1] in ("401", "403")):
        code, what = "source/auth-refused", "may not be read with these credentials"
        hint = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or their age."
    elif re.search(r"certificate|tls|TLS|UnknownIssuer", text):
        code, what = "source/tls", "has a certificate or an encryption that is not accepted"
        hint = "For an authority of your own set SSL_CERT_FILE to a file with its certificate."
    elif re.search(r"kind: (Connect|Timeout|Request|Interrupted)|error sending request", text):
        code, what = "source/unreachable", "cannot be reached"
        hint = "Check AWS_ENDPOINT_URL and the network."
    else:
        code, what = "source/unavailable", f"cannot be had: {text.splitlines()[0][:200]}"
        hint = "Check the address and AWS_ENDPOINT_URL, or try again later."
    return SourceFault(code, f"{uri.shown} {what}{f' ({reason[1]})' if reason else ''}.", hint)
