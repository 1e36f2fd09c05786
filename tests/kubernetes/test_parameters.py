"""The parameters of a task, observed on the running pod or by it; and what a run that cannot start says."""

from __future__ import annotations

import signal
import time

import pytest
import urllib3
from cluster import Cluster
from planes import Plane, gone

SLEEPS = "import time\n\ndef main():\n    print('begun', flush=True)\n    time.sleep(120)\n"
# kube-proxy writes its rules a moment after a pod is ready; until then the address refuses.
PATIENT = urllib3.Retry(total=20, backoff_factor=0.1, backoff_max=5, allowed_methods=None)
SERVES = "def main(a):\n    return {'got': a}\n"


def test_a_service_answers_once_it_runs_and_its_stop_leaves_nothing(
    plane: Plane, cluster: Cluster
) -> None:
    run = plane.run(SERVES, "serve")
    status = run.wait("RUNNING")
    url = f"http://{status['service']['url']}"
    with cluster.entered(), urllib3.PoolManager(retries=PATIENT) as http:
        answer = http.request("POST", url, json={"a": 1})
    assert (answer.status, answer.json()) == (200, {"got": 1})
    assert status["service"]["type"] == "NodePort"
    run.stop()
    run.wait("STOPPED")
    gone(cluster, run)


def test_two_replicas_stand_behind_one_address(plane: Plane, cluster: Cluster) -> None:
    code = "import os\n\ndef main():\n    return os.environ['HOSTNAME']\n"
    run = plane.run(code, "serve", replicas=2, service_type="ClusterIP")
    url = f"http://{run.wait('RUNNING')['service']['clusterIP']}:8080/"
    seen: set[bytes] = set()
    give_up = time.monotonic() + 60  # as above: the rules for the second may follow later
    while len(seen) < 2 and time.monotonic() < give_up:
        with (
            cluster.entered(),
            urllib3.PoolManager(retries=PATIENT) as http,
        ):  # a new connection each time
            seen.add(http.request("POST", url).data)
    assert len(seen) == 2
    run.stop()
    run.wait("STOPPED")


def test_a_stop_ends_the_pod(plane: Plane, cluster: Cluster) -> None:
    run = plane.run(SLEEPS)
    run.wait("RUNNING")
    run.stop()
    run.wait("STOPPED")
    gone(cluster, run)


def test_the_end_of_a_run_is_seen_by_a_control_plane_that_was_killed_meanwhile(
    plane: Plane, cluster: Cluster
) -> None:
    run = plane.run("import time\n\ndef main():\n    time.sleep(4)\n    return 7\n")
    run.wait("RUNNING")
    plane.end(signal.SIGKILL)
    plane.start()
    assert run.wait("COMPLETED")["results"] == {"output_0": 7}
    gone(cluster, run)


@pytest.mark.parametrize(
    ("task", "function", "words"),
    [
        ({"node_selector": [{"key": "disk", "value": "ssd"}]}, {}, "disk"),
        ({"resources": {"gpu": "1"}}, {}, "gpu"),
        ({"resources": {"mem": {"requests": "900Gi"}}}, {}, "memory"),
        ({}, {"image": "127.0.0.1:9/absent:1"}, "127.0.0.1:9/absent:1"),
    ],
    ids=["no such node", "no GPU", "no memory", "no such image"],
)
def test_a_run_that_cannot_start_says_what_is_missing(
    plane: Plane, cluster: Cluster, task: dict, function: dict, words: str
) -> None:  # fmt: skip
    run = plane.run(SLEEPS, function=function, **task)
    run.until(words)
    if run.status["state"] != "ERROR":
        run.stop()
        run.wait("STOPPED")
    gone(cluster, run)


def test_a_parameter_that_is_not_known_ends_the_run_with_the_nearest(plane: Plane) -> None:
    run = plane.run(SLEEPS, node_selectr=[{"key": "a", "value": "b"}])
    assert "node_selector" in run.wait("ERROR")["message"]


def test_memory_beyond_its_limit_ends_the_run_and_is_named(plane: Plane, cluster: Cluster) -> None:
    code = "def main():\n    return len(bytearray(b'x' * (400 << 20)))\n"
    run = plane.run(code, resources={"mem": {"requests": "200Mi", "limits": "250Mi"}})
    message = run.wait("ERROR")["message"]
    assert "memory" in message and "250Mi" in message
    gone(cluster, run)


def test_a_pod_has_what_its_task_asks_for(plane: Plane, cluster: Cluster) -> None:
    configs = "/api/v1/namespaces/default/configmaps"
    labels = {"digitalhub.io/project": "with-words"}
    cluster.ask("POST", configs, {"metadata": {"name": "words", "labels": labels}, "data": {"hello.txt": "hi"}})  # fmt: skip
    code = """
import os
from pathlib import Path

def main():
    Path("/scratch/file").write_text("kept")
    return {
        "word": Path("/words/hello.txt").read_text(),
        "scratch": Path("/scratch/file").read_text(),
        "env": os.environ["GREETING"],
        "user": os.getuid(),
        "token": Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists(),
    }
"""
    run = plane.run(
        code,
        project="with-words",
        node_selector=[{"key": "kubernetes.io/os", "value": "linux"}],
        tolerations=[{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
        resources={"cpu": {"requests": "50m", "limits": "1"}, "mem": {"limits": "600Mi"}},
        envs=[{"name": "GREETING", "value": "hello"}],
        volumes=[
            {"volume_type": "config_map", "name": "words", "mount_path": "/words", "spec": {"name": "words"}},
            {"volume_type": "empty_dir", "name": "scratch", "mount_path": "/scratch", "spec": {"sizeLimit": "10Mi"}},
        ],
    )  # fmt: skip
    run.wait("RUNNING", "COMPLETED")
    (pod,) = run.pods() or [{}]
    results = run.wait("COMPLETED")["results"]
    assert results["output_0"] == {"word": "hi", "scratch": "kept", "env": "hello", "user": 8877, "token": False}  # fmt: skip
    if pod:
        spec = pod["spec"]
        assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
        assert {"key": "spot", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
        limits = spec["containers"][0]["resources"]["limits"]
        assert (limits["cpu"], limits["memory"]) == ("1", "600Mi")
        assert spec["securityContext"]["runAsNonRoot"] is True
    gone(cluster, run)
