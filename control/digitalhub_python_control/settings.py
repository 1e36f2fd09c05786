"""Everything that the environment decides about the control plane, read once and in one place."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from digitalhub_runtime_python.errors import UsageFault

DEFAULT_PORT = 8321
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
BUCKET = "digitalhub"
"""The bucket of the default files store; any other name works too."""


@dataclass(frozen=True)
class ControlSettings:
    """The control plane's settings; each field names its variable, unit and default."""

    home: Path
    """`DHPY_HOME`: database, key, files and logs. Default: `$XDG_DATA_HOME/digitalhub-python`."""
    cache: Path
    """`DHPY_CACHE`: environments of runs; may be deleted. Default: `~/.cache/digitalhub-python`."""
    host: str = "127.0.0.1"
    """`DHPY_HOST`: the address to listen on; one that is not loopback needs credentials."""
    port: int = DEFAULT_PORT
    """`DHPY_PORT`: 0 takes any free one."""
    database_url: str = field(default="", repr=False)
    """`DHPY_DATABASE_URL`: an SQLAlchemy URL. Default: SQLite, `dhpy.db` in the home."""
    user: str = ""
    """`DHPY_USER`: basic authentication, with `DHPY_PASSWORD`."""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    """`DHPY_TOKEN`: a bearer token, beside or instead of user and password."""
    s3_access_key: str = "dhpy"
    """`DHPY_S3_ACCESS_KEY`. Default: the user, or `token`, or `dhpy` on an open server."""
    s3_secret_key: str = field(default="dhpy", repr=False)
    """`DHPY_S3_SECRET_KEY`. Default: the password, or the token, or `dhpy` on an open server."""
    max_body: int = 32 * 1024 * 1024
    """`DHPY_MAX_BODY`, bytes: the largest JSON body; files have no limit. Default: 32 MiB."""
    max_log: int = 1024 * 1024
    """`DHPY_MAX_LOG`, bytes: how much of a log's end is answered. Default: 1 MiB."""
    max_run_log: int = 64 * 1024 * 1024
    """`DHPY_MAX_RUN_LOG`, bytes: of a run's log that grows longer the first half is dropped. Default: 64 MiB."""
    engine: str = "process"
    """`DHPY_ENGINE`: the run engine of new runs."""
    max_jobs: int = 2
    """`DHPY_MAX_JOBS`: runs that work at the same time. Default: the number of CPUs, at least 2."""
    stop_grace: float = 1.0
    """`DHPY_STOP_GRACE`, seconds between SIGTERM and SIGKILL of a run that is stopped."""
    environment_days: int = 30
    """`DHPY_ENVIRONMENT_DAYS`: environments that were not used for so long are removed."""

    docker_network: str = "host"
    """`DHPY_DOCKER_NETWORK`: the network of the containers of DHPY_ENGINE=docker."""
    docker_user: str = ""
    """`DHPY_DOCKER_USER`: whom they run as. Default: the image's own user."""
    docker_root: str = "writable"
    """`DHPY_DOCKER_ROOT`: `writable` or `read-only`, their root file system."""

    missed_triggers: str = "once"
    """`DHPY_MISSED_TRIGGERS`: `once` or `skip`, what becomes of schedules that came while no control plane was up."""

    log_format: str = "text"
    """`DHPY_LOG_FORMAT`: `text` or `json`, of the server's own log."""
    max_server_log: int = 16 * 1024 * 1024
    """`DHPY_MAX_SERVER_LOG`, bytes: `server.log` is begun anew when it is longer; two earlier ones are kept."""
    log_level: str = "INFO"
    """`DHPY_LOG_LEVEL`: DEBUG, INFO, WARNING, ERROR or CRITICAL."""

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Where all of this was read; engines' clients have variables of their own in it."""

    @property
    def url(self) -> str:
        """The server's base URL as a client on this machine uses it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def needs_credentials(self) -> bool:
        """Whether requests must prove who sends them; only an open loopback server needs none."""
        return bool(self.user or self.token)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ControlSettings:
        """Read the settings from a mapping such as `os.environ`.

        Raises:
            UsageFault: a variable has a value that it cannot have, or the address is not loopback
                and there are no credentials.
        """

        def text(name: str, default: str = "") -> str:
            return environ.get(name, "").strip() or default

        home = _home(environ)
        user, password, token = text("DHPY_USER"), text("DHPY_PASSWORD"), text("DHPY_TOKEN")
        if bool(user) != bool(password):
            raise UsageFault(
                "usage/credentials",
                f"{'DHPY_PASSWORD' if user else 'DHPY_USER'} is missing.",
                "Set DHPY_USER and DHPY_PASSWORD, or neither.",
            )
        settings = cls(
            home=home,
            cache=_folder(text("DHPY_CACHE"), environ, "XDG_CACHE_HOME", ".cache"),
            host=text("DHPY_HOST", "127.0.0.1"),
            port=int(_number(environ, "DHPY_PORT", DEFAULT_PORT, 0, 65535)),
            database_url=text("DHPY_DATABASE_URL", f"sqlite:///{home / 'dhpy.db'}"),
            user=user,
            password=password,
            token=token,
            s3_access_key=text("DHPY_S3_ACCESS_KEY", user or ("token" if token else "dhpy")),
            s3_secret_key=text("DHPY_S3_SECRET_KEY", password or token or "dhpy"),
            max_body=int(_number(environ, "DHPY_MAX_BODY", cls.max_body, 1024)),
            max_run_log=int(_number(environ, "DHPY_MAX_RUN_LOG", cls.max_run_log, 64 * 1024)),
            max_log=int(_number(environ, "DHPY_MAX_LOG", cls.max_log, 1024)),
            engine=text("DHPY_ENGINE", "process"),
            max_jobs=int(_number(environ, "DHPY_MAX_JOBS", max(2, os.cpu_count() or 2), 1)),
            stop_grace=_number(environ, "DHPY_STOP_GRACE", cls.stop_grace, 0),
            environment_days=int(_number(environ, "DHPY_ENVIRONMENT_DAYS", 30, 0)),
            docker_network=text("DHPY_DOCKER_NETWORK", "host"),
            docker_user=text("DHPY_DOCKER_USER"),
            docker_root=_one_of(
                "DHPY_DOCKER_ROOT", text("DHPY_DOCKER_ROOT", "writable"), ("writable", "read-only")
            ),
            missed_triggers=_one_of(
                "DHPY_MISSED_TRIGGERS", text("DHPY_MISSED_TRIGGERS", "once"), ("once", "skip")
            ),
            log_format=_one_of(
                "DHPY_LOG_FORMAT", text("DHPY_LOG_FORMAT", "text"), ("text", "json")
            ),
            max_server_log=int(_number(environ, "DHPY_MAX_SERVER_LOG", cls.max_server_log, 1024)),
            log_level=_one_of("DHPY_LOG_LEVEL", text("DHPY_LOG_LEVEL", "INFO").upper(), _LEVELS),
            environ=environ,
        )
        if not settings.needs_credentials and not is_loopback(settings.host):
            raise UsageFault(
                "usage/open-address",
                f"{settings.host} can be reached from other machines, and there are no credentials.",
                "Set DHPY_USER and DHPY_PASSWORD, or DHPY_TOKEN; or listen on 127.0.0.1.",
            )
        return settings


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _home(environ: Mapping[str, str]) -> Path:
    return _folder(environ.get("DHPY_HOME", "").strip(), environ, "XDG_DATA_HOME", ".local/share")


def _folder(value: str, environ: Mapping[str, str], variable: str, default: str) -> Path:
    if value:
        return Path(value).expanduser().absolute()
    base = environ.get(variable, "").strip()
    return (Path(base) if base else Path.home() / default).absolute() / "digitalhub-python"


def _one_of(name: str, value: str, values: tuple[str, ...]) -> str:
    if value not in values:
        raise UsageFault(
            "usage/setting", f"{name} is {value!r}.", f"Set it to one of {', '.join(values)}."
        )
    return value


def _number(
    environ: Mapping[str, str], name: str, default: float, low: float, high: float = float("inf")
) -> float:
    value = environ.get(name, "").strip()
    if not value:
        return default
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        raise UsageFault(
            "usage/setting",
            f"{name} is {value!r}.",
            f"Set it to a number of at least {low:g}"
            + (f" and at most {high:g}." if high < float("inf") else "."),
        )
    return number
