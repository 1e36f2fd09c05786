"""S3, GCS and Azure buckets with the settings' credentials: one client for code and for files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import obstore
from obstore.exceptions import (
    BaseError,
    NotModifiedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import from_url

from digitalhub_runtime_python.errors import PlatformFault, SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.transfer import CHUNK, Address, Budget, member_path

FAILURES = (BaseError, FileNotFoundError)
"""What the client raises; it says that there is no such object with Python's own error."""

OPTIONS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL",
    "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)  # fmt: skip
IDENTITIES = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE",
              "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")  # fmt: skip
"""Any of these says who asks. With none the request is anonymous: the client would otherwise look
for a virtual machine's identity, which off a cloud is half a minute of silence."""
RETRIES: dict[str, Any] = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {
        "init_backoff": timedelta(seconds=0.3),
        "max_backoff": timedelta(seconds=3),
        "base": 2,
    },
}


def open_store(uri: str, settings: Settings) -> tuple[Any, str]:
    """(the bucket's obstore store, the key in it) of `s3://bucket/key`, `gs://…` or `az://…`.

    Raises:
        PlatformFault: platform/store, when the scheme is not an object store's.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    try:
        return open_bucket(scheme, bucket, settings.store_options), key
    except (BaseError, ValueError) as exc:
        raise PlatformFault(
            "platform/store",
            f"{scheme}://{bucket} is not an object store that can be opened: {exc}.",
            "Use s3://bucket with AWS_ENDPOINT_URL and the AWS credentials set.",
        ) from exc


def open_bucket(scheme: str, bucket: str, options: Mapping[str, str]) -> Any:
    """The client for one bucket.

    Raises:
        obstore.exceptions.BaseError: an option is not what it should be.
        ValueError: the scheme is not an object store's.
    """
    create: Any = from_url  # typed by overloads that know no option as text
    client: dict[str, Any] = {"connect_timeout": "10s", "timeout": "600s"}
    if not scheme.startswith("s3"):
        # Google's and Azure's own variables; the client reads them.
        return create(f"{scheme}://{bucket}", client_options=client, retry_config=RETRIES)
    config: dict[str, Any] = {k.lower(): options[k] for k in OPTIONS if k in options}
    if not any(name in options for name in IDENTITIES):
        config["aws_skip_signature"] = True
    if not options.get("AWS_REGION") and not options.get("AWS_DEFAULT_REGION"):
        config["aws_region"] = "us-east-1"  # what every store but Amazon's answers to
    client["allow_http"] = options.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return create(f"s3://{bucket}", config=config, client_options=client, retry_config=RETRIES)


class Bucket:
    """The bucket of an address, to download from.

    Raises:
        SourceFault: the address names no object, or the bucket cannot be opened.
    """

    def __init__(self, address: Address, settings: Settings) -> None:
        scheme, _, rest = address.url.partition("://")
        bucket, _, self.key = rest.partition("/")
        if not bucket or not self.key:
            raise SourceFault(
                "source/uri",
                f"{address.shown} names no object.",
                "Write s3://bucket/folder/file, or s3://bucket/folder/ for all that is in a folder.",
            )
        options = settings.store_options
        self.address = address
        self.place = (scheme, options.get("AWS_ENDPOINT_URL", ""), bucket)
        """What tells the bucket from others: scheme, endpoint, name."""
        self._anonymous = not any(name in options for name in IDENTITIES)
        try:
            self._store = open_bucket(scheme, bucket, options)
        except (BaseError, ValueError) as exc:
            raise self._fault(exc) from exc

    def download(self, key: str, target: Path, budget: Budget, *, etag: str = "") -> str | None:
        """Download an object into the file `target`; its ETag, None if unchanged since `etag`."""
        try:
            answer = obstore.get(
                self._store, key, options={"if_none_match": etag} if etag else None
            )
            with target.open("wb") as file:
                budget.write(map(bytes, answer.stream(CHUNK)), file)
        except NotModifiedError:
            return None
        except FAILURES as exc:
            raise self._fault(exc) from exc
        return str(answer.meta.get("e_tag") or "")

    def below(self, budget: Budget) -> list[tuple[PurePosixPath, Any]]:
        """Every object below the address's folder: its path in there, and what the store tells of it."""
        shown, found = self.address.shown, []
        try:
            for batch in obstore.list(self._store, prefix=self.key):
                for item in batch:
                    budget.entry()
                    budget.add(item["size"])
                    found.append(item)
        except FAILURES as exc:
            raise self._fault(exc) from exc
        # Consoles mark a folder by an empty object of its name.
        folders = {str(parent) for item in found for parent in PurePosixPath(item["path"]).parents}
        found = [item for item in found if item["size"] or item["path"] not in folders]
        if not found:
            raise SourceFault(
                "source/not-found", f"There is nothing below {shown}.", "Check bucket and folder."
            )
        return [(self._relative(item["path"]), item) for item in found]

    def _relative(self, key: str) -> PurePosixPath:
        try:
            return member_path(key[len(self.key.rstrip("/")) :].lstrip("/"))
        except ValueError as exc:
            raise SourceFault(
                "source/unsafe-path",
                f"Below {self.address.shown} is an object whose name {exc}: {key!r}.",
                "Remove or rename it.",
            ) from exc

    def _fault(self, exc: Exception) -> SourceFault:
        # The client's text is a page of its own structures; of a listing it makes no kinds of error.
        text = str(exc)
        reason = re.search(r"<Code>(\w+)</Code>", text)
        status = re.search(r"status: (\d{3})", text)
        refused = isinstance(exc, (PermissionDeniedError, UnauthenticatedError))
        if isinstance(exc, FileNotFoundError) or (status and status[1] == "404"):
            code, what, hint = "source/not-found", "does not exist", "Check bucket and key."
        elif (refused or (status and status[1] in ("401", "403"))) and self._anonymous:
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
            code, what = "source/unavailable", f"cannot be read: {text.splitlines()[0][:200]}"
            hint = "Check the address and AWS_ENDPOINT_URL, or try again later."
        return SourceFault(
            code, f"{self.address.shown} {what}{f' ({reason[1]})' if reason else ''}.", hint
        )
