"""The objects of a control plane in a cluster; pure. `objects` is read first.

There is one replica, and it is ended before the next one starts: files and the key of secrets lie in its home,
which one control plane has to itself. Runs go on meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from digitalhub_python_control.running.kubernetes import rights
from digitalhub_runtime_python import pages
from digitalhub_runtime_python.errors import UsageFault

Manifest = dict[str, Any]

PORT = 8080
USER = 8877
MOUNT = "/var/lib/dhpy"
GRACE = 30
"""Seconds from SIGTERM to SIGKILL; open requests get 5 of them."""
SECRETS = frozenset(
    {"DHPY_TOKEN", "DHPY_USER", "DHPY_PASSWORD", "DHPY_DATABASE_URL", "DHPY_S3_ACCESS_KEY", "DHPY_S3_SECRET_KEY"}
)  # fmt: skip
"""Variables that come from the Secret and stand in no manifest."""

OWN = frozenset(
    {"HOME", "TMPDIR", "DHPY_HOST", "DHPY_PORT", "DHPY_HOME", "DHPY_CACHE", "DHPY_ENGINE", "DHPY_CALLBACK_URL", "DHPY_KUBERNETES_INSTANCE", "DHPY_KUBERNETES_BUILD_IMAGE"}
)  # fmt: skip
"""Variables that the manifests set themselves; only the address for pods may be another."""

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|[KMGTP]i?)?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")


@dataclass(frozen=True)
class Installation:
    """What differs between two installations.

    Raises:
        UsageFault: a value could not stand in a manifest, or a secret would.
    """

    image: str
    name: str = "dhpy"
    namespace: str = "default"
    """Runs are pods of the same one."""
    secret: str = ""
    """The Secret with DHPY_TOKEN, or DHPY_USER and DHPY_PASSWORD, and maybe DHPY_DATABASE_URL. Default: `name`."""
    storage: str = "10Gi"
    storage_class: str = ""
    """Default: the cluster's."""
    cpu: str = "250m"
    memory: str = "512Mi"
    pull_secret: str = ""
    allow_from: tuple[str, ...] = ()
    """Other namespaces whose pods may ask it: an ingress's, users'."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of the control plane that are not secret: `DHPY_IMAGES`, `DHPY_REGISTRY`, …"""

    def __post_init__(self) -> None:
        _fits("name", self.name, _NAME, "lower-case letters, digits and '-', beginning with a letter, 52 at most")  # fmt: skip
        _fits("image", self.image, _IMAGE, "a reference of an image")
        for value in (self.namespace, *self.allow_from):
            _fits("namespace", value, _NAMESPACE, "lower-case letters, digits and '-'")
        for what in ("storage", "cpu", "memory"):
            _fits(what, getattr(self, what), _QUANTITY, "a quantity as 500m, 2 or 10Gi")
        for variable in self.settings:
            if variable in SECRETS:
                raise UsageFault("usage/setting", f"{variable} is secret, and a manifest is read by many.", f"Put it into the Secret {self.secret or self.name}.")  # fmt: skip
            if variable in OWN - {"DHPY_CALLBACK_URL"}:
                raise UsageFault("usage/setting", f"{variable} is set by the manifests themselves.", "Leave it out.")  # fmt: skip
        for sentence in pages.unknown_variables(self.settings):
            raise UsageFault("usage/setting", sentence, "Correct its name.")


def objects(installation: Installation) -> list[Manifest]:
    """All of it but the Secret, in the order of their making."""
    return [
        service_account(installation),
        rights.role(installation.name, installation.namespace),
        role_binding(installation),
        claim(installation),
        network_policy(installation),
        service(installation),
        deployment(installation),
    ]


def service_account(installation: Installation) -> Manifest:
    return _object(installation, "v1", "ServiceAccount")


def role_binding(installation: Installation) -> Manifest:
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": installation.name, "namespace": installation.namespace}  # fmt: skip
    return {
        **_object(installation, f"{group}/v1", "RoleBinding"),
        "subjects": [subject],
        "roleRef": {"apiGroup": group, "kind": "Role", "name": installation.name},
    }


def claim(installation: Installation) -> Manifest:
    """Database, files and key; whoever deletes it has deleted them."""
    named = {"storageClassName": installation.storage_class} if installation.storage_class else {}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": installation.storage}}, **named}  # fmt: skip
    return {**_object(installation, "v1", "PersistentVolumeClaim"), "spec": spec}


def network_policy(installation: Installation) -> Manifest:
    """Runs are pods of this namespace and must get in; where it goes itself is not limited: Git, registries, indexes."""
    sources: list[Manifest] = [{"podSelector": {}}]
    for namespace in installation.allow_from:
        sources.append({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}})  # fmt: skip
    ingress = {"from": sources, "ports": [{"protocol": "TCP", "port": PORT}]}
    spec = {"podSelector": {"matchLabels": _selector(installation)}, "policyTypes": ["Ingress"], "ingress": [ingress]}  # fmt: skip
    return {**_object(installation, "networking.k8s.io/v1", "NetworkPolicy"), "spec": spec}


def service(installation: Installation) -> Manifest:
    port = {"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}
    spec = {"type": "ClusterIP", "selector": _selector(installation), "ports": [port]}
    return {**_object(installation, "v1", "Service"), "spec": spec}


def deployment(installation: Installation) -> Manifest:
    template = {"metadata": {"labels": _labels(installation)}, "spec": pod(installation)}
    spec = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "revisionHistoryLimit": 5,
        "selector": {"matchLabels": _selector(installation)},
        "template": template,
    }
    return {**_object(installation, "apps/v1", "Deployment"), "spec": spec}


def pod(installation: Installation) -> Manifest:
    """Its pod's spec, as the standard "restricted" asks."""
    named = (
        {"imagePullSecrets": [{"name": installation.pull_secret}]}
        if installation.pull_secret
        else {}
    )
    return {
        "serviceAccountName": installation.name,
        # Variables of a Service named dhpy would be DHPY_PORT=tcp://…
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE,
        **named,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            # Once: the key of secrets is nobody else's to read, and a kubelet would give it to the group.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(installation)],
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": installation.name}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }  # fmt: skip


def _container(installation: Installation) -> Manifest:
    probe = {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5}
    variables = {**_own(installation), **installation.settings}
    return {
        "name": "control-plane",
        "image": installation.image,
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "envFrom": [{"secretRef": {"name": installation.secret or installation.name}}],
        "resources": {
            "requests": {"cpu": installation.cpu, "memory": installation.memory},
            "limits": {"memory": installation.memory},
        },
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": {**probe, "periodSeconds": 5},
        "livenessProbe": {**probe, "periodSeconds": 20, "failureThreshold": 6},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "home", "mountPath": MOUNT}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }  # fmt: skip


def _own(installation: Installation) -> dict[str, str]:
    return {
        "HOME": MOUNT,
        "TMPDIR": "/tmp",  # noqa: S108 - a volume of the pod
        "DHPY_HOST": "0.0.0.0",  # noqa: S104 - the pod's own
        "DHPY_PORT": str(PORT),
        # Below the volume, whose own folder belongs to root.
        "DHPY_HOME": f"{MOUNT}/home",
        "DHPY_CACHE": f"{MOUNT}/cache",
        "DHPY_ENGINE": "kubernetes",
        "DHPY_CALLBACK_URL": f"http://{installation.name}.{installation.namespace}.svc:{PORT}",
        # Its default is made from the host's name, which is another one for each pod.
        "DHPY_KUBERNETES_INSTANCE": installation.name,
        # Builds are pods of it, not processes within its own memory.
        "DHPY_KUBERNETES_BUILD_IMAGE": installation.image,
    }


def _object(installation: Installation, version: str, kind: str) -> Manifest:
    metadata = {"name": installation.name, "namespace": installation.namespace, "labels": _labels(installation)}  # fmt: skip
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _labels(installation: Installation) -> dict[str, str]:
    return {**_selector(installation), "app.kubernetes.io/component": "control-plane"}


def _selector(installation: Installation) -> dict[str, str]:
    return {"app.kubernetes.io/name": "digitalhub-python", "app.kubernetes.io/instance": installation.name}  # fmt: skip


def _fits(what: str, value: str, pattern: re.Pattern[str], wanted: str) -> None:
    if not pattern.fullmatch(value):
        raise UsageFault("usage/setting", f"The {what} is {value!r}.", f"Write {wanted}.")
