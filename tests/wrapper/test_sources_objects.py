"""Code in an object store, from a server that speaks the part of S3 which reading takes."""

from __future__ import annotations

import io
import socket
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from servers.objects import ObjectServer, object_server
from servers.surroundings import files_below

from digitalhub_runtime_python import transfer
from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import Fetched, fetch, tree
from digitalhub_runtime_python.spec import SourceSpec

CODE = b"def handler():\n    return 1\n"
DIGEST = sha256(CODE).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # the client reads the process's environment
    with object_server() as server:
        server.access_key = "key"
        server.objects["p/fn/main.py"] = CODE
        yield server


@pytest.fixture
def settings(server: ObjectServer) -> Settings:
    options = {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "S3CRET",
        "AWS_CREDENTIALS_EXPIRATION": "2030-01-01T00:00:00Z",
        "S3_SIGNATURE_VERSION": "s3v4",
    }
    return Settings(store_options=options)


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
    assert "S3CRET" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("scheme", ["s3", "s3a", "s3n"])
def test_a_file_keeps_its_name(tmp_path, settings, scheme):
    fetched = get(f"{scheme}://bucket/p/fn/main.py", tmp_path / "d", settings)
    assert fetched == Fetched(tmp_path / "d", Path("main.py"), f"sha256:{DIGEST}")
    assert files_below(tmp_path / "d") == {"main.py": CODE.decode()}


def test_an_archive_that_the_sdk_uploaded_is_unpacked(server, tmp_path, settings):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("main.py", "a")
        archive.writestr("pkg/b.py", "b")
    server.objects["p/fn/archive.zip"] = buffer.getvalue()
    fetched = get("zip+s3://bucket/p/fn/archive.zip", tmp_path / "d", settings)
    assert fetched.main is None
    assert fetched.revision == f"sha256:{sha256(buffer.getvalue()).hexdigest()}"
    assert files_below(tmp_path / "d") == {"main.py": "a", "pkg/b.py": "b"}


def test_a_trailing_slash_names_a_folder(server, tmp_path, settings):
    server.objects.update({"p/fn/pkg/a.py": b"a", "p/fn/pkg/": b"", "p/fn2/x.py": b"x"})
    fetched = get("s3://bucket/p/fn/", tmp_path / "d", settings)
    assert files_below(tmp_path / "d") == {"main.py": CODE.decode(), "pkg/a.py": "a"}
    assert fetched.main is None
    assert fetched.revision == f"sha256:{tree.tree_digest(tmp_path / 'd')}"


def test_keys_with_spaces_and_letters_of_any_kind_will_do(server, tmp_path, settings):
    server.objects.update({"mein code/ü b.py": b"a", "mein code/c+d=e.py": b"b"})
    get("s3://bucket/mein code/ü b.py", tmp_path / "1", settings)
    assert files_below(tmp_path / "1") == {"ü b.py": "a"}
    get("s3://bucket/mein code/", tmp_path / "2", settings)
    assert files_below(tmp_path / "2") == {"ü b.py": "a", "c+d=e.py": "b"}


def test_the_digest_is_checked(tmp_path, settings):
    fault = refused(f"s3://bucket/p/fn/main.py#sha256={'0' * 64}", tmp_path / "d", settings)
    assert fault.code == "source/checksum"
    get(f"s3://bucket/p/fn/main.py#sha256={DIGEST}", tmp_path / "d", settings)


@pytest.mark.parametrize(
    "source",
    ["s3://bucket/nope.py", "s3://bucket/nope/", "s3://elsewhere/main.py", "s3://elsewhere/x/"],
)
def test_what_is_missing_is_said_to_be_missing(tmp_path, settings, source):
    fault = refused(source, tmp_path / "d", settings)
    assert fault.code == "source/not-found"
    assert source in fault.message


def test_a_stranger_is_asked_for_credentials(server, tmp_path, settings):
    anonymous = replace(settings, store_options={"AWS_ENDPOINT_URL": server.url})
    fault = refused("s3://bucket/p/fn/main.py", tmp_path / "d", anonymous)
    assert fault.code == "source/auth-required"
    assert server.signers == [""]
    server.access_key = ""
    get("s3://bucket/p/fn/main.py", tmp_path / "d", anonymous)


def test_refused_credentials_are_said_to_be_refused(server, tmp_path, settings):
    server.access_key = "another"
    assert refused("s3://bucket/p/fn/", tmp_path / "d", settings).code == "source/auth-refused"
    fault = refused("s3://bucket/p/fn/main.py", tmp_path / "e", settings)
    assert fault.code == "source/auth-refused"
    assert "AccessDenied" in fault.message


def test_half_of_a_pair_of_credentials_is_named(server, tmp_path):
    half = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "key"}
    fault = refused("s3://bucket/a.py", tmp_path / "d", Settings(store_options=half))
    assert "Secret" in fault.message


def test_nobody_at_the_endpoint_is_said_so(tmp_path, settings):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = {
            **settings.store_options,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{unused.getsockname()[1]}",
        }
        fault = refused("s3://bucket/a.py", tmp_path / "d", replace(settings, store_options=nobody))
    assert fault.code == "source/unreachable"
    assert "AWS_ENDPOINT_URL" in fault.hint


@pytest.mark.parametrize("source", ["s3://bucket", "s3://bucket/", "s3:///main.py"])
def test_an_address_without_an_object_is_refused(tmp_path, settings, source):
    assert refused(source, tmp_path / "d", settings).code == "source/uri"


def test_a_folder_is_no_archive(tmp_path, settings):
    assert refused("zip+s3://bucket/p/fn/", tmp_path / "d", settings).code == "source/uri"


@pytest.mark.parametrize("key", ["p/fn/../../evil.py", "p/fn/..\\..\\evil.py", "p/fn/a\x1bb.py"])
def test_a_key_that_leads_out_of_the_folder_is_refused(server, tmp_path, settings, key):
    server.objects[key] = b"evil"
    with pytest.raises(SourceFault):
        get("s3://bucket/p/fn/", tmp_path / "d", settings)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d"]
    assert list((tmp_path / "d").iterdir()) == []


def test_a_folder_larger_than_code_can_be_is_not_downloaded(
    server, tmp_path, settings, monkeypatch
):
    monkeypatch.setattr(transfer, "MAX_BYTES", 1 << 20)
    server.objects["p/fn/data.bin"] = bytes(2 << 20)
    assert refused("s3://bucket/p/fn/", tmp_path / "d", settings).code == "source/too-large"
    assert [path for path, _ in server.requests] == ["/bucket"]
    assert refused("s3://bucket/p/fn/data.bin", tmp_path / "e", settings).code == "source/too-large"


def test_an_unchanged_file_is_transferred_once(server, tmp_path, cached):
    for number in range(3):
        get("s3://bucket/p/fn/main.py", tmp_path / str(number), cached)
        assert files_below(tmp_path / str(number)) == {"main.py": CODE.decode()}
    assert [status for _, status in server.requests] == [200, 304, 304]
    server.objects["p/fn/main.py"] = b"changed"
    get("s3://bucket/p/fn/main.py", tmp_path / "4", cached)
    assert files_below(tmp_path / "4") == {"main.py": "changed"}


def test_of_a_folder_only_what_changed_is_transferred(server, tmp_path, cached):
    server.objects["p/fn/a.py"] = b"a"
    get("s3://bucket/p/fn/", tmp_path / "1", cached)
    server.objects["p/fn/a.py"] = b"b"
    server.requests.clear()
    get("s3://bucket/p/fn/", tmp_path / "2", cached)
    assert server.requests == [("/bucket", 200), ("/bucket/p/fn/a.py", 200)]
    assert files_below(tmp_path / "2") == {"main.py": CODE.decode(), "a.py": "b"}
