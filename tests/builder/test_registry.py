"""The client of registries, against one over real HTTP that breaks off, lies and sends too much."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.registry import Said, Store, registry
from standin_layout import write_base

from digitalhub_python_builder import manifests
from digitalhub_python_builder.native import base as bases
from digitalhub_python_builder.native.store import Store as Cache
from digitalhub_python_builder.native.store import canonical
from digitalhub_python_builder.references import Reference
from digitalhub_python_builder.registry import OCI_MANIFEST, Registry, config_of
from digitalhub_runtime_python.errors import EnvironmentFault

SMALL, LARGE = b"{}", b"0123456789abcdef" * (5 << 14)
EMPTY: Mapping[str, str] = {}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


IMAGE = canonical({
    "schemaVersion": 2, "mediaType": OCI_MANIFEST,
    "config": {"mediaType": "application/json", "digest": _digest(SMALL), "size": len(SMALL)},
    "layers": [{"mediaType": "application/x", "digest": _digest(LARGE), "size": len(LARGE)}],
})  # fmt: skip


def _client(name: str) -> Registry:
    return Registry(name, EMPTY, pause=0.0005)


def _exchange(name: str) -> None:
    """Push an image and pull it again."""
    with contextlib.closing(_client(name)) as client:
        for blob in (SMALL, LARGE):
            client.put_blob("a/b", _digest(blob), len(blob), lambda blob=blob: io.BytesIO(blob))
        client.put_manifest("a/b", "1", OCI_MANIFEST, IMAGE)
        found = client.manifest("a/b", "1")
        assert found is not None
        assert manifests.read_manifest(found[2]) == json.loads(IMAGE)
        assert client.small_blob("a/b", _digest(SMALL)) == SMALL
        with client.blob("a/b", _digest(LARGE)) as stream:
            data = b"".join(iter(lambda: stream.read(1 << 16), b""))
        if _digest(data) != _digest(LARGE):  # whoever reads a blob checks it
            raise EnvironmentFault("build/digest", "another's", "")


def _cut(said: Said) -> Said:
    """Half of it, where it has a body."""
    return (
        Said(said.status, said.body, said.headers, cut=len(said.body) // 2) if said.body else said
    )


def _unanswered(answer: Callable[[], Said]) -> None:
    answer()


PASSING: dict[str, Callable[[Callable[[], Said]], Said | None]] = {
    "breaks off before it does anything": lambda answer: None,
    "breaks off once it is done": _unanswered,
    "breaks off in the middle of the answer": lambda answer: _cut(answer()),
    "answers 500": lambda answer: Said(500),
    "answers 503 with a page": lambda answer: Said(503, b"<html>busy</html>"),
    "answers 429": lambda answer: Said(429, headers={"Retry-After": "0"}),
}
LASTING = {
    **PASSING,
    "answers 401": lambda answer: Said(401),
    "answers 401 and names nothing": lambda answer: Said(
        401, headers={"WWW-Authenticate": "Bearer"}
    ),
    "answers 403": lambda answer: Said(403, b"[1]"),
    "answers a page": lambda answer: Said(
        200, b"<html>log in</html>", {"Content-Type": "text/html"}
    ),
    "answers a list": lambda answer: Said(200, b"[]"),
    "answers nothing": lambda answer: Said(200),
    "redirects to itself": lambda answer: Said(307, headers={"Location": "/v2/"}),
    "redirects to a file": lambda answer: Said(302, headers={"Location": "file:///etc/passwd"}),
}


CODES = ("build/registry", "build/registry-login", "build/digest", "build/base-image-unsafe")


@functools.lru_cache
def _requests() -> int:
    with registry() as there:
        _exchange(there.name)
        return len(there.requests)


@pytest.mark.parametrize("what", list(PASSING))
def test_a_registry_that_does_so_once_at_any_request_is_no_hindrance(what: str) -> None:
    for victim in range(_requests()):

        def harm(
            number: int, _: str, answer: Callable[[], Said], victim: int = victim
        ) -> Said | None:
            return PASSING[what](answer) if number == victim else answer()

        with registry(harm) as there:
            _exchange(there.name)
            assert there.blobs == {_digest(SMALL): SMALL, _digest(LARGE): LARGE}


@pytest.mark.parametrize("what", list(LASTING))
def test_a_registry_that_does_so_from_any_request_on_is_a_fault_in_one_line(what: str) -> None:
    for first in range(_requests()):

        def harm(
            number: int, _: str, answer: Callable[[], Said], first: int = first
        ) -> Said | None:
            return LASTING[what](answer) if number >= first else answer()

        with registry(harm) as there:
            with pytest.raises(EnvironmentFault) as caught:
                _exchange(there.name)
            assert caught.value.code in CODES
            tagged = "1" in there.manifests
            assert not tagged or there.blobs.keys() == {_digest(SMALL), _digest(LARGE)}


def test_a_blob_that_breaks_off_again_and_again_goes_on_where_it_was() -> None:
    data = bytes(range(256)) * (5 << 14)

    def harm(number: int, what: str, answer: Callable[[], Said]) -> Said | None:
        said = answer()
        return Said(said.status, said.body, said.headers, cut=min(len(said.body), (3 << 20) // 2))

    with registry(harm) as there, contextlib.closing(_client(there.name)) as client:
        there.blobs[_digest(data)] = data
        with client.blob("a", _digest(data)) as stream:
            assert b"".join(iter(lambda: stream.read(1 << 18), b"")) == data
        assert len(there.requests) > 10


@pytest.mark.parametrize("lies", ["ignores the range", "begins later", "begins earlier"])
def test_a_registry_that_goes_on_elsewhere_spoils_no_blob(lies: str) -> None:
    def harm(number: int, what: str, answer: Callable[[], Said]) -> Said | None:
        if number == 0:
            return _cut(answer())
        part = answer().body
        if lies == "ignores the range":
            return Said(200, LARGE)
        at = len(LARGE) - len(part) + (1000 if lies == "begins later" else -1000)
        return Said(206, LARGE[at:], {"Content-Range": f"bytes {at}-{len(LARGE) - 1}/{len(LARGE)}"})

    with registry(harm) as there, contextlib.closing(_client(there.name)) as client:
        there.blobs[_digest(LARGE)] = LARGE
        with client.blob("a", _digest(LARGE)) as stream:
            if lies == "begins later":
                with pytest.raises(EnvironmentFault, match="another part"):
                    list(iter(lambda: stream.read(1 << 16), b""))
            else:
                assert b"".join(iter(lambda: stream.read(1 << 16), b"")) == LARGE


def test_no_answer_is_read_beyond_its_limit() -> None:
    def harm(number: int, what: str, answer: Callable[[], Said]) -> Said | None:
        return Said(200, b" " * (6 << 20))

    with registry(harm) as there, contextlib.closing(_client(there.name)) as client:
        with pytest.raises(EnvironmentFault, match="more than 4 MiB"):
            client.manifest("a", "1")
        with pytest.raises(EnvironmentFault, match="more than 4 MiB"):
            client.tags("a")


@pytest.mark.parametrize(
    "token", [b"[]", b"no json", b'{"token": 7}', b'{"token": ""}', b'{"token": "a\\r\\nX: y"}', b'{"token": "\\u00e9"}', b"[" * 100_000],
)  # fmt: skip
def test_a_place_for_tokens_that_gives_none_is_named(token: bytes) -> None:
    def harm(number: int, what: str, answer: Callable[[], Said]) -> Said | None:
        if "/token" in what:
            return Said(200, token)
        return Said(
            401,
            headers={"WWW-Authenticate": f'Bearer realm="http://{there.name}/token",service="x"'},
        )

    with registry(harm) as there, contextlib.closing(_client(there.name)) as client:
        with pytest.raises(EnvironmentFault) as caught:
            client.manifest("a", "1")
        assert caught.value.code == "build/registry-login"


def test_tags_are_read_page_by_page_and_only_of_the_registry_itself() -> None:
    def harm(number: int, what: str, answer: Callable[[], Said]) -> Said | None:
        if "last=" in what:
            return Said(
                200, b'{"tags": ["a"]}', {"Link": '<http://127.0.0.1:1/v2/a/tags/list>; rel="next"'}
            )
        return Said(200, b'{"tags": ["b"]}', {"Link": '</v2/a/tags/list?last=b>; rel="next"'})

    with registry(harm) as there, contextlib.closing(_client(there.name)) as client:
        with pytest.raises(EnvironmentFault, match="another place"):
            client.tags("a")
        assert there.requests == ["GET /v2/a/tags/list", "GET /v2/a/tags/list?last=b"]


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "is a list": lambda m: [m],
    "is null": lambda m: None,
    "has no config": lambda m: m.pop("config") and m,
    "has a config that is a text": lambda m: {**m, "config": "x"},
    "has layers that are an object": lambda m: {**m, "layers": {"a": 1}},
    "has a layer that is a text": lambda m: {**m, "layers": ["x"]},
    "has a layer without a media type": lambda m: {**m, "layers": [{"digest": _digest(b""), "size": 1}]},
    "has a layer without a size": lambda m: {**m, "layers": [{"digest": _digest(b""), "mediaType": "x"}]},
    "has a size that is a text": lambda m: {**m, "layers": [{**m["layers"][0], "size": "many"}]},
    "has a size below nothing": lambda m: {**m, "layers": [{**m["layers"][0], "size": -1}]},
    "has a size that is true": lambda m: {**m, "layers": [{**m["layers"][0], "size": True}]},
    "has a digest that leads out": lambda m: {**m, "layers": [{**m["layers"][0], "digest": "sha256:../../x"}]},
    "has a digest that is a number": lambda m: {**m, "layers": [{**m["layers"][0], "digest": 7}]},
    "has 5000 layers": lambda m: {**m, "layers": m["layers"] * 5000},
    "is of the first schema": lambda m: {"schemaVersion": 1, "fsLayers": []},
    "is an index of texts": lambda m: {"manifests": ["x"]},
    "is an index that is an object": lambda m: {"manifests": {}},
    "is an index without digests": lambda m: {"manifests": [{"platform": {"os": "linux", "architecture": "amd64"}}]},
    "is an index of an index": lambda m: {"manifests": [{"digest": _digest(b'{"manifests":[]}'), "platform": {"os": "linux", "architecture": "amd64"}}]},
}  # fmt: skip


def _pull(there: Store, tmp_path: Path) -> Any:
    with contextlib.closing(_client(there.name)) as client:
        cache = Cache(tmp_path / "cache")
        found = bases.from_registry(
            client, Reference("a", there.name, tag="1"), "linux/amd64", cache
        )
        assert found is not None
        return bases.describe(found, "a:1", cache, lambda: found)


def _put_layout(there: Store, layout: Path) -> dict[str, Any]:
    for blob in (layout / "blobs" / "sha256").iterdir():
        there.blobs[f"sha256:{blob.name}"] = blob.read_bytes()
    index = json.loads((layout / "index.json").read_text())
    return dict(json.loads(there.blobs[index["manifests"][0]["digest"]]))


def _tag(there: Store, data: bytes) -> None:
    there.manifests["1"] = there.manifests[_digest(data)] = (OCI_MANIFEST, data)
    nested = b'{"manifests":[]}'
    there.manifests[_digest(nested)] = (OCI_MANIFEST, nested)


@pytest.mark.parametrize("what", list(WRONG))
def test_a_manifest_that_is_refused(tmp_path: Path, what: str) -> None:
    with registry() as there:
        right = _put_layout(there, write_base(tmp_path / "base"))
        _tag(there, canonical(WRONG[what](json.loads(json.dumps(right)))))
        with pytest.raises(EnvironmentFault) as caught:
            _pull(there, tmp_path)
        assert caught.value.code == "build/base-image-unsafe"
        # Said again the second time: nothing of it was kept as if it were good.
        with pytest.raises(EnvironmentFault):
            _pull(there, tmp_path)
        _tag(there, canonical(right))
        assert _pull(there, tmp_path).python.version == "3.11"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"1e400", b'{"layers": NaN}']
)
def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path, text: bytes) -> None:
    with registry() as there:
        _tag(there, text)
        with pytest.raises(EnvironmentFault) as caught:
            _pull(there, tmp_path)
        assert caught.value.code == "build/base-image-unsafe"
        with pytest.raises(EnvironmentFault):
            config_of(f"{there.name}/a:1", EMPTY)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(_digest(b"")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["config", "layers", "manifests", "digest", "size", "mediaType", "platform", "rootfs", "diff_ids", "Env", "Labels", "os", "architecture"]),
        inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=400)
@given(ANYTHING)
def test_whatever_is_read_is_of_its_shape_or_refused(value: Any) -> None:
    data = json.dumps(value).encode()
    with contextlib.suppress(EnvironmentFault):
        content = manifests.read_manifest(data)
        if "manifests" in content:
            assert manifests.of_platform(content, "linux/amd64") in [
                None,
                *(one["digest"] for one in content["manifests"]),
            ]
            manifests.platforms(content)
        else:
            assert all(
                one["size"] >= 0 and manifests.DIGEST.fullmatch(one["digest"])
                for one in [content["config"], *content["layers"]]
            )
    with contextlib.suppress(EnvironmentFault):
        config = manifests.read_configuration(data)
        assert isinstance(config["os"], str)
        assert isinstance((config.get("config") or {}).get("Labels") or {}, dict)


@pytest.mark.parametrize(
    ("field", "value"),
    [("Env", "A=b"), ("Env", [1]), ("Env", {"A": "b"}), ("Labels", ["a"]), ("Labels", {"a": 1}), ("Cmd", "python3"), ("User", 0), ("WorkingDir", ["/"])],
)  # fmt: skip
def test_a_configuration_of_another_shape_is_refused_by_the_field(
    tmp_path: Path, field: str, value: Any
) -> None:
    base = write_base(tmp_path / "base", config={field: value})
    with pytest.raises(EnvironmentFault, match=field):
        found = bases.from_layout(base, "", "linux/amd64")
        bases.describe(found, "a", Cache(tmp_path / "cache"), lambda: found)
