"""One suite over every build engine, with the real ones; and what a registry can do to a push."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import bases
import docker_engine
import pytest
from cases import cases_for, differences, run_cases
from parts import BaseImages, Registry, breaks_off, docker, free_port

from digitalhub_python_builder import credentials
from digitalhub_python_builder import registry as registries
from digitalhub_python_builder.build import Options, Result, build, prepare
from digitalhub_python_builder.engines import ENGINES, Request, choose, load
from digitalhub_python_builder.engines.kaniko import arguments
from digitalhub_runtime_python.errors import EnvironmentFault, Fault
from digitalhub_runtime_python.spec import FunctionSpec, SourceSpec

FUNCTION = FunctionSpec(
    name="demo", project="p", source=SourceSpec(code="def f(): pass", handler="f"),
    python_version="PYTHON3_11", requirements=("six==1.16.0",),
)  # fmt: skip
OPTIONS = Options(
    flavour="slim",
    instructions=("echo ready > /opt/ready && id -u >> /opt/ready",),
    envs={"GREETING": 'a "b" $HOME'},
    labels={"team": "x $y"},
)


def _build(base: str, engine: str, name: str, **options: Any) -> tuple[Result, list[str]]:
    lines: list[str] = []
    code = options.pop("code", {"main.py": b"def f(): return 1\n"})
    function = dataclasses.replace(FUNCTION, base_image=base, **options.pop("function", {}))
    wanted = dataclasses.replace(OPTIONS, engine=engine, tag=name, push=True, **options)
    return build(function, wanted, code=code, log=lines.append), lines


def test_the_same_cases_pass_in_what_every_engine_builds(
    base: str, engine: str, registry: Registry
) -> None:
    result, lines = _build(base, engine, f"{registry.name}/built/{engine}")
    assert result.image.digest.startswith("sha256:") and not result.existed
    assert registry.tags(f"built/{engine}") == [result.plan.tag]
    assert any("ready" in line or "pip install" in line for line in lines), "no output was streamed"
    name = f"{result.image.reference.rpartition(':')[0]}@{result.image.digest}"
    docker("rmi", "--force", result.image.reference, check=False)
    docker("pull", "--quiet", name)

    script = "cat /opt/ready /opt/function/code/main.py; id -u; stat -c %u:%a /opt/function/code/main.py; echo $GREETING; python3 -c 'import six; print(six.__version__)'"
    done = docker("run", "--rm", "--entrypoint", "sh", name, "-c", script)
    assert done.stdout == 'ready\n0\ndef f(): return 1\n8877\n0:644\na "b" $HOME\n1.16.0\n'
    config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", name).stdout)
    assert config["User"] == "8877" and config["Labels"]["team"] == "x $y"
    assert config["Entrypoint"][:2] == ["/usr/bin/tini", "--"]

    cases = [case for case in cases_for("3.11", "slim") if case[0].startswith(("job_handlers", "job_hints", "job_errors"))]  # fmt: skip
    found = run_cases(name, [case for case, _, _ in cases])
    wrong = {case: w for case, _, expected in cases if (w := differences(found[case], expected))}
    assert not wrong, json.dumps(wrong, indent=1)


def test_a_build_whose_image_exists_does_nothing_and_says_so(
    base: str, engine: str, registry: Registry
) -> None:
    first, _ = _build(base, engine, f"{registry.name}/again/{engine}")
    second, lines = _build(base, engine, f"{registry.name}/again/{engine}")
    assert second.existed and second.image.reference == first.image.reference
    assert second.image.digest == first.image.digest
    assert lines[-1].endswith("exists: nothing has changed, nothing is built.")
    changed, lines = _build(base, engine, f"{registry.name}/again/{engine}", code={"main.py": b"2"})
    assert not changed.existed and changed.plan.tag != first.plan.tag
    assert "code            rebuilt: main.py has changed" in lines


def test_every_engine_gives_one_plan_the_same_tag(
    base: str, docker_host: str, registry: Registry, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    request.getfixturevalue("buildah")
    # Only its base image is asked for; nothing is built, so that none needs to be there.
    monkeypatch.setenv("KANIKO_EXECUTOR", "/bin/true")
    tags = {}
    for name in ENGINES:
        with contextlib.closing(load(name, os.environ)) as engine:
            function = dataclasses.replace(FUNCTION, base_image=base, requirements=())
            plan = prepare(function, OPTIONS, environ=os.environ, cache=None, engine=engine)
            tags[name] = plan.tag
    assert len(set(tags.values())) == 1, tags


@pytest.mark.parametrize("name", ["buildah", "kaniko"])
def test_two_builds_of_one_plan_give_the_same_digest(
    base: str, name: str, registry: Registry, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    request.getfixturevalue(name)
    if name == "kaniko":
        monkeypatch.setenv("KANIKO_EXECUTOR", request.getfixturevalue("kaniko"))
        monkeypatch.setenv("DHPY_TEST_MOUNT", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    digests = []
    for number in range(2):
        result, _ = _build(base, name, f"{registry.name}/twice/{name}{number}")
        digests.append(result.image.digest)
        if name == "buildah":  # without its cache, too
            subprocess.run(["buildah", "rmi", "--force", result.image.reference], check=True, capture_output=True)  # fmt: skip
            subprocess.run(["buildah", "rmi", "--prune", "--force"], capture_output=True)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("name", ["buildkit", "buildah"])
def test_a_build_secret_is_nowhere_in_the_image(
    base: str, name: str, registry: Registry, docker_host: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:  # fmt: skip
    if name == "buildah":
        request.getfixturevalue("buildah")
    secret = "correct-horse-battery-staple"
    mount = "--mount=type=secret,id=token,required=true"
    # The engine's cache outlives a test run; a step that it has shows nothing of what it printed.
    new = os.urandom(6).hex()
    instruction = f"{mount} test $(cat /run/secrets/token) = {secret[::-1]}{new} || cat /run/secrets/token | sha256sum > /opt/sum"
    result, lines = _build(
        base, name, f"{registry.name}/secret/{name}",
        instructions=(instruction, f"{mount} cat /run/secrets/token && echo {new}"), secrets={"token": secret},
    )  # fmt: skip
    assert not any(secret in line for line in lines), "the log shows it"
    assert any("***" in line for line in lines)
    docker("pull", "--quiet", result.image.reference)
    assert docker("run", "--rm", "--entrypoint", "cat", result.image.reference, "/opt/sum").stdout
    saved = tmp_path / "image.tar"
    docker("save", "--output", str(saved), result.image.reference)
    assert secret.encode() not in saved.read_bytes()


@pytest.mark.parametrize("name", ["docker", "kaniko"])
def test_an_engine_without_build_secrets_says_which_have_them(base: str, name: str) -> None:
    options: dict[str, Any] = {"instructions": ("--mount=type=secret,id=t cat /run/secrets/t",)}
    with pytest.raises(EnvironmentFault, match=f"{name} cannot mount build secrets") as caught:
        _build(base, name, "x/y", secrets={"t": "value"}, **options)
    assert "buildkit, buildah" in caught.value.hint


def test_a_failing_instruction_fails_the_build_with_its_words(
    base: str, engine: str, registry: Registry
) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        _build(base, engine, f"{registry.name}/fails/{engine}", instructions=("echo going; exit 37",))  # fmt: skip
    assert caught.value.code == "build/failed"
    assert "37" in caught.value.message


def test_a_base_image_that_cannot_be_pulled_is_said_before_anything_is_built(
    engine: str, registry: Registry
) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        _build(f"{registry.name}/not/there:1", engine, f"{registry.name}/x/y")
    assert caught.value.code in ("build/base-image-missing", "build/failed")
    assert "not/there" in caught.value.message


@pytest.mark.parametrize("name", ["docker", "buildkit", "buildah"])
def test_a_base_image_without_python_or_with_another_is_refused(
    base_image: BaseImages, name: str, registry: Registry, request: pytest.FixtureRequest
) -> None:
    if name == "buildah":
        request.getfixturevalue("buildah")
    base_image.standin("3.10")
    bases.ensure_debian()
    for source, target, why in [
        (bases.DEBIAN, "bare", "has no python3"),
        ("python:3.10-slim-bookworm", "other", "has Python 3.10"),
    ]:
        docker("tag", source, f"{registry.name}/{target}:1")
        docker("push", "--quiet", f"{registry.name}/{target}:1")
        with pytest.raises(EnvironmentFault, match=why) as caught:
            _build(
                f"{registry.name}/{target}:1", name, f"{registry.name}/x/{name}", instructions=()
            )
        assert caught.value.code == "build/base-image-python"


@pytest.mark.parametrize("name", ["docker", "kaniko"])
def test_another_python_is_also_found_by_the_build_itself(
    base_image: BaseImages, name: str, registry: Registry, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Where instructions may have changed it, and where the engine can run nothing but a build."""
    if name == "kaniko":
        monkeypatch.setenv("KANIKO_EXECUTOR", request.getfixturevalue("kaniko"))
        monkeypatch.setenv("DHPY_TEST_MOUNT", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    other = f"{registry.name}/late:1"
    docker("tag", base_image.standin("3.10"), other)
    docker("push", "--quiet", other)
    with pytest.raises(EnvironmentFault) as caught:
        _build(other, name, f"{registry.name}/late/{name}", instructions=("true",))
    assert caught.value.code == "build/failed"
    assert "needs Python 3.11; its base image has 3.10" in caught.value.message


def test_any_base_image_with_the_right_python_gets_the_runtime(
    base_image: BaseImages, registry: Registry
) -> None:
    name = f"{registry.name}/standin:3.11"
    docker("tag", base_image.standin("3.11"), name)
    docker("push", "--quiet", name)
    result, _ = _build(name, "docker", f"{registry.name}/foreign/docker")
    cases = [case for case in cases_for("3.11", "slim") if case[0].startswith("job_handlers")]
    found = run_cases(result.image.reference, [case for case, _, _ in cases])
    wrong = {case: w for case, _, expected in cases if (w := differences(found[case], expected))}
    assert not wrong, json.dumps(wrong, indent=1)
    assert docker("run", "--rm", result.image.reference, "version").stdout


def test_a_registry_that_refuses_is_told_as_a_login(
    base: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    (tmp_path / "auth.json").write_text("{}")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    with Registry(tmp_path, password="open sesame") as private:
        with pytest.raises(EnvironmentFault) as caught:
            _build(base, engine, f"{private.name}/mine/{engine}")
        assert caught.value.code == "build/registry-login", caught.value.message
        assert "open sesame" not in str(caught.value)


@pytest.mark.parametrize("name", ["docker", "buildkit", "buildah"])
def test_a_login_lets_a_push_through(
    base: str, name: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    if name == "buildah":
        request.getfixturevalue("buildah")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "config.json"))
    with Registry(tmp_path, password="open sesame") as private:
        login = ["login", "--username", "me", "--password-stdin", private.name]
        done = subprocess.run([docker_engine.debian_client(), *login], input="open sesame", capture_output=True, text=True, env=os.environ)  # fmt: skip
        assert done.returncode == 0, done.stderr
        result, _ = _build(base, name, f"{private.name}/mine/{name}")
        assert result.image.digest
        environ = {"DOCKER_CONFIG": str(tmp_path)}
        assert registries.digest_of(result.image.reference, environ) == result.image.digest
        assert credentials.find(private.name, environ) == credentials.Login("me", "open sesame")


def test_a_registry_that_breaks_off_is_told_and_what_is_left_to_do(
    base: str, engine: str, registry: Registry
) -> None:
    # The layers go through; the connection ends without an answer where the image would become one.
    with breaks_off(registry.port, b"PUT /v2/half/" + engine.encode() + b"/manifests") as port:
        with pytest.raises(EnvironmentFault, match="cannot be pushed") as caught:
            _build(base, engine, f"127.0.0.1:{port}/half/{engine}")
    assert caught.value.code == "build/registry"
    kept = "local" in load(engine, os.environ).abilities
    assert ("is built" in caught.value.hint) == kept, caught.value.hint
    assert "same command again" in caught.value.hint


@pytest.mark.parametrize("name", ["docker", "kaniko"])
def test_a_registry_that_is_not_there_is_told(
    base: str, name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    if name == "kaniko":
        monkeypatch.setenv("KANIKO_EXECUTOR", request.getfixturevalue("kaniko"))
    with pytest.raises(EnvironmentFault) as caught:
        _build(base, name, f"127.0.0.1:{free_port()}/x/y")
    assert caught.value.code == "build/registry"


def test_auto_detection_says_what_it_found(docker_host: str) -> None:
    lines: list[str] = []
    with contextlib.closing(choose("", (), os.environ, lines.append)) as found:
        assert found.name == "native"
    assert lines[0].startswith("Building with native: no daemon")
    running = {"without": ["native"]}
    with contextlib.closing(choose("", (), os.environ, lines.append, **running)) as found:
        assert found.name == "docker"
    assert lines[1].startswith("Building with docker: Docker Engine ")
    found = choose("", {"secrets"}, os.environ, lines.append, **running)
    assert found.name in ("buildkit", "buildah")
    assert "docker cannot mount build secrets" in lines[2]


def test_no_engine_at_all_names_those_that_were_looked_for(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    with pytest.raises(EnvironmentFault) as caught:
        choose("", (), environ, lambda line: None, without=["native"])
    assert caught.value.code == "build/no-engine"
    for name in ("No Docker Engine answers", "no docker client", "no buildah", "no kaniko"):
        assert name in caught.value.message
    for name in sorted(set(ENGINES) - {"native"}):
        with pytest.raises(EnvironmentFault) as caught:
            choose(name, (), environ, print)
        assert caught.value.code == "build/engine-absent"


def test_an_unknown_engine_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Fault, match="native, docker, buildkit, buildah, kaniko"):
        load("podman", {})


def test_kanikos_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the real executor was last seen to accept; a recorder stands in for it here."""
    recorder = tmp_path / "executor"
    recorder.write_text(
        "#!/bin/sh\n"
        f'printf "%s\\n" "$@" > {tmp_path}/arguments\n'
        'for a in "$@"; do case $a in --digest-file=*) printf sha256:%064d 7 > "${a#*=}";; esac; done\n'
    )
    recorder.chmod(0o755)
    context = tmp_path / "place" / "context"
    context.mkdir(parents=True)
    request = Request(context, "127.0.0.1:5000/a/b:tag", platform="linux/arm64")
    built = load("kaniko", {**os.environ, "KANIKO_EXECUTOR": str(recorder)}).build(request, print)
    assert built.digest == f"sha256:{7:064d}"
    recorded = (tmp_path / "arguments").read_text().splitlines()
    digest = next(Path(a.partition("=")[2]) for a in recorded if a.startswith("--digest-file="))
    assert recorded == arguments(request, digest) == [
        f"--context=dir://{context}",
        f"--dockerfile={context}/Dockerfile",
        "--destination=127.0.0.1:5000/a/b:tag",
        f"--digest-file={digest}",
        "--custom-platform=linux/arm64",
        "--reproducible",
        "--snapshot-mode=redo",
        "--insecure",
        "--insecure-pull",
    ]  # fmt: skip
    assert "--force" not in recorded, "it would unpack an image over this machine"
    far = arguments(dataclasses.replace(request, reference="host.invalid/a:b"), digest)
    assert "--insecure" not in far
