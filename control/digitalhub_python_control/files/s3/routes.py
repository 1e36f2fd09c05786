"""The subset of S3 that digitalhub, boto3 and obstore need for files, below `/s3`.

Path-style addresses; any bucket exists. Bytes go between socket and disk in pieces of a megabyte.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable
from typing import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from digitalhub_python_control.files.objects import ConditionError, Objects
from digitalhub_python_control.files.s3 import auth as s3auth
from digitalhub_python_control.files.s3 import multipart as s3multipart
from digitalhub_python_control.files.s3 import operations as s3operations
from digitalhub_python_control.files.s3 import xml as s3xml
from digitalhub_python_control.files.s3.request import S3Request
from digitalhub_python_control.files.s3.xml import S3Error
from digitalhub_runtime_python.errors import Fault

logger = logging.getLogger(__name__)

Operation = Callable[[S3Request], Awaitable[Response]]

_DRAIN = 256 * 1024 * 1024
"""Bytes of a refused body that are read and dropped, so that the client reads the answer."""


async def respond(request: Request) -> Response:
    """The endpoint of everything below `/s3`."""
    objects: Objects = request.app.state.objects
    try:
        state = request.app.state
        project = await run_in_threadpool(s3auth.check, request, state.settings, state.store)
        call = S3Request.of(request, objects, project)
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


_OPERATIONS: tuple[tuple[str, str, tuple[str, ...], Operation], ...] = (
    ("POST", "object", ("uploads",), s3multipart.begin),
    ("PUT", "object", ("partNumber", "uploadId"), s3multipart.part),
    ("POST", "object", ("uploadId",), s3multipart.complete),
    ("DELETE", "object", ("uploadId",), s3multipart.abort),
    ("GET", "object", ("uploadId",), s3multipart.list_parts),
    ("GET", "object", (), s3operations.read_object),
    ("HEAD", "object", (), s3operations.read_object),
    ("PUT", "object", (), s3operations.put_object),
    ("DELETE", "object", (), s3operations.delete_object),
    ("POST", "bucket", ("delete",), s3operations.delete_objects),
    ("GET", "bucket", ("location",), s3operations.bucket_location),
    ("GET", "bucket", (), s3operations.list_objects),
    ("HEAD", "bucket", (), s3operations.bucket_exists),
    ("PUT", "bucket", (), s3operations.bucket_exists),
    ("GET", "service", (), s3operations.list_buckets),
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
