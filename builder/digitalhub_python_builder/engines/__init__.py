"""Builds images: one module per engine, chosen by name.

The seam: a table of names and the Protocol below. An engine knows Dockerfiles and registries, not
functions and plans.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Protocol, cast

from digitalhub_python_builder.plan import Plan
from digitalhub_runtime_python.errors import EnvironmentFault, UsageFault

Log = Callable[[str], None]

ENGINES = {
    "native": "digitalhub_python_builder.engines.native:NativeEngine",
    "docker": "digitalhub_python_builder.engines.docker:DockerEngine",
    "buildkit": "digitalhub_python_builder.engines.buildkit:BuildKitEngine",
    "buildah": "digitalhub_python_builder.engines.buildah:BuildahEngine",
    "kaniko": "digitalhub_python_builder.engines.kaniko:KanikoEngine",
}
"""Name -> `module:attribute` of a class that takes the environment; the order is that of choice."""

ABILITIES = {
    "secrets": "mount build secrets",
    "reproducible": "give the same digest for the same plan",
    "local": "keep images on this machine",
}

_PROBE = "import sys; print('dhpy-python %d.%d' % sys.version_info[:2])"
PROBE = ("python3", "-c", _PROBE)


@dataclass(frozen=True)
class Image:
    """An image that exists."""

    reference: str
    id: str
    """What the engine or the registry knows it by: `sha256:…`."""
    digest: str = ""
    """The registry's digest, once it has been pushed."""
    labels: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    """Bytes; 0 where the engine cannot tell."""


@dataclass(frozen=True)
class Request:
    """One build."""

    context: Path
    """A folder with a `Dockerfile` and all that it copies."""
    reference: str
    also: str = ""
    """Another name for it, for engines that push as they build; the others have `tag`."""
    platform: str = "linux/amd64"
    network: str = ""
    """The network of RUN instructions; empty for the engine's default."""
    secrets: Mapping[str, Path] = field(default_factory=dict)
    """Id -> file with the value; never part of the image."""
    plain_http: bool = False
    """The registry speaks HTTP."""
    plan: Plan | None = None
    """What the Dockerfile was rendered from, for an engine that needs none."""
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """uv's settings, with the index and certificates of this build."""
    compression: str = "gzip"
    push: bool = False
    """It is pushed afterwards, and need not be on this machine."""
    output: str = ""
    """Where to write it, for an engine that can."""
    is_part: bool = False
    """Of an image for several platforms: it goes nowhere by itself."""


class BuildEngine(Protocol):
    """What makes and pushes images."""

    name: str
    abilities: frozenset[str]
    """Out of `ABILITIES`."""

    def describe(self) -> str:
        """What it is and where, for people.

        Raises:
            EnvironmentFault: it is not on this machine; the message says what was looked for.
        """
        ...

    def inspect(self, reference: str) -> Image | None:
        """The image of that name, where this engine looks for one; None when there is none."""
        ...

    def pull(self, reference: str, log: Log, *, platform: str = "") -> Image:
        """Have a base image, from here or its registry.

        Args:
            platform: for which one, where the engine keeps images of several.

        Raises:
            EnvironmentFault: it is neither here nor can it be pulled.
        """
        ...

    def probe(self, reference: str) -> str:
        """The version of `python3` in an image that is there; empty for none."""
        ...

    def build(self, request: Request, log: Log) -> Image:
        """Build it; an engine without the ability `local` pushes it as well.

        Raises:
            EnvironmentFault: it failed; the message is the engine's reason.
        """
        ...

    def tag(self, reference: str, other: str) -> None:
        """Give an image another name as well."""
        ...

    def push(self, reference: str, log: Log, *, plain_http: bool = False) -> str:
        """Push it; its digest.

        Raises:
            EnvironmentFault: the registry refuses or cannot be reached.
        """
        ...

    def close(self) -> None:
        """Let its connections go."""
        ...


def load(name: str, environ: Mapping[str, str]) -> BuildEngine:
    """The engine of that name.

    Raises:
        UsageFault: it does not exist; the message lists those that do.
    """
    if name not in ENGINES:
        raise UsageFault(
            "build/engine",
            f"There is no build engine {name!r}.",
            f"Use one of {', '.join(ENGINES)}.",
        )
    module, _, attribute = ENGINES[name].partition(":")
    return cast("BuildEngine", getattr(importlib.import_module(module), attribute)(environ))


def choose(
    name: str, needs: Collection[str], environ: Mapping[str, str], log: Log, *, without: Collection[str] = ()
) -> BuildEngine:  # fmt: skip
    """The named engine, or the first one on this machine that can do what is needed.

    Args:
        name: empty to look for one.
        needs: out of `ABILITIES`.
        without: engines that are not looked for.

    Raises:
        EnvironmentFault: none was found; the message says which were looked for and why each is out.
    """
    looked = []
    for one in [name] if name else [one for one in ENGINES if one not in without]:
        engine = load(one, environ)
        missing = sorted(set(needs) - engine.abilities)
        if missing:
            able = [other for other in ENGINES if set(needs) <= load(other, environ).abilities]
            what = f"{one} cannot {ABILITIES[missing[0]]}"
            if name:
                raise EnvironmentFault(
                    "build/ability", f"{what}.", f"These can: {', '.join(able) or 'none'}."
                )
            looked.append(what)
            continue
        try:
            found = engine.describe()
        except EnvironmentFault as fault:
            engine.close()
            if name:
                raise
            looked.append(f"{one}: {fault.message.rstrip('.')}")
            continue
        out = f" ({'; '.join(looked)})" if looked else ""
        log(f"Building with {one}: {found}{out}")
        return engine
    raise EnvironmentFault(
        "build/no-engine",
        f"No build engine was found. {'; '.join(looked)}.",
        "Install Docker or buildah, or set DOCKER_HOST; an image without instructions needs none of them.",
    )


def base_fault(reference: str, why: str) -> EnvironmentFault:
    """The fault for an image that is not available, a base or a function's own."""
    return EnvironmentFault(
        "build/base-image-missing",
        f"The image {reference} is not on this machine and cannot be pulled: {_short(why)}",
        "Check its name and your login to its registry; `dhpy images build` makes the project's own.",
    )


def build_fault(reason: str) -> EnvironmentFault:
    """The fault for a build that failed."""
    return EnvironmentFault(
        "build/failed",
        f"The image could not be built: {_short(reason)}",
        "The build's output above says more; correct the instruction or requirement.",
    )


def push_fault(reference: str, reason: str, *, kept: bool = True) -> EnvironmentFault:
    """The fault for a push that failed, by what the registry said.

    Args:
        kept: the image is on this machine, so that only the push is left to do.
    """
    text = reason.lower()
    if any(word in text for word in ("unauthorized", "denied", "authentication required", "no basic auth", "forbidden")):  # fmt: skip
        return EnvironmentFault(
            "build/registry-login",
            f"The registry of {reference} refuses the push: {_short(reason)}",
            "Log in (docker login, buildah login), or choose a name that you may write to.",
        )
    return EnvironmentFault(
        "build/registry",
        f"{reference} cannot be pushed: {_short(reason)}",
        f"{'The image is built; run' if kept else 'Run'} the same command again when the registry answers.",
    )


def _short(reason: str) -> str:
    words = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", reason).split()).rstrip(".") + "."
    return words if len(words) <= 600 else f"{words[:200]} … {words[-390:]}"
