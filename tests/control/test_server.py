"""The server process: it starts, says where it is, stops cleanly, and says in one line why it cannot."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from serving import PATIENCE, server_env, server_process, skip_or_fail

COMMAND = [sys.executable, "-m", "digitalhub_python_control"]


def start(home: Path, **environ: str) -> tuple[int, str]:
    """Start a server that cannot start; its exit status and what it said."""
    env = server_env(home, **environ)
    done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stderr


def one_line(said: str, code: str) -> None:
    """That the server said one line, with this code."""
    lines = said.strip().splitlines()
    assert len(lines) == 1, said
    assert lines[0].endswith(f"[{code}]"), said


def test_it_says_where_it_listens_and_takes_that_back_when_it_stops(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with server_process(home) as server:
        place = json.loads((home / "server.json").read_text())
        assert place["pid"] == server.process.pid and place["started"] > 0
        assert httpx.get(f"{place['url']}/health").json()["status"] == "UP"
        assert home.stat().st_mode & 0o777 == 0o700
        assert (home / "secret.key").stat().st_mode & 0o777 == 0o600
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
        assert not (home / "server.json").exists()
    log = (tmp_path / "home.log").read_text()
    assert "Traceback" not in log and "WARNING" not in log


def test_ctrl_c_stops_it_too(tmp_path: Path) -> None:
    with server_process(tmp_path / "home") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0


def test_what_was_stored_is_there_after_kill_9(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with server_process(home) as server:
        body = {"name": "proj", "kind": "project"}
        httpx.post(f"{server.url}/api/v1/projects", json=body).raise_for_status()
        httpx.put(f"{server.url}/api/v1/-/proj/secrets/data", json={"a": "x"}).raise_for_status()
        httpx.put(f"{server.url}/s3/bkt/x", content=b"bytes").raise_for_status()
        server.process.kill()
        server.process.wait(PATIENCE)
    assert (home / "server.json").exists(), "nobody was left to take it back"
    with server_process(home) as server:
        assert httpx.get(f"{server.url}/api/v1/projects/proj").json()["name"] == "proj"
        values = httpx.get(f"{server.url}/api/v1/-/proj/secrets/data?keys=a").json()
        assert values == {"a": "x"}
        assert httpx.get(f"{server.url}/s3/bkt/x").content == b"bytes"


def test_a_second_server_on_a_home_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    with server_process(tmp_path / "home") as server:
        status, said = start(tmp_path / "home")
        assert status == 14 and server.url in said and str(server.process.pid) in said
        one_line(said, "control/already-running")
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, said = start(tmp_path / "home", DHPY_PORT=port)
    assert status == 14 and f"port {port}" in said
    one_line(said, "control/port-taken")


def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    status, said = start(tmp_path / "home", DHPY_HOST="192.0.2.1", DHPY_TOKEN="t")
    assert status == 14 and "192.0.2.1" in said
    one_line(said, "control/address")


def test_an_address_that_others_reach_needs_credentials(tmp_path: Path) -> None:
    status, said = start(tmp_path / "home", DHPY_HOST="0.0.0.0")
    assert status == 2
    one_line(said, "usage/open-address")
    assert not (tmp_path / "home").exists(), "nothing was made"


def test_a_setting_that_cannot_be_is_named(tmp_path: Path) -> None:
    for variable, value in (("DHPY_PORT", "x"), ("DHPY_LOG_LEVEL", "LOUD")):
        status, said = start(tmp_path / "home", **{variable: value})
        assert status == 2 and variable in said
        one_line(said, "usage/setting")


@pytest.mark.parametrize("what", ["dhpy.db", "secret.key"])
def test_a_damaged_file_of_the_home_is_named(tmp_path: Path, what: str) -> None:
    home = tmp_path / "home"
    with server_process(home):
        pass
    (home / what).write_bytes(b"\xa5" * 5000)
    status, said = start(home)
    assert status == 14
    one_line(said, "control/database-corrupt" if what == "dhpy.db" else "control/secret-key")


def test_a_home_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("x")
    status, said = start(tmp_path / "home")
    assert status == 14 and str(tmp_path / "home") in said
    one_line(said, "control/home")


def in_mount(
    folder: Path, options: str, script: str, env: dict[str, str]
) -> subprocess.CompletedProcess:
    """Run a shell script where `folder` is a file system of its own that nobody else sees."""
    unshare = shutil.which("unshare")
    if unshare is None:
        skip_or_fail("unshare (util-linux) is not installed")
    folder.mkdir()
    how = [unshare, "-m"] if os.getuid() == 0 else [unshare, "-r", "-m"]
    mount = f"mount -t tmpfs -o {options} none {folder}"
    tried = subprocess.run([*how, "sh", "-c", mount], capture_output=True, text=True)
    if tried.returncode:
        # Not a matter of what is installed: containers may not mount, whoever runs them.
        pytest.skip(f"no file system can be mounted here: {tried.stderr.strip()}")
    return subprocess.run(
        [*how, "sh", "-c", f"{mount} && {script}"],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )


def test_a_read_only_home_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = in_mount(home, "ro", " ".join(COMMAND), server_env(home))
    assert done.returncode == 14 and str(home) in done.stderr
    one_line(done.stderr, "control/home")


@pytest.mark.parametrize("size", ["4k", "64k"])
def test_a_full_disk_at_the_start_is_named(tmp_path: Path, size: str) -> None:
    home = tmp_path / "home"
    done = in_mount(home, f"size={size}", " ".join(COMMAND), server_env(home))
    assert done.returncode == 14
    one_line(done.stderr, "control/disk-full")


FILL = """
import json, subprocess, sys, time
from pathlib import Path
import httpx

home = Path(sys.argv[1])
log = open(sys.argv[2], "wb")
server = subprocess.Popen([sys.executable, "-m", "digitalhub_python_control"], stderr=log)
while not (home / "server.json").exists():
    assert server.poll() is None
    time.sleep(0.02)
url = json.loads((home / "server.json").read_text())["url"]
seen = {}
with httpx.Client(base_url=url, timeout=60) as http:
    http.post("/api/v1/projects", json={"name": "proj"}).raise_for_status()
    http.put("/s3/bkt/old", content=b"old").raise_for_status()
    full = http.put("/s3/bkt/big", content=b"x" * 30_000_000)
    seen["file"] = [full.status_code, full.text]
    seen["left"] = [p.stat().st_size for p in (home / "files").rglob("*") if p.is_file()]
    filler = open(home / "filler", "wb", buffering=0)
    try:
        while filler.write(b"x" * 4096):
            pass
    except OSError:
        pass
    entity = {"name": "a", "kind": "artifact", "spec": {"x": "y" * 3_000_000}}
    full = http.post("/api/v1/-/proj/artifacts", json=entity)
    seen["entity"] = [full.status_code, full.text]
    seen["reads"] = [http.get("/api/v1/projects/proj").status_code, http.get("/s3/bkt/old").text]
    filler.close()
    (home / "filler").unlink()
    seen["after"] = [http.post("/api/v1/-/proj/artifacts", json=entity).status_code]
    seen["after"].append(http.put("/s3/bkt/new", content=b"new").status_code)
server.terminate()
seen["status"] = server.wait(60)
print(json.dumps(seen))
"""


def test_a_disk_that_fills_up_loses_nothing_and_the_server_goes_on(tmp_path: Path) -> None:
    home, log, script = tmp_path / "home", tmp_path / "log", tmp_path / "fill.py"
    script.write_text(FILL)
    command = f"{sys.executable} {script} {home} {log}"
    done = in_mount(home, "size=20m", command, server_env(home))
    assert done.returncode == 0, done.stderr + log.read_text()
    seen = json.loads(done.stdout)
    assert seen["file"][0] == 507 and "<Code>InsufficientStorage</Code>" in seen["file"][1]
    assert seen["left"] == [3], "what was half received is gone"
    status, answer = seen["entity"]
    assert status == 507 and "disk is full" in json.loads(answer)["message"]
    assert "\n" not in answer
    assert seen["reads"] == [200, "old"] and seen["after"] == [200, 200] and seen["status"] == 0
    errors = [line for line in log.read_text().splitlines() if " ERROR " in line]
    assert len(errors) == 2 and all("control/disk-full" in line for line in errors)
    assert "Traceback" not in log.read_text()


def test_a_database_that_breaks_while_it_is_served_is_one_line_for_the_client(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    with server_process(home) as server, httpx.Client(base_url=server.url) as http:
        http.post("/api/v1/projects", json={"name": "proj"}).raise_for_status()
        with sqlite3.connect(home / "dhpy.db") as database:
            database.execute("DROP TABLE entities")
        database.close()
        answer = http.get("/api/v1/projects")
        assert answer.status_code == 500 and "\n" not in answer.text
        assert "control/database" in answer.json()["message"]
        assert http.get("/s3/bkt/x").status_code == 404
    assert "Traceback" not in (tmp_path / "home.log").read_text()


def test_an_error_of_ours_is_one_line_for_the_client_and_a_traceback_in_the_log(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    with server_process(home) as server, httpx.Client(base_url=server.url) as http:
        http.put("/s3/bkt/x", content=b"x").raise_for_status()
        with sqlite3.connect(home / "dhpy.db") as database:
            database.execute(
                "INSERT INTO entities VALUES (1,'projects','proj','proj','proj',"
                "'project','me','CREATED',NULL,NULL,NULL,1,1,'','','no json',NULL,NULL,NULL,0,NULL)"
            )
        database.close()
        answer = http.get("/api/v1/projects/proj")
        assert answer.status_code == 500
        mark = re.search("under ([0-9a-f]{8})", answer.json()["message"])
        assert mark and "no json" not in answer.text
    log = (tmp_path / "home.log").read_text()
    assert mark.group(1) in log and "JSONDecodeError" in log
