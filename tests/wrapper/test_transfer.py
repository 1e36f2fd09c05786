"""One suite over both uses of a download: a function's code and its inputs get the same care."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Callable

import pytest
from servers.objects import ObjectServer, object_server
from servers.surroundings import clean_environ
from servers.web import Page, WebServer, web_server

from digitalhub_runtime_python import transfer
from digitalhub_runtime_python.errors import ArgumentFault, Fault, SourceFault
from digitalhub_runtime_python.hub import files
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import fetch
from digitalhub_runtime_python.spec import SourceSpec

BYTES = b"a,b\n1,2\n"
Get = Callable[[str, Settings], bytes]


@pytest.fixture(params=["code", "input"])
def use(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def get(use: str, tmp_path: Path) -> Get:
    def code(address: str, settings: Settings) -> bytes:
        fetched = fetch(SourceSpec(source=address), tmp_path / "code", settings)
        return (fetched.root / str(fetched.main)).read_bytes()

    def content(address: str, settings: Settings) -> bytes:
        path: Path = files.load(address, "path", settings, tmp_path / "in")
        assert tmp_path in path.parents, "it is written into the workspace"
        return path.read_bytes()

    return code if use == "code" else content


@pytest.fixture
def refused(use: str, get: Get) -> Callable[[str, Settings], Fault]:
    def ask(address: str, settings: Settings) -> Fault:
        with pytest.raises(SourceFault if use == "code" else ArgumentFault) as caught:
            get(address, settings)
        assert caught.value.hint
        return caught.value

    return ask


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as server:
        server.pages["/data.py"] = Page(BYTES)
        yield server


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(environ=clean_environ(tmp_path), workspace=tmp_path)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # obstore reads the process's environment
    with object_server() as server:
        server.access_key = "key"
        yield server


@pytest.fixture
def stored(settings: Settings, bucket: ObjectServer) -> Settings:
    options = {"AWS_ENDPOINT_URL": bucket.url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "s"}  # fmt: skip
    return replace(settings, store_options=options)


def test_it_goes_through_the_proxy_that_the_environment_names(get, server, settings):
    proxied = {**settings.environ, "HTTP_PROXY": server.url, "NO_PROXY": ""}
    server.pages["http://data.invalid/data.py"] = Page(BYTES)
    assert get("http://data.invalid/data.py", replace(settings, environ=proxied)) == BYTES


def test_a_server_in_passing_trouble_is_asked_again(get, server, settings):
    server.pages["/data.py"].failures = 2
    assert get(f"{server.url}/data.py", settings) == BYTES
    assert [status for _, status in server.requests] == [503, 503, 200]


def test_half_a_file_is_never_taken_for_a_whole_one(refused, server, settings):
    server.pages["/data.py"].cut = 3
    assert "broke off" in refused(f"{server.url}/data.py", settings).message


def test_user_and_password_are_sent(get, server, settings):
    server.pages["/data.py"].credentials = "me:s3cret"
    address = server.url.replace("://", "://me:s3cret@") + "/data.py"
    assert get(address, settings) == BYTES


def test_neither_password_nor_signature_is_shown(refused, server, settings):
    address = server.url.replace("://", "://me:s3cret@") + "/none.py?key=s1gned"
    fault = refused(address, settings)
    assert "404" in fault.message
    assert "s3cret" not in str(fault) and "s1gned" not in str(fault)


def test_more_than_the_limit_is_not_downloaded(use, refused, server, settings, monkeypatch):
    if use == "code":
        monkeypatch.setattr(transfer, "MAX_BYTES", 1 << 20)
    else:  # data may fill the disk, and no more
        monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    server.pages["/data.py"].body = bytes(3 << 20)
    fault = refused(f"{server.url}/data.py", settings)
    assert "more than 1 MiB" in fault.message


@pytest.mark.parametrize("key", ["p/../../evil.py", "p/..\\..\\evil.py", "p/a\x1bb.py"])
def test_an_object_whose_name_leads_out_is_refused(refused, bucket, stored, tmp_path, key):
    bucket.objects[key] = b"evil"
    assert "s3://bucket/p/" in refused("s3://bucket/p/", stored).message
    assert not list(tmp_path.parent.glob("evil*")) and not list(tmp_path.rglob("evil*"))


def test_what_is_not_there_is_named(refused, bucket, stored):
    assert "s3://bucket/p/none.py" in refused("s3://bucket/p/none.py", stored).message
    assert "s3://bucket/none/" in refused("s3://bucket/none/", stored).message


def test_wrong_credentials_are_said_to_be_wrong(refused, bucket, stored):
    bucket.objects["p/data.py"] = BYTES
    bucket.access_key = "another"
    assert "credentials" in refused("s3://bucket/p/data.py", stored).message
