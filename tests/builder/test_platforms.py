"""One image for several platforms: what its index names, and what is refused."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from servers.registry import Said, Store, registry
from standin_layout import write_base

from digitalhub_python_builder.build import Options, Result
from digitalhub_python_builder.cli import build_, lock_
from digitalhub_python_builder.native.store import canonical, digest_of
from digitalhub_python_builder.platforms import build_index, read_platforms
from digitalhub_python_builder.registry import OCI_INDEX, OCI_MANIFEST
from digitalhub_runtime_python.errors import EnvironmentFault, Fault, UsageFault
from digitalhub_runtime_python.spec import FunctionSpec, SourceSpec

BOTH = ("linux/amd64", "linux/arm64")
NOWHERE = {"DOCKER_HOST": "unix:///nowhere", "CONTAINERD_ADDRESS": "/nowhere"}


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Store]:
    """A registry with a base image for both platforms."""
    with registry() as store:
        entries = []
        for platform in BOTH:
            layout = write_base(tmp_path / platform, platform=platform)
            for blob in (layout / "blobs" / "sha256").iterdir():
                store.blobs[f"sha256:{blob.name}"] = blob.read_bytes()
            described = json.loads((layout / "index.json").read_text())["manifests"][0]
            store.manifests[described["digest"]] = (OCI_MANIFEST, store.blobs[described["digest"]])
            system, _, machine = platform.partition("/")
            entries.append({**described, "platform": {"os": system, "architecture": machine}})
        index = canonical({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
        store.manifests["base"] = store.manifests[digest_of(index)] = (OCI_INDEX, index)
        yield store


def _build(
    there: Store,
    tmp_path: Path,
    *requirements: str,
    code: bytes = b"def f(): return 1\n",
    **options: Any,
) -> Result:
    function = FunctionSpec(
        name="demo", project="p", source=SourceSpec(source="main.py", handler="f"),
        python_version="PYTHON3_11", requirements=requirements, base_image=f"{there.name}/base:base",
    )  # fmt: skip
    wanted = Options(tag=f"{there.name}/team/demo:1", flavour="slim", **options)
    environ = {**os.environ, **NOWHERE}
    return build_index(
        function, wanted, BOTH, code={"main.py": code}, cache=tmp_path / "cache", environ=environ
    )


def _images(there: Store, tag: str) -> dict[str, dict[str, Any]]:
    kind, data = there.manifests[tag]
    assert kind == OCI_INDEX
    return {
        f"{one['platform']['os']}/{one['platform']['architecture']}": json.loads(
            there.manifests[one["digest"]][1]
        )
        for one in json.loads(data)["manifests"]
    }


def test_an_index_names_an_image_of_each_platform_with_wheels_of_its_own(
    there: Store, tmp_path: Path
) -> None:
    result = _build(there, tmp_path, "markupsafe==3.0.2", push=True)
    images = _images(there, "1")
    assert list(images) == list(BOTH)
    compiled = {}
    for platform, image in images.items():
        config = json.loads(there.blobs[image["config"]["digest"]])
        assert f"{config['os']}/{config['architecture']}" == platform
        names = []
        for layer in image["layers"]:
            with tarfile.open(fileobj=io.BytesIO(there.blobs[layer["digest"]])) as tar:
                names += tar.getnames()
        compiled[platform] = [
            name for name in names if name.endswith(".so") and "markupsafe" in name
        ]
        assert [name for name in names if name.endswith("code/main.py")]
    assert "x86_64" in compiled["linux/amd64"][0]
    assert "aarch64" in compiled["linux/arm64"][0]
    # Code is the same on every platform: it is stored once.
    assert images["linux/amd64"]["layers"][-1] == images["linux/arm64"]["layers"][-1]
    assert result.image.digest == digest_of(there.manifests["1"][1])


def test_the_second_time_nothing_is_sent_and_an_edit_moves_the_tag(
    there: Store, tmp_path: Path
) -> None:
    first = _build(there, tmp_path, push=True)
    sent = len(there.requests)
    again = _build(there, tmp_path, push=True)
    assert again.existed
    assert again.image.digest == first.image.digest
    assert not [one for one in there.requests[sent:] if one.split()[0] in ("PUT", "POST", "PATCH")]
    edited = _build(there, tmp_path, push=True, code=b"def f(): return 2\n")
    assert not edited.existed
    assert digest_of(there.manifests["1"][1]) == edited.image.digest != first.image.digest


def test_another_cache_makes_the_same_index(there: Store, tmp_path: Path) -> None:
    digests = {_build(there, tmp_path / name, push=True).image.digest for name in "ab"}
    assert len(digests) == 1


def test_a_registry_that_breaks_off_has_no_tag(there: Store, tmp_path: Path) -> None:
    manifests = 0

    def harm(number: int, what: str, answer: Any) -> Said | None:
        nonlocal manifests
        manifests += what.startswith("PUT") and "/manifests/" in what
        return answer() if manifests < 2 else Said(403)

    there.harm = harm
    with pytest.raises(Fault):
        _build(there, tmp_path, push=True)
    assert "1" not in there.manifests
    there.harm = lambda number, what, answer: answer()
    assert not _build(there, tmp_path, push=True).existed
    assert list(_images(there, "1")) == list(BOTH)


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_an_index_is_written_as_a_layout(there: Store, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    _build(there, tmp_path, output=f"{kind}:{target}")
    if kind == "oci-archive":
        with tarfile.open(target) as tar:
            tar.extractall(tmp_path / "unpacked", filter="data")
        target = tmp_path / "unpacked"
    blobs = target / "blobs" / "sha256"
    entry = json.loads((target / "index.json").read_text())["manifests"][0]
    assert entry["mediaType"] == OCI_INDEX
    for one in json.loads((blobs / entry["digest"][7:]).read_text())["manifests"]:
        image = json.loads((blobs / one["digest"][7:]).read_text())
        for blob in [image["config"], *image["layers"]]:
            assert digest_of((blobs / blob["digest"][7:]).read_bytes()) == blob["digest"]


def test_what_cannot_hold_several_platforms_is_refused_before_anything_is_built(
    there: Store, tmp_path: Path
) -> None:
    for options, fault in [
        ({}, UsageFault), ({"output": "docker-archive:x.tar"}, UsageFault), ({"engine": "buildah", "push": True}, EnvironmentFault),
    ]:  # fmt: skip
        with pytest.raises(fault):
            _build(there, tmp_path, **options)
    assert not there.requests
    with pytest.raises(UsageFault, match="sparc"):
        read_platforms("linux/amd64,linux/sparc")
    with pytest.raises(UsageFault, match="''"):
        read_platforms("linux/amd64,")
    assert read_platforms("linux/arm64, linux/amd64,linux/arm64") == ("linux/arm64", "linux/amd64")


def test_commands_of_one_platform_refuse_several(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def f(): ...\n")
    for command, more in [(lock_, []), (build_, ["--explain"])]:
        done = CliRunner().invoke(
            command, [f"{tmp_path}/main.py:f", "--platform", ",".join(BOTH), *more]
        )
        assert isinstance(done.exception, UsageFault), done.output
        assert "Name one" in done.exception.hint
