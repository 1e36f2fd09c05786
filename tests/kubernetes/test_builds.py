"""Builds as pods of the real cluster, and a registry on the node's loopback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker_engine
import parts
import pytest
from cluster import Cluster
from planes import CLI, control_plane, gone


@pytest.fixture(scope="module")
def registry(cluster: Cluster, plane_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # fmt: skip
    """A registry on the node's loopback, with the base image of 3.11 in it."""
    folder = tmp_path_factory.mktemp("registry")
    with parts.Registry(folder) as outside, docker_engine.engine() as host:
        env = {**os.environ, "DOCKER_HOST": host, "DHPY_IMAGES": f"{outside.name}/base"}
        command = [*CLI, "images", "build", "--python", "3.11", "--push"]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    cluster.start("registry", "docker-registry", "serve", str(folder / "config.yml"))
    yield outside.name
    cluster.end("registry")


def test_a_build_is_a_pod_that_pushes_and_the_functions_next_run_uses_it(
    cluster: Cluster, plane_image: str, registry: str, tmp_path: Path
) -> None:
    profiles = tmp_path / "profiles.yaml"
    # The registry is on the node's own loopback.
    profiles.write_text("id: default\npod: {spec: {hostNetwork: true}}\n")
    home = tmp_path / "home"
    home.mkdir()
    settings = {
        "DHPY_KUBERNETES_BUILD_IMAGE": plane_image, "DHPY_KUBERNETES_PROFILES": str(profiles),
        "DHPY_REGISTRY": f"{registry}/team", "DHPY_IMAGES": f"{registry}/base",
    }  # fmt: skip
    with control_plane(cluster, home, **settings) as plane:
        run = plane.run("def main():\n    return 'built'\n", "build", project="building")
        status = run.wait("COMPLETED")
        assert status["build"]["image"].startswith(f"{registry}/team/")
        assert status["build"]["digest"].startswith("sha256:")
        assert status["pods"][0]["containers"][0]["image"].endswith(plane_image)
        assert run.log()
        gone(cluster, run)
        spec = plane.ask("GET", f"/-/building/runs/{run.id}")["spec"]
        function = plane.ask("GET", f"/-/building/functions/{spec['function'].rpartition(':')[2]}")
        assert function["spec"]["image"] == status["build"]["image"]
        job = plane.run("", project="building", function=function["spec"])
        assert job.wait("COMPLETED")["results"] == {"output_0": "built"}
        refused = plane.run(
            "def main(): ...\n", "build", project="building", instructions=["echo a"]
        )
        assert "instructions" in refused.wait("ERROR")["message"]
