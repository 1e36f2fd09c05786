"""Plans and the Dockerfiles that they become; `DHPY_WRITE_GOLDEN=1` writes the golden files anew."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitalhub_python_builder import context, explain, selection
from digitalhub_python_builder.bases import has_runtime, reference
from digitalhub_python_builder.dockerfile import render
from digitalhub_python_builder.plan import Plan, make_plan
from digitalhub_python_builder.references import parse
from digitalhub_runtime_python.errors import SourceFault, UsageFault
from digitalhub_runtime_python.spec import FunctionSpec, SourceSpec

CASES = Path(__file__).parents[1] / "dockerfiles"
FUNCTION = FunctionSpec(
    "f", SourceSpec(code="def f(): pass", handler="f"), "PYTHON3_11", project="p"
)


def _plan_of(case: dict[str, Any]) -> Plan:
    function = FunctionSpec.from_entity(case["function"])
    base = function.base_image or reference("3.10", "full", {})
    return make_plan(
        function,
        base,
        has_runtime=has_runtime(base, {}),
        instructions=case.get("instructions", ()),
        envs=case.get("envs"),
        labels=case.get("labels"),
        requirements="".join(f"{entry}\n" for entry in case.get("lock", ())),
        index_url=case.get("index_url", ""),
        ca_bundle=case.get("ca_bundle", "").encode(),
        secrets=case.get("secrets", ()),
        code=context.code_of(function.source),
        runtime={"digitalhub_runtime_python/__init__.py": b""},
    )


@pytest.mark.parametrize("name", sorted(p.name for p in CASES.iterdir()))
def test_the_dockerfile_is_the_golden_one(name: str) -> None:
    plan = _plan_of(json.loads((CASES / name / "function.json").read_text("utf-8")))
    golden = CASES / name / "Dockerfile"
    if os.environ.get("DHPY_WRITE_GOLDEN"):
        golden.write_text(render(plan), "utf-8")
    assert render(plan) == golden.read_text("utf-8")


def test_equal_plans_have_equal_hashes_and_contexts() -> None:
    case = json.loads((CASES / "all" / "function.json").read_text("utf-8"))
    first, second = io.BytesIO(), io.BytesIO()
    context.write_tar(_plan_of(case), first)
    context.write_tar(_plan_of(case), second)
    assert _plan_of(case).tag == _plan_of(case).tag
    assert first.getvalue() == second.getvalue()
    with tarfile.open(fileobj=io.BytesIO(first.getvalue())) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == sorted(m.name for m in members)
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}


@pytest.mark.parametrize(
    "change",
    [
        {"instructions": ("true",)},
        {"envs": {"A": "1"}},
        {"labels": {"a": "1"}},
        {"base_id": "sha256:1"},
        {"requirements": "a==1 --hash=sha256:00\n"},
        {"code": {"main.py": b"x = 2"}},
        {"platform": "linux/arm64"},
    ],
)
def test_every_part_of_a_plan_counts_in_its_hash(change: dict[str, Any]) -> None:
    assert make_plan(FUNCTION, "base").digest != make_plan(FUNCTION, "base", **change).digest


@pytest.mark.parametrize(
    ("instruction", "why"),
    [
        ("echo a\nUSER root", "line break"),
        ("echo a\r", "line break"),
        ("echo \x00", "NUL"),
        ("echo a \u2028 b", "line break"),
        ("echo a \\", "backslash"),
        ("cat <<EOF > /etc/motd", "here-document"),
        ("cat 3<<-'EOF'", "here-document"),
        # What BuildKit takes for one, by its own splitting of words.
        (r"cat <<\USER", "here-document"),
        ("cat <<1", "here-document"),
        ("cat <<.x", "here-document"),
        ('cat <<"" E', "here-document"),
        ("cat <<é", "here-document"),
        ("cat <<<E", "here-document"),
        ("cat 0<<$X", "here-document"),
        ('cat "\'"<<E', "here-document"),
        ("echo \ud800", "control"),
        ("echo a\fUSER root", "line break"),
        ("echo \x85", "line break"),
        ("echo a \\\t ", "backslash"),
        ("--mount=type=cache,target=/x,type=bind,source=/ true", "option"),
        ('--mount=type=cache,target="/x true', "option"),
        ("  ", "empty"),
        ("RUN apt-get install git", "RUN"),
        ("--network=none true", "option"),
        ("--security=insecure true", "option"),
        ("--mount=type=bind,source=/,target=/x true", "option"),
        ("--mount=type=secret,id=key cat /run/secrets/key", "'key'"),
        (5, "int"),
    ],
)
def test_an_instruction_that_could_be_more_than_one_is_refused(instruction: Any, why: str) -> None:
    with pytest.raises(UsageFault, match=why) as caught:
        make_plan(FUNCTION, "base", instructions=[instruction])
    assert caught.value.code == "build/instruction"


@pytest.mark.parametrize(
    "instruction",
    ["echo '<<EOF'", 'printf "%s" "a <<E b"', r"echo \<\<E", "echo \"'\" '<<' `true` # \\ <"],
)
def test_what_is_in_quotes_is_no_here_document_and_cannot_become_one(instruction: str) -> None:
    (line,) = [n for n in render(make_plan(FUNCTION, "base", instructions=[instruction])).split("\n") if n.startswith("RUN")]  # fmt: skip
    assert "<<" not in line
    if "<<" in instruction:
        assert json.loads(line[4:]) == ["/bin/sh", "-c", instruction]


def test_what_installs_with_apt_has_lists_and_leaves_none() -> None:
    instructions = ["apt-get update", "apt-get install -y git # x", "--mount=type=cache,target=/var/cache/apt apt install -y jq", "true"]  # fmt: skip
    lines = [n for n in render(make_plan(FUNCTION, "base", instructions=instructions)).split("\n") if n.startswith("RUN")]  # fmt: skip
    clean = "trap 'rm -rf /var/lib/apt/lists/* /var/cache/apt/*' EXIT; "
    assert lines == [
        f"RUN {clean}apt-get update",
        f"RUN {clean}apt-get update -qq && apt-get install -y git # x",
        "RUN --mount=type=cache,target=/var/cache/apt apt-get update -qq && apt install -y jq",
        "RUN true",
    ]


def test_instructions_that_are_one_string_are_refused() -> None:
    with pytest.raises(UsageFault, match="list of strings"):
        make_plan(FUNCTION, "base", instructions="apt-get update")


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"envs": {"A": "1\nRUN evil"}}, "build/env"),
        ({"envs": {"A B": "1"}}, "build/env"),
        ({"envs": {"A": "\x00"}}, "build/env"),
        ({"envs": {"A": 1}}, "build/env"),
        ({"labels": {"a": "1\n"}}, "build/label"),
        ({"labels": {"a": "\x00"}}, "build/label"),
        ({"labels": {"a b": "1"}}, "build/label"),
        ({"labels": {"a\nRUN": "1"}}, "build/label"),
        ({"platform": "windows/amd64"}, "build/platform"),
        ({"index_url": "https://a/\nRUN"}, "build/index"),
    ],
)
def test_values_that_would_break_out_of_their_line_are_refused(
    values: dict[str, Any], code: str
) -> None:
    with pytest.raises(UsageFault) as caught:
        make_plan(FUNCTION, "base", **values)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["", "a b", "a\nRUN x", "$(x)", "--platform=x", "{a}"])
def test_a_base_image_that_is_no_reference_is_refused(name: str) -> None:
    with pytest.raises(UsageFault) as caught:
        make_plan(FUNCTION, name)
    assert caught.value.code == "build/base-image"


def test_an_unknown_python_version_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UsageFault, match="PYTHON3_9, PYTHON3_10, PYTHON3_11"):
        make_plan(dataclasses.replace(FUNCTION, python_version="PYTHON2_7"), "base")


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_value_adds_a_line_to_the_dockerfile(instruction: str, env: str, label: str) -> None:
    try:
        plan = make_plan(
            FUNCTION, "base", instructions=[instruction], envs={"A": env}, labels={"a": label}
        )
    except UsageFault:
        return
    text = render(plan)
    keywords = [line.split(" ")[0] for line in text.split("\n") if not line.startswith(" ")]
    assert keywords == ["#", "FROM", "ENV", "USER", "RUN", "LABEL", "USER", "WORKDIR", "ENTRYPOINT", "CMD", ""]  # fmt: skip


def test_a_password_of_an_index_is_in_no_file_of_the_context() -> None:
    plan = make_plan(
        FUNCTION,
        "base",
        requirements="a==1 --hash=sha256:00\n",
        index_url="https://me:hidden@host.invalid/simple",
    )
    assert plan.index_secret
    content = io.BytesIO()
    context.write_tar(plan, content)
    assert b"hidden" not in content.getvalue()
    assert "--mount=type=secret,id=pip.conf" in render(plan)


def test_the_folder_of_a_function_goes_in_without_what_its_ignore_file_names(
    tmp_path: Path,
) -> None:
    for name in ("main.py", "data.bin", "pkg/mod.py", "__pycache__/main.pyc", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".dhignore").write_text("*.bin\n")
    assert sorted(context.code_of(SourceSpec(source="main.py"), tmp_path)) == [
        "main.py",
        "pkg/mod.py",
    ]


SECRETS = {
    ".env": "A=1", ".env.production": "A=1", "prod.env": "A=1", ".npmrc": "", ".pypirc": "", ".netrc": "",
    ".ssh/known_hosts": "", "pkg/.aws/credentials": "", "id_ed25519": "", "store.p12": "", ".git-credentials": "",
    "deploy.txt": "# ours\n-----BEGIN OPENSSH PRIVATE KEY-----\n", "tls/server.pem": "-----BEGIN RSA PRIVATE KEY-----\n",
    "account.json": '{"private_key": "-----BEGIN PRIVATE KEY-----"}', "aws.cfg": "[x]\naws_secret_access_key = y\n",
}  # fmt: skip


def test_what_looks_like_a_secret_is_left_out_with_a_warning(tmp_path: Path) -> None:
    ordinary = {"main.py": "-----BEGIN PRIVATE KEY-----", ".env.example": "", "ca.pem": "-----BEGIN CERTIFICATE-----"}  # fmt: skip
    for name, text in {**SECRETS, **ordinary}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    lines: list[str] = []
    assert set(context.code_of(SourceSpec(source="main.py"), tmp_path, lines.append)) == set(ordinary)  # fmt: skip
    assert len(lines) == 1 and lines[0].startswith("warning: left out") and ".env" in lines[0]
    (tmp_path / ".dhignore").write_text("!ca.pem\n!deploy.txt\n")
    found = context.code_of(SourceSpec(source="main.py"), tmp_path, lines.append)
    assert set(found) == {*ordinary, "deploy.txt"}


def test_a_virtual_environment_of_any_name_is_no_part_of_an_image(tmp_path: Path) -> None:
    for name in ("main.py", "env/pyvenv.cfg", "env/lib/x.py", "mine/pyvenv.cfg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "env" / "python").symlink_to("/usr/bin/python3")
    (tmp_path / ".dhignore").write_text("!mine\n")
    said: list[str] = []
    assert [name for name, _ in selection.selected(tmp_path, said.append)] == [
        "main.py",
        "mine/pyvenv.cfg",
    ]
    assert said == []


def test_all_three_ignore_files_are_honoured_the_later_over_the_earlier(tmp_path: Path) -> None:
    for name in ("main.py", "a.log", "sub/b.log", "sub/c.bin", "sub/keep.bin", "build/x.py", "gen/y.py", "doc/z.md", "doc/in/w.md", "own/v"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / ".gitignore").write_text("*.log\nbuild/\ngen/\n")
    (tmp_path / "sub/.gitignore").write_text("*.bin\n!keep.bin\n")
    # Docker's patterns begin at the top, and `!` reaches into a folder that is left out.
    (tmp_path / ".dockerignore").write_text("# x\n*.md\ndoc\n!doc/in\n")
    (tmp_path / ".dhignore").write_text("/own\n!gen/\n")
    lines: list[str] = []
    found = context.code_of(SourceSpec(source="main.py"), tmp_path, lines.append)
    assert sorted(found) == ["doc/in/w.md", "gen/y.py", "main.py", "sub/keep.bin"]
    assert lines == ["Left out by an ignore file: a.log, build/x.py, doc/z.md, own/, sub/b.log, sub/c.bin."]  # fmt: skip


def test_a_context_over_its_limit_is_refused_and_the_largest_file_named(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_bytes(b"1")
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(context.LIMIT + 1)
    with pytest.raises(UsageFault, match=r"large\.bin \(256\.0 MiB\)") as caught:
        context.code_of(SourceSpec(source="small.py"), tmp_path)
    assert ".dhignore" in caught.value.hint


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "code" / "link").symlink_to("../secret")
    with pytest.raises(SourceFault, match="leads out"):
        context.code_of(SourceSpec(source="main.py"), tmp_path / "code")


def test_explain_names_the_first_change_and_what_stands_below_it() -> None:
    lock = "numpy==2.1 --hash=sha256:00\n"
    old = make_plan(FUNCTION, "base", instructions=["true"], requirements=lock, code={"a.py": b"1"})
    new = make_plan(
        FUNCTION,
        "base",
        instructions=["true"],
        requirements=lock.replace("2.1", "2.2"),
        code={"a.py": b"1"},
    )
    lines = explain.explain(new, explain.record(old))
    assert any(line.startswith("instruction 1") and line.endswith("kept") for line in lines)
    assert "requirements    rebuilt: numpy 2.1 → 2.2" in lines
    assert "code            rebuilt: it stands below requirements" in lines
    assert explain.explain(new, None) == [
        "Nothing is known of an earlier build: every step is built."
    ]


def test_an_edit_of_the_code_rebuilds_the_code_alone() -> None:
    old = make_plan(FUNCTION, "base", instructions=["true"], code={"a.py": b"1", "b.py": b""})
    new = make_plan(FUNCTION, "base", instructions=["true"], code={"a.py": b"2", "c.py": b""})
    lines = explain.explain(new, explain.record(old))
    assert [line for line in lines if "rebuilt" in line] == [
        "code            rebuilt: + c.py, - b.py, a.py has changed"
    ]
    before, after = render(old), render(new)
    assert before == after


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("python", ("", "python", "", "")),
        ("python:3.11-slim", ("", "python", "3.11-slim", "")),
        ("localhost:5000/a/b:1", ("localhost:5000", "a/b", "1", "")),
        ("ghcr.io/a/b", ("ghcr.io", "a/b", "", "")),
        ("team/a@sha256:" + "0" * 64, ("", "team/a", "", "sha256:" + "0" * 64)),
    ],
)
def test_names_of_images_are_taken_apart(text: str, parts: tuple[str, ...]) -> None:
    found = parse(text)
    assert (found.registry, found.repository, found.tag, found.digest) == parts
    assert str(found) == text


@pytest.mark.parametrize("text", ["", "A/b", "a:", "a b", "a@sha256:1", "a//b", "-a", "a:b:c"])
def test_what_is_no_name_of_an_image_is_refused(text: str) -> None:
    with pytest.raises(UsageFault) as caught:
        parse(text)
    assert caught.value.code == "build/reference"
