"""The objects of a run, from its spec, its profile and the settings. Pure: values in, mappings out.

A run's Secret comes first and owns everything else: one deletion removes all of it, and what a control
plane leaves behind that is killed between two requests hangs on it, or is it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from digitalhub_python_control.running.kubernetes import names
from digitalhub_python_control.running.kubernetes.merging import merged
from digitalhub_python_control.running.kubernetes.parameters import Asked, Volume
from digitalhub_python_control.running.kubernetes.profiles import Profile
from digitalhub_python_control.running.kubernetes.settings import KubernetesSettings
from digitalhub_runtime_python.errors import PlatformFault

Manifest = dict[str, Any]

CONTAINER = "function"
SHARED = "/shared"
LOGIN = "/var/run/dhpy-push"
PORT, MANAGEMENT = 8080, 8082
LINGER = 3
"""Seconds that a pod goes on answering after the cluster has begun to take it out of the Service."""
DRAIN = 25
"""Seconds for requests in flight."""
GRACE = LINGER + DRAIN + 7
"""Seconds until a pod is killed: longer than the two."""

# pip's own words go to the run's log; 15 is errors.py's status for an environment.
_INSTALL = (
    f"python3 -m pip install --no-input --disable-pip-version-check --no-cache-dir --target {SHARED}/.requirements "
    f'-- "$@" || exit 15; PYTHONPATH={SHARED}/.requirements${{PYTHONPATH:+:$PYTHONPATH}} '
    'exec python3 -m digitalhub_runtime_python "$0"'
)


@dataclass(frozen=True)
class Unit:
    """What is run: one attempt of a run."""

    project: str
    run_id: str
    function: str
    action: str
    """`job`, `serve` or `build`."""
    image: str
    asked: Asked
    profile: Profile = field(default_factory=Profile)
    attempt: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    """Installed when the pod starts; empty where the image has them."""
    claims: Mapping[str, str] = field(default_factory=dict)
    """Volume -> the claim that it is, where that is not the project's own of its name."""
    command: tuple[str, ...] = ()
    """In place of the image's own way to start."""

    @property
    def name(self) -> str:
        return names.object_name(self.project, self.run_id, self.attempt)


def secret(unit: Unit, settings: KubernetesSettings) -> Manifest:
    """What only the pod may read: credentials of the platform, values of the run's secrets."""
    data = {
        key: base64.b64encode(value.encode()).decode()
        for key, value in zip(_secret_keys(unit), unit.secret_env.values())
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(unit, settings, None),
        "type": "Opaque",
        "immutable": True,
        "data": data,
    }


def job(unit: Unit, settings: KubernetesSettings, owner: Manifest | None = None) -> Manifest:
    """A batch/v1 Job: its pod runs the function once, and again as often as `backoff_limit` says."""
    pod = _pod(unit, settings)
    pod["spec"].update(restartPolicy="Never", terminationGracePeriodSeconds=30)
    rules = [
        # Nobody's fault: the pod was evicted, preempted, or its node is drained.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        # The platform could not be reached; a pod that starts later may find it.
        {
            "action": "Ignore",
            "onExitCodes": {
                "containerName": CONTAINER,
                "operator": "In",
                "values": [PlatformFault.exit_status],
            },
        },
    ]
    made = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(unit, settings, owner),
        "spec": {
            "backoffLimit": unit.asked.backoff_limit,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": settings.deadline,
            "ttlSecondsAfterFinished": settings.ttl,
            "podFailurePolicy": {"rules": rules},
            "podReplacementPolicy": "Failed",
            "template": merged(pod, unit.profile.pod),
        },
    }
    return _profiled(made, unit.profile, unit.profile.job)


def deployment(unit: Unit, settings: KubernetesSettings, owner: Manifest | None = None) -> Manifest:
    """An apps/v1 Deployment: replaced pods overlap, so that a change loses no request."""
    pod = _pod(unit, settings)
    least, most = unit.asked.replicas
    _serving(pod["spec"])
    pod["spec"].update(restartPolicy="Always", terminationGracePeriodSeconds=GRACE)
    if most > 1:
        spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}  # fmt: skip
        pod["spec"]["topologySpreadConstraints"] = [
            {**spread, "labelSelector": {"matchLabels": _selector(unit)}}
        ]
    spec: Manifest = {
        "replicas": max(least, 1),
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": 600,
        "selector": {"matchLabels": _selector(unit)},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        },
        "template": merged(pod, unit.profile.pod),
    }
    if least != most:
        del spec["replicas"]  # the autoscaler's
    made = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(unit, settings, owner),
        "spec": spec,
    }
    return _profiled(made, unit.profile, unit.profile.deployment)


def service(
    unit: Unit, settings: KubernetesSettings, owner: Manifest | None = None, name: str = ""
) -> Manifest:
    """A Service before the pods of an attempt.

    Args:
        name: of one that stays the same over runs; default: the run's own.
    """
    metadata = _metadata(unit, settings, owner)
    made = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**metadata, "name": name or unit.name},
        "spec": {
            "type": unit.asked.service_type or settings.service_type,
            "selector": _selector(unit),
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }
    return _profiled(made, unit.profile, unit.profile.service)


def autoscaler(unit: Unit, settings: KubernetesSettings, owner: Manifest | None = None) -> Manifest:
    """A HorizontalPodAutoscaler where `replicas` is a range: at 80 % of the processor that is asked for."""
    least, most = unit.asked.replicas
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(unit, settings, owner),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": unit.name},
            "minReplicas": max(least, 1),
            "maxReplicas": most,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 80},
                    },
                }
            ],
        },
    }


def disruption_budget(
    unit: Unit, settings: KubernetesSettings, owner: Manifest | None = None
) -> Manifest:
    """A PodDisruptionBudget for two replicas or more: draining a node takes one at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(unit, settings, owner),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _selector(unit)}},
    }


def claim(unit: Unit, volume: Volume, settings: KubernetesSettings) -> Manifest:
    """The claim of a `persistent_volume_claim`: the project's, so it is owned by no run and stays."""
    made = labels(unit, settings)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": names.claim_name(unit.project, volume.name),
            "labels": {k: made[k] for k in ("app.kubernetes.io/managed-by", names.PROJECT)},
            "annotations": {names.PROJECT: unit.project},
        },
        "spec": _claim_spec(volume, settings),
    }


def of(unit: Unit, settings: KubernetesSettings, owner: Manifest | None = None) -> list[Manifest]:
    """All objects of an attempt in the order in which they are created, without the Secret that owns them."""
    made: list[Manifest] = [
        claim(unit, volume, settings)
        for volume in unit.asked.volumes
        if volume.kind == "persistent_volume_claim" and volume.name not in unit.claims
    ]
    if unit.action != "serve":
        return [*made, job(unit, settings, owner)]
    least, most = unit.asked.replicas
    # The Service first: pods that come up find it, and its type is checked before anything runs.
    made.append(service(unit, settings, owner))
    if most > 1:
        made.append(disruption_budget(unit, settings, owner))
    made.append(deployment(unit, settings, owner))
    if least != most:
        made.append(autoscaler(unit, settings, owner))
    return made


def labels(unit: Unit, settings: KubernetesSettings) -> dict[str, str]:
    return names.labels(unit.project, unit.run_id, unit.function, unit.action, settings.instance)


def owner_reference(owner: Manifest) -> Manifest:
    """To the Secret that was created: everything goes when it goes."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": False,
        "blockOwnerDeletion": False,
    }


def _metadata(unit: Unit, settings: KubernetesSettings, owner: Manifest | None) -> Manifest:
    return {
        "name": unit.name,
        "labels": labels(unit, settings),
        # Labels cannot hold every name; these are the names themselves.
        "annotations": _annotations(unit),
        **({"ownerReferences": [owner_reference(owner)]} if owner else {}),
    }


def _annotations(unit: Unit) -> dict[str, str]:
    return {names.PROJECT: unit.project, names.RUN: unit.run_id, "digitalhub.io/attempt": str(unit.attempt)}  # fmt: skip


def _selector(unit: Unit) -> dict[str, str]:
    return {
        "app.kubernetes.io/instance": names.object_name(unit.project, unit.run_id, 0),
        "digitalhub.io/attempt": str(unit.attempt),
    }


def _profiled(made: Manifest, profile: Profile, patch: Mapping[str, Any]) -> Manifest:
    """With the profile's part for this kind, and its labels, which queues such as Kueue's look at."""
    metadata = made["metadata"]
    given = {key: value for key, value in profile.labels.items() if key not in metadata["labels"]}
    marked = {**metadata, "labels": {**metadata["labels"], **given}}
    return dict(merged({**made, "metadata": marked}, patch))


# The pod


def _pod(unit: Unit, settings: KubernetesSettings) -> Manifest:
    asked = unit.asked
    volumes, mounts = _volumes(unit, settings)
    spec: Manifest = {
        "automountServiceAccountToken": False,
        # A Service of an unlucky name would set DHPY_PORT=tcp://… in every pod beside it.
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.user,
            "fsGroup": settings.user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(unit, settings, mounts)],
        "volumes": volumes,
    }
    if unit.action == "build" and settings.push_secret:
        _pushing(spec, settings.push_secret)
    for key, value in (
        ("nodeSelector", dict(asked.node_selector)),
        ("affinity", dict(asked.affinity)),
        ("tolerations", [dict(one) for one in asked.tolerations]),
        ("runtimeClassName", asked.runtime_class),
        ("priorityClassName", asked.priority_class),
        ("imagePullSecrets", [{"name": settings.pull_secret}] if settings.pull_secret else []),
    ):
        if value:
            spec[key] = value
    marks = {**labels(unit, settings), **_selector(unit)}
    return {"metadata": {"labels": marks, "annotations": _annotations(unit)}, "spec": spec}


def _pushing(spec: Manifest, secret: str) -> None:
    """Give a build the registry's login, where it looks for one."""
    items = [{"key": ".dockerconfigjson", "path": "config.json"}]
    spec["volumes"].append({"name": "dhpy-push", "secret": {"secretName": secret, "items": items}})
    container = spec["containers"][0]
    container["volumeMounts"].append({"name": "dhpy-push", "mountPath": LOGIN, "readOnly": True})
    container["env"].append({"name": "DOCKER_CONFIG", "value": LOGIN})


def _container(unit: Unit, settings: KubernetesSettings, mounts: Sequence[Manifest]) -> Manifest:
    made: Manifest = {
        "name": CONTAINER,
        "image": unit.image,
        "imagePullPolicy": settings.pull_policy,
        "args": [unit.action],
        "env": _environment(unit),
        "resources": _resources(unit.asked, settings),
        "volumeMounts": list(mounts),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
        },
    }
    if unit.command:
        made["command"], made["args"] = list(unit.command), []
    elif unit.requirements:
        made["command"] = ["/bin/sh", "-c", _INSTALL]
        made["args"] = [unit.action, *unit.requirements]
    return made


def _environment(unit: Unit) -> list[Manifest]:
    # Kubernetes expands $(NAME) in a value; $$ is a dollar.
    literal = [{"name": k, "value": v.replace("$(", "$$(")} for k, v in unit.env.items()]
    return literal + [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": unit.name, "key": key}}}
        for name, key in zip(unit.secret_env, _secret_keys(unit))
    ]


def _secret_keys(unit: Unit) -> list[str]:
    """A key for each secret variable: its name, where a Secret can have such a key."""
    return [
        name if name.replace("_", "").replace("-", "").replace(".", "").isalnum() and name.isascii() else f"variable-{i}"
        for i, name in enumerate(unit.secret_env)
    ]  # fmt: skip


def _serving(spec: Manifest) -> None:
    """What makes a container a service's: its ports, probes, and time to leave the Service."""
    container = spec["containers"][0]
    container["ports"] = [
        {"name": "http", "containerPort": PORT, "protocol": "TCP"},
        {"name": "management", "containerPort": MANAGEMENT, "protocol": "TCP"},
    ]
    ready = {"httpGet": {"path": "/ready", "port": "management"}}
    alive = {"httpGet": {"path": "/live", "port": "management"}}
    container["readinessProbe"] = {**ready, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 2}  # fmt: skip
    # Code is fetched before anything listens: until then the pod is neither ready nor dead.
    container["startupProbe"] = {**alive, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 600}  # fmt: skip
    container["livenessProbe"] = {**alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3}  # fmt: skip
    container["lifecycle"] = {"preStop": {"sleep": {"seconds": LINGER}}}
    ours = {
        "DHPY_HOST": "0.0.0.0",  # noqa: S104 - a pod's own
        "DHPY_PORT": str(PORT),
        "DHPY_MANAGEMENT_PORT": str(MANAGEMENT),
        "DHPY_GRACE": str(DRAIN),
    }
    # The Service and the probes are made for these, so a user's values for them would break both.
    container["env"] = [
        *(entry for entry in container["env"] if entry["name"] not in ours),
        *({"name": name, "value": value} for name, value in ours.items()),
    ]


def _resources(asked: Asked, settings: KubernetesSettings) -> Manifest:
    def named(given: Mapping[str, str]) -> dict[str, str]:
        return {settings.gpu if key == "gpu" else key: value for key, value in given.items()}

    requests = {"cpu": settings.cpu, "memory": settings.memory}
    limits = named(asked.limits)
    # What has a limit and no request is asked for in full, as Kubernetes itself does.
    requests = {
        **{k: v for k, v in requests.items() if k not in limits},
        **named(asked.requests),
    }
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _volumes(unit: Unit, settings: KubernetesSettings) -> tuple[list[Manifest], list[Manifest]]:
    asked = unit.asked
    volumes = [{"name": one.name, **_source(unit, one, settings)} for one in asked.volumes]
    mounts = []
    for one in asked.volumes:
        mount: Manifest = {"name": one.name, "mountPath": one.path}
        if one.read_only or one.kind in ("config_map", "secret"):
            mount["readOnly"] = True
        if one.spec.get("subPath"):
            mount["subPath"] = str(one.spec["subPath"])
        mounts.append(mount)
    if not any(one.path == SHARED for one in asked.volumes):
        name = "shared" if all(one.name != "shared" for one in asked.volumes) else "dhpy-shared"
        size = {"sizeLimit": asked.disk} if asked.disk else {}
        volumes.insert(0, {"name": name, "emptyDir": size})
        mounts.insert(0, {"name": name, "mountPath": SHARED})
    return volumes, mounts


def _source(unit: Unit, volume: Volume, settings: KubernetesSettings) -> Manifest:
    spec = volume.spec
    if volume.kind == "empty_dir":
        size = spec.get("sizeLimit") or spec.get("size")
        made = {"medium": spec.get("medium"), "sizeLimit": size}
        return {"emptyDir": {key: value for key, value in made.items() if value}}
    if volume.kind == "ephemeral":
        template = {
            "metadata": {"labels": labels(unit, settings)},
            "spec": _claim_spec(volume, settings),
        }
        return {"ephemeral": {"volumeClaimTemplate": template}}
    mode = {"defaultMode": spec["defaultMode"]} if "defaultMode" in spec else {}
    if volume.kind == "config_map":
        return {"configMap": {"name": str(spec.get("name") or volume.name), **mode}}
    if volume.kind == "secret":
        name = spec.get("secretName") or spec.get("name") or volume.name
        return {"secret": {"secretName": str(name), **mode}}
    own = names.claim_name(unit.project, volume.name)
    claimed = unit.claims.get(volume.name) or own
    return {"persistentVolumeClaim": {"claimName": claimed}}


def _claim_spec(volume: Volume, settings: KubernetesSettings) -> Manifest:
    storage = str(volume.spec.get("storageClass") or settings.storage_class)
    return {
        "accessModes": list(volume.spec.get("accessModes") or ["ReadWriteOnce"]),
        "resources": {"requests": {"storage": str(volume.spec.get("size") or "2Gi")}},
        **({"storageClassName": storage} if storage else {}),
    }
