"""Runs for the tests of manifests: one case for each parameter of a task, and the settings they share."""

from __future__ import annotations

from typing import Any

from digitalhub_python_control.running.kubernetes import manifests, parameters
from digitalhub_python_control.running.kubernetes.settings import KubernetesSettings

SETTINGS = KubernetesSettings(instance="dhpy-test", callback="http://192.0.2.1:8321")

_NODE = {"match_expressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
_POD = {
    "topology_key": "kubernetes.io/hostname",
    "label_selector": {"match_labels": {"app": "db"}},
}
_REQUIRED = "required_during_scheduling_ignored_during_execution"
_PREFERRED = "preferred_during_scheduling_ignored_during_execution"


def _volume(kind: str, **spec: Any) -> dict[str, Any]:
    return {"volume_type": kind, "name": "data", "mount_path": "/data", "spec": spec}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "job": ("job", {}),
    "job-node-selector": ("job", {"node_selector": [{"key": "disk", "value": "ssd"}]}),
    "job-affinity": (
        "job",
        {
            "affinity": {
                "node_affinity": {
                    _REQUIRED: {"node_selector_terms": [_NODE]},
                    _PREFERRED: [{"weight": 1, "preference": _NODE}],
                },
                "pod_affinity": {_REQUIRED: [_POD]},
                "pod_anti_affinity": {_PREFERRED: [{"weight": 9, "pod_affinity_term": _POD}]},
            }
        },
    ),
    "job-tolerations": (
        "job",
        {
            "tolerations": [
                {"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
                {"operator": "Exists", "effect": "NoExecute", "toleration_seconds": 60},
            ]
        },
    ),
    "job-resources": ("job", {"resources": {"cpu": "500m", "mem": "1Gi", "gpu": 1, "disk": "2Gi"}}),
    "job-limits": (
        "job",
        {
            "resources": {
                "requests": {"cpu": 1, "memory": "512Mi"},
                "limits": {"cpu": 2, "memory": "1Gi", "ephemeral-storage": "1Gi"},
            }
        },
    ),
    "job-classes": ("job", {"runtime_class": "kata", "priority_class": "high"}),
    "job-backoff-limit": ("job", {"backoff_limit": 3}),
    "job-volume-claim": ("job", {"volumes": [_volume("persistent_volume_claim", size="10Gi", storage_class="fast")]}),
    "job-volume-empty-dir": ("job", {"volumes": [_volume("empty_dir", size_limit="200Mi", medium="Memory")]}),
    "job-volume-ephemeral": ("job", {"volumes": [_volume("ephemeral", size="5Gi", storageClass="fast")]}),
    "job-volume-shared": ("job", {"volumes": [_volume("shared_volume", claimName="team")]}),
    "job-volume-config-map": ("job", {"volumes": [_volume("config_map", name="conf")]}),
    "job-volume-secret": ("job", {"volumes": [_volume("secret", secret_name="keys", sub_path="one")]}),
    "job-requirements": ("job", {}),
    "serve": ("serve", {}),
    "serve-replicas": ("serve", {"replicas": 2, "service_type": "LoadBalancer"}),
    "serve-range": ("serve", {"replicas": "2:5", "service_type": "ClusterIP", "resources": {"cpu": 1}}),
}  # fmt: skip
"""Name -> action and the task's parameters."""


def unit(case: str, **changes: Any) -> manifests.Unit:
    action, spec = CASES[case]
    given: dict[str, Any] = {
        "project": "demo",
        "run_id": "0123456789abcdef0123456789abcdef",
        "function": "train",
        "action": action,
        "image": "registry.example/digitalhub-runtime-python:3.11-full",
        "asked": parameters.read(spec),
        "env": {"PROJECT_NAME": "demo", "RUN_ID": "0123456789abcdef0123456789abcdef", "A": "1"},
        "secret_env": {"DHCORE_ACCESS_TOKEN": "a token", "api key": "a value"},
        "claims": {"data": "team"} if case == "job-volume-shared" else {},
        "requirements": ("numpy>=2", "pandas") if case == "job-requirements" else (),
        **changes,
    }
    return manifests.Unit(**given)
