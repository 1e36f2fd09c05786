"""Strategic merge, as `kubectl patch` does it: maps are merged, lists of named things by their names. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MERGE_KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "ownerReferences": "uid",
}
"""Field whose value is a list -> what its elements are told apart by."""

APPENDED = frozenset({"tolerations", "envFrom"})
"""Lists that both sides add to. Kubernetes would replace the tolerations; a profile's spot nodes and a
user's own toleration are both meant."""


def merged(base: Any, patch: Any) -> Any:
    """`base` with `patch` over it; a value None removes the key, `$patch: replace | delete` is understood."""
    if not isinstance(base, Mapping) or not isinstance(patch, Mapping):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    made = dict(base)
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, list) and isinstance(made.get(key), list):
            made[key] = _list(key, made[key], value)
        else:
            made[key] = merged(made.get(key), value)
    return made


def _list(field: str, base: Sequence[Any], patch: Sequence[Any]) -> list[Any]:
    if field in APPENDED:
        return [*base, *(one for one in patch if one not in base)]
    name = MERGE_KEYS.get(field)
    if name is None or not all(isinstance(one, Mapping) for one in (*base, *patch)):
        return list(patch)
    made = {one.get(name): one for one in base}
    for one in patch:
        if one.get("$patch") == "delete":
            made.pop(one.get(name), None)
        else:
            made[one.get(name)] = merged(made.get(one.get(name), {}), one)
    return list(made.values())
