"""The control plane as a pod of the real cluster, by its own manifests, image and rights.

The cluster has no DNS, so pods reach it at its Service's address instead of the name; and nobody makes volumes in it.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import NODE, Cluster
from planes import TOKEN, Plane, gone

from digitalhub_python_control.installing import manifests
from digitalhub_python_control.installing.manifests import Installation

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
