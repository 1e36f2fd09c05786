"""Opens S3, GCS and Azure stores with the settings' credentials."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from digitalhub_runtime_python.errors import PlatformFault
from digitalhub_runtime_python.settings import Settings


def open_store(uri: str, settings: Settings) -> tuple[Any, str]:
    """(the bucket's obstore store, the key in it) of `s3://bucket/key`, `gs://…` or `az://…`.

    Raises:
        PlatformFault: platform/store, when the scheme is no object store's.
    """
    import obstore.exceptions
    import obstore.store  # 12 MiB: only a run that has files pays for it

    parts = urlsplit(uri)
    options = settings.store_options
    config: dict[str, Any] = {}
    client: dict[str, Any] = {"timeout": "600s", "connect_timeout": "10s"}
    if parts.scheme in ("s3", "s3a"):
        config = {
            key: value for key, name in _S3_OPTIONS.items() if (value := options.get(name, ""))
        }
        config.setdefault("region", "us-east-1")  # most stores ignore it, and it must be signed
        endpoint = config.get("endpoint", "")
        if endpoint:
            # Beside a store of one's own there is no DNS entry per bucket.
            config["virtual_hosted_style_request"] = False
            client["allow_http"] = endpoint.startswith("http://")
        if "access_key_id" not in config:
            config["skip_signature"] = True
    try:
        store: Any = obstore.store.from_url(  # type: ignore[call-overload]
            f"{parts.scheme}://{parts.netloc}",
            config=config or None,
            client_options=client,
        )
    except (obstore.exceptions.BaseError, ValueError) as exc:
        raise PlatformFault(
            "platform/store",
            f"{parts.scheme}://{parts.netloc} is no object store that can be opened: {exc}.",
            "Use s3://bucket with AWS_ENDPOINT_URL and the AWS credentials set.",
        ) from exc
    return store, parts.path.lstrip("/")


_S3_OPTIONS = {
    "endpoint": "AWS_ENDPOINT_URL",
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
    "region": "AWS_REGION",
}
