"""A package index that asks for a password, behind a certificate authority of its own, from lock to image."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import environments
import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename
from parts import ROOT, BaseImages, Registry, docker
from servers.authority import make_authority
from servers.web import Page, WebServer, web_server

PASSWORD = "correct-horse/battery:staple"  # what must be quoted in a URL, too
LOGIN = f"reader:{PASSWORD}"
FORMS = {PASSWORD, quote(PASSWORD, safe=""), base64.b64encode(LOGIN.encode()).decode()}
CLI = [sys.executable, "-c", "from digitalhub_runtime_python.cli import main; main()"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the runtime needs, which an index of one's own has as well, and a package that no other one has."""
    folder = tmp_path_factory.mktemp("wheels")
    lock = ROOT / "images" / "locks" / "3.11-slim.txt"
    python = environments.interpreters()["3.11"]
    download = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run(
        [*download, "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64",
         "--platform", "manylinux_2_17_x86_64", "--dest", str(folder), "-r", str(lock)], check=True
    )  # fmt: skip
    info = "house_rules-1.0.dist-info"
    with zipfile.ZipFile(folder / "house_rules-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("house_rules.py", "ANSWER = 42\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: house-rules\nVersion: 1.0\n")  # fmt: skip
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")  # fmt: skip
        wheel.writestr(f"{info}/RECORD", "".join(f"{n},,\n" for n in ("house_rules.py", f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD")))  # fmt: skip
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def index(
    wheels: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WebServer, Path]]:
    """The index, and the certificate of its authority."""
    bundle, context = make_authority(tmp_path_factory.mktemp("authority"))
    with web_server(context) as server:
        for wheel in wheels:
            name = canonicalize_name(parse_wheel_filename(wheel.name)[0])
            data = wheel.read_bytes()
            link = f'<a href="/files/{wheel.name}#sha256={hashlib.sha256(data).hexdigest()}">{wheel.name}</a>'
            kind = {"Content-Type": "text/html"}
            page = f"<!DOCTYPE html><html><body>{link}</body></html>".encode()
            server.pages[f"/simple/{name}/"] = Page(page, headers=kind, credentials=LOGIN)
            server.pages[f"/files/{wheel.name}"] = Page(data, credentials=LOGIN)
        yield server, bundle


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("def f(): pass\n")
    return tmp_path / "code" / "main.py"


@contextmanager
def _watched() -> Iterator[set[str]]:
    """The command lines of all processes of this machine for as long as it lasts."""
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(place.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
                except OSError:
                    continue  # it has ended
            time.sleep(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _build(
    file: Path, index: tuple[WebServer, Path], login: str, *options: str
) -> subprocess.CompletedProcess[str]:
    server, bundle = index
    user, _, password = login.partition(":")
    url = server.url.replace("://", f"://{user}:{quote(password, safe='')}@") if login else server.url  # fmt: skip
    env = {**os.environ, "UV_DEFAULT_INDEX": f"{url}/simple"}
    env.pop("PIP_FIND_LINKS", None)
    command = [*CLI, "build", f"{file}:f", "--python-version", "PYTHON3_11", "--flavour", "slim"]
    command += ["--requirement", "house-rules", "--ca-bundle", str(bundle), "--network", "host"]
    return subprocess.run([*command, *options], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("engine", ["buildkit", "buildah"])
def test_its_packages_are_in_the_image_and_its_password_is_nowhere(
    base_image: BaseImages, registry: Registry, index: tuple[WebServer, Path], file: Path, engine: str, request: pytest.FixtureRequest
) -> None:  # fmt: skip
    if engine == "buildah":
        request.getfixturevalue("buildah")
    base = f"{registry.name}/digitalhub-runtime-python:3.11-slim"
    docker("tag", base_image("3.11"), base)
    docker("push", "--quiet", base)
    name = f"{registry.name}/private/{engine}"
    options = ("--base-image", base, "--engine", engine, "--tag", name, "--push")
    with _watched() as command_lines:
        done = _build(file, index, LOGIN, *options)
    assert done.returncode == 0, done.stderr
    image = done.stdout.strip()
    docker("pull", "--quiet", image)
    code = "import house_rules; print(house_rules.ANSWER)"
    ran = docker("run", "--rm", "--network", "none", "--entrypoint", "python3", image, "-c", code)
    assert ran.stdout == "42\n"

    saved = file.parents[1] / "image.tar"
    docker("save", "--output", str(saved), image)
    content = saved.read_bytes()
    assert b"house_rules" in content, "what is searched is not the image"
    told = "\n".join([done.stdout, done.stderr, docker("history", "--no-trunc", image).stdout])
    assert any("pip install" in line or "buildah" in line or "docker" in line for line in command_lines)  # fmt: skip
    kept = [p for p in (file.parents[1] / "cache").rglob("*") if p.is_file()]
    for form in FORMS:
        assert form.encode() not in content, "it is in a layer"
        assert form not in told, "it is in the log or the history"
        assert not any(form in line for line in command_lines), "it is on a command line"
        assert not any(form in p.read_text() for p in kept), "it is in the cache"


@pytest.mark.parametrize(("login", "status"), [("", 401), ("reader:not-hers", 403)])
def test_without_the_right_login_nothing_is_built(
    base_image: BaseImages, index: tuple[WebServer, Path], file: Path, login: str, status: int
) -> None:
    base_image("3.11")
    done = _build(file, index, login, "--engine", "buildkit")
    assert done.returncode == 15
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith("[environment/index]") and f"({status} " in last
    assert "not-hers" not in done.stderr and "Traceback" not in done.stderr


def test_an_engine_without_build_secrets_is_not_given_the_password(
    base_image: BaseImages, index: tuple[WebServer, Path], file: Path
) -> None:
    base_image("3.11")
    done = _build(file, index, LOGIN, "--engine", "docker")
    assert done.returncode == 15
    assert "docker cannot mount build secrets" in done.stderr and "buildkit" in done.stderr
    assert not any(form in done.stderr for form in FORMS)
