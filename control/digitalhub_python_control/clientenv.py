"""What a process that uses the SDK needs in its environment to talk to the control plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from digitalhub_python_control.settings import BUCKET, ControlSettings

PROFILE = "dhpy"
"""The profile of ~/.dhcore.ini that is named, and does not exist there: credentials in the file go
before those of the environment, so a profile of the user's would silently be used for us."""

FOREIGN = (
    "DHCORE_USER",
    "DHCORE_PASSWORD",
    "DHCORE_ACCESS_TOKEN",
    "DHCORE_REFRESH_TOKEN",
    "DHCORE_PERSONAL_ACCESS_TOKEN",
    "DHCORE_ID_TOKEN",
    "DHCORE_EXPIRES_IN",
    "DHCORE_ISSUER",
    "DHCORE_CLIENT_ID",
    "OAUTH2_TOKEN_ENDPOINT",
    "AWS_SESSION_TOKEN",
    "AWS_CREDENTIALS_EXPIRATION",
    "AWS_PROFILE",
    "S3_BUCKET",
    "S3_SIGNATURE_VERSION",
    "DHCORE_PROXY",
)
"""Variables of another platform, which must not be sent to this one; removed where they are not set."""

_PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


@dataclass(frozen=True)
class Credentials:
    """What a run sends to API and S3."""

    token: str = field(repr=False)
    s3_access_key: str
    s3_secret_key: str = field(repr=False)


def client_environment(
    url: str,
    settings: ControlSettings,
    environ: Mapping[str, str],
    run: Credentials | None = None,
) -> dict[str, str]:
    """The variables to set.

    Args:
        url: the control plane's base URL.
        settings: its credentials are in it.
        environ: where the process would inherit from; only its proxies matter.
        run: the credentials of a run, in place of the server's own.
    """
    env = {
        "DH_NAME": PROFILE,
        "DHCORE_ENDPOINT": url,
        "DHCORE_DEFAULT_FILES_STORE": f"s3://{BUCKET}",
        "AWS_ENDPOINT_URL": f"{url}/s3",
        "AWS_ACCESS_KEY_ID": (run or settings).s3_access_key,
        "AWS_SECRET_ACCESS_KEY": (run or settings).s3_secret_key,
        "AWS_REGION": "us-east-1",
    }
    if run is not None:
        env["DHCORE_ACCESS_TOKEN"] = run.token
    elif settings.user:
        env.update(DHCORE_USER=settings.user, DHCORE_PASSWORD=settings.password)
    elif settings.token:
        env["DHCORE_ACCESS_TOKEN"] = settings.token
    if any(environ.get(name) for name in _PROXIES):
        # A proxy cannot reach the loopback of this machine.
        here = "127.0.0.1,localhost,::1"
        listed = environ.get("no_proxy") or environ.get("NO_PROXY")
        env["no_proxy"] = env["NO_PROXY"] = f"{listed},{here}" if listed else here
    return env


def foreign_variables(env: Mapping[str, str]) -> list[str]:
    """The variables to remove beside setting those of `env`."""
    return [name for name in FOREIGN if name not in env]
