"""One S3 request: its address, its conditions, and its body on the way to disk."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from digitalhub_python_control.files.blobs import Writer
from digitalhub_python_control.files.objects import Condition, Objects, StoredObject
from digitalhub_python_control.files.s3 import chunks as s3chunks
from digitalhub_python_control.files.s3 import xml as s3xml
from digitalhub_python_control.files.s3.xml import S3Error

PREFIX = "/s3"
_PIECE = 1024 * 1024
_MAX_XML = 2 * 1024 * 1024
_MAX_KEY = 1024
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_KEPT = ("cache-control", "content-disposition", "content-encoding", "content-language", "expires")


@dataclass(frozen=True)
class S3Request:
    """What a client asks for."""

    request: Request
    objects: Objects
    bucket: str
    key: str
    query: Mapping[str, str]
    project: str | None = None
    """A run reaches what lies below its project's name, in any bucket; None: all of it."""

    @property
    def headers(self) -> Mapping[str, str]:
        return self.request.headers

    @property
    def method(self) -> str:
        return self.request.method

    @classmethod
    def of(cls, request: Request, objects: Objects, project: str | None = None) -> S3Request:
        """Read the address of a request.

        Raises:
            S3Error: there can be no such bucket or key, or it is out of reach.
        """
        # The raw path: Starlette's has lost which bytes were escaped, and with it invalid ones.
        raw = request.scope["raw_path"].partition(b"?")[0]
        path = raw[raw.index(PREFIX.encode()) + len(PREFIX) :]
        bucket, _, key = decode_path(path.lstrip(b"/") if path != b"/" else b"").partition("/")
        if bucket and not _BUCKET.fullmatch(bucket):
            raise S3Error(400, "InvalidBucketName", f"There can be no bucket {bucket[:80]!r}.")
        query = parse_qsl(request.url.query, keep_blank_values=True)
        call = cls(request, objects, bucket, check_key(key), dict(query), project)
        if key:
            call.reach(key)
        return call

    def reach(self, key: str) -> str:
        """A key, or what keys begin with, that is within reach of who asks.

        Raises:
            S3Error: it is not.
        """
        if self.project is not None and not key.startswith(f"{self.project}/"):
            why = f"A run of project {self.project!r} reaches keys below {self.project}/ only."
            raise S3Error(403, "AccessDenied", why)
        return key

    async def body(self) -> bytes:
        """A small body, such as XML.

        Raises:
            S3Error: it is too large.
        """
        content = bytearray()
        async for chunk in self.request.stream():
            content += chunk
            if len(content) > _MAX_XML:
                raise S3Error(400, "MaxMessageLengthExceeded", "The request is too large.")
        return bytes(content)

    async def receive(self) -> Writer:
        """Write the body to disk in pieces, and check it against what its headers say it is.

        Raises:
            S3Error: the headers say something else; nothing is kept.
        """
        writer = await run_in_threadpool(self.objects.blobs.writer)
        try:
            decoder = s3chunks.decoder(self.headers)
            pending = bytearray()
            async for chunk in self.request.stream():
                pending += decoder.feed(chunk) if decoder else chunk
                if len(pending) >= _PIECE:
                    await run_in_threadpool(writer.write, bytes(pending))
                    pending.clear()
            await run_in_threadpool(writer.write, bytes(pending))
            if decoder:
                decoder.finish()
            self._check(writer)
        except BaseException:
            writer.discard()
            raise
        return writer

    def content_type(self) -> str:
        return self.headers.get("content-type") or "binary/octet-stream"

    def meta(self) -> dict[str, str]:
        """The headers that are stored with a file and answered as they came."""
        meta = {name: v for name, v in self.headers.items() if name.startswith("x-amz-meta-")}
        for name in _KEPT:
            # aws-chunked is how it travelled, not what it is.
            kept = [p.strip() for p in self.headers.get(name, "").split(",")]
            value = ", ".join(part for part in kept if part and part != "aws-chunked")
            if value:
                meta[name] = value
        return meta

    def condition(self) -> Condition:
        return Condition(
            _etag(self.headers.get("if-match")), _etag(self.headers.get("if-none-match"))
        )

    def _check(self, writer: Writer) -> None:
        said = self.headers
        md5, crc32 = said.get("content-md5"), said.get("x-amz-checksum-crc32")
        if md5 is not None and not _same(md5, writer.md5):
            raise S3Error(400, "BadDigest", "The body does not have the Content-MD5 that was sent.")
        if crc32 is not None and not _same(crc32, writer.crc32.to_bytes(4, "big")):
            raise S3Error(400, "BadDigest", "The body does not have the CRC32 that was sent.")
        sha256 = said.get("x-amz-content-sha256", "")
        if _HEX64.fullmatch(sha256) and not hmac.compare_digest(sha256, writer.sha256):
            raise S3Error(
                400,
                "XAmzContentSHA256Mismatch",
                "The body does not have the SHA-256 that was signed.",
            )


def whole(text: str, low: int, high: int) -> int | None:
    """A whole number in plain digits, however many, brought down to `high`; None: it is not one."""
    digits = text.lstrip("0") or text[:1]
    if not (digits.isascii() and digits.isdecimal()):
        return None
    number = high if len(digits) > len(str(high)) else min(int(digits), high)
    return number if number >= low else None


def decode_path(raw: bytes) -> str:
    """The text of a percent-encoded path.

    Raises:
        S3Error: it is not UTF-8.
    """
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise S3Error(400, "InvalidURI", "The key is not UTF-8.") from None


def check_key(key: str) -> str:
    """A key that can be stored and listed.

    Raises:
        S3Error: it cannot.
    """
    if len(key.encode()) > _MAX_KEY:
        raise S3Error(400, "KeyTooLongError", f"A key has at most {_MAX_KEY} bytes.")
    if not s3xml.fits(key):
        raise S3Error(400, "InvalidArgument", "A key cannot have control characters.")
    return key


def check_read(headers: Mapping[str, str], stored: StoredObject) -> int:
    """The status for the conditions of a read: 200, 304 or 412."""
    match, none_match = _etag(headers.get("if-match")), _etag(headers.get("if-none-match"))
    modified = stored.modified // 1_000_000
    if match is not None and match not in ("*", stored.etag):
        return 412
    since = _seconds(headers.get("if-unmodified-since"))
    if match is None and since is not None and modified > since:
        return 412
    if none_match is not None:
        return 304 if none_match in ("*", stored.etag) else 200
    since = _seconds(headers.get("if-modified-since"))
    return 304 if since is not None and modified <= since else 200


def _etag(value: str | None) -> str | None:
    return None if value is None else value.strip().strip('"')


def _seconds(value: str | None) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except (TypeError, ValueError):
        return None


def _same(said: str, digest: bytes) -> bool:
    return hmac.compare_digest(said.strip().encode(), base64.b64encode(digest))
