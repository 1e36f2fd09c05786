"""Code over HTTP and HTTPS, from a real server with a certificate of its own authority."""

from __future__ import annotations

import gzip
import io
import logging
import socket
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pytest
from servers.authority import make_authority
from servers.surroundings import clean_environ, files_below
from servers.web import Page, WebServer, web_server

from digitalhub_runtime_python import transfer
from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import Fetched, fetch
from digitalhub_runtime_python.spec import SourceSpec

CODE = b"def handler():\n    return 1\n"
DIGEST = sha256(CODE).hexdigest()


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as server:
        server.pages["/main.py"] = Page(CODE)
        yield server


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(environ=clean_environ(tmp_path))


@pytest.fixture
def cached(settings: Settings, tmp_path: Path) -> Settings:
    return replace(settings, cache=tmp_path / "cache")


def get(source: str, dest: Path, settings: Settings) -> Fetched:
    return fetch(SourceSpec(source=source), dest, settings)


def refused(source: str, dest: Path, settings: Settings) -> SourceFault:
    with pytest.raises(SourceFault) as caught:
        get(source, dest, settings)
    assert list(dest.iterdir()) == []
    assert caught.value.hint
    return caught.value


def packed(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{name}.py", text)
    return buffer.getvalue()


def test_a_file_keeps_its_name(server, tmp_path, settings):
    fetched = get(f"{server.url}/main.py", tmp_path / "d", settings)
    assert fetched == Fetched(tmp_path / "d", Path("main.py"), f"sha256:{DIGEST}")
    assert files_below(tmp_path / "d") == {"main.py": CODE.decode()}


def test_a_file_without_a_name_becomes_main_py(server, tmp_path, settings):
    server.pages["/download?id=3"] = Page(CODE, headers={"Content-Type": "text/plain"})
    assert get(f"{server.url}/download?id=3", tmp_path / "d", settings).main == Path("main.py")


@pytest.mark.parametrize("form", ["zip+{}/code", "zip+{}/code.zip", "{}/code.zip"])
def test_an_archive_is_unpacked(server, tmp_path, settings, form):
    server.pages["/code"] = server.pages["/code.zip"] = Page(packed(main="a", b="b"))
    fetched = get(form.format(server.url), tmp_path / "d", settings)
    assert fetched.main is None
    assert files_below(tmp_path / "d") == {"main.py": "a", "b.py": "b"}


def test_https_is_verified_against_the_given_authority(tmp_path, settings, monkeypatch):
    authority, context = make_authority(tmp_path)
    with web_server(context) as server:
        server.pages["/main.py"] = Page(CODE)
        fault = refused(f"{server.url}/main.py", tmp_path / "d", settings)
        assert fault.code == "source/tls"
        assert "certificate" in fault.message and "SSL_CERT_FILE" in fault.hint
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        get(f"{server.url}/main.py", tmp_path / "d", settings)
    assert files_below(tmp_path / "d") == {"main.py": CODE.decode()}


def test_https_does_not_follow_a_redirect_to_http(server, tmp_path, settings, monkeypatch):
    authority, context = make_authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with web_server(context) as secure:
        location = {"Location": f"{server.url}/main.py"}
        secure.pages["/main.py"] = Page(status=302, headers=location)
        fault = refused(f"{secure.url}/main.py", tmp_path / "d", settings)
    assert fault.code == "source/tls"


def test_a_redirect_is_followed_and_the_password_stays_behind(server, tmp_path, settings):
    with web_server() as other:
        other.pages["/there.py"] = Page(CODE)
        location = {"Location": f"{other.url}/there.py"}
        server.pages["/here.py"] = Page(status=302, headers=location, credentials="me:s3cret")
        url = server.url.replace("://", "://me:s3cret@")
        assert get(f"{url}/here.py", tmp_path / "d", settings).main == Path("here.py")
        assert other.authorizations == [None]


def test_a_circle_of_redirects_ends(server, tmp_path, settings):
    server.pages["/a.py"] = Page(status=302, headers={"Location": "/a.py"})
    fault = refused(f"{server.url}/a.py", tmp_path / "d", settings)
    assert fault.code == "source/unavailable"
    assert len(server.requests) < 10


def test_a_redirect_into_the_file_system_is_not_followed(server, tmp_path, settings):
    server.pages["/a.py"] = Page(status=302, headers={"Location": "file:///etc/passwd"})
    assert refused(f"{server.url}/a.py", tmp_path / "d", settings).code == "source/unavailable"


def test_a_missing_file_is_said_to_be_missing(server, tmp_path, settings):
    fault = refused(f"{server.url}/nope.py?signature=s3cret", tmp_path / "d", settings)
    assert fault.code == "source/not-found"
    assert "/nope.py" in fault.message and "s3cret" not in str(fault)


def test_a_protected_file_is_had_with_the_password_of_the_url(server, tmp_path, settings, caplog):
    server.pages["/main.py"].credentials = "me:p@ss:w/rd"
    assert refused(f"{server.url}/main.py", tmp_path / "d", settings).code == "source/auth-required"
    wrong = server.url.replace("://", "://me:wr0ng@")
    fault = refused(f"{wrong}/main.py", tmp_path / "d", settings)
    assert fault.code == "source/auth-refused"
    right = server.url.replace("://", "://me:p%40ss%3Aw%2Frd@")
    with caplog.at_level(logging.DEBUG):
        get(f"{right}/main.py", tmp_path / "d", settings)
    for word in ("wr0ng", "p@ss", "p%40ss"):
        assert word not in str(fault) and word not in caplog.text


@pytest.mark.parametrize("password", ["ü", "пароль", ""])
def test_a_password_of_any_letters_will_do(server, tmp_path, settings, password):
    server.pages["/main.py"].credentials = f"me:{password}"
    get(
        server.url.replace("://", f"://me:{quote(password)}@") + "/main.py",
        tmp_path / "d",
        settings,
    )


def test_a_path_of_any_letters_will_do(server, tmp_path, settings):
    server.pages["/%C3%BC%20b.py"] = Page(CODE)
    assert get(f"{server.url}/ü b.py", tmp_path / "d", settings).main == Path("ü b.py")


def test_a_server_that_packs_unasked_is_understood(server, tmp_path, settings):
    server.pages["/main.py"] = Page(gzip.compress(CODE), headers={"Content-Encoding": "gzip"})
    assert get(f"{server.url}/main.py", tmp_path / "d", settings).revision == f"sha256:{DIGEST}"


def test_what_is_packed_twice_is_a_bomb_and_refused(server, tmp_path, settings):
    body = gzip.compress(gzip.compress(CODE))
    server.pages["/main.py"] = Page(body, headers={"Content-Encoding": "gzip, gzip"})
    assert refused(f"{server.url}/main.py", tmp_path / "d", settings).code == "source/unavailable"


def test_a_host_that_is_no_name_is_said_to_be_none(tmp_path, settings):
    fault = refused("https://a..b/main.py?key=s3cret", tmp_path / "d", settings)
    assert fault.code in ("source/unavailable", "source/unreachable")
    assert "s3cret" not in str(fault)


def test_a_web_page_is_no_code(server, tmp_path, settings):
    server.pages["/blob/main.py"] = Page(
        b"<html>", headers={"Content-Type": "text/html; charset=utf-8"}
    )
    fault = refused(f"{server.url}/blob/main.py", tmp_path / "d", settings)
    assert fault.code == "source/web-page"
    assert "git+https" in fault.hint


@pytest.mark.parametrize("failure", [429, 500, 503])
def test_a_server_in_passing_trouble_is_asked_again(server, tmp_path, settings, failure):
    server.pages["/main.py"].failures, server.pages["/main.py"].failure = 2, failure
    get(f"{server.url}/main.py", tmp_path / "d", settings)
    assert [status for _, status in server.requests] == [failure, failure, 200]


def test_a_server_in_lasting_trouble_is_given_up(server, tmp_path, settings, caplog):
    server.pages["/a.py?key=s3cret"] = Page(CODE, failures=99)
    fault = refused(f"{server.url}/a.py?key=s3cret", tmp_path / "d", settings)
    assert fault.code == "source/unavailable"
    assert "503 Service Unavailable" in fault.message
    assert len(server.requests) < 10
    assert "trying again" in caplog.text and "s3cret" not in caplog.text


def test_half_a_file_is_never_taken_for_a_whole_one(server, tmp_path, settings):
    server.pages["/main.py"].cut = 10
    fault = refused(f"{server.url}/main.py", tmp_path / "d", settings)
    assert fault.code == "source/unreachable"
    assert "broke off" in fault.message


def test_nobody_at_the_port_is_said_so(tmp_path, settings):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://me:s3cret@127.0.0.1:{unused.getsockname()[1]}/main.py"
        fault = refused(url, tmp_path / "d", settings)
    assert fault.code == "source/unreachable"
    assert "refused" in fault.message and "s3cret" not in str(fault)


def test_a_host_that_does_not_exist_is_said_so(tmp_path, settings):
    assert (
        refused("https://nowhere.invalid/a.py", tmp_path / "d", settings).code
        == "source/unreachable"
    )


def test_what_is_larger_than_code_can_be_is_not_downloaded(server, tmp_path, settings, monkeypatch):
    monkeypatch.setattr(transfer, "MAX_BYTES", 1 << 20)
    server.pages["/big.py"] = Page(bytes(3 << 20))
    fault = refused(f"{server.url}/big.py", tmp_path / "d", settings)
    assert fault.code == "source/too-large"
    assert "1 MiB" in fault.message


def test_the_digest_is_checked(server, tmp_path, settings):
    fault = refused(f"{server.url}/main.py#sha256={'0' * 64}", tmp_path / "d", settings)
    assert fault.code == "source/checksum"
    assert DIGEST in fault.message
    get(f"{server.url}/main.py#sha256={DIGEST}", tmp_path / "d", settings)


# The cache


def test_an_unchanged_file_is_transferred_once(server, tmp_path, cached):
    for number in range(3):
        fetched = get(f"{server.url}/main.py", tmp_path / str(number), cached)
        assert fetched.revision == f"sha256:{DIGEST}"
        assert files_below(tmp_path / str(number)) == {"main.py": CODE.decode()}
    assert [status for _, status in server.requests] == [200, 304, 304]
    server.pages["/main.py"].body = b"changed"
    get(f"{server.url}/main.py", tmp_path / "4", cached)
    assert files_below(tmp_path / "4") == {"main.py": "changed"}


def test_a_file_of_known_digest_needs_no_server(server, tmp_path, cached):
    get(f"{server.url}/main.py", tmp_path / "1", cached)
    get(f"https://nowhere.invalid/x.py#sha256={DIGEST}", tmp_path / "2", cached)
    assert files_below(tmp_path / "2") == {"x.py": CODE.decode()}
    assert len(server.requests) == 1


def test_a_run_that_changes_its_code_does_not_change_the_next_one_s(server, tmp_path, cached):
    get(f"{server.url}/main.py", tmp_path / "1", cached)
    (tmp_path / "1" / "main.py").write_text("changed")
    get(f"{server.url}/main.py", tmp_path / "2", cached)
    assert files_below(tmp_path / "2") == {"main.py": CODE.decode()}


def test_a_damaged_cache_is_noticed_and_filled_anew(server, tmp_path, cached, caplog):
    get(f"{server.url}/main.py", tmp_path / "1", cached)
    (entry,) = (cached.cache / "sha256").iterdir()
    entry.write_bytes(b"")
    get(f"{server.url}/main.py", tmp_path / "2", cached)
    assert files_below(tmp_path / "2") == {"main.py": CODE.decode()}
    (note,) = (cached.cache / "seen").iterdir()
    note.write_text("{")
    get(f"{server.url}/main.py", tmp_path / "3", cached)
    assert files_below(tmp_path / "3") == {"main.py": CODE.decode()}
    assert "damaged" in caplog.text
    assert [status for _, status in server.requests] == [200, 200, 200]


def test_a_cache_that_cannot_be_used_costs_a_warning_and_no_run(server, tmp_path, settings, caplog):
    (tmp_path / "file").write_text("")
    unusable = replace(settings, cache=tmp_path / "file" / "cache")
    get(f"{server.url}/main.py", tmp_path / "d", unusable)
    assert files_below(tmp_path / "d") == {"main.py": CODE.decode()}
    assert str(tmp_path / "file" / "cache") in caplog.text


def test_many_runs_at_once_each_get_the_whole_code(server, tmp_path, cached):
    server.pages["/code.zip"] = Page(packed(**{f"m{n}": "x" * n * 100 for n in range(40)}))

    def run(number: int) -> dict[str, str]:
        get(f"{server.url}/code.zip", tmp_path / str(number), cached)
        return files_below(tmp_path / str(number))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, range(24)))
    assert all(result == results[0] and len(result) == 40 for result in results)
    assert list((cached.cache / "tmp").iterdir()) == []


def test_no_password_is_in_the_cache(server, tmp_path, cached):
    server.pages["/main.py"].credentials = "me:s3cret"
    get(server.url.replace("://", "://me:s3cret@") + "/main.py", tmp_path / "d", cached)
    assert "s3cret" not in str(files_below(cached.cache))


# Proxies


def test_a_proxy_of_the_environment_is_used(server, tmp_path, settings):
    server.pages["http://code.invalid/a.py"] = Page(CODE)
    environ = {**settings.environ, "http_proxy": server.url.replace("://", "://me:pw@")}
    get("http://code.invalid/a.py", tmp_path / "d", replace(settings, environ=environ))
    assert server.requests == [("http://code.invalid/a.py", 200)]


def test_no_proxy_is_heeded(server, tmp_path, settings):
    environ = {
        **settings.environ,
        "HTTP_PROXY": "http://nowhere.invalid:1",
        "NO_PROXY": "127.0.0.1",
    }
    get(f"{server.url}/main.py", tmp_path / "d", replace(settings, environ=environ))


def test_a_proxy_that_is_none_is_named_without_its_password(server, tmp_path, settings):
    environ = {**settings.environ, "HTTP_PROXY": "socks5://me:s3cret@127.0.0.1:1"}
    fault = refused(f"{server.url}/main.py", tmp_path / "d", replace(settings, environ=environ))
    assert fault.code == "source/proxy"
    assert "s3cret" not in str(fault)
