"""kaniko's executor: builds without a daemon or privileges, in a container of its own, and pushes.

It unpacks images over the root folder that it runs in, so it refuses to run outside of a container;
we never tell it otherwise.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from digitalhub_python_builder import commands, registry
from digitalhub_python_builder.engines import Image, Log, Request, build_fault, push_fault
from digitalhub_python_builder.references import parse
from digitalhub_runtime_python.errors import EnvironmentFault


class KanikoEngine:
    """Only builds and pushes in one; keeps nothing here and mounts no secrets."""

    name = "kaniko"
    abilities = frozenset({"reproducible"})

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._program = (
            environ.get("KANIKO_EXECUTOR")
            or shutil.which("executor", path=environ.get("PATH"))
            or shutil.which("/kaniko/executor")
            or ""
        )

    def describe(self) -> str:
        if not self._program:
            raise EnvironmentFault(
                "build/engine-absent",
                "There is no kaniko: no executor on PATH, at /kaniko/executor or in KANIKO_EXECUTOR.",
                "Run in kaniko's own image, or take another engine.",
            )
        return f"kaniko at {self._program}"

    def inspect(self, reference: str) -> Image | None:
        digest = registry.digest_of(reference, self._environ)
        return Image(reference, digest, digest) if digest else None

    def pull(self, reference: str, log: Log, *, platform: str = "") -> Image:
        # It pulls by itself; what the registry tells makes the plan's hash exact, and that of the other engines.
        config, labels = registry.config_of(reference, self._environ, platform)
        return Image(reference, config, labels=labels)

    def probe(self, reference: str) -> str:
        # It can run nothing but a build; the Dockerfile itself checks the version.
        return "unknown"

    def build(self, request: Request, log: Log) -> Image:
        with tempfile.TemporaryDirectory(dir=request.context.parent) as folder:
            digest = Path(folder, "digest")
            done = commands.run([self._program, *arguments(request, digest)], self._environ, log)
            if done.status:
                reason = " ".join(line for line in done.lines[-3:])
                if "pushing image" in reason or "push permission" in reason:
                    raise push_fault(request.reference, reason, kept=False)
                raise build_fault(reason)
            found = digest.read_text("utf-8").strip()
        return Image(request.reference, found, found)

    def tag(self, reference: str, other: str) -> None:
        """Nothing: the build has pushed it under both names."""

    def push(self, reference: str, log: Log, *, plain_http: bool = False) -> str:
        # The build has pushed it.
        digest = registry.digest_of(reference, self._environ)
        if not digest:
            raise push_fault(reference, "the registry does not have it")
        return digest

    def close(self) -> None:
        """Nothing stays open."""


def arguments(request: Request, digest: Path) -> list[str]:
    """The executor's command line."""
    plain = request.plain_http or parse(request.reference).on_loopback
    return [
        f"--context=dir://{request.context}",
        f"--dockerfile={request.context}/Dockerfile",
        f"--destination={request.reference}",
        *([f"--destination={request.also}"] if request.also else []),
        f"--digest-file={digest}",
        f"--custom-platform={request.platform}",
        "--reproducible",
        "--snapshot-mode=redo",
        *(["--insecure", "--insecure-pull"] if plain else []),
    ]
