"""Where a base image is looked for: a file, what was built here, a registry, the Docker Engine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Callable

from digitalhub_python_builder.bases import FILES, is_own
from digitalhub_python_builder.manifests import unsafe
from digitalhub_python_builder.native import base as bases
from digitalhub_python_builder.native.base import Base, Found
from digitalhub_python_builder.native.local import Docker
from digitalhub_python_builder.native.store import Store
from digitalhub_python_builder.references import DOCKER_HUB, Reference, parse
from digitalhub_python_builder.registry import Registry
from digitalhub_runtime_python.errors import EnvironmentFault

Log = Callable[[str], None]


class Finder:
    """Finds base images; keeps connections open until it is closed."""

    def __init__(self, store: Store, environ: Mapping[str, str], log: Log = lambda line: None) -> None:  # fmt: skip
        self._store = store
        self._environ = environ
        self._open = contextlib.ExitStack()
        self._registries: dict[tuple[str, bool], Registry] = {}
        self._archives: dict[str, Found] = {}
        self.docker = Docker(environ)
        self.log = log

    def close(self) -> None:
        """Let connections and temporary files go."""
        self._open.close()

    def registry(self, name: str, *, plain_http: bool = False) -> Registry:
        """The registry of that name."""
        key = (name, plain_http)
        if key not in self._registries:
            made = Registry(name, self._environ, plain_http=plain_http)
            self._registries[key] = made
            self._open.callback(made.close)
        return self._registries[key]

    def scratch(self) -> Path:
        """A folder that is there until the finder is closed."""
        return self._open.enter_context(self._store.scratch())

    def base(self, reference: str, platform: str, *, plain_http: bool = False) -> Base:
        """A base image.

        Raises:
            EnvironmentFault: it is nowhere, unsafe, or not for the platform.
        """
        local = FILES.fullmatch(reference)
        if local:
            return self._described(lambda: self._file(local[1], local[2], platform), reference, platform)  # fmt: skip
        wanted = parse(reference)
        places = [self._built, self._remote, self._engine] if wanted.registry else [self._built, self._engine, self._remote]  # fmt: skip
        why: EnvironmentFault | None = None
        for place in places:
            try:
                found = place(reference, platform, plain_http)
            except EnvironmentFault as fault:
                if fault.code not in (
                    "build/registry",
                    "build/registry-login",
                    "build/engine-absent",
                ):
                    raise
                why = fault
                continue
            if found is not None:
                return found
        raise missing(reference, why)

    def _described(
        self, find: Callable[[], Found], reference: str, platform: str, repository: Reference | None = None
    ) -> Base:  # fmt: skip
        found = find()
        described = bases.describe(found, reference, self._store, find, repository=repository, log=self.log)  # fmt: skip
        its = f"{described.config.get('os')}/{described.config.get('architecture')}"
        if its != platform:
            raise EnvironmentFault(
                "build/base-image-platform",
                f"The base image {reference} is for {its}, not for {platform}.",
                "Choose another platform or another base image.",
            )
        return described

    def _file(self, kind: str, path: str, platform: str) -> Found:
        if kind == "docker-archive":
            return bases.from_archive(Path(path))
        folder, _, name = path.partition(":")
        if kind == "oci":
            return bases.from_layout(Path(folder), name, platform)
        place = self.scratch()
        bases.unpack_layout(Path(folder), place)
        return bases.from_layout(place, name, platform)

    def _remote(self, reference: str, platform: str, plain_http: bool) -> Base | None:
        wanted = parse(reference)
        if not wanted.registry and is_own(reference):
            return None  # made here, or in the registry of DHPY_IMAGES; nobody else's
        registry = self.registry(wanted.registry or DOCKER_HUB, plain_http=plain_http)
        first = bases.from_registry(registry, wanted, platform, self._store)
        if first is None:
            return None
        # Later it is the same one that is asked for, whatever its tag is by then.
        return self._described(lambda: first, reference, platform, wanted)

    def _built(self, reference: str, platform: str, plain_http: bool) -> Base | None:
        """One that this machine has built without a daemon."""
        known = self._store.noted("images", f"{reference} {platform}")
        if not known or not self._store.has(known["manifest"]):
            return None
        content = json.loads(self._store.read(known["manifest"]))
        layers = tuple(dict(one) for one in content["layers"])

        def opened(layer: Mapping[str, Any]) -> Any:
            digest = str(layer["digest"])
            if self._store.has(digest):
                return self._store.open(digest)
            below = self.base(known["base"], platform, plain_http=plain_http)
            for one in bases.compressed(below):
                if one.digest == digest:
                    bases.have(below, one)
                    return self._store.open(digest)
            raise unsafe(f"its layer {digest[:19]}… is gone, and its base is another by now")

        found = Found(self._store.read(content["config"]["digest"]), layers, opened, known["manifest"])  # fmt: skip
        return self._described(lambda: found, reference, platform)

    def _engine(self, reference: str, platform: str, plain_http: bool) -> Base | None:
        """One that the Docker Engine has: it is saved where its bytes are needed, not before."""
        said = self.docker.image(reference)
        if said is None:
            return None
        digest = str(said["Id"])
        known = self._store.noted("engine", digest)
        if not known or not self._store.has(digest):
            saved = self._saved(digest, reference)
            self._store.add(saved.config)
            known = [dict(layer) for layer in saved.layers]
            self._store.note("engine", digest, known)

        @contextlib.contextmanager
        def opened(layer: Mapping[str, Any]) -> Iterator[IO[bytes]]:
            with self._saved(digest, reference).open(layer) as stream:
                yield stream

        found = Found(self._store.read(digest), tuple(known), opened)
        return self._described(lambda: found, reference, platform)

    def _saved(self, digest: str, reference: str) -> Found:
        kept = self._archives
        if digest not in kept:
            self.log(f"Reading {reference} out of the Docker Engine …")
            file = self.scratch() / "image.tar"
            with file.open("wb") as saved:
                self.docker.save(digest, saved)
            kept[digest] = bases.from_archive(file)
        return kept[digest]


def missing(reference: str, why: EnvironmentFault | None) -> EnvironmentFault:
    """The fault for a base image that is nowhere; the project's own can be made."""
    said = f": {why.message}" if why else "."
    hint = "Check its name and your login to its registry."
    if is_own(reference):
        hint = "Make it with `dhpy images build`, or set DHPY_IMAGES to a registry that has it."
    elif why is not None and why.code == "build/registry":
        hint = why.hint  # its name is not to blame
    return EnvironmentFault(
        "build/base-image-missing",
        f"The image {reference} is neither on this machine nor can it be pulled{said}",
        hint,
    )
