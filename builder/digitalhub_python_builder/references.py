"""Names of images: taken apart, put together, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from digitalhub_runtime_python.errors import UsageFault

DOCKER_HUB = "docker.io"
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")  # fmt: skip
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LOOPBACK = re.compile(r"(localhost|127(?:\.\d+){3}|\[::1\])(?::\d+)?")


@dataclass(frozen=True)
class Reference:
    """`registry/repository:tag@digest`, each part on its own."""

    repository: str
    registry: str = ""
    """`host[:port]`; empty for images that no registry was named for."""
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository

    @property
    def on_loopback(self) -> bool:
        """Its registry is on this machine: every engine speaks plain HTTP to it."""
        return bool(_LOOPBACK.fullmatch(self.registry))

    def with_tag(self, tag: str) -> Reference:
        return replace(self, tag=tag, digest="")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"


def parse(text: str) -> Reference:
    """Take the name of an image apart.

    Raises:
        UsageFault: it is not one.
    """
    rest, _, digest = text.partition("@")
    first, slash, after = rest.partition("/")
    is_registry = bool(slash) and ("." in first or ":" in first or first == "localhost")
    registry, rest = (first, after) if is_registry else ("", rest)
    repository, _, tag = rest.partition(":")
    valid = _REPOSITORY.fullmatch(repository) and (not tag or _TAG.fullmatch(tag))
    if not valid or rest.endswith(":") or (digest and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest)):  # fmt: skip
        raise UsageFault(
            "build/reference",
            f"{text!r} is not a name of an image.",
            "Write it as registry:5000/name:tag, in lower case but for the tag.",
        )
    return Reference(repository, registry, tag, digest)


def default_name(project: str, function: str) -> str:
    """The repository of a function's images where none is given: `dhpy/project-function`."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{project}-{function}".lower()).strip("-")
    return f"dhpy/{words or 'function'}"
