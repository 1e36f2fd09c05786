"""Python environments for runs without an image, made by uv and kept in a cache.

An environment is a folder `<cache>/environments/<key>`; it counts only once its marker is written,
so that one which was interrupted is made again. The runtime itself is not in it: it lies beside, in
`<cache>/runtime-<hash>`, and comes to a run by PYTHONPATH, so that a new version of the runtime does
not cost a new environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Callable

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import digitalhub_runtime_python
from digitalhub_python_builder import caches, logins
from digitalhub_python_builder.incompatible import known_conflicts
from digitalhub_python_builder.interpreters import (
    find_interpreter,
    find_uv,
    platform_tag,
    uv_environment,
)
from digitalhub_python_builder.logins import settings_of
from digitalhub_python_builder.requirement_lines import read_lines
from digitalhub_python_builder.requirements import (
    VARIABLE,
    Wanted,
    check_python,
    expand,
    normalise,
    parse_requirements,
    redact,
)
from digitalhub_runtime_python.errors import EnvironmentFault

Log = Callable[[str], None]

DISTRIBUTION = "digitalhub-runtime-python"
RUNTIME_PARTS = (
    "msgspec",
    "eval-type-backport",
    "nuclio-sdk",
    "obstore",
    "urllib3",
    "cloudpickle",
    "uvloop",
    "httptools",
    "python-multipart",
)
"""The dependencies of our distribution that a run always needs; pyproject.toml says what for."""
FULL_PARTS = ("digitalhub", "boto3", "pandas", "pyarrow", "requests")
"""Those that the documented examples import; a function's own requirement of one takes its place."""

MARKER = ".complete"
_LAYOUT = 1
"""Part of every key: raise it when environments are made differently."""
_NOISE = (" + ", " - ", " ~ ", "Using Python ", "warning: Failed to hardlink")


def ensure_environment(
    python_version: str,
    requirements: Sequence[str],
    cache: Path,
    log: Log,
    environ: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Path:
    """The interpreter of an environment with the runtime's dependencies and `requirements`.

    It may be called by any number of threads and processes at once, and be killed at any time.

    Args:
        python_version: `"3.10"`.
        requirements: pip requirements, as in a function's spec.
        variables: what `${VAR}` in their URLs may be; none by default, for `environ` is not the user's.
        cache: where environments are kept.
        log: takes each line that says what goes on.
        environ: uv's settings are taken from it; default `os.environ`.

    Raises:
        EnvironmentFault: a requirement is malformed or cannot be installed, there is no such
            interpreter, or the cache cannot be written.
    """
    environ = os.environ if environ is None else environ
    users = read_lines(requirements)
    check_python(users, python_version)
    wanted = environment_requirements(python_version, users.lines, log)
    asked = Asked(wanted, users, variables or {})
    folder = cache / "environments" / environment_key(python_version, asked.key_lines())
    python = folder / "bin" / "python"
    if _is_complete(folder):
        _warn(folder, log)
        return python
    try:
        caches.folder(folder.parent, cache)
        with _locked(folder, log) as lock:
            if not _is_complete(folder):
                _make(folder, python_version, asked, log, environ, lock)
    except OSError as exc:
        raise EnvironmentFault(
            "environment/cache",
            f"The environment cannot be written to {exc.filename or folder}: {exc.strerror}.",
            "Make room or permissions there, or set DHPY_CACHE to another folder.",
        ) from exc
    _warn(folder, log)
    return python


@dataclass(frozen=True)
class Asked:
    """All that goes into an environment."""

    lines: tuple[str, ...]
    """With the runtime's own."""
    users: Wanted
    variables: Mapping[str, str] = field(repr=False)

    def key_lines(self) -> list[str]:
        """What decides the environment: another login may see another package, so its hash is among it."""
        users = self.users
        names = sorted(
            set(VARIABLE.findall(" ".join([*self.lines, *(v for _, v in users.options)])))
        )
        seen = hashlib.sha256(json.dumps([[n, self.variables.get(n, "")] for n in names]).encode())
        return [
            *self.lines,
            *(f"-c {line}" for line in users.constraints),
            *(f"{name} {value}" for name, value in users.options),
            *(
                f"{name} --hash={value}"
                for name, values in users.allowed.items()
                for value in sorted(values)
            ),
            *([seen.hexdigest()] if names else []),
        ]

    def text(self, lines: Sequence[str]) -> str:
        """What uv reads: options that are not those of an index, and lines with their hashes."""
        allowed = self.users.allowed
        rows = [name for name, value in self.users.options if name in ("--no-index", "--pre")]
        for line in lines:
            (one,) = parse_requirements([line])
            hashes = sorted(allowed.get(canonicalize_name(one.name), ()))
            rows.append(" ".join([line, *(f"--hash={value}" for value in hashes)]))
        return "\n".join(rows)


def ensure_runtime(cache: Path) -> Path:
    """The folder with a copy of the runtime that goes on a run's PYTHONPATH.

    Raises:
        EnvironmentFault: the cache cannot be written.
    """
    package = Path(digitalhub_runtime_python.__file__).parent
    files = sorted(p for p in package.rglob("*") if p.is_file() and p.suffix != ".pyc")
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(package)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    target = cache / f"runtime-{digest.hexdigest()[:16]}"
    if target.exists():
        with contextlib.suppress(OSError):
            os.utime(target)
        return target
    try:
        caches.folder(cache)
        temporary = Path(tempfile.mkdtemp(prefix=".runtime-", dir=cache))
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(package, temporary / package.name, ignore=ignored)
        try:
            temporary.rename(target)
        except OSError:
            # Somebody else was first; the content is the same.
            shutil.rmtree(temporary)
            if not target.exists():
                raise
    except OSError as exc:
        raise EnvironmentFault(
            "environment/cache",
            f"The runtime cannot be copied to {cache}: {exc.strerror}.",
            "Make room or permissions there, or set DHPY_CACHE to another folder.",
        ) from exc
    return target


def environment_requirements(
    python_version: str, requirements: Sequence[str], log: Log = lambda line: None
) -> tuple[str, ...]:
    """All that an environment holds: the runtime's own dependencies and the function's requirements.

    Raises:
        EnvironmentFault: a requirement is malformed.
    """
    users = []
    for requirement in parse_requirements(requirements):
        if canonicalize_name(requirement.name) == DISTRIBUTION:
            # Installed from an index it would be another version of what runs the function.
            log(
                f"The requirement {redact(str(requirement))!r} is left out: the runtime is there already."
            )
        else:
            users.append(requirement)
    named = {canonicalize_name(requirement.name) for requirement in users}
    wanted = [str(requirement) for requirement in users]
    for requirement in _own_requirements():
        name = canonicalize_name(requirement.name)
        if name == "digitalhub" and name not in named:
            wanted.append(_same_sdk(requirement, python_version))
        elif name in RUNTIME_PARTS or name not in named or name == "digitalhub":
            wanted.append(str(requirement))
    return normalise(wanted)


def environment_key(python_version: str, wanted: Sequence[str]) -> str:
    """The name of the folder of an environment."""
    content = json.dumps(
        [_LAYOUT, platform_tag(), python_version, [[line, _stamp(line)] for line in sorted(wanted)]]
    )
    return f"python{python_version}-{hashlib.sha256(content.encode()).hexdigest()[:20]}"


def prune(
    cache: Path, days: float, keep: Collection[Path] = (), *, remove: bool = True
) -> list[Path]:
    """Remove the environments and runtimes that no run has used for `days`; what was removed.

    Args:
        cache: as for `ensure_environment`.
        days: an age, in days.
        keep: interpreters (`…/bin/python`) and runtime folders in use, however old they are.
        remove: False: nothing is removed; what would be is returned.
    """
    kept = {path.parent.parent if path.name == "python" else path for path in keep}
    for folder in kept:
        # For others who share the cache: they do not know what is in use here.
        with contextlib.suppress(OSError):
            os.utime(_witness(folder))
    limit = time.time() - days * 86400
    removed = []
    for folder in [*cache.glob("environments/python*"), *cache.glob("runtime-*")]:
        if folder in kept or not folder.is_dir() or _last_used(folder) > limit:
            continue
        with contextlib.suppress(OSError), _locked(folder, wait=False):
            if _last_used(folder) < limit and remove:
                (folder / MARKER).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
            if _last_used(folder) < limit or not folder.exists():
                removed.append(folder)
    return removed


def _stamp(requirement: str) -> int:
    """When the local file that a requirement names was changed last: it may be built anew."""
    path = urllib.parse.unquote(requirement.partition(" @ file://")[2].partition(" ;")[0])
    return os.stat(path).st_mtime_ns if path and os.path.isfile(path) else 0  # noqa: PTH113, PTH116


def _own_requirements() -> list[Requirement]:
    declared = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or ()]
    parts = {*RUNTIME_PARTS, *FULL_PARTS}
    return [requirement for requirement in declared if canonicalize_name(requirement.name) in parts]


def _same_sdk(requirement: Requirement, python_version: str) -> str:
    """The SDK in the version that is installed here, where the target's Python can have that one."""
    installed = importlib.metadata.distribution("digitalhub")
    supported = SpecifierSet(installed.metadata["Requires-Python"] or "")
    # Any patch release: which one the target has is not known here, and no SDK depends on it.
    if supported.contains(f"{python_version}.99") and not installed.read_text("direct_url.json"):
        return f"digitalhub=={installed.version}"
    return str(requirement)


def _make(
    folder: Path,
    python_version: str,
    asked: Asked,
    log: Log,
    environ: Mapping[str, str],
    lock: IO[str],
) -> None:
    started = time.monotonic()
    wanted = asked.lines
    log(f"Making an environment for Python {python_version} ({len(wanted)} requirements) …")
    settings = settings_of(asked.users, environ, asked.variables)
    clean, known = logins.taken_out(wanted, asked.variables)
    clean = [expand(line, asked.variables) for line in clean]
    interpreter = find_interpreter(python_version, environ)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _uv(["venv", "--no-project", "--python", str(interpreter), str(folder)], "", uv_environment(environ), lock)  # fmt: skip
        # The requirements go in by stdin: an argument would show the passwords of their URLs to
        # everybody who lists the processes.
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as limits, \
                logins.environment(known, uv_environment(settings)) as ready:  # fmt: skip
            limits.write("".join(f"{line}\n" for line in asked.users.constraints))
            limits.flush()
            options = ["-c", limits.name] if asked.users.constraints else []
            options += ["--index-strategy", "unsafe-best-match"] if any(n == "--extra-index-url" for n, _ in asked.users.options) else []  # fmt: skip
            python = str(folder / "bin" / "python")
            _uv(["pip", "install", "--python", python, *options, "-r", "-"], asked.text(clean), ready, lock, log)  # fmt: skip
        # Nothing here installs with distutils, and each start of the interpreter would import it.
        for patch in folder.glob("lib/python*/site-packages/_virtualenv.*"):
            patch.unlink()
        content = {"python": str(interpreter), "requirements": [redact(line) for line in wanted]}
        (folder / MARKER).write_text(json.dumps(content, indent=1), encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    log(f"The environment is ready after {time.monotonic() - started:.1f} s.")


def _uv(
    arguments: list[str],
    stdin: str,
    environ: Mapping[str, str],
    lock: IO[str],
    log: Log | None = None,
) -> None:
    """Run uv in that environment; its output goes to `log` line by line.

    Raises:
        EnvironmentFault: uv failed; the message is its reason.
    """
    lines: list[str] = []
    with subprocess.Popen(
        [find_uv(), *arguments],
        env=dict(environ),
        # uv reads the settings of the project around it; ours are the user's own, not some project's.
        cwd=os.sep,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        # uv holds the lock too: when we are killed, nobody else begins before it has ended.
        pass_fds=[lock.fileno()],
        start_new_session=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101 - for mypy
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(stdin)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        for line in process.stdout:
            lines.append(redact(line.rstrip()))
            if log and lines[-1] and not lines[-1].startswith(_NOISE):
                log(lines[-1])
    if process.returncode:
        raise EnvironmentFault(
            "environment/install",
            f"The requirements cannot be installed: {_reason(lines)}",
            "Change the function's requirements or its python_version; "
            "if no package index can be reached, check the network or set UV_DEFAULT_INDEX.",
        )


def _reason(lines: Sequence[str]) -> str:
    """uv's own reason in one line, without the output of build tools and its advice."""
    words: list[str] = []
    for line in lines[_first_error(lines) :]:
        text = line.strip(" ×╰─▶│├")
        if text.startswith(("hint:", "[stderr]", "[stdout]")):
            break
        words.append(text.replace("error: ", "").replace("cause: ", "– "))
    reason = " ".join(" ".join(words).split()).rstrip(".") + "."
    return reason if len(reason) <= 600 else f"{reason[:400]} … {reason[-190:]}"


def _first_error(lines: Sequence[str]) -> int:
    marks = ("error", "×")
    return next((i for i, line in enumerate(lines) if line.strip().startswith(marks)), 0)


def _warn(folder: Path, log: Log) -> None:
    """Say what will fail when it is imported, whichever run asks: each has a log of its own."""
    for line in known_conflicts(_installed(folder)):
        log(line)


def _installed(folder: Path) -> str:
    """What an environment has, as lines `name==version`."""
    found = (path.name[: -len(".dist-info")] for path in folder.glob("lib/python*/site-packages/*.dist-info"))  # fmt: skip
    return "".join(f"{name}=={version}\n" for name, _, version in (one.rpartition("-") for one in found))  # fmt: skip


def _is_complete(folder: Path) -> bool:
    """Whether it can be used; notes that it is used now, for `prune`."""
    try:
        os.utime(folder / MARKER)
    except FileNotFoundError:
        return False
    except OSError:
        # A read-only cache, made beforehand, serves as well.
        return (folder / MARKER).exists()
    # The interpreter that it links to may have been removed since.
    return (folder / "bin" / "python").exists()


def _witness(folder: Path) -> Path:
    """What has the time of the last use."""
    return folder / MARKER if (folder / MARKER).exists() else folder


def _last_used(folder: Path) -> float:
    try:
        return _witness(folder).stat().st_mtime
    except FileNotFoundError:
        return time.time()


@contextlib.contextmanager
def _locked(folder: Path, log: Log | None = None, *, wait: bool = True) -> Iterator[IO[str]]:
    # The file stays: a lock on a file that somebody else has just removed protects nothing.
    with folder.with_name(f"{folder.name}.lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            if log:
                log("Another run is making the same environment; waiting for it …")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
