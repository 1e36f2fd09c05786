"""DigitalHub Core's build action: Dockerfiles as Core writes them, on our images, by every engine that runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from nuclio.core import Core
from nuclio.processor import free_port
from parts import ROOT, BaseImages, Registry, docker
from test_core_pods import SCRIPT, _logs, _post, _start, _wait_for, pod

CODE = "import six\ndef f(a, b=2): return {'sum': a + b, 'six': six.__name__}\n"
UV = "/opt/nuclio/uv/uv pip install --system"


def dockerfile(base: str, *, layer: str = "", uhttpc: str = "", instructions: tuple[str, ...] = (), envs: tuple[str, ...] = ()) -> str:  # fmt: skip
    """Core 0.15's, line by line (`contracts/kubernetes.md`, section 4.1)."""
    lines = [f"FROM {base}"]
    lines += [f"ARG {name}=value" for name in envs] + [f"ENV {name}=${name}" for name in envs]
    lines += ["USER root", "COPY passwd-template /etc/passwd"]
    if layer:
        lines += [f"COPY --from={layer} /opt/nuclio/ /opt/nuclio/",
                  f"COPY --from={uhttpc} /home/nuclio/bin/uhttpc /usr/local/bin/uhttpc"]  # fmt: skip
        for name in ("nuclio", "common"):
            lines.append(f"RUN {UV} --no-index --find-links /opt/nuclio/whl -r /opt/nuclio/requirements/{name}.txt")  # fmt: skip
    lines += ["COPY . /shared", "WORKDIR /shared"]
    lines += [f"RUN {instruction}" for instruction in instructions]
    lines.append(f"RUN {UV} -r /shared/requirements.txt")
    lines += ["USER 8877", "WORKDIR /shared", 'ENTRYPOINT ["/opt/nuclio/processor"]']
    return "\n".join(lines) + "\n"


BRANCHES = {
    "plain": ("digitalhub-runtime-python\nsix\n", {}),
    "requirements": ("six==1.17.0\ndigitalhub-runtime-python\nclick>=8\n", {}),
    "instructions": ("six\n", {"instructions": ("touch /made-by-an-instruction",), "envs": ("MODE",)}),
    "base_image": ("six\ndigitalhub-runtime-python\n", {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def layer(base_image: BaseImages) -> str:
    arguments = ["--build-arg", f"BASE={base_image('3.11')}", "--build-arg", "PYTHON_VERSION=3.11"]
    docker("build", "--quiet", "--tag", "dhpy-test/layer", *arguments, "--file",
           str(ROOT / "images/nuclio/Dockerfile.layer"), str(ROOT / "images/nuclio"))  # fmt: skip
    return "dhpy-test/layer"


def context(folder: Path, core: Core, requirements: str, text: str) -> Path:
    """What Core's init container leaves for the builder."""
    place = folder / "context"
    core.files(place, requirements=requirements)
    (place / "passwd-template").write_text("root:x:0:0:root:/root:/bin/bash\nuser:x:8877:999::/shared:/bin/sh\n")  # fmt: skip
    (folder / "Dockerfile").write_text(text)
    return place


@pytest.mark.parametrize("branch", BRANCHES)
def test_an_image_that_core_built_runs_as_a_job(
    base_image: BaseImages, layer: str, tmp_path: Path, branch: str
) -> None:
    requirements, more = BRANCHES[branch]
    base = base_image("3.11")
    if branch == "base_image":
        base = base_image.standin("3.11")
        (tmp_path / "uhttpc").write_text("")
        text = "FROM scratch\nCOPY uhttpc /home/nuclio/bin/uhttpc\n"
        docker("build", "--quiet", "--tag", "dhpy-test/uhttpc", "--file", "-", str(tmp_path), input=text)  # fmt: skip
        more = {"layer": layer, "uhttpc": "dhpy-test/uhttpc"}
    with Core(CODE, parameters={"a": 1}) as core:
        place = context(tmp_path, core, requirements, dockerfile(base, **more))
        image = f"dhpy-test/core-{branch.replace('_', '-')}"
        built = docker("build", "--progress=plain", "--network", "host", "--tag", image,
                       "--file", str(tmp_path / "Dockerfile"), str(place),
                       env={**os.environ, "DOCKER_BUILDKIT": "1"})  # fmt: skip
        # It is there, and nobody else's comes over it.
        assert "Collecting digitalhub-runtime-python" not in built.stdout + built.stderr
        home = tmp_path / "home"
        core.files(home, requirements=requirements.replace("click>=8\n", ""))
        done = subprocess.run(
            pod(core, home, image, SCRIPT, "--rm", PIP_NO_INDEX="1"),
            capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert core.status["results"] == {"output_0": {"sum": 3, "six": "six"}}
        if branch == "instructions":
            seen = docker("run", "--rm", "--entrypoint", "/bin/sh", image, "-c", "ls /made-by-an-instruction; echo $MODE")  # fmt: skip
            assert seen.stdout.split() == ["/made-by-an-instruction", "value"]


def test_an_image_that_core_built_runs_as_a_service(base_image: BaseImages, tmp_path: Path) -> None:
    requirements, more = BRANCHES["plain"]
    with Core(CODE, action="serve") as core:
        place = context(tmp_path, core, requirements, dockerfile(base_image("3.11"), **more))
        docker("build", "--quiet", "--network", "host", "--tag", "dhpy-test/core-service",
               "--file", str(tmp_path / "Dockerfile"), str(place))  # fmt: skip
        home = tmp_path / "home"
        core.files(home, requirements=requirements)
        ports = {"DHPY_PORT": str(free_port()), "DHPY_MANAGEMENT_PORT": str(free_port())}
        name = _start(pod(core, home, "dhpy-test/core-service", SCRIPT, "--detach", **ports))
        try:
            port = int(ports["DHPY_PORT"])
            _wait_for(lambda: _post(port, {"a": 1}) == {"sum": 3, "six": "six"}, name)
        finally:
            assert "Traceback" not in _logs(name)
            docker("rm", "--force", name)


@pytest.mark.parametrize("builder", ["buildah", "kaniko"])
def test_other_builders_take_cores_dockerfile(
    request: pytest.FixtureRequest, base: str, registry: Registry, tmp_path: Path, builder: str
) -> None:
    program = request.getfixturevalue(builder)
    requirements, more = BRANCHES["instructions"]
    image = f"{registry.name}/dhcore-core-{builder}:abcde"
    with Core(CODE, parameters={"a": 1}) as core:
        place = context(tmp_path, core, requirements, dockerfile(base, **more))
        if builder == "kaniko":
            command = [program, f"--dockerfile={tmp_path}/Dockerfile", f"--context={place}", f"--destination={image}", "--insecure", "--insecure-pull"]  # fmt: skip
        else:
            command = [program, "bud", "--isolation=chroot", "--network=host", "--tls-verify=false",
                       "--file", str(tmp_path / "Dockerfile"), "--tag", image, str(place)]  # fmt: skip
        env = {**os.environ, "DHPY_TEST_MOUNT": str(tmp_path)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        if builder == "buildah":
            subprocess.run([program, "push", "--tls-verify=false", image], check=True, capture_output=True)  # fmt: skip
        docker("pull", "--quiet", image)
        home = tmp_path / "home"
        core.files(home, requirements=requirements)
        done = subprocess.run(pod(core, home, image, SCRIPT, "--rm", PIP_NO_INDEX="1"),
                              capture_output=True, text=True, timeout=180)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert core.status["results"] == {"output_0": {"sum": 3, "six": "six"}}
        shutil.rmtree(place, ignore_errors=True)
