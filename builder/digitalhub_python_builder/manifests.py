"""What an image says of itself: manifests, indexes and configurations, checked before anything believes them.

They come from registries, layouts and archives of anybody. The shapes are those of the OCI image
specification and of Docker's second schema, which differ in nothing that is read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from digitalhub_runtime_python.errors import EnvironmentFault
from digitalhub_runtime_python.nesting import read_json

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LAYER_LIMIT = 127
"""Layers of an image: engines mount no more."""
_STRING_LIST = "a list of texts"
_STRING_MAP = "an object of texts"
_OBJECT = "an object"
_TEXT = "a text"
# Field of a configuration's `config` -> what it is where it is there; null counts as absent.
_CONFIG_FIELDS = {
    "Env": _STRING_LIST,
    "Cmd": _STRING_LIST,
    "Entrypoint": _STRING_LIST,
    "Labels": _STRING_MAP,
    "User": _TEXT,
    "WorkingDir": _TEXT,
    "StopSignal": _TEXT,
    "Volumes": _OBJECT,
    "ExposedPorts": _OBJECT,
    "Healthcheck": _OBJECT,
}


def unsafe(why: str) -> EnvironmentFault:
    """The fault for a base image that is not to be built on."""
    return EnvironmentFault(
        "build/base-image-unsafe",
        f"The base image is refused: {why}.",
        "Take a base image from whom you trust; nothing of this one was used.",
    )


def read_manifest(data: bytes) -> dict[str, Any]:
    """A manifest or an index.

    An index has `manifests`, each with a digest. A manifest has a `config` and `layers`, each with a
    media type, a digest and a size in bytes.

    Raises:
        EnvironmentFault: it is neither.
    """
    content = _object(data, "its manifest")
    if "manifests" in content:
        content["manifests"] = [_entry(one) for one in _list(content["manifests"], "its index")]
        return content
    if content.get("schemaVersion") == 1:
        raise unsafe("its manifest is of Docker's first schema, which no engine takes any longer")
    content["config"] = _descriptor(content.get("config"), "its configuration")
    layers = _list(content.get("layers") or [], "its list of layers")
    if len(layers) > LAYER_LIMIT:
        raise unsafe(f"it has {len(layers)} layers, more than {LAYER_LIMIT}")
    content["layers"] = [_descriptor(one, "a layer of it") for one in layers]
    return content


def read_configuration(data: bytes) -> dict[str, Any]:
    """The configuration of an image: `os`, `architecture`, `rootfs.diff_ids`, and `config` where there is one.

    Raises:
        EnvironmentFault: it is not one.
    """
    content = _object(data, "its configuration")
    rootfs = content.get("rootfs")
    diff_ids = _list((rootfs if isinstance(rootfs, dict) else {}).get("diff_ids") or [], "its list of layers")  # fmt: skip
    if not all(isinstance(one, str) and DIGEST.fullmatch(one) for one in diff_ids):
        raise unsafe("its configuration names a layer by something else than a digest")
    for name in ("os", "architecture"):
        if not isinstance(content.get(name), str):
            raise unsafe(f"its configuration does not say its {name}")
    config = content.get("config")
    if config is not None and not isinstance(config, dict):
        raise unsafe("the config of its configuration is not an object")
    for name, kind in _CONFIG_FIELDS.items():
        value = (config or {}).get(name)
        if value is not None and not _is(value, kind):
            raise unsafe(f"{name} of its configuration is not {kind}")
    return content


def of_platform(index: Mapping[str, Any], platform: str) -> str | None:
    """The digest of an index's manifest for a platform; None where it has none."""
    system, _, machine = platform.partition("/")
    for one in index["manifests"]:
        if (one["platform"].get("os"), one["platform"].get("architecture")) == (system, machine):
            return str(one["digest"])
    return None


def platforms(index: Mapping[str, Any]) -> list[str]:
    """The platforms that an index has images for."""
    its = {f"{one['platform'].get('os')}/{one['platform'].get('architecture')}" for one in index["manifests"]}  # fmt: skip
    return sorted(its - {"unknown/unknown", "None/None"})


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        content = read_json(data)
    except ValueError as exc:
        raise unsafe(f"{what} is not JSON ({type(exc).__name__})") from exc
    if not isinstance(content, dict):
        raise unsafe(f"{what} is not an object")
    return content


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise unsafe(f"{what} is not a list")
    return value


def _entry(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not _is_digest(value.get("digest")):
        raise unsafe("its index names an image by something else than a digest")
    platform = value.get("platform")
    annotations = value.get("annotations")
    return {
        **value,
        "platform": platform if isinstance(platform, dict) else {},
        "annotations": annotations if isinstance(annotations, dict) else {},
    }


def _descriptor(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise unsafe("its manifest is not an image's")
    if not _is_digest(value.get("digest")):
        raise unsafe(f"{what} has no proper digest")
    size = value.get("size")
    if type(size) is not int or size < 0:
        raise unsafe(f"{what} has the size {str(size)[:40]}, which is not a number of bytes")
    if not isinstance(value.get("mediaType"), str):
        raise unsafe(f"{what} has no media type")
    return value


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None


def _is(value: Any, kind: str) -> bool:
    if kind == _TEXT:
        return isinstance(value, str)
    if kind == _STRING_LIST:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if kind == _STRING_MAP:
        return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    return isinstance(value, dict)
