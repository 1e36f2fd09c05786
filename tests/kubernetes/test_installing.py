"""The control plane as a pod of the real cluster, by its own manifests, image and rights.

The cluster has no DNS, so pods reach it at its Service's address instead of the name; and nobody makes volumes in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker_engine
import parts
import pytest
from cluster import NODE, Cluster
from planes import TOKEN, Plane, control_plane, gone

from digitalhub_python_control.installing import image, manifests
from digitalhub_python_control.installing.manifests import Installation

CLI = [sys.executable, "-c", "from digitalhub_runtime_python.cli import main; main()"]
NAMESPACE = "/api/v1/namespaces/default"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/default/serviceaccounts",
    "Service": "/api/v1/namespaces/default/services",
    "PersistentVolumeClaim": "/api/v1/namespaces/default/persistentvolumeclaims",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
    "Deployment": "/apis/apps/v1/namespaces/default/deployments",
}


class Installed(Plane):
    """The control plane that runs as a pod."""

    def pod(self) -> dict[str, Any]:
        query = "?labelSelector=app.kubernetes.io/component%3Dcontrol-plane"
        items = self.cluster.ask("GET", f"{NAMESPACE}/pods{query}")["items"]
        living = [one for one in items if "deletionTimestamp" not in one["metadata"]]
        return dict((living or items)[0]) if items else {}

    def log(self) -> str:
        pod = self.pod()
        try:
            return str(self.cluster.ask("GET", f"{NAMESPACE}/pods/{pod['metadata']['name']}/log"))
        except urllib.error.HTTPError:
            return json.dumps(pod.get("status"), indent=1)

    def wait_until_ready(self, not_in: str = "", seconds: float = 120) -> str:
        """The name of its pod once that answers."""
        give_up = time.monotonic() + seconds
        while True:
            pod = self.pod()
            name = pod["metadata"]["name"] if pod else ""
            conditions = pod.get("status", {}).get("conditions", ()) if pod else ()
            if name != not_in and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):  # fmt: skip
                return str(name)
            assert time.monotonic() < give_up, f"{json.dumps(pod, indent=1)[-5000:]}\n{self.log()}"
            time.sleep(0.2)


def create(cluster: Cluster, path: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(cluster.ask("POST", f"{path}?fieldValidation=Strict", body))
    except urllib.error.HTTPError as exc:
        pytest.fail(f"{body.get('kind')} is refused: {exc.read().decode()}")


@pytest.fixture(scope="module")
def plane_image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
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


@pytest.fixture(scope="module")
def restricted(cluster: Cluster) -> Iterator[None]:
    """The namespace admits only pods of the standard "restricted": the control plane's, and those of its runs."""
    label = "pod-security.kubernetes.io/enforce"
    merge = "application/merge-patch+json"
    cluster.ask("PATCH", NAMESPACE, {"metadata": {"labels": {label: "restricted"}}}, merge)
    yield
    cluster.ask("PATCH", NAMESPACE, {"metadata": {"labels": {label: None}}}, merge)


@pytest.fixture(scope="module")
def installed(
    cluster: Cluster, plane_image: str, restricted: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    # Nobody keeps the address of the API server here, at which pods look for it.
    ends = {"addressType": "IPv4", "endpoints": [{"addresses": [NODE]}], "ports": [{"name": "https", "port": cluster.port}]}  # fmt: skip
    named = {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}}
    create(cluster, SLICES, {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": named, **ends})  # fmt: skip
    folder = Path(tmp_path_factory.mktemp("volume"))
    for one in (folder, *folder.parents):
        one.chmod(one.stat().st_mode | 0o011)
        if one == Path("/tmp"):
            break
    os.chown(folder, manifests.USER, manifests.USER)
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "dhpy-home"},
        "spec": {
            "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": "default", "name": "dhpy"},
        },
    }  # fmt: skip
    create(cluster, "/api/v1/persistentvolumes", volume)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "dhpy"}, "stringData": {"DHPY_TOKEN": TOKEN}}  # fmt: skip
    create(cluster, f"{NAMESPACE}/secrets", secret)
    service = create(cluster, PATHS["Service"], manifests.service(Installation(plane_image)))
    plane = Installed(cluster, folder, {})
    plane.url = f"http://{service['spec']['clusterIP']}:{manifests.PORT}"
    wanted = manifests.objects(Installation(plane_image, settings={"DHPY_CALLBACK_URL": plane.url}))
    for one in wanted:
        if one["kind"] != "Service":
            create(cluster, PATHS[one["kind"]], one)
    plane.wait_until_ready()
    yield plane
    for one in wanted:
        cluster.ask("DELETE", f"{PATHS[one['kind']]}/dhpy")
    cluster.ask("DELETE", f"{NAMESPACE}/secrets/dhpy")
    cluster.ask("DELETE", "/api/v1/persistentvolumes/dhpy-home")
    cluster.ask("DELETE", f"{SLICES}/kubernetes")


def test_a_control_plane_in_a_pod_runs_jobs_as_pods(installed: Installed, cluster: Cluster) -> None:
    run = installed.run(
        "def main(a):\n    print('from', a)\n    return a + 1\n", parameters={"a": 1}
    )
    assert run.wait("COMPLETED")["results"] == {"output_0": 2}
    assert "from 1\n" in run.log()
    gone(cluster, run)


def test_a_new_pod_of_it_goes_on_where_the_old_one_was(
    installed: Installed, cluster: Cluster
) -> None:
    before = installed.wait_until_ready()
    run = installed.run("import time\ndef main():\n    time.sleep(12)\n    return 'done'\n")
    run.wait("RUNNING")
    cluster.ask("DELETE", f"{NAMESPACE}/pods/{before}", {"gracePeriodSeconds": 0})
    assert installed.wait_until_ready(not_in=before) != before
    assert run.wait("COMPLETED")["results"] == {"output_0": "done"}


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
