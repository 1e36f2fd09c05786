"""Base images: from a registry, an OCI layout, an archive of `docker save`, or a Docker Engine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Callable

from digitalhub_python_builder.manifests import (  # fmt: skip
    DIGEST,
    LAYER_LIMIT,
    of_platform,
    platforms,
    read_configuration,
    read_manifest,
    unsafe,
)
from digitalhub_python_builder.native import python as pythons
from digitalhub_python_builder.native.layers import GZIP, Entry, Layer, compress
from digitalhub_python_builder.native.python import Python
from digitalhub_python_builder.native.store import Store, digest_of
from digitalhub_python_builder.native.tree import Tree, merge, read_layer
from digitalhub_python_builder.references import Reference
from digitalhub_python_builder.registry import Registry
from digitalhub_runtime_python.errors import EnvironmentFault
from digitalhub_runtime_python.nesting import read_json

Log = Callable[[str], None]
Open = Callable[[Mapping[str, Any]], "contextlib.AbstractContextManager[IO[bytes]]"]

_CONFIG_LIMIT = 8 << 20
_LAYER_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": GZIP,
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
}
_TAR = "application/vnd.oci.image.layer.v1.tar"
_OFTEN = ("opt", "opt/function", "opt/function/code", "opt/dhpy", "shared")
_INDEXED = 1
"""Part of what is noted of a base: raise it when more is read."""


@dataclass(frozen=True)
class Found:
    """An image where it lies: its configuration, its layers, and a way to their bytes."""

    config: bytes
    layers: tuple[Mapping[str, Any], ...]
    """Descriptors, as its manifest has them; without a digest where nobody has compressed them yet."""
    open: Open
    digest: str = ""
    """Its manifest's, where it has one."""


@dataclass(frozen=True)
class Base:
    """A base image, and what is known of it."""

    reference: str
    config: Mapping[str, Any]
    config_digest: str
    digest: str
    """Its manifest's; empty for one that no registry gave."""
    layers: tuple[Layer, ...]
    """With an empty digest where nobody has compressed them yet."""
    python: Python
    folders: Mapping[str, Entry]
    """Those of its folders that every function's files are put below."""
    find: Callable[[], Found] = field(repr=False, compare=False)
    """Looks it up again, for the bytes of its layers."""
    store: Store = field(repr=False, compare=False)
    repository: Reference | None = None
    """The registry that has the layers."""

    @property
    def labels(self) -> dict[str, str]:
        return dict((self.config.get("config") or {}).get("Labels") or {})

    @functools.cached_property
    def tree(self) -> Tree:
        """Its files."""
        return _tree(self.find, self.layers, self.store)


def from_registry(
    registry: Registry, wanted: Reference, platform: str, store: Store
) -> Found | None:
    """An image of a registry; None where it is not there."""
    asked = wanted.digest or wanted.tag or "latest"
    manifest = _manifest(registry, wanted.repository, asked, store)
    if manifest is None:
        return None
    digest, content = manifest
    if "manifests" in content:
        asked = _of_platform(content, platform, str(wanted))
        manifest = _manifest(registry, wanted.repository, asked, store)
        if manifest is None:
            raise unsafe(f"its index names the manifest {asked[:19]}…, which its registry does not have")  # fmt: skip
        digest, content = manifest
    described = _config_of(content)
    config = store.read(described) if store.has(described) else registry.small_blob(wanted.repository, described, _CONFIG_LIMIT)  # fmt: skip
    store.add(config)
    return Found(
        config, _layers(content),
        lambda layer: registry.blob(wanted.repository, str(layer["digest"])), digest,
    )  # fmt: skip


def from_layout(folder: Path, name: str, platform: str) -> Found:
    """An image of an OCI layout.

    Raises:
        EnvironmentFault: there is none of that name, or it is not what its digests say.
    """

    def blob(digest: str, limit: int = _CONFIG_LIMIT) -> bytes:
        path = _blob_path(folder, digest)
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as exc:
            raise _missing(f"oci:{folder}", f"it lacks {digest[:19]}…") from exc
        if digest_of(data) != digest:
            raise unsafe(f"the blob {digest[:19]}… of {folder} has another digest, or is too large")
        return data

    try:
        with (folder / "index.json").open("rb") as file:
            index = read_manifest(file.read(_CONFIG_LIMIT))
    except OSError as exc:
        raise _missing(f"oci:{folder}", "it has no index.json") from exc
    entries = index.get("manifests") or []
    named = [e for e in entries if not name or e["annotations"].get("org.opencontainers.image.ref.name") == name]  # fmt: skip
    named = [e for e in named if not e.get("artifactType")] or named
    if not named:
        raise _missing(f"oci:{folder}:{name}", "its index does not have that name")
    digest = named[0]["digest"]
    content = read_manifest(blob(digest))
    if "manifests" in content:
        digest = _of_platform(content, platform, f"oci:{folder}")
        content = read_manifest(blob(digest))
    opened: Open = lambda layer: _blob_path(folder, str(layer["digest"])).open("rb")  # noqa: E731
    return Found(blob(_config_of(content)), _layers(content), opened, digest)


def unpack_layout(file: Path, folder: Path) -> None:
    """Take a tar of an OCI layout apart: its blobs and its index, nothing else.

    Raises:
        EnvironmentFault: it is no such tar.
    """
    (folder / "blobs" / "sha256").mkdir(parents=True)
    try:
        with tarfile.open(file, "r:*") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]
                name = member.name[2:] if member.name.startswith("./") else member.name
                if not member.isreg() or not re.fullmatch(r"index\.json|blobs/sha256/[0-9a-f]{64}", name):  # fmt: skip
                    continue
                source = tar.extractfile(member)
                if source is not None:
                    with source, (folder / name).open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
    except (OSError, tarfile.TarError) as exc:
        raise _missing(
            str(file), f"it is not an archive of a layout ({type(exc).__name__})"
        ) from exc


def from_archive(file: Path) -> Found:
    """An image of a tar that `docker save` wrote.

    Raises:
        EnvironmentFault: it is no such tar.
    """
    try:
        with tarfile.open(file) as tar:
            manifest = read_json(_member(tar, "manifest.json"))[0]
            config = _member(tar, str(manifest["Config"]))
            names = [str(name) for name in manifest["Layers"]]
            sizes = [tar.getmember(name).size for name in names]
    except (OSError, tarfile.TarError, ValueError, KeyError, IndexError, TypeError) as exc:
        raise _missing(
            str(file), f"it is not an archive of docker save ({type(exc).__name__})"
        ) from exc

    @contextlib.contextmanager
    def opened(layer: Mapping[str, Any]) -> Iterator[IO[bytes]]:
        with tarfile.open(file) as tar:
            member = tar.extractfile(str(layer["name"]))
            if member is None:
                raise unsafe(f"{file} names the layer {layer['name']}, which is not a file")
            with member:
                yield member

    layers = [{"name": n, "size": s, "mediaType": _TAR} for n, s in zip(names, sizes)]
    return Found(config, tuple(layers), opened)


def describe(
    found: Found, reference: str, store: Store, find: Callable[[], Found], *,
    repository: Reference | None = None, log: Log = lambda line: None,
) -> Base:  # fmt: skip
    """What a base image is: read from its files the first time, from the notes after that.

    Raises:
        EnvironmentFault: it is unsafe, or not what its digests say.
    """
    config = read_configuration(found.config)
    diff_ids = list((config.get("rootfs") or {}).get("diff_ids") or ())
    if len(diff_ids) != len(found.layers) or len(diff_ids) > LAYER_LIMIT:
        raise unsafe(f"it has {len(found.layers)} layers and {len(diff_ids)} digests of layers")
    layers = tuple(
        Layer(str(layer.get("digest", "")), int(layer["size"]), str(diff_id), str(layer["mediaType"]))
        for layer, diff_id in zip(found.layers, diff_ids)
    )  # fmt: skip
    digest = digest_of(found.config)
    known = store.noted("bases", f"{_INDEXED} {digest}")
    if known is None:
        log(f"Reading the files of {reference} …")
        tree = _tree(lambda: found, layers, store)
        folders = tree.folders()
        known = {
            "python": dataclasses.asdict(pythons.locate(tree, config)),
            "folders": {path: dataclasses.astuple(folders[path]) for path in _OFTEN if path in folders},
        }  # fmt: skip
        store.note("bases", f"{_INDEXED} {digest}", known)
    python = {
        **known["python"], "paths": tuple(known["python"]["paths"]),
        "found": {name: tuple(pair) for name, pair in known["python"]["found"].items()},
    }  # fmt: skip
    folders = {path: Entry(*fields) for path, fields in known["folders"].items()}
    return Base(
        reference, config, digest, found.digest, layers, Python(**python), folders, find, store, repository
    )  # fmt: skip


def _tree(find: Callable[[], Found], layers: Sequence[Layer], store: Store) -> Tree:
    """The files of an image; each layer is read once on this machine."""
    indexes, found = [], None
    for number, layer in enumerate(layers):
        key = f"{_INDEXED} {layer.diff_id}"
        index = store.noted("layers", key)
        if index is None:
            found = found or find()
            with found.open(found.layers[number]) as stream:
                index = read_layer(stream, layer.size, layer.media_type, layer.diff_id)
            store.note("layers", key, index)
        indexes.append(index)
    return merge(indexes)


def compressed(base: Base) -> tuple[Layer, ...]:
    """The layers of a base, each with a digest: what an engine had bare is compressed once."""
    done, found = [], None
    for number, layer in enumerate(base.layers):
        if layer.digest:
            done.append(layer)
            continue
        known = base.store.noted("compressed", layer.diff_id)
        if known is None:
            found = found or base.find()
            with found.open(found.layers[number]) as stream:
                made = compress(base.store, stream)
            if made.diff_id != layer.diff_id:
                raise unsafe("a layer of the base image has another digest than it says")
            known = made.record
            base.store.note("compressed", layer.diff_id, known)
        done.append(Layer(**known))
    return tuple(done)


def have(base: Base, layer: Layer) -> None:
    """Have the bytes of a layer of the base in the store, checked.

    Raises:
        EnvironmentFault: they cannot be read, or are others.
    """
    if base.store.has(layer.digest):
        return
    found = base.find()
    number = [one.diff_id for one in base.layers].index(layer.diff_id)
    if not found.layers[number].get("digest"):
        with found.open(found.layers[number]) as stream:
            made = compress(base.store, stream)
        digest = made.digest
    else:
        with found.open(found.layers[number]) as stream, base.store.writer(layer.digest) as blob:
            while data := stream.read(1 << 20):
                blob.write(data)
                if blob.size > layer.size:
                    break
        digest = blob.digest
    if digest != layer.digest:
        raise unsafe(f"the blob {layer.digest[:19]}… of it has the digest {digest[:19]}…")


def _manifest(
    registry: Registry, repository: str, reference: str, store: Store
) -> tuple[str, dict[str, Any]] | None:  # fmt: skip
    """A manifest, from here where its digest is the same as in the registry."""
    digest = reference if reference.startswith("sha256:") else registry.digest(repository, reference)  # fmt: skip
    if not digest:
        return None
    if store.has(digest):
        return digest, read_manifest(store.read(digest))
    found = registry.manifest(repository, digest)
    if found is None:
        return None
    content = read_manifest(found[2])
    store.add(found[2])
    return digest, content


def _of_platform(index: Mapping[str, Any], platform: str, where: str) -> str:
    digest = of_platform(index, platform)
    if digest is None:
        raise EnvironmentFault(
            "build/base-image-platform",
            f"The base image {where} has nothing for {platform}; it has {', '.join(platforms(index)) or 'nothing'}.",
            "Choose another platform or another base image.",
        )
    return digest


def _config_of(content: Mapping[str, Any]) -> str:
    if "config" not in content:
        raise unsafe("its index names another index where an image is due")
    return str(content["config"]["digest"])


def _layers(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    found = []
    for layer in content["layers"]:
        kind = _LAYER_TYPES.get(layer["mediaType"], layer["mediaType"])
        if not re.fullmatch(r"application/vnd\.oci\.image\.layer\.v1\.tar(\+gzip|\+zstd)?", kind):
            raise unsafe(f"a layer of it is {kind[:80]!r}, which cannot be passed on")
        found.append({**layer, "mediaType": kind})
    return tuple(found)


def _blob_path(folder: Path, digest: str) -> Path:
    if not DIGEST.fullmatch(digest):
        raise unsafe(f"{digest[:80]!r} is not a digest")
    return folder / "blobs" / "sha256" / digest[7:]


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.getmember(name)
    file = tar.extractfile(member)
    if file is None or member.size > _CONFIG_LIMIT:
        raise unsafe(f"{name} of the archive is not a file, or too large")
    return file.read()


def _missing(reference: str, why: str) -> EnvironmentFault:
    return EnvironmentFault(
        "build/base-image-missing",
        f"The base image {reference} cannot be read: {why}.",
        "Name an OCI layout (oci:FOLDER[:NAME]), an archive of docker save (docker-archive:FILE), or an image of a registry.",
    )
