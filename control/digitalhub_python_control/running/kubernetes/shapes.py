"""Checks values against Kubernetes' own structures and spells their keys as Kubernetes does. Pure.

A structure is a row of `SHAPES`. Keys are taken in both spellings, `node_affinity` and `nodeAffinity`; one
that is not in the table is an error that names the nearest, for what is dropped silently does nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from digitalhub_runtime_python.errors import UsageFault

Shape = Any
"""A type, a tuple of allowed texts, `[shape]`, `{str: shape}` for a map, or the name of a row."""

_EXPRESSION = {"key": str, "operator": str, "values": [str]}

SHAPES: Mapping[str, Mapping[str, Shape]] = {
    "affinity": {
        "nodeAffinity": "nodeAffinity",
        "podAffinity": "podAffinity",
        "podAntiAffinity": "podAffinity",
    },
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": "nodeSelector",
        "preferredDuringSchedulingIgnoredDuringExecution": ["preferredSchedulingTerm"],
    },
    "nodeSelector": {"nodeSelectorTerms": ["nodeSelectorTerm"]},
    "nodeSelectorTerm": {"matchExpressions": ["expression"], "matchFields": ["expression"]},
    "expression": {
        **_EXPRESSION,
        "operator": ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
    },
    "preferredSchedulingTerm": {"weight": int, "preference": "nodeSelectorTerm"},
    "podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": ["podAffinityTerm"],
        "preferredDuringSchedulingIgnoredDuringExecution": ["weightedPodAffinityTerm"],
    },
    "weightedPodAffinityTerm": {"weight": int, "podAffinityTerm": "podAffinityTerm"},
    "podAffinityTerm": {
        "labelSelector": "labelSelector",
        "namespaceSelector": "labelSelector",
        "namespaces": [str],
        "topologyKey": str,
        "matchLabelKeys": [str],
        "mismatchLabelKeys": [str],
    },
    "labelSelector": {"matchLabels": {str: str}, "matchExpressions": ["labelExpression"]},
    "labelExpression": {
        **_EXPRESSION,
        "operator": ("In", "NotIn", "Exists", "DoesNotExist"),
    },
    "toleration": {
        "key": str,
        "operator": ("Exists", "Equal"),
        "value": str,
        "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
        "tolerationSeconds": int,
    },
    "selected": {"key": str, "value": str},
    "volume": {
        "volumeType": str,
        "name": str,
        "mountPath": str,
        "readOnly": bool,
        "spec": {str: object},
    },
    "resources": {
        "cpu": object,
        "mem": object,
        "memory": object,
        "gpu": object,
        "disk": object,
        "requests": {str: object},
        "limits": {str: object},
    },
    "replicas": {"min": int, "max": int},
}


def shaped(value: Any, shape: Shape, where: str) -> Any:
    """The value with its keys in Kubernetes' spelling; keys whose value is None are left out.

    Args:
        where: the place, for messages: `tolerations[0]`.

    Raises:
        UsageFault: usage/parameter, the value has another structure; the message names the place.
    """
    if isinstance(shape, str):
        row = SHAPES[shape]
        fields = known_keys(_mapping(value, where), row, where)
        return {k: shaped(v, row[k], f"{where}.{k}") for k, v in fields.items() if v is not None}
    if isinstance(shape, list):
        if isinstance(value, (str, bytes)) or not isinstance(value, (list, tuple)):
            raise wrong(where, "a list", value)
        return [shaped(one, shape[0], f"{where}[{i}]") for i, one in enumerate(value)]
    if isinstance(shape, dict):
        ((_, inner),) = shape.items()
        return {str(k): shaped(v, inner, f"{where}.{k}") for k, v in _mapping(value, where).items()}
    if isinstance(shape, tuple):
        if value not in shape:
            raise fault(f"{where} is {value!r}.", f"Use one of {', '.join(shape)}{nearest(value, shape)}.")  # fmt: skip
        return value
    if not isinstance(value, shape) or (shape is int and isinstance(value, bool)):
        raise wrong(where, {str: "text", int: "a whole number", bool: "true or false"}[shape], value)  # fmt: skip
    return value


def known_keys(given: Mapping[str, Any], known: Iterable[str], where: str) -> dict[str, Any]:
    """The mapping with each key as `known` spells it.

    Raises:
        UsageFault: a key is not known, or is given in both spellings.
    """
    spelling = {_plain(name): name for name in known}
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = spelling.get(_plain(str(key)))
        if name is None:
            raise fault(
                f"{where} has the key {key!r}, which is not known{nearest(key, spelling.values())}.",
                f"It can have: {', '.join(spelling.values())}.",
            )
        if name in found:
            raise fault(f"{where} has {name} twice, in two spellings.", "Leave one of them out.")
        found[name] = value
    return found


def nearest(word: object, known: Iterable[str]) -> str:
    """`; the nearest is 'x'`, or nothing where nothing is near."""
    plain: dict[str, str] = {}
    for name in known:
        plain.setdefault(_plain(name), name)
    found = difflib.get_close_matches(_plain(str(word)), plain, n=1, cutoff=0.6)
    return f"; the nearest is {plain[found[0]]!r}" if found else ""


def fault(message: str, hint: str) -> UsageFault:
    return UsageFault("usage/parameter", message, hint)


def wrong(where: str, wanted: str, value: object) -> UsageFault:
    return fault(f"{where} must be {wanted}; it is {value!r}.", "Correct it in the task's parameters.")  # fmt: skip


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise wrong(where, "a mapping", value)
    return value


def _plain(key: str) -> str:
    """`node_affinity` and `nodeAffinity` are one key."""
    return re.sub(r"[_-]", "", key).lower()
