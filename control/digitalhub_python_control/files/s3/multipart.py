"""Uploads in parts: begin, part, complete, abort. The parts lie on disk until they are put together."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from digitalhub_python_control.files.objects import Condition, StoredObject
from digitalhub_python_control.files.s3 import xml as s3xml
from digitalhub_python_control.files.s3.request import S3Request, whole
from digitalhub_python_control.files.s3.xml import S3Error

_MAX_PART = 10_000


async def begin(call: S3Request) -> Response:
    """POST ?uploads."""
    description = {
        "bucket": call.bucket,
        "key": call.key,
        "content_type": call.content_type(),
        "meta": call.meta(),
    }
    upload = await run_in_threadpool(call.objects.blobs.begin_upload, description)
    return s3xml.document(
        "InitiateMultipartUploadResult",
        {"Bucket": call.bucket, "Key": call.key, "UploadId": upload},
    )


async def part(call: S3Request) -> Response:
    """PUT ?partNumber=…&uploadId=…"""
    await _description(call)
    number = _part_number(call.query["partNumber"])
    if number is None:
        raise S3Error(400, "InvalidArgument", f"partNumber is 1 to {_MAX_PART}.")
    if "x-amz-copy-source" in call.headers:
        raise S3Error(501, "NotImplemented", "Parts cannot be copied from another object here.")
    writer = await call.receive()
    try:
        await run_in_threadpool(
            call.objects.blobs.keep_part, call.query["uploadId"], number, writer
        )
    except FileNotFoundError:  # aborted meanwhile
        writer.discard()
        raise _no_upload() from None
    return Response(headers={"ETag": f'"{writer.etag}"'})


async def complete(call: S3Request) -> Response:
    """POST ?uploadId=… with the list of parts."""
    description = await _description(call)
    root = s3xml.parse(await call.body())
    wanted = [
        (
            _part_number(node.findtext("PartNumber", "")) or 0,
            node.findtext("ETag", "").strip().strip('"'),
        )
        for node in root.findall("Part")
    ]
    stored = await run_in_threadpool(_put_together, call, description, wanted)
    return s3xml.document(
        "CompleteMultipartUploadResult",
        {
            "Location": f"/{call.bucket}/{call.key}",
            "Bucket": call.bucket,
            "Key": call.key,
            "ETag": f'"{stored.etag}"',
        },
    )


async def abort(call: S3Request) -> Response:
    """DELETE ?uploadId=…"""
    await _description(call)
    await run_in_threadpool(call.objects.blobs.end_upload, call.query["uploadId"])
    return Response(status_code=204)


async def list_parts(call: S3Request) -> Response:
    """GET ?uploadId=…"""
    await _description(call)
    upload = call.query["uploadId"]
    found = await run_in_threadpool(call.objects.blobs.parts, upload)
    nodes: list[s3xml.Node] = [
        {"PartNumber": number, "ETag": f'"{etag}"', "Size": size}
        for number, (etag, size) in sorted(found.items())
    ]
    return s3xml.document(
        "ListPartsResult",
        {
            "Bucket": call.bucket,
            "Key": call.key,
            "UploadId": upload,
            "IsTruncated": False,
            "Part": nodes,
        },
    )


def _put_together(
    call: S3Request, description: dict[str, object], wanted: list[tuple[int, str]]
) -> StoredObject:
    upload, blobs = call.query["uploadId"], call.objects.blobs
    there = blobs.parts(upload)
    if not wanted or wanted != sorted(set(wanted)):
        raise S3Error(400, "InvalidPartOrder", "The parts are not listed in their order.")
    for number, etag in wanted:
        if number not in there or there[number][0] != etag:
            raise S3Error(400, "InvalidPart", f"Part {number} was not uploaded, or is another one.")
    writer = blobs.assemble(upload, wanted)
    condition: Condition = call.condition()
    meta = {str(k): str(v) for k, v in dict(description["meta"]).items()}  # type: ignore[call-overload]
    stored = call.objects.put(
        call.bucket, call.key, writer, str(description["content_type"]), meta, condition
    )
    blobs.end_upload(upload)
    return stored


def _part_number(text: str) -> int | None:
    number = whole(text.strip(), 1, _MAX_PART + 1)
    return number if number is not None and number <= _MAX_PART else None


async def _description(call: S3Request) -> dict[str, object]:
    found = await run_in_threadpool(call.objects.blobs.upload, call.query["uploadId"])
    if found is None or (found["bucket"], found["key"]) != (call.bucket, call.key):
        raise _no_upload()
    return found


def _no_upload() -> S3Error:
    return S3Error(404, "NoSuchUpload", "There is no such upload; it may have been aborted.")
