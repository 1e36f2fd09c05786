"""What a run asks of the cluster: the task's parameters, checked and in Kubernetes' own terms. Pure.

Every parameter is taken as the documents, both SDKs and Kubernetes spell it. What is not known is an
error: a parameter that is dropped would seem to work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from digitalhub_python_control.running.engines.quantities import quantity
from digitalhub_python_control.running.kubernetes.shapes import (
    fault,
    known_keys,
    nearest,
    shaped,
    wrong,
)
from digitalhub_python_control.running.launch import backoff_limit
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.spec import RunSpec

SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer")

PARAMETERS = {
    "node_selector": "node_selector", "nodeSelector": "node_selector",
    "affinity": "affinity",
    "tolerations": "tolerations",
    "runtime_class": "runtime_class", "runtimeClass": "runtime_class", "runtimeClassName": "runtime_class",
    "priority_class": "priority_class", "priorityClass": "priority_class", "priorityClassName": "priority_class",
    "resources": "resources",
    "volumes": "volumes",
    "profile": "profile",
    "backoff_limit": "backoff_limit", "backoffLimit": "backoff_limit",
    "replicas": "replicas",
    "service_type": "service_type", "serviceType": "service_type",
    "service_name": "service_name", "serviceName": "service_name",
    "instructions": "instructions",
}  # fmt: skip
"""Every spelling of a task's parameter -> its name here."""

_OTHERS = frozenset({"task", "extensions", "workflow", "files"})
"""Keys of a run's spec that are not parameters of a task, beside those of RunSpec."""

VOLUMES: Mapping[str, tuple[str, ...]] = {
    "persistent_volume_claim": ("size", "storageClass", "accessModes", "claimName", "subPath"),
    "shared_volume": ("claimName", "subPath"),
    "ephemeral": ("size", "storageClass", "subPath"),
    "empty_dir": ("sizeLimit", "medium", "size", "subPath"),
    "config_map": ("name", "defaultMode", "subPath"),
    "secret": ("secretName", "name", "defaultMode", "subPath"),
}
"""Type of a volume -> what its `spec` may have."""

_RESOURCES = {"cpu": "cpu", "mem": "memory", "memory": "memory", "gpu": "gpu", "disk": "ephemeral-storage"}  # fmt: skip
_LABEL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Volume:
    """One volume of a pod, and where it is mounted."""

    kind: str
    name: str
    path: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    read_only: bool = False


@dataclass(frozen=True)
class Asked:
    """The parameters of a task, for a pod."""

    node_selector: Mapping[str, str] = field(default_factory=dict)
    affinity: Mapping[str, Any] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    runtime_class: str = ""
    priority_class: str = ""
    requests: Mapping[str, str] = field(default_factory=dict)
    """Kubernetes' names; `gpu` stands for the resource that the settings name."""
    limits: Mapping[str, str] = field(default_factory=dict)
    disk: str = ""
    """Size of /shared."""
    volumes: tuple[Volume, ...] = ()
    profile: str = ""
    backoff_limit: int = 0
    replicas: tuple[int, int] = (1, 1)
    """The least and the most."""
    service_type: str = ""
    service_name: str = ""


def read(spec: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Asked:
    """The parameters in a run's spec, and a profile's for those that it does not have.

    Raises:
        UsageFault: one is not known or has the wrong shape; the message names it and the nearest.
    """
    given = {**_given(defaults or {}), **_given(spec)}
    made = {name: _READERS[name](given[name]) for name in given if name in _READERS}
    resources = made.pop("resources", {})
    return Asked(**resources, **made)


def _given(spec: Mapping[str, Any]) -> dict[str, Any]:
    known = {f.name for f in fields(RunSpec)} | _OTHERS
    found: dict[str, Any] = {}
    for key, value in spec.items():
        name = PARAMETERS.get(key)
        if name is None and key not in known:
            raise fault(
                f"The run has the parameter {key!r}, which is not known{nearest(key, PARAMETERS)}.",
                "Correct its name, or leave it out.",
            )
        if name is None or value is None:
            continue
        if name in found:
            raise fault(f"{name} is given twice, in two spellings.", "Leave one of them out.")
        found[name] = value
    return found


def _node_selector(value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return dict(shaped(value, {str: str}, "node_selector"))
    found: dict[str, str] = {}
    for i, one in enumerate(shaped(value, ["selected"], "node_selector")):
        if not one.get("key") or "value" not in one:
            raise wrong(f"node_selector[{i}]", "an object with key and value", one)
        found[one["key"]] = one["value"]
    return found


def _affinity(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        value = _unwrapped(value)
    return dict(shaped(value, "affinity", "affinity"))


def _unwrapped(affinity: Mapping[str, Any]) -> dict[str, Any]:
    """SDK 0.14 types a preferred term's `preference` as a node selector: a list of terms, of which one fits."""
    made = known_keys(affinity, ("nodeAffinity", "podAffinity", "podAntiAffinity"), "affinity")
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    node = made.get("nodeAffinity")
    if not isinstance(node, Mapping):
        return made
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    node = known_keys(node, (required, preferred), "affinity.nodeAffinity")
    terms = []
    for term in node.get(preferred) or ():
        inner = term.get("preference") if isinstance(term, Mapping) else None
        listed = inner.get("node_selector_terms", inner.get("nodeSelectorTerms")) if isinstance(inner, Mapping) else None  # fmt: skip
        single = isinstance(listed, (list, tuple)) and len(listed) == 1
        terms.append({**term, "preference": listed[0]} if single and listed else term)
    return {**made, "nodeAffinity": {**node, **({preferred: terms} if terms else {})}}


def _tolerations(value: Any) -> tuple[dict[str, Any], ...]:
    return tuple(shaped(value, ["toleration"], "tolerations"))


def _resources(value: Any) -> dict[str, Any]:
    given = {k: v for k, v in shaped(value, "resources", "resources").items() if v != ""}
    given = _by_part(given)
    flat = {k: v for k, v in given.items() if k not in ("requests", "limits")}
    if "mem" in flat and "memory" in flat:
        raise fault("resources has mem and memory.", "Leave one of them out.")
    disk = _amount("disk", flat.pop("disk")) if "disk" in flat else ""
    requests = {_RESOURCES[k]: _amount(k, v) for k, v in flat.items()}
    # Memory that is asked for is also the limit, as everywhere else; a processor that is free may be used.
    limits = {k: v for k, v in requests.items() if k != "cpu"}
    for part, target in (("requests", requests), ("limits", limits)):
        for key, amount in (given.get(part) or {}).items():
            target[_resource_name(part, key)] = _amount(f"{part}.{key}", amount)
    for key in requests.keys() & limits.keys():
        if quantity(requests[key], key) > quantity(limits[key], key):
            raise fault(
                f"resources asks for {requests[key]} of {key}, more than its limit {limits[key]}.",
                "Raise the limit, or ask for less.",
            )
    return {"requests": requests, "limits": limits, "disk": disk}


def _by_part(given: Mapping[str, Any]) -> dict[str, Any]:
    """`{"cpu": {"requests": "1", "limits": "2"}}`, as earlier SDKs have it, in Kubernetes' own order."""
    made = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in given.items()
    }
    for key in _RESOURCES.keys() & made.keys():
        if isinstance(made[key], dict):
            for part, amount in known_keys(made.pop(key), ("requests", "limits"), f"resources.{key}").items():  # fmt: skip
                made.setdefault(part, {})[key] = amount
    return made


def _resource_name(part: str, key: str) -> str:
    if key in _RESOURCES:
        return _RESOURCES[key]
    if "/" in key or key in ("ephemeral-storage", "hugepages-2Mi", "hugepages-1Gi"):
        return key
    raise fault(
        f"resources.{part} has {key!r}, which is not known{nearest(key, _RESOURCES)}.",
        "Use cpu, memory, gpu, ephemeral-storage, or a resource with its domain: nvidia.com/gpu.",
    )


def _amount(key: str, value: Any) -> str:
    text = str(value).strip()
    if isinstance(value, bool) or quantity(text, f"resources.{key}") < 0:
        raise UsageFault("usage/resources", f"resources.{key} is {value!r}.", "Write a number with a unit: 500m, 2, 256Mi.")  # fmt: skip
    return text


def _volumes(value: Any) -> tuple[Volume, ...]:
    made = tuple(_volume(one, f"volumes[{i}]") for i, one in enumerate(shaped(value, ["volume"], "volumes")))  # fmt: skip
    for what in ("name", "path"):
        seen = [getattr(volume, what) for volume in made]
        twice = sorted({one for one in seen if seen.count(one) > 1})
        if twice:
            raise _volume_fault(f"Two volumes have the {what} {twice[0]!r}.", "Give each its own.")
    return made


def _volume(given: Mapping[str, Any], where: str) -> Volume:
    missing = [key for key in ("volumeType", "name", "mountPath") if not given.get(key)]
    if missing:
        raise _volume_fault(f"{where} has no {missing[0]}.", "A volume has volume_type, name and mount_path.")  # fmt: skip
    kinds = {kind.replace("_", ""): kind for kind in VOLUMES}
    kind = kinds.get(str(given["volumeType"]).replace("_", "").lower())
    if kind is None:
        near = nearest(given["volumeType"], VOLUMES)
        raise _volume_fault(f"{where} is of type {given['volumeType']!r}, which is not known{near}.", f"Use {', '.join(VOLUMES)}.")  # fmt: skip
    name, path = given["name"], given["mountPath"]
    if not _LABEL_NAME.fullmatch(name):
        raise _volume_fault(f"{where} has the name {name!r}.", "Use lower-case letters, digits and -, at most 63.")  # fmt: skip
    if not path.startswith("/") or ":" in path or path == "/":
        raise _volume_fault(f"{where} has the mount_path {path!r}.", "Use an absolute path that is not /.")  # fmt: skip
    spec = known_keys(given.get("spec") or {}, VOLUMES[kind], f"{where}.spec")
    spec = {key: value for key, value in spec.items() if value is not None}
    for key in ("size", "sizeLimit"):
        if key in spec:
            quantity(str(spec[key]), f"{where}.spec.{key}")
            spec[key] = str(spec[key])
    return Volume(kind, name, path.rstrip("/"), spec, bool(given.get("readOnly")))


def _volume_fault(message: str, hint: str) -> UsageFault:
    return UsageFault("usage/volume", message, hint)


def _replicas(value: Any) -> tuple[int, int]:
    """`2`, `"2:5"`, `[2, 5]` or `{"min": 2, "max": 5}`."""
    low = high = value
    if isinstance(value, str) and re.fullmatch(r"\d+:\d+", value):
        low, high = (int(part) for part in value.split(":"))
    elif isinstance(value, (list, tuple)) and len(value) == 2:
        low, high = value
    elif isinstance(value, Mapping):
        made = shaped(value, "replicas", "replicas")
        low, high = made.get("min", 1), made.get("max", made.get("min", 1))
    for number in (low, high):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise wrong("replicas", "a whole number of 1 or more, or a range such as 2:5", value)
    if high < max(low, 1):
        raise fault(f"replicas is {value!r}.", "At least 1, and the least not above the most.")
    return low, high


def _service_type(value: Any) -> str:
    if value == "ExternalName":
        raise fault(
            "service_type is 'ExternalName', which names a host outside the cluster: no pods stand behind it.",
            f"Use {', '.join(SERVICE_TYPES)}.",
        )
    return str(shaped(value, SERVICE_TYPES, "service_type"))


def _service_name(value: Any) -> str:
    if not isinstance(value, str) or not _LABEL_NAME.fullmatch(value):
        raise fault(f"service_name is {value!r}.", "Use lower-case letters, digits and -, at most 63.")  # fmt: skip
    return value


def _text(name: str) -> Any:
    return lambda value: str(shaped(value, str, name))


_READERS: Mapping[str, Any] = {
    "node_selector": _node_selector,
    "affinity": _affinity,
    "tolerations": _tolerations,
    "runtime_class": _text("runtime_class"),
    "priority_class": _text("priority_class"),
    "resources": _resources,
    "volumes": _volumes,
    "profile": _text("profile"),
    "backoff_limit": lambda value: backoff_limit({"backoff_limit": value}),
    "replicas": _replicas,
    "service_type": _service_type,
    "service_name": _service_name,
}
