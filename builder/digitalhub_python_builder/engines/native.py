"""Without a daemon: images are put together here, and pushed, loaded or written from here.

What runs instructions is another engine, for those alone: its image is the base of the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from digitalhub_python_builder import commands, dockerfile
from digitalhub_python_builder import engines as seam
from digitalhub_python_builder.bases import FILES
from digitalhub_python_builder.caches import cache_of
from digitalhub_python_builder.engines import Image, Log, Request
from digitalhub_python_builder.native import base as bases
from digitalhub_python_builder.native import image, output, push, python
from digitalhub_python_builder.native.base import Base
from digitalhub_python_builder.native.find import Finder
from digitalhub_python_builder.native.local import Containerd
from digitalhub_python_builder.native.store import Store
from digitalhub_python_builder.plan import Plan
from digitalhub_python_builder.references import parse
from digitalhub_runtime_python.errors import EnvironmentFault


class NativeEngine:
    """Needs nothing but a base image and uv; the same digest for the same plan."""

    name = "native"
    abilities = frozenset({"local", "secrets", "reproducible"})

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._opened: tuple[Store, Finder] | None = None
        self._bases: dict[tuple[str, str], Base] = {}
        self.built: dict[str, image.Built] = {}

    def describe(self) -> str:
        from digitalhub_python_builder.interpreters import find_uv

        return f"no daemon, by {find_uv()}"

    def inspect(self, reference: str) -> Image | None:
        known = self.store.noted("images", reference)
        if not known or not all(self.store.has(one) for one in known["own"]):
            return None
        if self._local() == "docker" and not known["pushed"]:
            there = self.finder.docker.image(reference)
            if there is None or there["Id"] != known["config"]:
                return None
        return Image(reference, known["config"], known["manifest"] if known["pushed"] else "")

    def pull(self, reference: str, log: Log, *, platform: str = "") -> Image:
        platform = platform or "linux/amd64"
        base = self.base(reference, platform, log)
        if FILES.fullmatch(reference):
            # Named by what it is: where it lies is not a part of a plan.
            reference = f"oci@{base.config_digest}"
            base = dataclasses.replace(base, reference=reference)
            self._bases[reference, platform] = base
        return Image(reference, base.config_digest, base.digest, base.labels)

    def probe(self, reference: str) -> str:
        found = [base for (name, _), base in self._bases.items() if name == reference]
        return found[-1].python.version if found else ""

    def base(self, reference: str, platform: str, log: Log) -> Base:
        """A base image, found once."""
        key = (reference, platform)
        if key not in self._bases:
            self.finder.log = log
            self._bases[key] = self.finder.base(reference, platform)
        return self._bases[key]

    def build(self, request: Request, log: Log) -> Image:
        plan = request.plan
        if plan is None:
            raise TypeError("the native engine builds from a plan")
        base = self.base(plan.base_image, plan.platform, log)
        if plan.instructions:
            base = self._run_instructions(plan, request, log)
            python.check(base.python, plan.base_image, plan.python)
        built = image.assemble(plan, base, self.store, environ=request.settings or self._environ, compression=request.compression, log=log)  # fmt: skip
        self.built[request.reference] = built
        if request.output:
            self._write(
                request.also or request.reference, built.manifest, [built.base], request.output
            )
        elif not (request.push or request.is_part):
            self._deliver(request.reference, built, log)
        self._note(request.reference, built, pushed=request.push)
        return Image(request.reference, built.config, labels=plan.image_labels)

    def _deliver(self, reference: str, built: image.Built, log: Log) -> None:
        """Give the image to what runs containers here, if anything does."""
        place = self._local()
        if not place:
            log("No Docker Engine and no containerd on this machine: the image is in the cache; --push or --output gets it out.")  # fmt: skip
            return
        with tempfile.NamedTemporaryFile(dir=self.store.temporary, suffix=".tar") as file:
            lacking = self._there(built, reference) if place == "docker" else ()
            output.write_tar(
                file, built.manifest, [built.base], self.store, reference, lacking=lacking
            )
            file.flush()
            if place == "docker":
                size = file.tell()
                file.seek(0)
                self.finder.docker.load(file, size)
            else:
                Containerd(self._environ).load(Path(file.name))
        log(f"Loaded into {'the Docker Engine' if place == 'docker' else 'containerd'}.")

    def _write(self, reference: str, digest: str, base: Sequence[Base], target: str) -> None:
        kind, _, path = target.partition(":")
        if kind == "oci":
            output.write_layout(Path(path), digest, base, self.store, reference)
            return
        place = Path(path)
        part = place.with_name(f".{place.name}.part")
        with part.open("wb") as file:
            output.write_tar(file, digest, base, self.store, reference)
        part.replace(place)

    def tag(self, reference: str, other: str) -> None:
        """Give an image another name as well."""
        known = self.store.noted("images", reference)
        if known:
            self.store.note("images", other, known)
        if reference in self.built:
            self.built[other] = self.built[reference]
        if self._local() == "docker" and self.finder.docker.image(reference):
            wanted = parse(other)
            self.finder.docker.tag(reference, wanted.name, wanted.tag or "latest")

    def join(
        self, parts: Mapping[str, str], names: Sequence[str], log: Log, *, push: bool, output: str, plain_http: bool
    ) -> tuple[Image, bool]:  # fmt: skip
        """An index over images that were built here, pushed or written; whether its registry had it already.

        Args:
            parts: platform -> name of its image.
            names: of the index; a file is written under the last.

        Raises:
            EnvironmentFault: the registry refuses or cannot be reached.
        """
        made = {platform: self._made(reference, log) for platform, reference in parts.items()}
        digest = image.index([(platform, manifest) for platform, (manifest, _) in made.items()], self.store)  # fmt: skip
        bases_ = [base for _, its in made.values() for base in its]
        own = [self.store.noted("images", reference)["own"] for reference in parts.values()]
        for name in names:
            self.store.note("images", name, {
                "reference": name, "platform": ",".join(parts), "manifest": digest, "config": "", "base": bases_[0].reference, "pushed": push,
                "parts": dict(parts), "own": sorted({digest, *(one for many in own for one in many)}),
            })  # fmt: skip
        if output:
            self._write(names[-1], digest, bases_, output)
        existed = push
        for name in names if push else ():
            target = parse(name)
            registry = self.finder.registry(target.registry or "docker.io", plain_http=plain_http)
            if registry.digest(target.repository, target.tag) != digest:
                existed = False
                self.push(name, log, plain_http=plain_http)
        return Image(names[0], "", digest if push else ""), existed and not output

    def push(self, reference: str, log: Log, *, plain_http: bool = False) -> str:
        manifest, base = self._made(reference, log)
        target = parse(reference)
        registry = self.finder.registry(target.registry or "docker.io", plain_http=plain_http)
        try:
            push.push(manifest, base, self.store, registry, target, [target.tag or "latest"], log)
        except EnvironmentFault as fault:
            if fault.code != "build/registry":
                raise
            raise seam.push_fault(reference, fault.message) from fault
        return manifest

    def _made(self, reference: str, log: Log) -> tuple[str, list[Base]]:
        """(digest of its manifest or index, bases) of an image that was built here, now or earlier."""
        if reference in self.built:
            return self.built[reference].manifest, [self.built[reference].base]
        known = self.store.noted("images", reference)
        if not known or not all(self.store.has(one) for one in known["own"]):
            raise EnvironmentFault(
                "build/image-missing",
                f"{reference} was not built on this machine without a daemon.",
                "`dhpy images list` names those that were; `dhpy build` and `dhpy images build` make them.",
            )
        if parts := known.get("parts"):
            return known["manifest"], [base for part in parts.values() for base in self._made(part, log)[1]]  # fmt: skip
        base = self.base(known["base"], known["platform"], log)
        return known["manifest"], [dataclasses.replace(base, layers=bases.compressed(base))]

    def close(self) -> None:
        if self._opened:
            self._opened[1].close()

    @property
    def store(self) -> Store:
        return self._open()[0]

    @property
    def finder(self) -> Finder:
        return self._open()[1]

    def _open(self) -> tuple[Store, Finder]:
        if self._opened is None:
            store = Store(cache_of(self._environ))
            self._opened = (store, Finder(store, self._environ))
        return self._opened

    def _note(self, reference: str, built: image.Built, *, pushed: bool) -> None:
        known = {
            "reference": reference, "platform": built.platform, "manifest": built.manifest, "config": built.config, "base": built.base.reference, "pushed": pushed,
            "own": [built.manifest, built.config, *(layer.digest for layer in built.layers)],
        }  # fmt: skip
        self.store.note("images", reference, known)
        self.store.note("images", f"{reference} {built.platform}", known)

    def _local(self) -> str:
        if self.finder.docker.answers():
            return "docker"
        return "containerd" if Containerd(self._environ).answers() else ""

    def _there(self, built: image.Built, reference: str) -> set[str]:
        """Layers that the Docker Engine has, below each other: it never opens them again."""
        config = image.manifest_of(built.config, self.store)
        mine = config["rootfs"]["diff_ids"]
        digests = [one["digest"] for one in image.manifest_of(built.manifest, self.store)["layers"]]
        last = self.store.noted("loaded", parse(reference).name)
        most = 0
        for name in (built.base.reference, last or ""):
            said = self.finder.docker.image(name) if name and ":/" not in name else None
            theirs = ((said or {}).get("RootFS") or {}).get("Layers") or []
            same = 0
            while same < min(len(mine), len(theirs)) and mine[same] == theirs[same]:
                same += 1
            most = max(most, same)
        self.store.note("loaded", parse(reference).name, reference)
        kept = set(digests[most:])
        return {one for one in digests[:most] if one not in kept}

    def _run_instructions(self, plan: Plan, request: Request, log: Log) -> Base:
        """The base image with the instructions run on it, by an engine that can; built once."""
        needs = {"secrets"} if plan.secrets else set()
        engine = seam.choose(self._environ.get("DHPY_RUN_ENGINE", ""), needs, self._environ, log, without=[self.name])  # fmt: skip
        with contextlib.closing(engine):
            key = json.dumps([plan.base_image, plan.base_id, plan.platform, dict(plan.envs), list(plan.instructions), hashlib.sha256(plan.ca_bundle).hexdigest()])  # fmt: skip
            tag = hashlib.sha256(key.encode()).hexdigest()[:16]
            local = "local" in engine.abilities
            name = f"dhpy/prepared:{tag}" if local else str(parse(request.reference).with_tag(f"run-{tag}"))  # fmt: skip
            if engine.inspect(name) is None:
                with tempfile.TemporaryDirectory(prefix="dhpy-run-") as place:
                    context = Path(place, "context")
                    context.mkdir()
                    (context / "Dockerfile").write_text(
                        dockerfile.render_instructions(plan), "utf-8"
                    )
                    if plan.ca_bundle:
                        (context / "ca-bundle.pem").write_bytes(plan.ca_bundle)
                    engine.build(dataclasses.replace(request, context=context, reference=name, also="", plan=None), log)  # fmt: skip
            else:
                log(f"The instructions have been run before: {name}.")
            return self._prepared(engine, name, plan, log)

    def _prepared(self, engine: seam.BuildEngine, name: str, plan: Plan, log: Log) -> Base:
        if engine.name == "buildah":
            folder = self.finder.scratch()
            done = commands.run(["buildah", "push", "--quiet", name, f"oci:{folder}:{parse(name).tag}"], self._environ)  # fmt: skip
            if done.status:
                raise seam.build_fault(" ".join(done.lines[-2:]))
            name = f"oci:{folder}:{parse(name).tag}"
        found = self.finder.base(name, plan.platform)
        if not found.python.version:
            raise EnvironmentFault(
                "build/base-image-python",
                f"The base image {plan.base_image} has no python3, nor have the instructions brought one.",
                "Choose a base image with Python, or install it in an instruction.",
            )
        return dataclasses.replace(found, reference=plan.base_image)
