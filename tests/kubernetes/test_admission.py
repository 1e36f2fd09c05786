"""Every golden manifest before a real API server: its schema, strictly, and its own restricted admission."""

from __future__ import annotations

import urllib.error
from typing import Any

import pytest
from cluster import Cluster
from units import CASES, SETTINGS, unit

from digitalhub_python_control.running.kubernetes import client, manifests

NAMESPACE = "restricted"


@pytest.fixture(scope="module")
def restricted(cluster: Cluster) -> str:
    """A namespace where only pods of the standard "restricted" are admitted."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"metadata": {"name": NAMESPACE, "labels": labels}}
    cluster.ask("POST", "/api/v1/namespaces", body)
    runtime = {"metadata": {"name": "kata"}, "handler": "kata"}
    cluster.ask("POST", "/apis/node.k8s.io/v1/runtimeclasses", runtime)
    priority = {"metadata": {"name": "high"}, "value": 1000}
    cluster.ask("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", priority)
    return NAMESPACE


def accepted(cluster: Cluster, manifest: dict[str, Any]) -> dict[str, Any]:
    group, plural = client.KINDS[manifest["kind"]]
    path = f"{group}/namespaces/{NAMESPACE}/{plural}?dryRun=All&fieldValidation=Strict"
    try:
        return dict(cluster.ask("POST", path, manifest))
    except urllib.error.HTTPError as exc:
        pytest.fail(f"{manifest['kind']} is refused: {exc.read().decode()}")


@pytest.mark.parametrize("case", CASES)
def test_a_real_api_server_takes_every_object(cluster: Cluster, restricted: str, case: str) -> None:
    for manifest in [manifests.secret(unit(case), SETTINGS), *manifests.of(unit(case), SETTINGS)]:
        accepted(cluster, manifest)
        template = manifest["spec"].get("template") if manifest["kind"] in ("Job", "Deployment") else None  # fmt: skip
        if template:
            # Admission looks at pods, not at what makes them.
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": template["spec"]}  # fmt: skip
            accepted(cluster, pod)


def test_an_api_server_refuses_what_would_be_wrong(cluster: Cluster, restricted: str) -> None:
    """The test above can fail: an unknown key and a pod without seccomp are refused."""
    job = manifests.job(unit("job"), SETTINGS)
    job["spec"]["backoffLimits"] = 1
    with pytest.raises(pytest.fail.Exception, match="backoffLimits"):
        accepted(cluster, job)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": manifests.job(unit("job"), SETTINGS)["spec"]["template"]["spec"]}  # fmt: skip
    del pod["spec"]["securityContext"]["seccompProfile"]
    with pytest.raises(pytest.fail.Exception, match="violates PodSecurity"):
        accepted(cluster, pod)
