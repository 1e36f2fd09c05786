"""Everything that the environment decides, read once and in one place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from digitalhub_runtime_python.errors import UsageFault


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
    run_json: str = field(default="", repr=False)
    """`DHPY_RUN`: the run's JSON itself, as `dhpy manifests` writes it; then no platform is needed."""
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
    max_sources: int = 5 << 30
    """`DHPY_MAX_SOURCES`: bytes of fetched code that are kept there; what was used longest ago goes first."""
    code_folder: Path | None = None
    """`DHPY_CODE_FOLDER`: the code of a source that is a URI lies here already; Core's pods fetch it before they start."""
    report_timeout: float = 120.0
    """`DHPY_REPORT_TIMEOUT`, seconds: how long a report that cannot be delivered is retried, and a run that cannot be loaded."""
    deadline: float | None = None
    """`DHPY_DEADLINE`, seconds: a job that takes longer ends with 124. Default: none."""
    termination_log: Path | None = None
    """`DHPY_TERMINATION_LOG`: what failed is also written here. Default: `/dev/termination-log`, where there is one."""
    in_cluster: bool = False
    """`KUBERNETES_SERVICE_HOST`, which every pod has: somebody watches the pod, and writes what it sees into the run."""
    cpus: str = "auto"
    """`DHPY_CPUS`: `auto` stays on one CPU where the container may use no more; `all` does not."""
    log_format: str = "text"
    """`DHPY_LOG_FORMAT`: `text` or `json`, of the runtime's own log."""
    log_level: str = "INFO"
    """`DHPY_LOG_LEVEL`: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`, of the runtime's own log."""

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Where all of this was read; secrets of the run are in it under their own names."""

    def secret_values(self, names: Iterable[str] = ()) -> set[str]:
        """Every value that no log, status or message may show: credentials, and secrets by name."""
        from digitalhub_runtime_python.redaction import secret_values  # few runs need it

        return secret_values(self.environ, names)

    @classmethod
    def to_end_with(cls, environ: Mapping[str, str]) -> Settings:
        """What the end of a run needs, where one of the other settings cannot be read."""
        try:
            return cls.from_env(environ)
        except UsageFault:
            return cls(termination_log=_termination_log(environ), environ=environ)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings from a mapping such as `os.environ`.

        Raises:
            UsageFault: a variable has a value that it cannot have; the message names it.
        """

        def text(name: str, default: str = "") -> str:
            return environ.get(name, "").strip() or default

        def path(name: str) -> Path | None:
            # Absolute: the working folder becomes that of the function's code.
            return Path(value).absolute() if (value := text(name)) else None

        most = _number(environ, "DHPY_MAX_SOURCES", 0, 1 << 50)
        return cls(
            project=text("PROJECT_NAME"),
            run_id=text("RUN_ID"),
            run_file=path("DHPY_RUN_FILE"),
            run_json=text("DHPY_RUN"),
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
            max_sources=cls.max_sources if most is None else most,
            code_folder=path("DHPY_CODE_FOLDER"),
            report_timeout=_seconds(environ, "DHPY_REPORT_TIMEOUT") or 120.0,
            deadline=_seconds(environ, "DHPY_DEADLINE"),
            termination_log=_termination_log(environ),
            environ=environ,
            in_cluster=bool(text("KUBERNETES_SERVICE_HOST")),
            cpus=_one_of(environ, "DHPY_CPUS", ("auto", "all")),
            log_format=_one_of(environ, "DHPY_LOG_FORMAT", ("text", "json")),
            log_level=_one_of(environ, "DHPY_LOG_LEVEL", _LOG_LEVELS),
        )


@dataclass(frozen=True)
class ServeSettings:
    """A service's settings; each field names its variable, unit and default."""

    host: str = "127.0.0.1"
    """`DHPY_HOST`: the address to listen on, for both ports. Base images set `0.0.0.0`."""
    port: int = 8080
    """`DHPY_PORT`: of the function; 0 takes a free one."""
    management_port: int = 8082
    """`DHPY_MANAGEMENT_PORT`: health, metrics, OpenAPI and the page to try it; 0 takes a free one."""
    listen_fd: int | None = None
    """`DHPY_LISTEN_FD`: an inherited listening socket in place of host and port, so that replicas can share one."""
    workers: int = 1
    """`DHPY_WORKERS`: processes, each with a context of its own."""
    concurrency: int = 1000
    """`DHPY_CONCURRENCY`: calls of an `async` handler at the same time, per worker."""
    queue: int = 1000
    """`DHPY_QUEUE`: requests that may wait for the handler, per worker; one more gets 503."""
    wait: float = 10.0
    """`DHPY_WAIT`, seconds: a request that has waited so long for the handler gets 503."""
    request_timeout: float | None = None
    """`DHPY_REQUEST_TIMEOUT`, seconds: a call that takes longer gets 504. Default: none."""
    hang_timeout: float = 60.0
    """`DHPY_HANG_TIMEOUT`, seconds: a worker without a deadline that gives no sign of life for so long is replaced."""
    body_limit: int = 4 * 1024 * 1024
    """`DHPY_BODY_LIMIT`, bytes: a longer request body gets 413."""
    body_memory: int = 128 * 1024 * 1024
    """`DHPY_BODY_MEMORY`, bytes: of all request bodies that a worker holds; above it requests get 503."""
    header_limit: int = 16 * 1024
    """`DHPY_HEADER_LIMIT`, bytes: a longer request head gets 431."""
    header_timeout: float = 10.0
    """`DHPY_HEADER_TIMEOUT`, seconds: a connection whose request head is not complete by then gets 408."""
    stall_timeout: float = 30.0
    """`DHPY_STALL_TIMEOUT`, seconds: a connection that neither sends its body on nor reads its answer is closed."""
    keep_alive: float = 75.0
    """`DHPY_KEEP_ALIVE`, seconds: an idle connection is closed."""
    connections: int = 10_000
    """`DHPY_CONNECTIONS`: open at the same time, per worker; more wait in the kernel's queue."""
    grace: float = 25.0
    """`DHPY_GRACE`, seconds: what requests in flight get after SIGTERM; Kubernetes kills after 30."""
    ready_file: Path | None = None
    """`DHPY_READY_FILE`: gets `{"url", "management_url", "pid"}` as JSON once the service answers."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """`DHPY_FUNCTION_ADDRESSES`: `name=host:port,…`, where `context.platform.call_function` finds others."""

    inference: Mapping[str, Any] | None = None
    """`DHPY_INFERENCE`: `{"model_name", "model_version", …}` as JSON; the function is called by the Open Inference Protocol."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ServeSettings:
        """Read the settings from a mapping such as `os.environ`.

        Raises:
            UsageFault: a variable has a value that it cannot have; the message names it.
        """
        given: dict[str, Any] = {}
        for name, (variable, low, high) in _SERVE_NUMBERS.items():
            if (number := _number(environ, variable, low, high)) is not None:
                given[name] = number
        host, port = _of_other_hosts(environ)
        if port is not None:
            given.setdefault("port", port)
        for name, variable in _SERVE_SECONDS.items():
            if (seconds := _seconds(environ, variable)) is not None:
                given[name] = seconds
        if host := environ.get("DHPY_HOST", "").strip() or host:
            given["host"] = host
        if file := environ.get("DHPY_READY_FILE", "").strip():
            given["ready_file"] = Path(file)
        given["inference"] = _inference(environ)
        pairs = environ.get("DHPY_FUNCTION_ADDRESSES", "").split(",")
        given["addresses"] = dict(p.strip().split("=", 1) for p in pairs if "=" in p)
        return cls(**given)


def _inference(environ: Mapping[str, str]) -> Mapping[str, Any] | None:
    text = environ.get("DHPY_INFERENCE", "").strip()
    if not text:
        return None
    from digitalhub_runtime_python.nesting import read_json  # few services are of this kind

    try:
        value = read_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UsageFault("usage/setting", "DHPY_INFERENCE is not a JSON object.", 'Write e.g. {"model_name": "m"}.')  # fmt: skip
    return value


def _of_other_hosts(environ: Mapping[str, str]) -> tuple[str, int | None]:
    """Address and port as platforms set them: Cloud Run and Heroku PORT, others HOST, or LISTEN_ADDRESS for both."""
    text = environ.get("LISTEN_ADDRESS", "").strip()
    address, separator, number = text.rpartition(":")
    if text and (not separator or "]" in number or not number):  # an address alone: 0.0.0.0, [::1]
        address, number = text.rstrip(":"), ""
    port = _number(environ, "PORT", 0, 65535)
    if number and port is None:
        port = _number({"LISTEN_ADDRESS": number}, "LISTEN_ADDRESS", 0, 65535)
    # Shells export HOST as the machine's name; only what can be listened on counts.
    host = environ.get("HOST", "").strip()
    return (host if _is_address(host) else "") or address.strip("[]"), port


def _is_address(text: str) -> bool:
    import ipaddress  # few set HOST

    if text == "localhost":
        return True
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


_SERVE_NUMBERS = {
    "port": ("DHPY_PORT", 0, 65535),
    "management_port": ("DHPY_MANAGEMENT_PORT", 0, 65535),
    "listen_fd": ("DHPY_LISTEN_FD", 3, 65535),
    "workers": ("DHPY_WORKERS", 1, 256),
    "concurrency": ("DHPY_CONCURRENCY", 1, 100_000),
    "queue": ("DHPY_QUEUE", 1, 1_000_000),
    "body_limit": ("DHPY_BODY_LIMIT", 0, 2**40),
    "body_memory": ("DHPY_BODY_MEMORY", 0, 2**40),
    "header_limit": ("DHPY_HEADER_LIMIT", 256, 2**24),
    "connections": ("DHPY_CONNECTIONS", 1, 1_000_000),
}
_SERVE_SECONDS = {
    "wait": "DHPY_WAIT",
    "request_timeout": "DHPY_REQUEST_TIMEOUT",
    "hang_timeout": "DHPY_HANG_TIMEOUT",
    "header_timeout": "DHPY_HEADER_TIMEOUT",
    "stall_timeout": "DHPY_STALL_TIMEOUT",
    "keep_alive": "DHPY_KEEP_ALIVE",
    "grace": "DHPY_GRACE",
}


_TERMINATION_LOG = Path("/dev/termination-log")
_LOG_LEVELS = ("INFO", "DEBUG", "WARNING", "ERROR", "CRITICAL")


def _termination_log(environ: Mapping[str, str]) -> Path | None:
    if given := environ.get("DHPY_TERMINATION_LOG", "").strip():
        return Path(given)
    # It exists only in a pod; a plain file elsewhere would be litter.
    return _TERMINATION_LOG if os.path.lexists(_TERMINATION_LOG) else None


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


def _number(environ: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    value = environ.get(name, "").strip()
    # A Service named "dhpy" has Kubernetes set DHPY_PORT=tcp://… in every pod beside it.
    if not value or value.startswith("tcp://"):
        return None
    number = int(value) if value.isascii() and value.isdigit() else -1
    if not low <= number <= high:
        raise UsageFault(
            "usage/setting",
            f"{name} is {value!r}.",
            f"Set it to a whole number from {low} to {high}.",
        )
    return number
