"""Bills of materials and provenance: by their schemas, from the lock, the same bytes for the same plan, and no secret."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from standin_layout import write_base

from digitalhub_python_builder import bill
from digitalhub_python_builder.cli import build_
from digitalhub_python_builder.plan import Plan
from digitalhub_runtime_python.errors import UsageFault

LOCK = f"""\
numpy==1.26.4 ; python_version >= '3.9' \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
Six.Y[extra]==1.0+local.1 \\
    --hash=sha256:{"c" * 64}
mine @ https://user:hunter2@example.org/mine-1.0-py3-none-any.whl#sha256={"d" * 64}
theirs @ git+https://example.org/theirs@{"e" * 40}
# a comment
"""
PLAN = Plan(
    "python:3.11-slim", "3.11", base_id=f"sha256:{'1' * 64}", requirements=LOCK, labels={"title": "ü"}, envs={"MODE": "s3cret"},
    instructions=("curl https://t0ken@host",), code={"main.py": b"def f(): ...\n"},
)  # fmt: skip
DIGEST = f"sha256:{'2' * 64}"


def _spdx_problems(data: bytes, place: Path) -> list[Any]:
    parsing = pytest.importorskip("spdx_tools.spdx.parser.parse_anything")
    validation = pytest.importorskip("spdx_tools.spdx.validation.document_validator")
    file = place / "x.spdx.json"
    file.write_bytes(data)
    return list(validation.validate_full_spdx_document(parsing.parse_file(str(file))))


def _cyclonedx_problem(data: bytes) -> Any:
    json_ = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    return json_.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(data.decode())


def test_a_lock_is_read_by_name_version_and_hash() -> None:
    assert [(one.name, one.version, one.purl, len(one.hashes)) for one in bill.components(LOCK)] == [
        ("mine", "", "pkg:pypi/mine?download_url=https%3A%2F%2Fexample.org%2Fmine-1.0-py3-none-any.whl", 0),
        ("numpy", "1.26.4", "pkg:pypi/numpy@1.26.4", 2),
        ("six-y", "1.0+local.1", "pkg:pypi/six-y@1.0%2Blocal.1", 1),
        ("theirs", "", f"pkg:pypi/theirs?download_url=git%2Bhttps%3A%2F%2Fexample.org%2Ftheirs%40{'e' * 40}", 0),
    ]  # fmt: skip
    assert bill.components("") == []


@pytest.mark.parametrize("lock", [LOCK, "", "a==1"])
def test_both_forms_are_valid_by_their_schemas(tmp_path: Path, lock: str) -> None:
    plan = dataclasses.replace(PLAN, requirements=lock)
    assert _cyclonedx_problem(bill.cyclonedx(plan, "host/demo:1", DIGEST)) is None
    assert _spdx_problems(bill.spdx(plan, "host/demo:1", DIGEST), tmp_path) == []


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True),
        st.sampled_from(["1.0", "2!1.0rc1", "1.0+a.b", "0"]),
        max_size=6,
    )
)
def test_whatever_is_locked_is_in_both_forms_once(packages: dict[str, str]) -> None:
    plan = dataclasses.replace(
        PLAN, requirements="\n".join(f"{name}=={version}" for name, version in packages.items())
    )
    for write, key in ((bill.cyclonedx, "components"), (bill.spdx, "packages")):
        entries = json.loads(write(plan, "demo", DIGEST))[key]
        names = [
            one["name"]
            for one in entries
            if "CONTAINER" not in str(one.get("primaryPackagePurpose", one.get("type"))).upper()
        ]
        assert sorted(names) == sorted(bill.canonicalize_name(name) for name in packages)


def test_the_same_plan_gives_the_same_bytes_and_another_digest_another_identity() -> None:
    for write in bill.FORMS.values():
        first = write(PLAN, "demo", DIGEST)
        assert write(dataclasses.replace(PLAN), "demo", DIGEST) == first
        assert write(PLAN, "demo", DIGEST.replace("2", "3")) != first


def test_no_form_of_them_shows_a_login_an_instruction_or_a_variables_value() -> None:
    written = [write(PLAN, "demo", DIGEST) for write in bill.FORMS.values()]
    written.append(bill.provenance(PLAN, "demo", DIGEST, engine="native", revision="git:abc"))
    for data in written:
        assert not [secret for secret in (b"hunter2", b"t0ken", b"s3cret") if secret in data]


def test_provenance_names_subject_lock_base_code_and_plan() -> None:
    statement = json.loads(
        bill.provenance(PLAN, "host/demo:1", DIGEST, engine="native", revision="git:abc")
    )
    assert statement["subject"] == [{"name": "host/demo:1", "digest": {"sha256": "2" * 64}}]
    definition = statement["predicate"]["buildDefinition"]
    assert [one["uri"] for one in definition["resolvedDependencies"]] == [
        "docker:python:3.11-slim",
        "lock",
        "code",
    ]
    assert definition["resolvedDependencies"][2]["annotations"] == {"revision": "git:abc"}
    assert definition["internalParameters"]["plan"] == PLAN.digest
    other = json.loads(
        bill.provenance(
            dataclasses.replace(PLAN, code={"main.py": b"other"}),
            "host/demo:1",
            DIGEST,
            engine="native",
        )
    )
    before, after = (
        one["predicate"]["buildDefinition"]["internalParameters"]["steps"]
        for one in (statement, other)
    )
    assert [name for name in before if before[name] != after[name]] == ["code"]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.spdx.json", "spdx"),
        ("A.SPDX.JSON", "spdx"),
        ("a.cdx.json", "cyclonedx"),
        ("sbom.json", "cyclonedx"),
    ],
)
def test_the_form_is_told_by_the_name(name: str, form: str) -> None:
    assert bill.form_of(name) == form
    with pytest.raises(UsageFault, match=r"NAME\.cdx\.json"):
        bill.form_of("sbom.xml")


def test_a_build_writes_them_beside_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "DOCKER_HOST": "unix:///nowhere",
        "CONTAINERD_ADDRESS": "/nowhere",
        "DHPY_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("def f(): ...\n")
    write_base(tmp_path / "base")
    files = [tmp_path / name for name in ("a.cdx.json", "a.spdx.json", "p.json")]
    command = [
        f"{tmp_path}/code/main.py:f", "--python", "3.11", "--requirement", "markupsafe==3.0.2", "--flavour", "slim", "--platform", "linux/amd64",
        "--base-image", f"oci:{tmp_path}/base", "--engine", "native", "--output", f"oci:{tmp_path}/out",
        "--sbom", str(files[0]), "--sbom", str(files[1]), "--provenance", str(files[2]),
    ]  # fmt: skip
    done = CliRunner().invoke(build_, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "pkg:pypi/markupsafe@3.0.2" in files[0].read_text()
    assert _cyclonedx_problem(files[0].read_bytes()) is None
    assert _spdx_problems(files[1].read_bytes(), tmp_path) == []
    image = json.loads((tmp_path / "out" / "index.json").read_text())["manifests"][0]["digest"]
    manifest = json.loads((tmp_path / "out" / "blobs" / "sha256" / image[7:]).read_text())
    subject = json.loads(files[2].read_text())["subject"][0]["digest"]["sha256"]
    assert subject in (image[7:], manifest["config"]["digest"][7:])
    refused = CliRunner().invoke(build_, [*command[:-6], "--sbom", "x.xml"])
    assert isinstance(refused.exception, UsageFault)
    assert not os.path.exists("x.xml")
