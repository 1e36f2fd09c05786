"""A PostgreSQL server of the tests' own, on a Unix socket in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving import PATIENCE, program, skip_or_fail, wait_until


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database; skips where there is no PostgreSQL."""
    folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    initdb, postgres = program("initdb", *folders), program("postgres", *folders)
    if initdb is None or postgres is None:
        skip_or_fail("initdb and postgres are not installed")
    try:
        import psycopg
    except ImportError:
        skip_or_fail("psycopg is not installed (extra `postgres`)")
    # It refuses to run as root. Its folder cannot be below pytest's, which only root may enter.
    other = _other_user()
    folder = Path(tempfile.mkdtemp(prefix="dhpy-pg-"))
    if other:
        os.chown(folder, other.pw_uid, other.pw_gid)
    who: dict[str, Any] = {"cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}
    if other:
        who.update(user=other.pw_uid, group=other.pw_gid, extra_groups=[])
    data = folder / "data"
    try:
        made = subprocess.run(
            [initdb, "-D", data, "-U", "tester", "-A", "trust", "-N", "--locale=C.UTF-8"],
            capture_output=True,
            text=True,
            **who,
        )
        assert made.returncode == 0, made.stderr
        with (folder / "log").open("wb") as log:
            options = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", str(folder)]
            server = subprocess.Popen(
                [postgres, "-D", data, *options], stdout=log, stderr=log, **who
            )
        try:
            url = f"postgresql+psycopg://tester@/postgres?host={folder}"
            wait_until(lambda: _answers(psycopg, folder) or server.poll() is not None)
            assert server.poll() is None, (folder / "log").read_text()
            yield url
        finally:
            server.terminate()
            server.wait(PATIENCE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answers(psycopg: Any, folder: Path) -> bool:
    try:
        psycopg.connect(host=str(folder), user="tester", dbname="postgres").close()
    except psycopg.OperationalError:
        return False
    return True


def _other_user() -> pwd.struct_passwd | None:
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None
