"""Images to registries: what they lack is sent or mounted, and the tag comes last."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

from digitalhub_python_builder.native import base as bases
from digitalhub_python_builder.native.base import Base
from digitalhub_python_builder.native.image import manifest_of
from digitalhub_python_builder.native.layers import Layer
from digitalhub_python_builder.native.store import Store
from digitalhub_python_builder.references import Reference
from digitalhub_python_builder.registry import OCI_INDEX, OCI_MANIFEST, Registry
from digitalhub_runtime_python.errors import EnvironmentFault

Log = Callable[[str], None]

_AT_ONCE = 4
_ASKED_FOR = 1 << 14
"""Bytes from which a blob is asked for before it is sent; a smaller one takes no longer to send."""
_REMEMBERED = 6
"""Repositories that are remembered to have a layer."""


def push(
    digest: str, base: Sequence[Base], store: Store, registry: Registry, target: Reference,
    tags: Sequence[str], log: Log, attached: Iterable[str] = (),
) -> None:  # fmt: skip
    """Push a manifest or index of the store under tags.

    Args:
        base: the bases of its images, which have the layers that the store lacks.
        attached: manifests that refer to it; they are there before a tag is.

    Raises:
        EnvironmentFault: the registry refuses or breaks off; no tag has been touched then.
    """
    try:
        _push(digest, base, store, registry, target, tags, log, attached, trusting=True)
    except EnvironmentFault as fault:
        if fault.code != "build/registry":
            raise
        # What was there may have been cleaned up since: now everything is looked at.
        _push(digest, base, store, registry, target, tags, log, attached, trusting=False)


def _push(
    digest: str, base: Sequence[Base], store: Store, registry: Registry, target: Reference,
    tags: Sequence[str], log: Log, attached: Iterable[str], *, trusting: bool,
) -> None:  # fmt: skip
    content = manifest_of(digest, store)
    where = f"{registry.name}/{target.repository}"
    known = set(store.noted("there", where) or ()) if trusting else set()
    images = [one["digest"] for one in content.get("manifests") or ()] or [digest]
    attached = list(attached)
    blobs: dict[str, dict[str, Any]] = {}
    for one in [*images, *attached]:
        manifest = manifest_of(one, store)
        for described in [manifest["config"], *manifest["layers"]]:
            blobs[described["digest"]] = described
    lacking = [described for one, described in sorted(blobs.items()) if one not in known]
    place = functools.partial(_place, base, store, registry, target, log)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # All are waited for, so that nothing is still sent when the fault is reported.
        for done in [pool.submit(place, described) for described in lacking]:
            done.result()
    if "manifests" in content or attached:
        for one in images:
            registry.put_manifest(target.repository, one, OCI_MANIFEST, store.read(one))
    for one in attached:
        registry.put_manifest(target.repository, one, OCI_MANIFEST, store.read(one))
    kind = OCI_INDEX if "manifests" in content else OCI_MANIFEST
    for tag in tags:
        registry.put_manifest(target.repository, tag, kind, store.read(digest))
    store.note("there", where, sorted({*known, *blobs}))


def _place(
    base: Sequence[Base], store: Store, registry: Registry, target: Reference, log: Log,
    described: dict[str, Any],
) -> None:  # fmt: skip
    digest, size = str(described["digest"]), int(described["size"])
    where = f"{registry.name} {digest}"
    theirs = _of_base(base, digest)
    if size > _ASKED_FOR and registry.has_blob(target.repository, digest):
        return
    repositories = list(store.noted("where", where) or ())
    if theirs is not None and (found := theirs[0].repository) and found.registry == registry.name:
        repositories.insert(0, found.repository)
    repositories = [one for one in dict.fromkeys(repositories) if one != target.repository]
    if theirs is not None and not repositories:
        bases.have(*theirs)

    def opened() -> Any:
        if theirs is not None:
            bases.have(*theirs)
        return store.open(digest)

    how = registry.put_blob(target.repository, digest, size, opened, repositories)
    if how == "sent" and size > (1 << 20):
        log(f"pushed {digest[:19]}… ({size / 2**20:.1f} MiB)")
    store.note(
        "where", where, list(dict.fromkeys([target.repository, *repositories]))[:_REMEMBERED]
    )


def _of_base(base: Sequence[Base], digest: str) -> tuple[Base, Layer] | None:
    for one in base:
        for layer in one.layers:
            if layer.digest == digest:
                return one, layer
    return None
