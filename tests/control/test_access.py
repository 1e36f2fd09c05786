"""Who may ask: an open server on loopback, and one with credentials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError
from serving import Plane, serving, settings_in
from test_s3 import KEYS, boto, refused, rust

from digitalhub_python_control.settings import ControlSettings
from digitalhub_runtime_python.errors import UsageFault

LOCK = {
    "user": "ada",
    "password": "pass:wörd",
    "token": "t0ken",
    "s3_access_key": "AKIA",
    "s3_secret_key": "s3cret/+=",
}


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Plane]:
    with serving(settings_in(tmp_path / "home", **LOCK), auth=("ada", "pass:wörd")) as plane:
        yield plane


def test_the_right_credentials_open_and_all_others_do_not(locked: Plane) -> None:
    url = f"{locked.settings.url}/api/v1/projects"
    locked.project()
    with httpx.Client() as http:
        assert http.get(url, headers={"Authorization": "Bearer t0ken"}).status_code == 200
        for headers in (
            {},
            {"Authorization": "Bearer t0ken2"},
            {"Authorization": "Bearer pass:wörd".encode()},
            {"Authorization": "Bearer"},
            {"Authorization": "Basic !!!"},
            {"Authorization": "Basic /////w=="},
            {"Authorization": b"Basic \xff"},
            {"Authorization": "Digest x"},
        ):
            answer = http.get(url, headers=headers)
            assert answer.status_code == 401 and answer.json()["status"] == 401
            assert answer.headers["www-authenticate"].startswith("Basic")
        for wrong in (("ada", "x"), ("x", "pass:wörd"), ("", "")):
            assert http.get(url, auth=wrong).status_code == 401


def test_every_path_but_health_is_closed(locked: Plane) -> None:
    with httpx.Client(base_url=locked.settings.url) as http:
        assert http.get("/health").status_code == 200
        for path in ("/metrics", "/api/auth", "/.well-known/configuration", "/nope", "/s3x"):
            assert http.get(path).status_code == 401, path
        for path in ("/s3", "/s3/", "/s3/bkt", "/s3/bkt/x", "/s3/../api/v1/projects"):
            url = httpx.URL(locked.settings.url).copy_with(raw_path=path.encode())
            assert http.get(url).status_code in (401, 403), path
        # Basic credentials are not a signature.
        assert http.get("/s3/bkt", auth=("ada", "pass:wörd")).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[::"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8321"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "[::"},
        {"Host": "192.0.2.1"},
    ],
)
def test_a_page_of_another_site_cannot_use_the_open_server_of_who_reads_it(
    plane: Plane, headers: dict[str, str]
) -> None:
    body = b'{"name": "made-by-evil"}'
    headers = {"Content-Type": "text/plain", **headers}
    for path in ("/api/v1/projects", "/s3/bkt/x", "/health"):
        answer = plane.http.request("POST", path, content=body, headers=headers)
        assert answer.status_code in (400, 403), (path, answer.text)
    assert len(plane.ask("GET", "/projects")["content"]) == 1


def test_what_is_no_page_of_another_site_is_answered(plane: Plane) -> None:
    port = plane.settings.port
    for headers in (
        {"Origin": plane.settings.url},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Host": f"localhost:{port}"},
        {"Host": f"[::1]:{port}"},
        {"Host": "127.0.0.1"},
    ):
        assert plane.http.get("/api/v1/projects", headers=headers).status_code == 200, headers


def test_a_server_with_credentials_may_have_any_name_but_answers_no_other_site(
    locked: Plane,
) -> None:
    named = {"Host": "plane.example"}
    assert locked.http.get("/api/v1/projects", headers=named).status_code == 200
    evil = {**named, "Origin": "https://evil.example"}
    assert locked.http.get("/api/v1/projects", headers=evil).status_code == 403


def test_the_user_who_asks_is_the_user_of_what_is_made(locked: Plane) -> None:
    assert locked.project()["user"] == "ada"


def test_signed_requests_of_boto3_and_obstore_are_verified_for_any_key(locked: Plane) -> None:
    client = boto(locked, "AKIA", "s3cret/+=")
    for key in KEYS:
        client.put_object(Bucket="bkt", Key=key, Body=b"x" * 100, Metadata={"own": "a  b"})
        assert client.get_object(Bucket="bkt", Key=key)["Body"].read() == b"x" * 100
        assert client.list_objects_v2(Bucket="bkt", Prefix=key)["KeyCount"] >= 1
    store = rust(locked, "AKIA", "s3cret/+=")
    store.put("own/ü é +%20&=.txt", b"x")
    assert bytes(store.get("own/ü é +%20&=.txt").bytes()) == b"x"
    assert any(one["path"] == "own/ü é +%20&=.txt" for page in store.list("own") for one in page)


def test_other_keys_are_refused_for_reading_writing_and_listing(locked: Plane) -> None:
    boto(locked, "AKIA", "s3cret/+=").put_object(Bucket="bkt", Key="x", Body=b"old")
    for access, secret in (("AKIA", "wrong"), ("wrong", "s3cret/+=")):
        client = boto(locked, access, secret)
        for call in (client.get_object, client.delete_object):
            assert refused(call, Bucket="bkt", Key="x") == (403, "SignatureDoesNotMatch")
        put = {"Bucket": "bkt", "Key": "x", "Body": b"new" * 100_000}
        assert refused(client.put_object, **put)[0] == 403
        assert refused(client.list_objects_v2, Bucket="bkt")[0] == 403
    found = boto(locked, "AKIA", "s3cret/+=").get_object(Bucket="bkt", Key="x")
    assert found["Body"].read() == b"old"


def test_what_was_signed_cannot_be_changed_on_the_way(locked: Plane) -> None:
    client = boto(locked, "AKIA", "s3cret/+=")
    client.put_object(Bucket="bkt", Key="x", Body=b"x")
    sent: list[httpx.Request] = []

    def keep(request, **_: object) -> None:
        sent.append(request)

    client.meta.events.register("before-send.s3", keep)
    client.get_object(Bucket="bkt", Key="x")
    request = sent[-1]
    headers = dict(request.headers.items())
    with httpx.Client() as http:
        assert http.get(request.url, headers=headers).status_code == 200
        assert http.delete(request.url, headers=headers).status_code == 403
        assert http.get(request.url[:-1] + "y", headers=headers).status_code == 403
        assert http.get(request.url + "?versionId=1", headers=headers).status_code == 403
        old = {**headers, "X-Amz-Date": "20200101T000000Z"}
        assert http.get(request.url, headers=old).status_code == 403


def test_an_old_signature_is_refused(locked: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime

    import botocore.auth

    past = datetime.datetime(2020, 1, 1)

    class Clock(datetime.datetime):
        @classmethod
        def utcnow(cls) -> datetime.datetime:
            return past

        @classmethod
        def now(cls, tz: object = None) -> datetime.datetime:
            return past

    if hasattr(botocore.auth, "get_current_datetime"):
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: past)
    else:
        monkeypatch.setattr(botocore.auth.datetime, "datetime", Clock)
    client = boto3.client(
        "s3",
        endpoint_url=f"{locked.settings.url}/s3",
        aws_access_key_id="AKIA",
        aws_secret_access_key="s3cret/+=",
        region_name="us-east-1",
    )
    with pytest.raises(ClientError, match="RequestTimeTooSkewed"):
        client.list_objects_v2(Bucket="bkt")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_an_address_that_others_can_reach_needs_credentials(tmp_path: Path, host: str) -> None:
    environ = {"DHPY_HOME": str(tmp_path), "DHPY_HOST": host}
    if not host:
        assert ControlSettings.from_env(environ).host == "127.0.0.1"
        return
    with pytest.raises(UsageFault, match="no credentials") as caught:
        ControlSettings.from_env(environ)
    assert caught.value.code == "usage/open-address"
    for credentials in ({"DHPY_USER": "u", "DHPY_PASSWORD": "p"}, {"DHPY_TOKEN": "t"}):
        settings = ControlSettings.from_env({**environ, **credentials})
        assert settings.needs_credentials and settings.s3_secret_key in ("p", "t")
        assert "p" not in repr(settings).replace("PosixPath", "").split("user=")[1].split(",")[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_none(tmp_path: Path, host: str) -> None:
    settings = ControlSettings.from_env({"DHPY_HOME": str(tmp_path), "DHPY_HOST": host})
    assert not settings.needs_credentials


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("DHPY_PORT", "http", "DHPY_PORT is 'http'"),
        ("DHPY_PORT", "65536", "at most 65535"),
        ("DHPY_PORT", "-1", "at least 0"),
        ("DHPY_MAX_BODY", "nan", "DHPY_MAX_BODY"),
        ("DHPY_MAX_JOBS", "0", "at least 1"),
        ("DHPY_USER", "u", "DHPY_PASSWORD is missing"),
        ("DHPY_PASSWORD", "p", "DHPY_USER is missing"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(
    tmp_path: Path, variable: str, value: str, says: str
) -> None:
    with pytest.raises(UsageFault, match=says):
        ControlSettings.from_env({"DHPY_HOME": str(tmp_path), variable: value})


def test_nobody_sees_credentials_when_settings_are_printed(tmp_path: Path) -> None:
    url = "postgresql+psycopg://ada:pass:wörd@127.0.0.1/x"
    shown = repr(settings_in(tmp_path, **LOCK, database_url=url))
    assert not any(LOCK[name] in shown for name in ("password", "token", "s3_secret_key"))


def test_the_home_is_where_the_desktop_standard_says(tmp_path: Path) -> None:
    settings = ControlSettings.from_env({"XDG_DATA_HOME": str(tmp_path), "XDG_CACHE_HOME": "/c"})
    assert settings.home == tmp_path / "digitalhub-python"
    assert settings.cache == Path("/c/digitalhub-python")
    assert settings.database_url == f"sqlite:///{settings.home / 'dhpy.db'}"
