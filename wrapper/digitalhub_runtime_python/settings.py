"""Everything that the environment decides, read once and in one place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from digitalhub_runtime_python.errors import UsageFault

_SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "CONTAINER_REGISTRY_PASSWORD", "DB_PASSWORD",
    "DHCORE_ACCESS_TOKEN", "DHCORE_ID_TOKEN", "DHCORE_PASSWORD", "DHCORE_PERSONAL_ACCESS_TOKEN",
    "DHCORE_REFRESH_TOKEN", "GIT_PASSWORD", "GIT_TOKEN", "TRINO_PASSWORD", "TRINO_TOKEN",
)  # fmt: skip


@dataclass(frozen=True)
class Credentials:
    """How to prove to the platform who runs this; never printed (`repr` is redacted)."""

    access_token: str = ""
    refresh_token: str = ""
    user: str = ""
    password: str = ""
    client_id: str = ""
    issuer: str = ""
    token_endpoint: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"


@dataclass(frozen=True)
class Settings:
    """The runtime's settings; each field names its variable, unit and default."""

    project: str = ""
    """`PROJECT_NAME`."""
    run_id: str = ""
    """`RUN_ID`."""
    run_file: Path | None = None
    """`DHPY_RUN_FILE`: a run's JSON on disk; then no platform is needed."""
    endpoint: str = ""
    """`DHCORE_ENDPOINT`: base URL of the platform."""
    credentials: Credentials = field(default_factory=Credentials)
    """`DHCORE_ACCESS_TOKEN`, `DHCORE_REFRESH_TOKEN`, `DHCORE_USER`, `DHCORE_PASSWORD`, …"""
    files_store: str = ""
    """`DHCORE_DEFAULT_FILES_STORE`: where outputs go, `s3://bucket`."""
    store_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Every `AWS_*` and `S3_*` variable, as it is."""
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    """`GIT_TOKEN`, `GIT_USERNAME`, `GIT_PASSWORD`: for private code sources."""
    workspace: Path = field(default_factory=lambda: _temporary())
    """`DHPY_WORKSPACE`: each run gets a folder of its own below it. Default: the temporary folder."""
    cache: Path | None = None
    """`DHPY_CACHE`: fetched code sources are kept here between runs. Default: no cache."""
    report_timeout: float = 120.0
    """`DHPY_REPORT_TIMEOUT`, seconds: how long a report that cannot be delivered is retried."""
    deadline: float | None = None
    """`DHPY_DEADLINE`, seconds: a job that takes longer ends with 124. Default: none."""
    termination_log: Path | None = None
    """`DHPY_TERMINATION_LOG`: what failed is also written here. Default: `/dev/termination-log`, where there is one."""
    log_format: str = "text"
    """`DHPY_LOG_FORMAT`: `text` or `json`, of the runtime's own log."""
    log_level: str = "INFO"
    """`DHPY_LOG_LEVEL`: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`, of the runtime's own log."""

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Where all of this was read; secrets of the run are in it under their own names."""

    def secret_values(self, names: Iterable[str] = ()) -> set[str]:
        """Every value that no log, status or message may show: credentials, and secrets by name."""
        known = (*_SECRET_VARIABLES, *names)
        return {value for name in known if (value := self.environ.get(name, ""))}

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings from a mapping such as `os.environ`.

        Raises:
            UsageFault: a variable has a value that it cannot have; the message names it.
        """

        def text(name: str, default: str = "") -> str:
            return environ.get(name, "").strip() or default

        def path(name: str) -> Path | None:
            return Path(value) if (value := text(name)) else None

        # It exists only in a pod; a plain file elsewhere would be litter.
        in_pod = _TERMINATION_LOG if os.path.lexists(_TERMINATION_LOG) else None
        return cls(
            project=text("PROJECT_NAME"),
            run_id=text("RUN_ID"),
            run_file=path("DHPY_RUN_FILE"),
            endpoint=text("DHCORE_ENDPOINT").rstrip("/"),
            credentials=Credentials(
                access_token=text("DHCORE_ACCESS_TOKEN"),
                refresh_token=text("DHCORE_REFRESH_TOKEN"),
                user=text("DHCORE_USER"),
                password=text("DHCORE_PASSWORD"),
                client_id=text("DHCORE_CLIENT_ID"),
                issuer=text("DHCORE_ISSUER"),
                token_endpoint=text("OAUTH2_TOKEN_ENDPOINT"),
            ),
            files_store=text("DHCORE_DEFAULT_FILES_STORE").rstrip("/"),
            store_options={k: v for k, v in environ.items() if k.startswith(("AWS_", "S3_")) and v},
            tokens={k: v for k, v in environ.items() if k.startswith("GIT_") and v},
            workspace=path("DHPY_WORKSPACE") or _temporary(),
            cache=path("DHPY_CACHE"),
            report_timeout=_seconds(environ, "DHPY_REPORT_TIMEOUT") or 120.0,
            deadline=_seconds(environ, "DHPY_DEADLINE"),
            termination_log=path("DHPY_TERMINATION_LOG") or in_pod,
            environ=environ,
            log_format=_one_of(environ, "DHPY_LOG_FORMAT", ("text", "json")),
            log_level=_one_of(environ, "DHPY_LOG_LEVEL", _LOG_LEVELS),
        )


_TERMINATION_LOG = Path("/dev/termination-log")
_LOG_LEVELS = ("INFO", "DEBUG", "WARNING", "ERROR", "CRITICAL")


def _temporary() -> Path:
    import tempfile  # a millisecond, which whoever sets DHPY_WORKSPACE is spared

    return Path(tempfile.gettempdir())


def _one_of(environ: Mapping[str, str], name: str, values: tuple[str, ...]) -> str:
    """A variable's value, in whatever case it is written; the first one where it is not set."""
    given = environ.get(name, "").strip()
    for value in values:
        if not given or value.lower() == given.lower():
            return value
    raise UsageFault(
        "usage/setting", f"{name} is {given!r}.", f"Set it to one of {', '.join(values)}."
    )


_LONGEST = 10**8  # three years: a timer cannot wait for ever


def _seconds(environ: Mapping[str, str], name: str) -> float | None:
    value = environ.get(name, "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= _LONGEST:
        raise UsageFault(
            "usage/setting",
            f"{name} is {value!r}.",
            f"Set it to a number of seconds above 0, at most {_LONGEST}.",
        )
    return seconds
