"""A plan as an image: layers, configuration and manifest; `assemble` is read first."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from digitalhub_python_builder import dockerfile
from digitalhub_python_builder.manifests import LAYER_LIMIT
from digitalhub_python_builder.native import base as bases
from digitalhub_python_builder.native import layers, packages
from digitalhub_python_builder.native.base import Base
from digitalhub_python_builder.native.layers import Entry, Layer
from digitalhub_python_builder.native.packages import Target
from digitalhub_python_builder.native.store import Store, canonical, digest_of
from digitalhub_python_builder.plan import Plan
from digitalhub_python_builder.registry import OCI_INDEX, OCI_MANIFEST
from digitalhub_runtime_python.errors import EnvironmentFault

Log = Callable[[str], None]

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
EPOCH = "1970-01-01T00:00:00Z"
_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Built:
    """An image in the store; its base's layers may be elsewhere."""

    manifest: str
    """Digest."""
    config: str
    """Digest."""
    platform: str
    layers: tuple[Layer, ...]
    """Its own, above those of the base."""
    base: Base


def assemble(
    plan: Plan, base: Base, store: Store, *, environ: Mapping[str, str], compression: str = "gzip",
    log: Log = lambda line: None,
) -> Built:  # fmt: skip
    """Make the image of a plan on a base.

    Args:
        environ: uv's settings.
        compression: of the layers that are made: `gzip`, which everything reads, or `zstd`.

    Raises:
        EnvironmentFault: a requirement cannot be installed, or the base cannot be used.
    """
    own: list[Layer] = []
    if plan.ca_bundle:
        own.append(_layer(store, base, {f"{dockerfile.HOME.lstrip('/')}/ca-bundle.pem": Entry(plan.ca_bundle)}, "CA bundle", compression))  # fmt: skip
    if plan.requirements:
        own += _requirements(plan, base, store, environ, compression, log)
    if not plan.has_runtime:
        own.append(_runtime(plan, base, store, compression, environ))
    if plan.files:
        own.append(_layer(store, base, layers.tree(plan.files, ""), "base files", compression))
    if plan.code:
        files = layers.tree(plan.code, f"{dockerfile.HOME.lstrip('/')}/code")
        own.append(_layer(store, base, files, "code", compression))
    below = bases.compressed(base)
    if len(below) + len(own) > LAYER_LIMIT:
        raise EnvironmentFault(
            "build/failed",
            f"The image would have {len(below) + len(own)} layers; engines take {LAYER_LIMIT}.",
            "Choose a base image with fewer layers.",
        )
    config = store.add(canonical(_config(plan, base, own)))
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config, "size": store.path(config).stat().st_size},
        "layers": [layer.descriptor for layer in (*below, *own)],
        "annotations": _annotations(plan, base),
    }  # fmt: skip
    digest = store.add(canonical(manifest))
    return Built(digest, config, plan.platform, tuple(own), dataclasses.replace(base, layers=below))


def index(images: Sequence[tuple[str, str]], store: Store) -> str:
    """An index over images of several platforms, each with the digest of its manifest; its own digest."""
    manifests = []
    for platform, digest in images:
        system, _, machine = platform.partition("/")
        manifests.append({
            "mediaType": OCI_MANIFEST, "digest": digest, "size": store.path(digest).stat().st_size,
            "platform": {"os": system, "architecture": machine},
        })  # fmt: skip
    return store.add(
        canonical({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
    )


def manifest_of(digest: str, store: Store) -> dict[str, Any]:
    """A manifest or index of the store."""
    return dict(json.loads(store.read(digest)))


def _requirements(
    plan: Plan, base: Base, store: Store, environ: Mapping[str, str], compression: str, log: Log
) -> list[Layer]:
    lock = plan.requirements.encode()
    path = f"{dockerfile.HOME.lstrip('/')}/requirements.txt"
    done = [_layer(store, base, {path: Entry(lock)}, "lock", compression)]
    wanted = packages.wanted(plan.requirements, base.python)
    if not wanted:
        return done
    key = digest_of(canonical([base.config_digest, plan.requirements, plan.bytecode, compression, plan.platform]))  # fmt: skip
    known = store.noted("requirements", key)
    if known and all(store.has(one["digest"]) for one in known):
        return [*[Layer(**one) for one in known], *done]
    hidden = packages.replaced(wanted, base.python, base.tree, log)
    compiler = "" if plan.bytecode else packages.compiler_for(plan.python, environ)
    target = Target(base.python, plan.platform, compiler, base.tree.folders(), compression)
    made = packages.make(wanted, target, store, environ, log)
    if hidden:
        hiding = layers.with_parents(hidden, base.tree.folders())
        gone = layers.write(store, hiding, title="packages of the base that are replaced", compression=compression)  # fmt: skip
        made = [dataclasses.replace(gone, cause="new"), *made]
    store.note("requirements", key, [one.record for one in made])
    return [*made, *done]


def _runtime(
    plan: Plan, base: Base, store: Store, compression: str, environ: Mapping[str, str]
) -> Layer:
    """The runtime, for a base that is not one of ours."""
    files = layers.tree(plan.runtime, dockerfile.RUNTIME.lstrip("/"))
    compiler = "" if plan.bytecode else packages.compiler_for(plan.python, environ)
    with store.scratch() as place:
        files.update(packages.compiled(files, compiler, place))
        files[f"{base.python.site.lstrip('/')}/dhpy.pth"] = Entry(dockerfile.RUNTIME.encode())
        files["shared"] = Entry(None, 0o1777)
        return _layer(store, base, files, "runtime", compression)


def _layer(
    store: Store, base: Base, files: Mapping[str, Entry], title: str, compression: str
) -> Layer:
    begun = time.monotonic()
    # Folders as the base has them. All of its files are only asked for what lies elsewhere.
    inside = all(path.startswith(("opt/function/", "opt/dhpy/")) for path in files)
    known = base.folders if inside else base.tree.folders()
    made = layers.write(store, layers.with_parents(files, known), title=title, compression=compression)  # fmt: skip
    return dataclasses.replace(made, cause="new", seconds=time.monotonic() - begun)


def _config(plan: Plan, base: Base, own: Sequence[Layer]) -> dict[str, Any]:
    system, _, machine = plan.platform.partition("/")
    config = dict(base.config)
    inner = dict(config.get("config") or {})
    inner["Env"] = _variables(inner.get("Env") or (), plan)
    inner["Labels"] = {**(inner.get("Labels") or {}), **plan.image_labels}
    inner["User"] = str(dockerfile.UID)
    inner["WorkingDir"] = "/shared"
    inner["Entrypoint"] = list(dockerfile.entrypoint(plan))
    inner["Cmd"] = [] if plan.entrypoint else list(dockerfile.COMMAND)
    if not plan.has_runtime and not plan.entrypoint:
        inner["Healthcheck"] = {
            "Test": ["CMD", *dockerfile.HEALTH], "Interval": 30 * _SECOND,
            "Timeout": 10 * _SECOND, "StartPeriod": 60 * _SECOND,
        }  # fmt: skip
    inner.pop("OnBuild", None)
    history = [*(config.get("history") or ())]
    history += [{"created": EPOCH, "created_by": f"dhpy: {layer.title}"} for layer in own]
    rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in (*base.layers, *own)]}
    kept = {
        k: v for k, v in config.items() if k in ("variant", "os.version", "os.features", "author")
    }
    return {
        **kept, "created": EPOCH, "os": system, "architecture": machine,
        "config": inner, "history": history, "rootfs": rootfs,
    }  # fmt: skip


def _variables(given: Sequence[str], plan: Plan) -> list[str]:
    found = dict(one.partition("=")[::2] for one in given)
    if not plan.has_runtime:
        found.update({"HOME": "/shared", "TMPDIR": "/shared", "USER": "nonroot", "PYTHONUNBUFFERED": "1"})  # fmt: skip
    found.update(dict(sorted(plan.envs.items())))
    return [f"{name}={value}" for name, value in found.items()]


def _annotations(plan: Plan, base: Base) -> dict[str, str]:
    kept = ("org.opencontainers.image.title", "org.opencontainers.image.version")
    found = {name: plan.image_labels[name] for name in kept if name in plan.image_labels}
    found["org.opencontainers.image.created"] = EPOCH
    found["org.opencontainers.image.base.name"] = base.reference
    if base.digest:
        found["org.opencontainers.image.base.digest"] = base.digest
    return found
