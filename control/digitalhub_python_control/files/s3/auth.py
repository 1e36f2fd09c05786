"""Checks the signature (AWS Signature Version 4) of an S3 request by making it again with botocore."""

from __future__ import annotations

import hmac
import re
import time
from calendar import timegm
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from starlette.requests import Request

from digitalhub_python_control.clientenv import Credentials
from digitalhub_python_control.files.s3.xml import S3Error
from digitalhub_python_control.settings import ControlSettings
from digitalhub_python_control.store.store import Store
from digitalhub_python_control.store.tokens import PREFIX, credentials_of, living

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, *"
    r"SignedHeaders=([^,]+), *Signature=([0-9a-f]{64})"
)
_SKEW = 15 * 60
_UNRESERVED = "-_.~"


def check(request: Request, settings: ControlSettings, store: Store) -> str | None:
    """Refuse a request that is signed neither with the settings' keys nor a run's; an open server takes all.

    Returns:
        The project that the request is confined to; None: it is not.

    Raises:
        S3Error: it is not signed, or not with these keys, or too long ago.
    """
    if not settings.needs_credentials and f"Credential={PREFIX}" not in request.headers.get(
        "authorization", ""
    ):
        return None
    found = _AUTHORIZATION.fullmatch(request.headers.get("authorization", "").strip())
    if not found:
        raise S3Error(403, "AccessDenied", "The request is not signed (AWS Signature Version 4).")
    access_key, date, region, service, signed, signature = found.groups()
    stamp = request.headers.get("x-amz-date", "")
    _check_time(stamp, date)
    run = living(access_key, store) if access_key != settings.s3_access_key else None
    keys = settings if run is None else credentials_of(run, store)
    expected = _signature(request, keys, stamp, region, service, signed.split(";"))
    is_known = hmac.compare_digest(access_key.encode(), keys.s3_access_key.encode())
    # Both are always compared: how long it takes says nothing about which of them is wrong.
    if not hmac.compare_digest(expected, signature) or not is_known:
        raise S3Error(
            403, "SignatureDoesNotMatch", "The access key or the secret key is another one."
        )
    return None if run is None else run.project


def _check_time(stamp: str, date: str) -> None:
    try:
        moment = timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise S3Error(403, "AccessDenied", "The request has no x-amz-date.") from None
    if not stamp.startswith(date) or abs(time.time() - moment) > _SKEW:
        raise S3Error(403, "RequestTimeTooSkewed", "The request was signed too long ago.")


def _signature(
    request: Request,
    keys: ControlSettings | Credentials,
    stamp: str,
    region: str,
    service: str,
    signed: list[str],
) -> str:
    # Here, since it costs 0.2 s, and an open server on loopback never needs it.
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as Signing

    class Resigner(S3SigV4Auth):  # type: ignore[misc]
        def headers_to_sign(self, request: Any) -> Any:
            return request.headers

    again = AWSRequest(method=request.method, url=_canonical_url(request))
    for name in signed:
        again.headers[name] = ",".join(request.headers.getlist(name))
    body_hash = request.headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    if "x-amz-content-sha256" not in again.headers:
        again.headers["X-Amz-Content-SHA256"] = body_hash
    again.context["timestamp"] = stamp
    signer = Resigner(Signing(keys.s3_access_key, keys.s3_secret_key), service, region)
    text = signer.string_to_sign(again, signer.canonical_request(again))
    return str(signer.signature(text, again))


def _canonical_url(request: Request) -> str:
    """The address with every character escaped as the signature wants it, however it was sent."""
    path = request.scope["raw_path"].partition(b"?")[0]
    escaped = quote(unquote_to_bytes(path), safe="/" + _UNRESERVED)
    query = parse_qsl(request.url.query, keep_blank_values=True)
    host = request.headers.get("host", "localhost")
    return f"http://{host}{escaped}?{urlencode(query, quote_via=quote, safe=_UNRESERVED)}"
