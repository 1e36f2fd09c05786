"""What the control plane may do in its namespace: one table, from which the Role is made and which is checked."""

from __future__ import annotations

from typing import Any

_WORKLOAD = ("create", "delete", "get", "list", "watch")

RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "secrets", ("create", "delete", "get", "list")),
    ("", "services", ("create", "get")),
    ("", "persistentvolumeclaims", ("create", "get")),
    ("", "configmaps", ("get",)),
    ("", "pods", ("delete", "list", "watch")),
    ("", "pods/log", ("get",)),
    ("", "events", ("list", "watch")),
    ("batch", "jobs", _WORKLOAD),
    ("apps", "deployments", _WORKLOAD),
    ("policy", "poddisruptionbudgets", ("create", "get")),
    ("autoscaling", "horizontalpodautoscalers", ("create", "get")),
)
"""(API group, resource, verbs): all that is used, and nothing on nodes or on the cluster. What else a run has
made goes with the Secret that owns it, which is the cluster's own doing."""


def role(name: str, namespace: str) -> dict[str, Any]:
    """The Role that grants it."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace},
        "rules": [
            {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
            for group, resource, verbs in RULES
        ],
    }


def reviews(namespace: str) -> list[tuple[str, dict[str, Any]]]:
    """(`create jobs.batch`, the SelfSubjectAccessReview that asks for it) of every right."""
    return [
        (f"{verb} {resource}" + (f".{group}" if group else ""), _review(namespace, group, resource, verb))
        for group, resource, verbs in RULES
        for verb in verbs
    ]  # fmt: skip


def _review(namespace: str, group: str, resource: str, verb: str) -> dict[str, Any]:
    main, _, sub = resource.partition("/")
    asked = {"namespace": namespace, "verb": verb, "group": group, "resource": main, "subresource": sub}  # fmt: skip
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
