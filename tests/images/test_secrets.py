"""The password of a requirement is in no layer, config, history, plan, cache, log or command line, in no engine."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from parts import Registry, docker
from servers.git_http import git_server

from digitalhub_python_builder.build import Options, build
from digitalhub_python_builder.explain import record
from digitalhub_runtime_python.errors import EnvironmentFault
from digitalhub_runtime_python.spec import FunctionSpec, SourceSpec

PASSWORD = "correct-horse/battery:staple"
LOGIN = f"reader:{PASSWORD}"
FORMS = {
    PASSWORD, quote(PASSWORD, safe=""), base64.b64encode(LOGIN.encode()).decode(),
    base64.b64encode(PASSWORD.encode()).decode(), base64.urlsafe_b64encode(LOGIN.encode()).decode(),
}  # fmt: skip
PROJECT = """\
[build-system]
requires = ["flit_core"]
build-backend = "flit_core.buildapi"
[project]
name = "house-rules"
version = "1.0"
description = "x"
"""


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


def _function(base: str, requirement: str) -> FunctionSpec:
    source = SourceSpec(code="def f(): pass", handler="f")
    return FunctionSpec("demo", source, "PYTHON3_11", "p", base_image=base, requirements=(requirement,))  # fmt: skip


def test_a_repository_behind_a_password_is_built_in_and_its_password_is_nowhere(
    base: str, engine: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = tmp_path / "uv"
    monkeypatch.setenv("UV_CACHE_DIR", str(caches))
    monkeypatch.setenv("HOUSE_TOKEN", PASSWORD)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "git").mkdir()
    with git_server(tmp_path / "git") as server, _watched() as command_lines:
        repository = server.repository("lib.git")
        (repository.path / "pyproject.toml").write_text(PROJECT)
        repository.commit(house_rules="ANSWER = 42\n")
        server.private["lib.git"] = LOGIN
        url = server.url.replace("://", "://reader:${HOUSE_TOKEN}@")
        requirement = f"house-rules @ git+{url}/lib.git"
        lines: list[str] = []
        options = Options(engine=engine, tag=f"{registry.name}/secrets/{engine}", push=True, flavour="slim")  # fmt: skip
        result = build(_function(base, requirement), options, code={"main.py": b"def f(): pass\n"}, log=lines.append)  # fmt: skip
        assert any(server.authorizations), "nobody logged in"
    docker("pull", "--quiet", result.image.reference)
    code = "import house_rules; print(house_rules.ANSWER)"
    ran = docker("run", "--rm", "--network", "none", "--entrypoint", "python3", result.image.reference, "-c", code)  # fmt: skip
    assert ran.stdout == "42\n"

    saved = tmp_path / "image.tar"
    docker("save", "--output", str(saved), result.image.reference)
    content = saved.read_bytes()
    assert b"house_rules" in content, "what is searched is not the image"
    told = [*lines, result.dockerfile, str(record(result.plan)), repr(result.plan)]
    told.append(docker("history", "--no-trunc", result.image.reference).stdout)
    kept = [p for folder in (tmp_path / "cache", caches, tmp_path / "home") for p in folder.rglob("*") if p.is_file()]  # fmt: skip
    assert any("house" in p.name for p in kept), "no cache was looked into"
    for form in FORMS:
        assert form.encode() not in content, "it is in the image"
        assert not any(form in text for text in told), "it is told"
        assert not any(form in line for line in command_lines), "it is on a command line"
        found = [p for p in kept if form.encode() in p.read_bytes()]
        assert not found, f"it is in a cache: {found}"


@pytest.mark.parametrize(
    "requirement",
    [
        f"lib @ git+https://reader:{quote(PASSWORD, safe='')}@host.invalid/lib.git",
        f"lib @ git+https://{quote(PASSWORD, safe='')}@host.invalid/lib.git",
        f"lib @ https://host.invalid/lib-1-py3-none-any.whl?token={quote(PASSWORD)}",
        f"--extra-index-url https://reader:{quote(PASSWORD, safe='')}@host.invalid/simple",
    ],
)
def test_a_password_written_out_is_refused_before_anything_is_made(
    requirement: str, tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        build(_function("python:3.11", requirement), Options(), cache=tmp_path / "cache")
    assert caught.value.code == "environment/credential" and "${GIT_TOKEN}" in (caught.value.hint or "")  # fmt: skip
    assert not any(form in f"{caught.value} {caught.value.hint}" for form in FORMS)
    assert not (tmp_path / "cache").exists()


def test_a_run_cannot_read_variables_that_it_was_not_given(tmp_path: Path) -> None:
    """A control plane's own variables would go to whichever host a function names."""
    command = [
        sys.executable, "-c",
        "from digitalhub_python_builder.locks import lock\n"
        "from digitalhub_python_builder.requirement_files import read_lines\n"
        "import os\n"
        "lock(read_lines(['a @ git+https://${DHPY_KEY}@host.invalid/a']), '3.11', 'linux/amd64', environ=os.environ, variables={})",
    ]  # fmt: skip
    done = subprocess.run(command, env={"DHPY_KEY": "open-sesame", "PATH": "/usr/bin"}, capture_output=True, text=True)  # fmt: skip
    assert "DHPY_KEY}, which is not set" in done.stderr and "open-sesame" not in done.stderr
