"""Finds Python interpreters on this machine, with uv; and what a child process may inherit."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from digitalhub_runtime_python.errors import EnvironmentFault

# fmt: off
_INHERITED = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP",
    "TMP", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
    "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "AWS_CA_BUNDLE", "GIT_SSL_CAINFO", "NIX_SSL_CERT_FILE", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS", "MPLBACKEND",
})
# fmt: on
_INHERITED_PREFIXES = ("LC_", "UV_", "PIP_")


def inherited_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of `environ` that runs and tools may see.

    An allow-list: secrets of whoever started us must not reach a user's function, and settings
    such as PYTHONPATH or VIRTUAL_ENV must not change what it imports.
    """
    return {
        name: value
        for name, value in environ.items()
        if name.upper() in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }


def uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What uv is started with: `inherited_environment`, with interpreters where uv can see them."""
    kept = inherited_environment(environ)
    if "PATH" in kept:
        kept["PATH"] = _without_shims(kept["PATH"], environ)
    return kept


def find_uv() -> str:
    """The path of uv.

    Raises:
        EnvironmentFault: it is not installed.
    """
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found:
        return found
    raise EnvironmentFault(
        "environment/uv",
        "uv, which makes the environments of functions, is not installed.",
        "Install it with: pip install uv",
    )


def find_interpreter(version: str, environ: Mapping[str, str]) -> Path:
    """The path of a Python interpreter.

    Args:
        version: `"3.10"`.
        environ: its PATH is searched; uv's own interpreters and settings count too.

    Raises:
        EnvironmentFault: it was not found; the message lists those that were.
    """
    own = Path(getattr(sys, "_base_executable", "") or sys.executable)
    if version == _own_version() and own.exists():
        return own
    found = _uv(["python", "find", "--system", "--no-project", version], environ)
    if found.returncode == 0 and found.stdout.strip():
        return Path(found.stdout.strip())
    here = ", ".join(sorted(list_interpreters(environ), key=_sort_key)) or "none"
    raise EnvironmentFault(
        "environment/interpreter",
        f"Python {version} is not installed on this machine; found: {here}.",
        f"Install it (for example with: uv python install {version}) "
        "or give the function another python_version.",
    )


def nearest_interpreter(version: str, environ: Mapping[str, str]) -> Path:
    """An interpreter of a version, or this one: for tools that need any to ask about another."""
    try:
        return find_interpreter(version, environ)
    except EnvironmentFault:
        return Path(sys.executable)


def list_interpreters(environ: Mapping[str, str]) -> dict[str, Path]:
    """The CPython interpreters that can be found: `{"3.10": path}`, the newest patch of each."""
    listed = _uv(["python", "list", "--only-installed", "--output-format", "json"], environ)
    try:
        rows = json.loads(listed.stdout or "[]")
    except ValueError:
        rows = []
    found = {_own_version(): Path(sys.executable)}
    for row in rows:
        parts = row.get("version_parts") or {}
        version = f"{parts.get('major')}.{parts.get('minor')}"
        if row.get("path") and row.get("implementation") == "cpython":
            found.setdefault(version, Path(row["path"]))
    return found


def _uv(arguments: list[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [find_uv(), *arguments, "--no-python-downloads"],
        env=uv_environment(environ),
        # uv reads the settings of the project around it; ours are the user's own, not some project's.
        cwd=os.sep,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _without_shims(path: str, environ: Mapping[str, str]) -> str:
    """PATH with pyenv's shims replaced by the interpreters they stand for.

    A shim answers only for the versions that `pyenv global` names and fails for all others, which
    makes uv give up.
    """
    root = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = path.split(os.pathsep)
    if str(root / "shims") not in folders:
        return path
    versions = sorted(
        (root / "versions").glob("3.*/bin"), key=lambda p: _sort_key(p.parent.name), reverse=True
    )
    at = folders.index(str(root / "shims"))
    folders[at : at + 1] = [str(version) for version in versions]
    return os.pathsep.join(folders)


def _own_version() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _sort_key(version: str) -> list[int]:
    return [int(part) if part.isdigit() else -1 for part in version.split(".")]


def platform_tag() -> str:
    """What an environment is bound to besides the Python version: `linux-x86_64`."""
    return f"{platform.system()}-{platform.machine()}".lower()
