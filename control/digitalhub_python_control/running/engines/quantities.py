"""What a run asks of a container: resources and volumes, in the Docker Engine's terms. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from digitalhub_runtime_python.errors import UsageFault

_UNITS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{letter: Decimal(1000 ** (i + 1)) for i, letter in enumerate("kMGT")},
    **{f"{letter}i": Decimal(1024 ** (i + 1)) for i, letter in enumerate("KMGT")},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([a-zA-Z]*)")
_SMALLEST_MEMORY = 6 << 20
"""Bytes; the engine refuses less."""


def quantity(text: object, what: str) -> Decimal:
    """A quantity as Kubernetes writes it: `500m`, `1.5Gi`.

    Raises:
        UsageFault: it is not one.
    """
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None or match[2] not in _UNITS:
        raise UsageFault(
            "usage/resources", f"{what} is {text!r}.", "Write a number with a unit: 500m, 2, 256Mi, 1Gi."
        )  # fmt: skip
    return Decimal(match[1]) * _UNITS[match[2]]


def limits(resources: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options of a container for a run's `resources`.

    Raises:
        UsageFault: a quantity is not well formed, or too small.
    """
    asked = {key: value for key, value in (resources or {}).items() if value}
    found: dict[str, Any] = {}
    if "cpu" in asked:
        found["nano_cpus"] = max(int(quantity(asked["cpu"], "cpu") * 10**9), 10**7)
    if "mem" in asked:
        memory = int(quantity(asked["mem"], "mem"))
        if memory < _SMALLEST_MEMORY:
            raise UsageFault("usage/resources", f"mem is {asked['mem']!r}: less than 6Mi.", "Ask for more, e.g. 256Mi.")  # fmt: skip
        # As in a pod, without swap: a function over its limit is ended, not slowed down.
        found["mem_limit"] = found["memswap_limit"] = memory
    if "gpu" in asked:
        found["gpus"] = int(quantity(asked["gpu"], "gpu"))
    return found


def mounts(volumes: Sequence[Mapping[str, Any]] | None, project: str) -> list[dict[str, Any]]:
    """Mounts of a container for a run's `volumes`: dicts of `type`, `source`, `target`, `size`.

    Raises:
        UsageFault: a volume is not well formed, or is of a type that containers do not have.
    """
    return [_mount(volume, project) for volume in volumes or ()]


def _mount(volume: Mapping[str, Any], project: str) -> dict[str, Any]:
    kind, name, target = (str(volume.get(k) or "") for k in ("volume_type", "name", "mount_path"))
    spec = volume.get("spec") or {}
    if not name or not target.startswith("/") or ":" in target:
        raise UsageFault("usage/volume", f"The volume {name!r} has the mount_path {target!r}.", "Give it a name and an absolute path.")  # fmt: skip
    if kind == "empty_dir":
        size = spec.get("size_limit") or spec.get("sizeLimit") or "128Mi"
        return {"type": "tmpfs", "target": target, "size": int(quantity(size, "size_limit"))}
    if kind in ("persistent_volume_claim", "shared_volume", "ephemeral"):
        claim = spec.get("claimName") or name
        source = re.sub(r"[^A-Za-z0-9_.-]", "-", f"dhpy-{project}-{claim}")
        return {"type": "volume", "target": target, "source": "" if kind == "ephemeral" else source}
    raise UsageFault(
        "usage/volume",
        f"The volume {name!r} is of type {kind!r}, which containers on this machine do not have.",
        "Use persistent_volume_claim, shared_volume, ephemeral or empty_dir.",
    )
