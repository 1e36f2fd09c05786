"""Real engines for the tests of images: Docker, a registry on loopback, base images, buildah, kaniko."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import docker_engine
import environments
import pytest
from parts import BaseImages, Registry, clean_up, docker, kaniko_wrapper, unavailable

from digitalhub_python_builder.engines import ENGINES


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """DOCKER_HOST of an engine, which is also in the environment as long as the tests run."""
    if reason := docker_engine.absent():
        unavailable(reason)
    before = os.environ.get("DOCKER_HOST")
    with docker_engine.engine() as host:
        os.environ["DOCKER_HOST"] = host
        # Debian's client first: another one on PATH may lack buildx.
        path = os.environ["PATH"]
        os.environ["PATH"] = f"{Path(docker_engine.debian_client()).parent}{os.pathsep}{path}"
        yield host
        clean_up(own=str(docker_engine.cache()) in host)
        os.environ["PATH"] = path
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before


@pytest.fixture(scope="session")
def base_image(docker_host: str) -> BaseImages:
    return BaseImages()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry on loopback, open to everybody."""
    with Registry(tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest.fixture(scope="session")
def kaniko(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An `executor` that runs kaniko's real one in a container: it unpacks images over its root."""
    return kaniko_wrapper(tmp_path_factory.mktemp("kaniko"))


@pytest.fixture(scope="session")
def buildah() -> str:
    found = shutil.which("buildah")
    if found is None:
        unavailable("buildah is not installed")
    # Debian's other runtime, crun, refuses machines with both kinds of cgroups.
    os.environ.setdefault("BUILDAH_RUNTIME", shutil.which("runc") or "runc")
    return str(found)


@pytest.fixture(scope="session")
def base(base_image: BaseImages, registry: Registry) -> str:
    """A base image that every engine can pull."""
    name = f"{registry.name}/digitalhub-runtime-python:3.11-slim"
    docker("tag", base_image("3.11", "slim"), name)
    docker("push", "--quiet", name)
    return name


@pytest.fixture(params=list(ENGINES))
def engine(
    request: pytest.FixtureRequest,
    docker_host: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The name of an engine that this machine has."""
    if request.param == "buildah":
        request.getfixturevalue("buildah")
    if request.param == "kaniko":
        monkeypatch.setenv("KANIKO_EXECUTOR", request.getfixturevalue("kaniko"))
        monkeypatch.setenv("DHPY_TEST_MOUNT", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return str(request.param)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DHPY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DHPY_BUILD_NETWORK", "host")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Builds take longer than other tests may; and images are the same whichever Python asks for them."""
    main = environments.main_version(environments.interpreters())
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(1500))
            if here != main:
                item.add_marker(pytest.mark.skip(f"images are tested under Python {main}"))
