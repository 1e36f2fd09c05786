"""The rights that the Role names are enough and all needed; `dhpy doctor` finds what a cluster lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import Cluster, kubeconfig
from planes import Plane, control_plane, gone

from digitalhub_python_control.running.kubernetes import rights

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "kubernetes.md"
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"


def account(cluster: Cluster, folder: Path, name: str, rules: Sequence[Any]) -> Path:
    """The kubeconfig of a service account that may do what these rules say, and nothing else."""
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    cluster.ask("POST", accounts, {"metadata": {"name": name}})
    cluster.ask("POST", f"{RBAC}/roles", {**rights.role(name, "default"), "rules": rules})
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": "default"}
    bound = {"metadata": {"name": name}, "subjects": [subject], "roleRef": {"apiGroup": group, "kind": "Role", "name": name}}  # fmt: skip
    cluster.ask("POST", f"{RBAC}/rolebindings", bound)
    token = cluster.ask("POST", f"{accounts}/{name}/token", {"spec": {}})["status"]["token"]
    file = folder / f"{name}.yaml"
    file.write_text(kubeconfig(cluster.url, token, cluster.home / "pki" / "apiserver.crt"))
    return file


@pytest.fixture(scope="module")
def limited(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A control plane with the rights of the Role, and no other."""
    folder = tmp_path_factory.mktemp("limited")
    rules = rights.role("limited", "default")["rules"]
    config = account(cluster, folder, "limited", rules)
    home = folder / "home"
    home.mkdir()
    with control_plane(cluster, home, KUBECONFIG=str(config)) as started:
        yield started


def doctor(plane: Plane, **environ: str) -> dict[str, dict[str, str]]:
    """The lines of `dhpy doctor --engine kubernetes`, by what they are about."""
    command = [sys.executable, "-c", "from digitalhub_runtime_python.cli import main; main()", "doctor", "--engine", "kubernetes", "--json"]  # fmt: skip
    env = {k: v for k, v in plane.environ.items() if k != "DHPY_ENGINE"}
    done = subprocess.run(
        plane.cluster.inside(*command), env={**env, **environ}, capture_output=True, text=True, timeout=200
    )  # fmt: skip
    assert done.stdout, done.stderr
    return {line["what"]: line for line in json.loads(done.stdout)}


def test_the_guide_has_the_role_that_is_checked() -> None:
    text = GUIDE.read_text("utf-8").partition("kind: Role\n")[2].partition("```")[0]
    assert yaml.safe_load(text)["rules"] == rights.role("dhpy", "default")["rules"]


def test_the_rights_of_the_role_are_enough_for_jobs_services_volumes_and_stops(
    limited: Plane, cluster: Cluster
) -> None:
    claim = {"volume_type": "persistent_volume_claim", "name": "kept", "mount_path": "/kept", "spec": {"size": "1Mi"}}  # fmt: skip
    job = limited.run("def main():\n    print('said')\n    return 1\n")
    assert job.wait("COMPLETED")["results"] == {"output_0": 1}
    assert "said" in job.log()
    service = limited.run("def main():\n    return 1\n", "serve", replicas=[1, 2])
    waiting = limited.run("def main():\n    return 1\n", volumes=[claim])
    assert "volume" in waiting.until("volume")["message"]
    service.wait("RUNNING")
    for run in (service, waiting):
        run.stop()
        run.wait("STOPPED")
    for run in (job, service, waiting):
        gone(cluster, run)
    assert "forbidden" not in limited.log()


def test_doctor_finds_nothing_wrong_and_leaves_nothing_where_runs_work(
    limited: Plane, cluster: Cluster
) -> None:
    lines = doctor(limited)
    levels = {what: lines[what]["level"] for what in ("cluster", "rights", "registry", "probe", "callback")}  # fmt: skip
    assert levels == {"cluster": "ok", "rights": "ok", "registry": "warn", "probe": "ok", "callback": "ok"}, lines  # fmt: skip
    jobs = cluster.ask("GET", "/apis/batch/v1/namespaces/default/jobs")["items"]
    assert not [job for job in jobs if job["metadata"]["labels"]["app.kubernetes.io/name"] == "doctor"]  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "what", "words"),
    [
        ({"DHPY_CALLBACK_URL": "http://192.0.2.1:9"}, "callback", "http://192.0.2.1:9"),
        ({"DHPY_CALLBACK_URL": "http://127.0.0.1:8080"}, "callback", "loopback"),
        ({"DHPY_IMAGES": "127.0.0.1:9/absent"}, "probe", "cannot be pulled"),
        ({"DHPY_REGISTRY": "127.0.0.1:9/team"}, "registry", "127.0.0.1:9"),
        ({"DHPY_KUBERNETES_NAMESPACE": "nowhere"}, "rights", "create jobs.batch"),
        ({"KUBECONFIG": "/nowhere"}, "cluster", "no cluster"),
    ],
    ids=["nobody at the address", "loopback", "no image", "no registry", "another namespace", "no kubeconfig"],
)  # fmt: skip
def test_doctor_names_what_keeps_runs_from_being_pods(
    limited: Plane, environ: dict[str, str], what: str, words: str
) -> None:
    line = doctor(limited, **environ)[what]
    assert line["level"] == "fail" and line["advice"]
    assert words in line["text"]


def test_doctor_names_each_right_that_is_missing(
    limited: Plane, cluster: Cluster, tmp_path: Path
) -> None:
    rules = [r for r in rights.role("x", "default")["rules"] if r["resources"] != ["pods/log"]]
    config = account(cluster, tmp_path, f"less-{os.getpid()}", rules)
    line = doctor(limited, KUBECONFIG=str(config))["rights"]
    assert line["level"] == "fail"
    assert line["text"].endswith("not allowed in namespace default: get pods/log.")
