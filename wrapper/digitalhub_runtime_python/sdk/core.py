"""What DigitalHub Core of the version at hand takes: it refuses some values, and drops others without a word."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Callable

from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.sdk import compat

logger = compat.get_logger(__name__)

Version = tuple[int, int]

OWN_NAME = "digitalhub-python"
"""What the embedded control plane calls itself; it takes every parameter in every spelling."""
UNKNOWN: Version = (0, 0)
"""A platform that does not say which version of Core it is."""

_PYTHONS: Mapping[Version, tuple[int, int]] = {(0, 14): (9, 12), (0, 15): (10, 13)}
"""First version of Core -> the first and the last minor version of Python that it has images for."""
PROFILE_ONLY = (
    "node_selector", "affinity", "tolerations", "runtime_class", "priority_class", "backoff_limit",
)  # fmt: skip
"""Parameters that Core takes from an administrator's profile only, since 0.15."""
_VOLUME_KEYS: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "empty_dir": (("size_limit", "size_limit", "sizeLimit"),),
    "ephemeral": (("storage_class", "storage_class", "storageClass"),),
    "persistent_volume_claim": (("storage_class", "storage_class", "storage_class"),),
    "shared_volume": (("claim_name", "claimName", "claimName"),),
}
"""Type of a volume -> (our spelling, Core's until 0.14, Core's since 0.15) of keys of its spec."""


def version_of(client: Callable[[], Any]) -> Version | None:
    """Which Core the SDK talks to; `UNKNOWN` where it does not say, None: it is not a Core.

    Args:
        client: gets the SDK's client; called only where there is something to ask.
    """
    try:
        found = client().read_object("/.well-known/configuration")
    except Exception as exc:  # noqa: BLE001 - the SDK's many; a run must not fail for a question
        logger.debug("the platform does not say its version: %s", exc)
        return UNKNOWN
    if found.get("dhcore_name") == OWN_NAME:
        return None
    match = re.match(r"(\d+)\.(\d+)", str(found.get("dhcore_version") or ""))
    return (int(match[1]), int(match[2])) if match else UNKNOWN


def check_python(python_version: str, client: Callable[[], Any]) -> None:
    """Refuse a Python that this Core has no image for, before anything is created.

    Raises:
        UsageFault: usage/python-version, with Core's list.
    """
    minor = int(python_version.rpartition("_")[2])
    if all(first <= minor <= last for first, last in _PYTHONS.values()):
        return
    version = version_of(client)
    known = [key for key in _PYTHONS if version is not None and version >= key]
    if version is None or not known:
        return
    first, last = _PYTHONS[max(known)]
    # A later Core may know a later Python: that is Core's to say.
    if minor < first or (minor > last and version == max(known)):
        names = ", ".join(f"PYTHON3_{n}" for n in range(first, last + 1))
        raise UsageFault(
            "usage/python-version",
            f"DigitalHub Core {version[0]}.{version[1]} does not take python_version {python_version!r}.",
            f"Use one of {names}.",
        )


def translated(values: dict[str, Any], client: Callable[[], Any]) -> dict[str, Any]:
    """A run's parameters as the platform's version spells them; what it drops is warned about by name."""
    if not any(values.get(name) is not None for name in ("volumes", *PROFILE_ONLY)):
        return values
    version = version_of(client)
    if version is None:
        return values
    values = copy.deepcopy(values)
    values["volumes"] = [_volume(volume, version) for volume in values.get("volumes") or ()] or None
    if version == UNKNOWN:
        return values
    dropped = [name for name in PROFILE_ONLY if values.get(name) is not None]
    if version < (0, 15):
        dropped = [name for name in dropped if name == "backoff_limit"]
        if values.get("affinity"):
            values["affinity"] = _camel(values["affinity"])
        if values.get("tolerations"):
            values["tolerations"] = _camel(values["tolerations"])
    if dropped:
        logger.warning(
            "DigitalHub Core %d.%d does not take %s from a run: its pod will not have %s. "
            "An administrator puts it into a profile (K8S_TEMPLATES); name that with profile=….",
            *version, ", ".join(dropped), "it" if len(dropped) == 1 else "them",
        )  # fmt: skip
    return values


def _volume(volume: dict[str, Any], version: Version) -> dict[str, Any]:
    spec = dict(volume.get("spec") or {})
    for ours, old, new in _VOLUME_KEYS.get(str(volume.get("volume_type")), ()):
        given = [spec.pop(key) for key in {ours, _camel_word(ours)} if key in spec]
        if given:
            # Core reads the key of its version and no other: one that does not say which gets both.
            keys = {old, new} if version == UNKNOWN else {new if version >= (0, 15) else old}
            spec.update(dict.fromkeys(keys, given[0]))
    if "medium" in spec and version != UNKNOWN:
        logger.warning(
            "the volume %r: DigitalHub Core takes a medium from its administrator only",
            volume.get("name"),
        )
    return {**volume, "spec": spec} if spec else volume


def _camel(value: Any) -> Any:
    """Kubernetes' own spelling of every key but those of labels, which are the user's."""
    if isinstance(value, dict):
        return {
            _camel_word(key): one if _camel_word(key) == "matchLabels" else _camel(one)
            for key, one in value.items()
        }
    return [_camel(one) for one in value] if isinstance(value, list) else value


def _camel_word(word: str) -> str:
    head, *rest = word.split("_")
    return head + "".join(part.title() for part in rest)
