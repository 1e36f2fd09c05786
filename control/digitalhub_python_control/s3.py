"""The subset of S3 that digitalhub, boto3 and obstore need for files, below `/s3`.

Path-style addresses; any bucket exists. Bytes go between socket and disk in pieces of a megabyte.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from email.utils import formatdate
from typing import BinaryIO, Callable
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from digitalhub_python_control import s3auth, s3multipart, s3xml, times
from digitalhub_python_control.objects import ConditionError, Objects, StoredObject
from digitalhub_python_control.s3request import S3Request, check_key, check_read, decode_path
from digitalhub_python_control.s3xml import S3Error
from digitalhub_runtime_python.errors import Fault

logger = logging.getLogger(__name__)

Operation = Callable[[S3Request], Awaitable[Response]]

_MAX_KEYS = 1000
_PIECE = 1024 * 1024
_DRAIN = 256 * 1024 * 1024
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
"""One range; a request for several is answered with the whole, as HTTP allows."""


async def respond(request: Request) -> Response:
    """The endpoint of everything below `/s3`."""
    objects: Objects = request.app.state.objects
    try:
        s3auth.check(request, request.app.state.settings)
        call = S3Request.of(request, objects)
        return await _operation(call)(call)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    except Exception as exc:  # noqa: BLE001 - the one place that answers for what went wrong
        problem = _problem(exc, request)
        await _drain(request)
    if request.method == "HEAD":
        return Response(status_code=problem.status)
    return s3xml.error(problem, request.url.path)


def _operation(call: S3Request) -> Operation:
    """The operation for a request: the first row whose parameters it has."""
    scope = "object" if call.key else ("bucket" if call.bucket else "service")
    for method, where, parameters, operation in _OPERATIONS:
        if (method, where) == (call.method, scope) and all(p in call.query for p in parameters):
            unknown = _SUBRESOURCES.intersection(call.query).difference(parameters)
            if unknown:
                raise S3Error(501, "NotImplemented", f"?{min(unknown)} is not part of this subset.")
            return operation
    raise S3Error(405, "MethodNotAllowed", f"{call.method} is not possible here.")


async def read_object(call: S3Request) -> Response:
    """GET and HEAD of an object."""
    found = await run_in_threadpool(_open, call)
    if found is None:
        raise S3Error(404, "NoSuchKey", f"There is no key {call.key!r} in {call.bucket!r}.")
    stored, file = found
    headers = _headers(stored)
    status = check_read(call.headers, stored)
    if status != 200:
        file.close()
        if status == 304:
            return Response(status_code=304, headers=headers)
        raise S3Error(412, "PreconditionFailed", "The object is not the one that was asked for.")
    try:
        start, end = _range(call.headers.get("range"), stored.size)
    except S3Error:
        file.close()
        raise
    headers["Content-Length"] = str(end - start)
    if "range" in call.headers and (end - start) < stored.size:
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{stored.size}"
    if call.method == "HEAD":
        file.close()
        return Response(
            status_code=status,
            headers=headers,
        )
    pieces = _pieces(file, start, end - start)
    return StreamingResponse(pieces, status, headers)


async def put_object(call: S3Request) -> Response:
    """PUT of an object, or a copy of another one."""
    if "x-amz-copy-source" in call.headers:
        return await run_in_threadpool(_copy, call)
    condition = call.condition()
    if condition.match or condition.none_match:
        # Told before gigabytes are sent; what counts is the same test when they are entered.
        current = await run_in_threadpool(call.objects.get, call.bucket, call.key)
        if not condition.holds(current):
            raise ConditionError
    writer = await call.receive()
    stored = await run_in_threadpool(
        call.objects.put,
        call.bucket,
        call.key,
        writer,
        call.content_type(),
        call.meta(),
        condition,
    )
    return Response(headers={"ETag": f'"{stored.etag}"'})


async def delete_object(call: S3Request) -> Response:
    await run_in_threadpool(call.objects.delete, call.bucket, call.key)
    return Response(status_code=204)


async def delete_objects(call: S3Request) -> Response:
    """POST ?delete: many at once."""
    root = s3xml.parse(await call.body())
    keys = [node.findtext("Key", "") for node in root.findall("Object")]
    for key in keys:
        await run_in_threadpool(call.objects.delete, call.bucket, check_key(key))
    is_quiet = root.findtext("Quiet", "").lower() == "true"
    deleted: list[s3xml.Node] = [] if is_quiet else [{"Key": key} for key in keys]
    return s3xml.document("DeleteResult", {"Deleted": deleted})


async def list_objects(call: S3Request) -> Response:
    """GET of a bucket: version 2 of the listing, and version 1 for what still asks for it."""
    return await run_in_threadpool(_list, call)


async def bucket_exists(_call: S3Request) -> Response:
    """HEAD and PUT of a bucket: any exists."""
    return Response(headers={"x-amz-bucket-region": "us-east-1"})


async def bucket_location(_call: S3Request) -> Response:
    return s3xml.document("LocationConstraint", {})


async def list_buckets(call: S3Request) -> Response:
    names = await run_in_threadpool(call.objects.buckets)
    nodes: list[s3xml.Node] = [{"Name": name, "CreationDate": times.text(0)} for name in names]
    return s3xml.document("ListAllMyBucketsResult", {"Buckets": {"Bucket": nodes}})


_OPERATIONS: tuple[tuple[str, str, tuple[str, ...], Operation], ...] = (
    ("POST", "object", ("uploads",), s3multipart.begin),
    ("PUT", "object", ("partNumber", "uploadId"), s3multipart.part),
    ("POST", "object", ("uploadId",), s3multipart.complete),
    ("DELETE", "object", ("uploadId",), s3multipart.abort),
    ("GET", "object", ("uploadId",), s3multipart.list_parts),
    ("GET", "object", (), read_object),
    ("HEAD", "object", (), read_object),
    ("PUT", "object", (), put_object),
    ("DELETE", "object", (), delete_object),
    ("POST", "bucket", ("delete",), delete_objects),
    ("GET", "bucket", ("location",), bucket_location),
    ("GET", "bucket", (), list_objects),
    ("HEAD", "bucket", (), bucket_exists),
    ("PUT", "bucket", (), bucket_exists),
    ("GET", "service", (), list_buckets),
)

_SUBRESOURCES = frozenset(
    [
        "acl",
        "attributes",
        "cors",
        "delete",
        "encryption",
        "legal-hold",
        "lifecycle",
        "location",
        "logging",
        "notification",
        "object-lock",
        "partNumber",
        "policy",
        "replication",
        "restore",
        "retention",
        "select",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
    ]
)


def _open(call: S3Request) -> tuple[StoredObject, BinaryIO] | None:
    """The entry and its bytes; looks twice, since a writer may replace both in between."""
    for _ in range(10):
        stored = call.objects.get(call.bucket, call.key)
        if stored is None:
            return None
        try:
            return stored, call.objects.blobs.open(stored.blob)
        except FileNotFoundError:
            continue
    raise S3Error(500, "InternalError", f"The bytes of {call.key!r} are gone from the disk.")


def _copy(call: S3Request) -> Response:
    raw = call.headers["x-amz-copy-source"].partition("?")[0].lstrip("/")
    bucket, _, key = decode_path(raw.encode()).partition("/")
    source = call.objects.get(bucket, check_key(key))
    if source is None:
        raise S3Error(404, "NoSuchKey", f"There is no key {key!r} in {bucket!r}.")
    described = None
    if call.headers.get("x-amz-metadata-directive", "").upper() == "REPLACE":
        described = replace(source, content_type=call.content_type(), meta=call.meta())
    stored = call.objects.copy(source, call.bucket, call.key, described)
    return s3xml.document(
        "CopyObjectResult",
        {"ETag": f'"{stored.etag}"', "LastModified": times.text(stored.modified)},
    )


def _list(call: S3Request) -> Response:
    query, is_v2 = call.query, call.query.get("list-type") == "2"
    size = query.get("max-keys", str(_MAX_KEYS))
    if not size.isdecimal():
        raise S3Error(400, "InvalidArgument", "max-keys must be a whole number.")
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    token = query.get("continuation-token", "") if is_v2 else ""
    after = query.get("start-after" if is_v2 else "marker", "")
    try:
        found = call.objects.listing(
            call.bucket, prefix, delimiter, min(int(size), _MAX_KEYS), token, check_key(after)
        )
    except ValueError:
        raise S3Error(400, "InvalidArgument", "The continuation token is not valid.") from None
    is_encoded = query.get("encoding-type") == "url"

    def shown(text: str) -> str:
        return quote(text, safe="/") if is_encoded else text

    nodes: list[s3xml.Node] = [
        {
            "Key": shown(one.key),
            "LastModified": times.text(one.modified),
            "ETag": f'"{one.etag}"',
            "Size": one.size,
            "StorageClass": "STANDARD",
        }
        for one in found.objects
    ]
    prefixes: list[s3xml.Node] = [{"Prefix": shown(one)} for one in found.prefixes]
    content: dict[str, s3xml.Node] = {
        "Name": call.bucket,
        "Prefix": shown(prefix),
        "MaxKeys": int(size),
        "KeyCount": len(nodes) + len(prefixes),
        "IsTruncated": found.next_token is not None,
        "Contents": nodes,
        "CommonPrefixes": prefixes,
    }
    if delimiter:
        content["Delimiter"] = shown(delimiter)
    if is_encoded:
        content["EncodingType"] = "url"
    if found.next_token is not None:
        last = max([o.key for o in found.objects] + found.prefixes)
        content.update(
            {"NextContinuationToken": found.next_token} if is_v2 else {"NextMarker": shown(last)}
        )
    return s3xml.document("ListBucketResult", content)


def _headers(stored: StoredObject) -> dict[str, str]:
    return {
        "Content-Type": stored.content_type,
        "ETag": f'"{stored.etag}"',
        "Last-Modified": formatdate(stored.modified / 1_000_000, usegmt=True),
        "Accept-Ranges": "bytes",
        **stored.meta,
    }


def _range(value: str | None, size: int) -> tuple[int, int]:
    """First byte and the one after the last."""
    found = _RANGE.fullmatch(value.strip()) if value else None
    if not found or not any(found.groups()):
        return 0, size
    first, last = found.groups()
    if not first:  # the last n bytes
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= end:
        raise S3Error(416, "InvalidRange", f"The object has {size} bytes.")
    return start, end


async def _pieces(file: BinaryIO, start: int, length: int) -> AsyncIterator[bytes]:
    try:
        file.seek(start)
        while length > 0:
            piece = await run_in_threadpool(file.read, min(_PIECE, length))
            if not piece:
                return
            length -= len(piece)
            yield piece
    finally:
        file.close()


def _problem(exc: Exception, request: Request) -> S3Error:
    """The error for the client; one of ours is logged too."""
    what = f"{request.method} {request.url.path}"
    if isinstance(exc, S3Error):
        return exc
    if isinstance(exc, ConditionError):
        return S3Error(412, "PreconditionFailed", "The object is not as the condition says.")
    is_full = isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)
    if is_full or (isinstance(exc, Fault) and exc.code == "control/disk-full"):
        logger.error("%s: the disk is full [control/disk-full]", what)
        return S3Error(507, "InsufficientStorage", "The server's disk is full; nothing was stored.")
    if isinstance(exc, Fault):
        logger.error("%s: %s [%s]", what, exc, exc.code)
        return S3Error(500, "InternalError", str(exc))
    logger.error("%s failed", what, exc_info=exc)
    return S3Error(500, "InternalError", "The server failed; its log says more.")


async def _drain(request: Request) -> None:
    """Read what the client still sends, so that it reads the answer instead of a broken pipe."""
    if request.headers.get("expect", "").lower() == "100-continue":
        return  # it waits to be told
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > _DRAIN:
                return
    except (ClientDisconnect, RuntimeError):
        return  # gone, or read to its end already
