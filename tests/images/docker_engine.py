"""A real Docker Engine for tests: the one that answers, or one of our own below the tests' cache.

    python tests/images/docker_engine.py COMMAND …     run a command with DOCKER_HOST set to it

Ours has no bridge and no firewall rules: containers and builds use `--network host`. Several
processes may use it at once; the last one to leave ends it, and nobody ends one that was there before.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

DEFAULT = "unix:///var/run/docker.sock"
_STARTED: list[subprocess.Popen[bytes]] = []
"""Kept for as long as we live: Python warns of a process that is forgotten while it runs."""


def cache() -> Path:
    """Where tests keep what is slow to make: outside the tree, so that a clean clone finds it."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("DHPY_TEST_CACHE") or f"{home}/digitalhub-python-tests")


def absent() -> str:
    """Why there can be no engine on this machine; empty when there can."""
    if _answers(os.environ.get("DOCKER_HOST") or DEFAULT):
        return ""
    if os.geteuid() != 0:
        return "no Docker Engine answers, and only root may start one"
    missing = [name for name in ("dockerd", "containerd", "runc") if _program(name) is None]
    return f"no Docker Engine answers, and {', '.join(missing)} is not installed" if missing else ""


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """The DOCKER_HOST of an engine that answers."""
    outside = os.environ.get("DOCKER_HOST") or DEFAULT
    if _answers(outside):
        yield outside
        return
    home = cache() / "docker"
    home.mkdir(parents=True, exist_ok=True)
    host = f"unix://{home}/docker.sock"
    with open(home / "users.lock", "w") as users:
        with open(home / "start.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            if not _answers(host):
                _start(home, host)
        try:
            yield host
        finally:
            with open(home / "start.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _stop(home)


def debian_client() -> str:
    """Debian's own `docker`, whose BuildKit is built in; another one on PATH may lack buildx."""
    return "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker") or ""


def _start(home: Path, host: str) -> None:
    _stop(home)
    run = Path(f"/run/dhpy-tests-{os.getpid()}")
    command = [
        _program("dockerd"), "--storage-driver=overlay2", f"--host={host}", f"--pidfile={home}/pid",
        f"--data-root={home}/data", f"--exec-root={run}", "--bridge=none", "--iptables=false",
        "--ip6tables=false", "--insecure-registry=127.0.0.0/8",
    ]  # fmt: skip
    with open(home / "log", "ab") as log:
        daemon = subprocess.Popen(
            [str(part) for part in command],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    _STARTED.append(daemon)
    deadline = time.monotonic() + 60
    while not _answers(host):
        if daemon.poll() is not None or time.monotonic() > deadline:
            tail = (home / "log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"dockerd does not start:\n{tail}")
        time.sleep(0.1)


def _stop(home: Path) -> None:
    try:
        pid = int((home / "pid").read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        return
    if name != "dockerd":  # the pid of one that was killed, used again
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)


def _answers(host: str) -> bool:
    """Whether an engine says who it is there."""
    if not host.startswith("unix://"):
        return bool(host)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(host[len("unix://") :])
            client.sendall(b"GET /version HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = b""
            while chunk := client.recv(65536):
                answer += chunk
        return "ApiVersion" in json.loads(answer.partition(b"\r\n\r\n")[2])
    except (OSError, ValueError):
        return False


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/sbin")


def main() -> int:
    with engine() as host:
        env = {**os.environ, "DOCKER_HOST": host}
        return subprocess.run(sys.argv[1:], env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
