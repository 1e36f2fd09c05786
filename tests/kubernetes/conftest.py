"""A real cluster for these tests, and a control plane whose runs are its pods."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import binaries
import cluster as clusters
import environments
import pytest
from planes import CLI, Plane, control_plane

sys.path.insert(0, str(Path(__file__).parents[1] / "images"))
import docker_engine
from parts import BaseImages, unavailable

from digitalhub_python_control.installing import image

PYTHON = "3.11"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The programs of a cluster may have to be built first; and a cluster is the same under every Python."""
    main = environments.main_version(environments.interpreters())
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for item in items:
        if Path(item.path).parent != Path(__file__).parent or "cluster" not in getattr(item, "fixturenames", ()):  # fmt: skip
            continue
        item.add_marker(pytest.mark.timeout(1500))
        if here != main:
            item.add_marker(pytest.mark.skip(f"pods are tested under Python {main}"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clusters.Cluster]:
    """A cluster of one node, with the 3.11 base image on it."""
    if reason := binaries.absent():
        unavailable(reason)
    home = tmp_path_factory.mktemp("cluster")
    with clusters.running(home) as started:
        _load_images(started, home)
        yield started


@pytest.fixture
def inside(cluster: clusters.Cluster) -> Iterator[clusters.Cluster]:
    """The test itself is in the cluster's network."""
    with cluster.entered():
        yield cluster


@pytest.fixture(scope="session")
def plane(cluster: clusters.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A control plane with the engine `kubernetes`, in the cluster's network."""
    with control_plane(cluster, tmp_path_factory.mktemp("plane")) as started:
        yield started


def _load_images(cluster: clusters.Cluster, home: Path) -> None:
    if reason := docker_engine.absent():
        unavailable(reason)
    with docker_engine.engine() as host:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", host)
            name = BaseImages()(PYTHON, "full")
            archive = home / "image.tar"
            command = [docker_engine.debian_client(), "save", "-o", str(archive), name]
            subprocess.run(command, check=True)
    cluster.load_image(name, archive)
    archive.unlink()


@pytest.fixture(scope="session")
def plane_image(cluster: clusters.Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `dhpy control-plane image` makes, on the node."""
    archive = tmp_path_factory.mktemp("image") / "image.tar"
    with docker_engine.engine() as host:
        done = subprocess.run(
            [*CLI, "control-plane", "image", "--python", "3.11", "--output", f"docker-archive:{archive}"],
            env={**os.environ, "DOCKER_HOST": host}, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    cluster.load_image(image.NAME, archive)
    archive.unlink()
    return done.stdout.strip()
