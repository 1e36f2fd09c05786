"""The subset of S3, with boto3, obstore and plain HTTP."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import obstore
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.store import S3Store
from serving import Plane, serving, settings_in

KEYS = [
    "a",
    "a/b",
    "a//b",
    "/lead",
    "trail/",
    ".",
    "..",
    "./x",
    "../../../etc/passwd",
    "..%2f..%2fetc",
    "a\\b",
    "C:\\x",
    "ü/é 漢字 🎉",
    "+%20&=?#;:@$,'(!)*~",
    " ",
    "a b",
    "tab\tnew\nline",
    "x" * 1024,
    "CON",
    "-rf",
]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Plane]:
    with serving(settings_in(tmp_path / "home")) as plane:
        yield plane


def boto(plane: Plane, access: str = "k", secret: str = "s") -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"{plane.settings.url}/s3",
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 1}),
    )


def rust(plane: Plane, access: str = "k", secret: str = "s") -> S3Store:
    return S3Store(
        "bkt",
        endpoint=f"{plane.settings.url}/s3",
        access_key_id=access,
        secret_access_key=secret,
        region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


def on_disk(plane: Plane) -> list[Path]:
    return [path for path in (plane.settings.home / "files").rglob("*") if path.is_file()]


def refused(call: Any, **kwargs: Any) -> tuple[int, str]:
    """Status and code of a call that must fail."""
    with pytest.raises(ClientError) as caught:
        call(**kwargs)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def test_any_key_is_stored_listed_read_and_deleted_and_stays_in_its_folder(files: Plane) -> None:
    client = boto(files)
    for key in KEYS:
        content = key.encode()
        made = client.put_object(
            Bucket="bkt", Key=key, Body=content, ContentType="text/x", Metadata={"own": "1"}
        )
        assert made["ETag"] == f'"{hashlib.md5(content).hexdigest()}"'
        head = client.head_object(Bucket="bkt", Key=key)
        assert head["ContentLength"] == len(content) and head["ContentType"] == "text/x"
        assert head["ETag"] == made["ETag"] and head["Metadata"] == {"own": "1"}
        assert client.get_object(Bucket="bkt", Key=key)["Body"].read() == content
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket="bkt", PaginationConfig={"PageSize": 7}
    )
    assert [o["Key"] for page in pages for o in page["Contents"]] == sorted(KEYS, key=str.encode)
    home = files.settings.home
    assert {path.name for path in home.parent.iterdir()} == {"home"}
    assert {path.parent.parent for path in on_disk(files)} == {home / "files"}
    assert all(path.name.isalnum() for path in on_disk(files))
    deleted = client.delete_objects(
        Bucket="bkt", Delete={"Objects": [{"Key": key} for key in KEYS]}
    )
    assert len(deleted["Deleted"]) == len(KEYS)
    assert client.list_objects_v2(Bucket="bkt")["KeyCount"] == 0 and on_disk(files) == []


def test_addresses_that_climb_are_keys_like_any_other(files: Plane) -> None:
    with httpx.Client() as http:
        for raw in (
            "/s3/bkt/../../x",
            "/s3/bkt/%2e%2e/%2e%2e/x",
            "/s3/bkt/..%2f..%2fx",
            "/s3/bkt//etc/x",
        ):
            # Written by hand: a client would tidy the path up.
            url = httpx.URL(files.settings.url).copy_with(raw_path=raw.encode())
            assert http.put(url, content=b"x").status_code in (200, 400, 404)
    assert {path.parent.parent for path in on_disk(files)} <= {files.settings.home / "files"}
    assert not list(files.settings.home.parent.rglob("x"))


def test_keys_and_buckets_that_cannot_be_are_refused(files: Plane) -> None:
    base = f"{files.settings.url}/s3"
    with httpx.Client() as http:
        for path, code in (
            ("bkt/%FF", "InvalidURI"),
            ("bkt/%00", "InvalidArgument"),
            ("bkt/%01", "InvalidArgument"),
            ("bkt/" + "x" * 1025, "KeyTooLongError"),
            ("BKT/x", "InvalidBucketName"),
            ("a%2f..%2f/x", "MethodNotAllowed"),
            ("-bkt/x", "InvalidBucketName"),
        ):
            answer = http.put(f"{base}/{path}", content=b"x")
            assert answer.status_code >= 400, path
            if path[0] != "a":
                assert f"<Code>{code}</Code>" in answer.text, path
    assert on_disk(files) == []


def test_what_is_not_there_is_named(files: Plane) -> None:
    client = boto(files)
    assert refused(client.get_object, Bucket="bkt", Key="none") == (404, "NoSuchKey")
    assert refused(client.head_object, Bucket="bkt", Key="none") == (404, "404")
    assert client.head_bucket(Bucket="any-at-all")["ResponseMetadata"]["HTTPStatusCode"] == 200
    client.delete_object(Bucket="bkt", Key="none")
    part = {"Bucket": "bkt", "Key": "x", "UploadId": "0" * 32, "PartNumber": 1}
    assert refused(client.upload_part, **part, Body=b"x") == (404, "NoSuchUpload")
    for upload in ("../../..", "%2e%2e", ""):
        part["UploadId"] = upload or "x"
        assert refused(client.upload_part, **part, Body=b"x")[0] == 404
    assert refused(client.get_object_tagging, Bucket="bkt", Key="x") == (501, "NotImplemented")
    assert refused(client.get_bucket_policy, Bucket="bkt") == (501, "NotImplemented")


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=90-", 90, 100),
        ("bytes=-5", 95, 100),
        ("bytes=-500", 0, 100),
        ("bytes=50-500", 50, 100),
    ],
)
def test_a_range_is_answered_with_that_part(files: Plane, asked: str, start: int, end: int) -> None:
    client, content = boto(files), bytes(range(100))
    client.put_object(Bucket="bkt", Key="x", Body=content)
    found = client.get_object(Bucket="bkt", Key="x", Range=asked)
    assert found["Body"].read() == content[start:end] and found["ContentLength"] == end - start
    if end - start < 100:
        assert found["ContentRange"] == f"bytes {start}-{end - 1}/100"
        assert found["ResponseMetadata"]["HTTPStatusCode"] == 206


def test_a_range_beyond_the_end_is_416_and_one_that_is_none_is_ignored(files: Plane) -> None:
    client = boto(files)
    client.put_object(Bucket="bkt", Key="x", Body=b"abc")
    assert refused(client.get_object, Bucket="bkt", Key="x", Range="bytes=3-") == (
        416,
        "InvalidRange",
    )
    for odd in ("lines=1-2", "bytes=2-1-0", "bytes=0-0,2-2", "bytes=-"):
        assert client.get_object(Bucket="bkt", Key="x", Range=odd)["Body"].read() == b"abc"
    client.put_object(Bucket="bkt", Key="empty", Body=b"")
    assert client.get_object(Bucket="bkt", Key="empty")["Body"].read() == b""


def test_120_megabytes_go_up_in_parts_with_a_real_md5_and_down_in_ranges(files: Plane) -> None:
    client = boto(files)
    content = os.urandom(1 << 20) * 120
    client.upload_fileobj(io.BytesIO(content), "bkt", "big")
    head = client.head_object(Bucket="bkt", Key="big")
    assert head["ETag"] == f'"{hashlib.md5(content).hexdigest()}"'
    assert head["ContentLength"] == len(content)
    target = io.BytesIO()
    client.download_fileobj("bkt", "big", target)
    assert target.getvalue() == content
    assert len(on_disk(files)) == 1, "no part is left behind"


def test_parts_are_put_together_in_their_order_whatever_order_they_came_in(files: Plane) -> None:
    client = boto(files)
    where = {"Bucket": "bkt", "Key": "x"}
    upload = client.create_multipart_upload(**where, ContentType="text/x", Metadata={"own": "1"})
    where["UploadId"] = upload["UploadId"]
    for number, body in ((3, b"c"), (1, b"old"), (1, b"a"), (2, b"b")):
        client.upload_part(**where, PartNumber=number, Body=body)
    parts = client.list_parts(**where)["Parts"]
    assert [one["PartNumber"] for one in parts] == [1, 2, 3]
    listed = [{"PartNumber": one["PartNumber"], "ETag": one["ETag"]} for one in parts]
    wrong = [{**listed[0], "ETag": '"' + "0" * 32 + '"'}]
    for chosen, code in (
        (listed[::-1], "InvalidPartOrder"),
        (wrong, "InvalidPart"),
        ([{"PartNumber": 9, "ETag": listed[0]["ETag"]}], "InvalidPart"),
    ):
        complete = {**where, "MultipartUpload": {"Parts": chosen}}
        assert refused(client.complete_multipart_upload, **complete) == (400, code)
    assert refused(client.upload_part, **where, PartNumber=0, Body=b"x")[0] == 400
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": listed})
    found = client.get_object(Bucket="bkt", Key="x")
    assert found["Body"].read() == b"abc" and found["ContentType"] == "text/x"
    assert found["Metadata"] == {"own": "1"}
    assert refused(client.abort_multipart_upload, **where) == (404, "NoSuchUpload")


def test_an_aborted_upload_leaves_nothing(files: Plane) -> None:
    client = boto(files)
    where = {"Bucket": "bkt", "Key": "x"}
    where["UploadId"] = client.create_multipart_upload(**where)["UploadId"]
    client.upload_part(**where, PartNumber=1, Body=b"x" * 1000)
    client.abort_multipart_upload(**where)
    assert on_disk(files) == []


def test_lists_know_prefixes_delimiters_and_where_to_go_on(files: Plane) -> None:
    client = boto(files)
    for key in ("a/1", "a/2", "a/b/3", "ab", "b/4", "c"):
        client.put_object(Bucket="bkt", Key=key, Body=b"")
    client.put_object(Bucket="other", Key="z", Body=b"")

    def listed(**kwargs: Any) -> tuple[list[str], list[str]]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="bkt", **kwargs)
        keys, prefixes = [], []
        for page in pages:
            keys += [one["Key"] for one in page.get("Contents", [])]
            prefixes += [one["Prefix"] for one in page.get("CommonPrefixes", [])]
        return keys, prefixes

    for size in (1, 2, 1000):
        sized = {"PaginationConfig": {"PageSize": size}}
        assert listed(**sized)[0] == ["a/1", "a/2", "a/b/3", "ab", "b/4", "c"]
        assert listed(Delimiter="/", **sized) == (["ab", "c"], ["a/", "b/"])
        assert listed(Prefix="a/", Delimiter="/", **sized) == (["a/1", "a/2"], ["a/b/"])
        assert listed(Prefix="a", **sized)[0] == ["a/1", "a/2", "a/b/3", "ab"]
        assert listed(StartAfter="a/2", **sized)[0] == ["a/b/3", "ab", "b/4", "c"]
    assert listed(Prefix="none")[0] == []
    first = client.list_objects(Bucket="bkt", MaxKeys=2)
    rest = client.list_objects(Bucket="bkt", Marker=first["Contents"][-1]["Key"])
    assert len(first["Contents"]) == 2 and len(rest["Contents"]) == 4
    assert {one["Name"] for one in client.list_buckets()["Buckets"]} == {"bkt", "other"}
    token = {"Bucket": "bkt", "ContinuationToken": "!"}
    assert refused(client.list_objects_v2, **token) == (400, "InvalidArgument")


def test_a_copy_has_the_same_bytes_and_outlives_what_it_was_made_of(files: Plane) -> None:
    client = boto(files)
    client.put_object(Bucket="bkt", Key="ä b", Body=b"x", ContentType="text/x")
    source = {"Bucket": "bkt", "Key": "ä b"}
    client.copy_object(Bucket="cpy", Key="y", CopySource=source)
    replaced = {"MetadataDirective": "REPLACE", "ContentType": "text/y"}
    client.copy_object(Bucket="bkt", Key="ä b", CopySource=source, **replaced)
    assert client.head_object(**source)["ContentType"] == "text/y"
    client.delete_object(**source)
    found = client.get_object(Bucket="cpy", Key="y")
    assert found["Body"].read() == b"x" and found["ContentType"] == "text/x"
    assert refused(client.copy_object, Bucket="cpy", Key="z", CopySource=source) == (
        404,
        "NoSuchKey",
    )


def test_a_body_that_is_not_what_its_headers_say_is_refused_and_not_stored(files: Plane) -> None:
    url = f"{files.settings.url}/s3/bkt/x"
    crc = base64.b64encode(zlib.crc32(b"right").to_bytes(4, "big")).decode()
    md5 = base64.b64encode(hashlib.md5(b"right").digest()).decode()
    with httpx.Client() as http:
        assert http.put(url, content=b"old").status_code == 200
        for header, value, code in (
            ("x-amz-checksum-crc32", crc, "BadDigest"),
            ("content-md5", md5, "BadDigest"),
            (
                "x-amz-content-sha256",
                hashlib.sha256(b"right").hexdigest(),
                "XAmzContentSHA256Mismatch",
            ),
        ):
            wrong = http.put(url, content=b"wrong", headers={header: value})
            assert wrong.status_code == 400 and code in wrong.text
            assert http.get(url).content == b"old"
            assert http.put(url, content=b"right", headers={header: value}).status_code == 200
            http.put(url, content=b"old")
    assert len(on_disk(files)) == 1


def test_a_body_in_chunks_of_aws_is_unwrapped(files: Plane) -> None:
    url = f"{files.settings.url}/s3/bkt/x"
    headers = {"content-encoding": "aws-chunked,gzip", "x-amz-trailer": "x-amz-checksum-crc32"}
    wrapped = (
        b"5\r\nhello\r\n6;chunk-signature=00\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAA==\r\n\r\n"
    )
    with httpx.Client() as http:
        for piece in (1, 3, 1000):
            pieces = (wrapped[at : at + piece] for at in range(0, len(wrapped), piece))
            assert http.put(url, content=pieces, headers=headers).status_code == 200
            with http.stream("GET", url) as found:
                assert b"".join(found.iter_raw()) == b"hello world"
                assert found.headers["content-encoding"] == "gzip"
        for broken in (
            b"5\r\nhel",
            b"zz\r\nhello",
            b"",
            b"x" * 10_000,
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"1_0\r\nhellohello\r\n0\r\n\r\n",
        ):
            assert http.put(url, content=broken, headers=headers).status_code == 400
        with http.stream("GET", url) as found:
            assert b"".join(found.iter_raw()) == b"hello world"


def test_a_client_that_goes_away_leaves_the_old_object_and_no_bytes(files: Plane) -> None:
    client = boto(files)
    client.put_object(Bucket="bkt", Key="x", Body=b"old")

    def pieces() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise OSError("gone")

    with httpx.Client() as http, pytest.raises(OSError, match="gone"):
        http.put(
            f"{files.settings.url}/s3/bkt/x",
            content=pieces(),
            headers={"Content-Length": "9999999"},
        )
    assert client.get_object(Bucket="bkt", Key="x")["Body"].read() == b"old"
    from serving import wait_until

    wait_until(lambda: len(on_disk(files)) == 1)


def test_who_waits_for_100_continue_gets_it_or_the_refusal(files: Plane) -> None:
    client = boto(files)  # sends Expect: 100-continue with every body
    client.put_object(Bucket="bkt", Key="x", Body=b"1")
    refusal = refused(
        client.put_object, Bucket="bkt", Key="x", Body=b"2" * 100_000, IfNoneMatch="*"
    )
    assert refusal == (412, "PreconditionFailed")
    # The same connection goes on: the body that was not sent is not waited for.
    assert client.get_object(Bucket="bkt", Key="x")["Body"].read() == b"1"


def test_conditions_of_reads_are_kept(files: Plane) -> None:
    client = boto(files)
    etag = client.put_object(Bucket="bkt", Key="x", Body=b"1")["ETag"]
    where = {"Bucket": "bkt", "Key": "x"}
    assert client.get_object(**where, IfMatch=etag)["Body"].read() == b"1"
    assert refused(client.get_object, **where, IfMatch='"other"')[0] == 412
    assert refused(client.get_object, **where, IfNoneMatch=etag)[0] == 304
    modified = client.head_object(**where)["LastModified"]
    assert refused(client.get_object, **where, IfModifiedSince=modified)[0] == 304


def test_readers_see_the_old_bytes_or_the_new_and_never_a_mixture(files: Plane) -> None:
    client, wrong = boto(files), []
    client.put_object(Bucket="bkt", Key="x", Body=b"0" * 300_000)
    done = threading.Event()

    def read() -> None:
        reader = boto(files)
        while not done.is_set():
            found = reader.get_object(Bucket="bkt", Key="x")
            content = found["Body"].read()
            if len(set(content)) != 1 or found["ETag"] != f'"{hashlib.md5(content).hexdigest()}"':
                wrong.append(content[:10])

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(30):
        client.put_object(Bucket="bkt", Key="x", Body=str(number % 10).encode() * 300_000)
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == [] and len(on_disk(files)) == 1


def test_obstore_reads_writes_lists_copies_and_keeps_its_conditions(files: Plane) -> None:
    store = rust(files)
    for path in ("a/b", "ü/é 漢字 +%20&=.txt", "a b", "~t'(!)*"):
        store.put(path, path.encode())
        assert bytes(store.get(path).bytes()) == path.encode()
        assert store.head(path)["size"] == len(path.encode())
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        store.put("a/b", b"x", mode="create")
    etag = store.head("a/b")["e_tag"]
    store.put("a/b", b"new", mode={"e_tag": etag})
    with pytest.raises(obstore.exceptions.PreconditionError):
        store.put("a/b", b"newer", mode={"e_tag": etag})
    assert bytes(store.get_range("a/b", start=1, length=2)) == b"ew"
    assert store.list_with_delimiter()["common_prefixes"] == ["a", "ü"]
    store.copy("a/b", "a/c")
    store.rename("a/c", "a/d")
    assert sorted(one["path"] for page in store.list("a") for one in page) == ["a/b", "a/d"]
    with pytest.raises(FileNotFoundError):
        store.get("none")
    content = os.urandom(1 << 20) * 20
    store.put("big", io.BytesIO(content), chunk_size=5 << 20)
    assert bytes(store.get("big").bytes()) == content
    store.delete([one["path"] for page in store.list() for one in page])
    assert on_disk(files) == []


def test_an_artifacts_own_files_go_with_it_and_no_others(files: Plane) -> None:
    files.project()
    client = boto(files)
    made = files.create("artifacts", name="a", kind="artifact", id="one")
    own = f"proj/artifact/a/{made['id']}/"
    for key in (f"{own}x", f"{own}sub/y", "proj/artifact/a/other/z", "data/z"):
        client.put_object(Bucket="bkt", Key=key, Body=b"x")
    files.ask("DELETE", "/-/proj/artifacts/one", params={"cascade": "true"})
    files.create("artifacts", name="a", kind="artifact", id="one", spec={"path": f"s3://bkt/{own}"})
    files.create("artifacts", name="a", kind="artifact", id="two", spec={"path": "s3://bkt/data/z"})
    assert len(client.list_objects_v2(Bucket="bkt")["Contents"]) == 4
    for identity in ("one", "two"):
        files.ask("DELETE", f"/-/proj/artifacts/{identity}", params={"cascade": "true"})
    left = [one["Key"] for one in client.list_objects_v2(Bucket="bkt")["Contents"]]
    assert left == ["data/z", "proj/artifact/a/other/z"]


@pytest.mark.parametrize(
    "xml", [b"<!DOCTYPE a [<!ENTITY b 'c'>]><Delete/>", b"<Delete", b"x" * 3000000]
)
def test_xml_that_is_none_or_could_explode_is_refused(files: Plane, xml: bytes) -> None:
    with httpx.Client() as http:
        answer = http.post(f"{files.settings.url}/s3/bkt?delete", content=xml)
    assert answer.status_code == 400 and "<Code>" in answer.text


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    key=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40),
    content=st.binary(max_size=200),
)
def test_whatever_the_key_the_bytes_come_back(files: Plane, key: str, content: bytes) -> None:
    client = boto_of(files)
    client.put_object(Bucket="bkt", Key=key, Body=content)
    assert client.get_object(Bucket="bkt", Key=key)["Body"].read() == content
    listed = client.list_objects_v2(Bucket="bkt", Prefix=key)["Contents"]
    assert key in [one["Key"] for one in listed]
    client.delete_object(Bucket="bkt", Key=key)
    assert refused(client.get_object, Bucket="bkt", Key=key)[0] == 404


_CLIENTS: dict[str, Any] = {}


def boto_of(plane: Plane) -> Any:
    """One client per server: making one takes longer than a request."""
    return _CLIENTS.setdefault(plane.settings.url, boto(plane))
