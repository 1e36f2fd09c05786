"""What S3 does with objects and buckets: read, write, copy, delete, list. Uploads in parts: s3multipart.py."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from email.utils import formatdate
from typing import BinaryIO
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from digitalhub_python_control.files.objects import ConditionError, StoredObject
from digitalhub_python_control.files.s3 import xml as s3xml
from digitalhub_python_control.files.s3.request import (
    S3Request,
    check_key,
    check_read,
    decode_path,
    whole,
)
from digitalhub_python_control.files.s3.xml import S3Error
from digitalhub_python_control.store import times

_MAX_KEYS = 1000
_PIECE = 1024 * 1024
_LONGEST = 10**18
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
"""One range; a request for several is answered with the whole, as HTTP allows."""


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
    keys = [call.reach(node.findtext("Key", "")) for node in root.findall("Object")]
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
    call.reach("")
    names = await run_in_threadpool(call.objects.buckets)
    nodes: list[s3xml.Node] = [{"Name": name, "CreationDate": times.text(0)} for name in names]
    return s3xml.document("ListAllMyBucketsResult", {"Buckets": {"Bucket": nodes}})


def _open(call: S3Request) -> tuple[StoredObject, BinaryIO] | None:
    try:
        return call.objects.open(call.bucket, call.key)
    except FileNotFoundError as exc:
        raise S3Error(500, "InternalError", str(exc)) from None


def _copy(call: S3Request) -> Response:
    raw = call.headers["x-amz-copy-source"].partition("?")[0].lstrip("/")
    bucket, _, key = decode_path(raw.encode()).partition("/")
    source = call.objects.get(bucket, call.reach(check_key(key)))
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
    size = whole(query.get("max-keys", str(_MAX_KEYS)), 0, _MAX_KEYS)
    if size is None:
        raise S3Error(400, "InvalidArgument", "max-keys must be a whole number.")
    prefix, delimiter = call.reach(query.get("prefix", "")), query.get("delimiter", "")
    token = query.get("continuation-token", "") if is_v2 else ""
    after = query.get("start-after" if is_v2 else "marker", "")
    try:
        found = call.objects.listing(call.bucket, prefix, delimiter, size, token, check_key(after))
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
        "MaxKeys": size,
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
        # Bytes of users, at the API's own address: never a page, nor a script, of it.
        "content-disposition": "attachment",
        **stored.meta,  # in small letters
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }


def _range(value: str | None, size: int) -> tuple[int, int]:
    """First byte and the one after the last."""
    found = _RANGE.fullmatch(value.strip()) if value else None
    if not found or not any(found.groups()):
        return 0, size
    first, last = (whole(text, 0, _LONGEST) for text in found.groups())
    if first is None:  # the last n bytes
        start, end = max(0, size - (last or 0)), size
    else:
        start, end = first, size if last is None else min(size, last + 1)
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
