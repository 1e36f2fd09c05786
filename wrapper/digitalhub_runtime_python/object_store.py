"""Opens S3, GCS and Azure buckets with the settings' credentials: one client for code and for files."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from digitalhub_runtime_python.errors import PlatformFault
from digitalhub_runtime_python.settings import Settings

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
        PlatformFault: platform/store, when the scheme is no object store's.
    """
    from obstore.exceptions import BaseError  # 12 MiB: only a run that has files pays for it

    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    try:
        return open_bucket(scheme, bucket, settings.store_options), key
    except (BaseError, ValueError) as exc:
        raise PlatformFault(
            "platform/store",
            f"{scheme}://{bucket} is no object store that can be opened: {exc}.",
            "Use s3://bucket with AWS_ENDPOINT_URL and the AWS credentials set.",
        ) from exc


def open_bucket(scheme: str, bucket: str, options: Mapping[str, str]) -> Any:
    """The client for one bucket.

    Raises:
        obstore.exceptions.BaseError: an option is not what it should be.
        ValueError: the scheme is no object store's.
    """
    from obstore.store import from_url

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
