"""Images out of the store: as an OCI layout, a tar, or in the Docker Engine or containerd of this machine."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO, Any

from digitalhub_python_builder.native import base as bases
from digitalhub_python_builder.native.base import Base
from digitalhub_python_builder.native.image import manifest_of
from digitalhub_python_builder.native.store import Store, canonical
from digitalhub_python_builder.references import parse
from digitalhub_python_builder.registry import OCI_INDEX, OCI_MANIFEST

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_NAME = "org.opencontainers.image.ref.name"


def write_layout(
    folder: Path, digest: str, base: Sequence[Base], store: Store, name: str, attached: Sequence[str] = ()
) -> None:  # fmt: skip
    """Write an image to an OCI layout, beside what is there already; its index comes last."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for one in needed([digest, *attached], store):
        _have(base, one, store)
        target = blobs / one[7:]
        if not target.exists():
            part = target.with_name(f".{target.name}.part")
            shutil.copyfile(store.path(one), part)
            part.replace(target)
    (folder / "oci-layout").write_bytes(_LAYOUT)
    index = folder / "index.json"
    before = json.loads(index.read_text("utf-8"))["manifests"] if index.exists() else []
    kept = [e for e in before if e["digest"] != digest and (e.get("annotations") or {}).get(_NAME) != (parse(name).tag or "latest")]  # fmt: skip
    entries = [*kept, *_entries(digest, store, name, attached, {e["digest"] for e in kept})]
    part = folder / ".index.json.part"
    part.write_bytes(canonical({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}))
    part.replace(index)


def write_tar(
    file: IO[bytes], digest: str, base: Sequence[Base], store: Store, name: str,
    *, lacking: Collection[str] = (), attached: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write an image as a tar that is an OCI layout, and what `docker load` takes.

    Args:
        lacking: digests of layers to leave out: an engine that has them never opens them.
    """
    content = manifest_of(digest, store)
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        _file(tar, "oci-layout", _LAYOUT)
        entries = _entries(digest, store, name, attached, set())
        _file(tar, "index.json", canonical({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}))  # fmt: skip
        if "manifests" not in content:
            docker = [{"Config": _path(content["config"]["digest"]), "RepoTags": [name], "Layers": [_path(one["digest"]) for one in content["layers"]]}]  # fmt: skip
            _file(tar, "manifest.json", canonical(docker))
        for one in needed([digest, *attached], store):
            if one in lacking:
                continue
            _have(base, one, store)
            member = tarfile.TarInfo(_path(one))
            member.size, member.mode = store.path(one).stat().st_size, 0o644
            with store.open(one) as blob:
                tar.addfile(member, blob)


def needed(digests: Sequence[str], store: Store) -> list[str]:
    """The digests of manifests and of all that they name."""
    found: dict[str, None] = {}
    for digest in digests:
        content = manifest_of(digest, store)
        for image in content.get("manifests") or ():
            found.update(dict.fromkeys(needed([image["digest"]], store)))
        if "config" in content:
            found.update(dict.fromkeys([content["config"]["digest"], *(one["digest"] for one in content["layers"])]))  # fmt: skip
        found[digest] = None
    return list(found)


def _have(base: Sequence[Base], digest: str, store: Store) -> None:
    for one in base:
        for layer in one.layers:
            if layer.digest == digest:
                bases.have(one, layer)
                return


def _entries(
    digest: str, store: Store, name: str, attached: Sequence[str], there: set[str]
) -> list[dict[str, Any]]:
    kind = OCI_INDEX if "manifests" in manifest_of(digest, store) else OCI_MANIFEST
    # containerd imports it under the first, skopeo knows it by the second.
    names = {"io.containerd.image.name": _full(name), _NAME: parse(name).tag or "latest"}
    entries: list[dict[str, Any]] = [{"mediaType": kind, "digest": digest, "size": store.path(digest).stat().st_size, "annotations": names}]  # fmt: skip
    for one in attached:
        if one not in there:
            content = manifest_of(one, store)
            entries.append({"mediaType": OCI_MANIFEST, "digest": one, "size": store.path(one).stat().st_size, "artifactType": content["artifactType"]})  # fmt: skip
    return entries


def _full(name: str) -> str:
    wanted = parse(name)
    if wanted.registry:
        return str(wanted)
    return f"docker.io/{name if '/' in wanted.repository else f'library/{name}'}"


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"


def _file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))
