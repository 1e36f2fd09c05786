"""What the platform says about itself: health, who is asking, and the SDKs' configuration."""

from __future__ import annotations

from digitalhub_python_control.api.web import Call, Json
from digitalhub_python_control.settings import BUCKET
from digitalhub_runtime_python._version import __version__


def health(call: Call) -> Json:
    """200 while the database answers."""
    call.store.count_runs()
    return {"status": "UP", "version": __version__}


def status(call: Call) -> Json:
    """What `dhpy status` shows; Core has no such thing."""
    return {"version": __version__, "runs": call.store.count_runs()}


def who(call: Call) -> Json:
    """SDK 0.15 asks this before every file operation; only the status counts."""
    return {"user": call.user}


def configuration(call: Call) -> Json:
    """What a client may want to know; credentials are never among it."""
    return {
        "aws_endpoint_url": f"{call.base_url}/s3",
        "aws_region": "us-east-1",
        "dhcore_api_version": "v1",
        "dhcore_authentication_methods": ["basic"] if call.settings.needs_credentials else [],
        "dhcore_default_files_store": f"s3://{BUCKET}",
        "dhcore_endpoint": call.base_url,
        "dhcore_name": "digitalhub-python",
        "dhcore_realm": call.base_url,
        "dhcore_version": __version__,
        "k8s_namespace": "local",
        "k8s_resource_profiles": [],
        "s3_bucket": BUCKET,
        "s3_path_style": True,
        "s3_signature_version": "s3v4",
    }
