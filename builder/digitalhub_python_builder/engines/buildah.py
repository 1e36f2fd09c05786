"""buildah: no daemon, and the same digest for the same plan."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from digitalhub_python_builder import commands
from digitalhub_python_builder.engines import (
    PROBE,
    Image,
    Log,
    Request,
    base_fault,
    build_fault,
    push_fault,
)
from digitalhub_python_builder.references import parse
from digitalhub_runtime_python.errors import EnvironmentFault


class BuildahEngine:
    """Builds with secrets; every time in an image is 0, so that equal plans are equal images."""

    name = "buildah"
    abilities = frozenset({"local", "secrets", "reproducible"})

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._program = shutil.which("buildah", path=environ.get("PATH")) or ""

    def describe(self) -> str:
        if not self._program:
            raise EnvironmentFault(
                "build/engine-absent", "There is no buildah on PATH.", "Install it, or take another engine."
            )  # fmt: skip
        done = commands.run([self._program, "--version"], self._environ)
        version = re.search(r"\d+(\.\d+)+", done.text)
        return f"{self._program} {version[0] if version else ''}".strip()

    def inspect(self, reference: str) -> Image | None:
        done = self._buildah("inspect", "--type=image", reference)
        if done.status:
            return None
        found = json.loads(done.text)
        config = (found.get("Docker") or {}).get("config") or {}
        return Image(
            reference, f"sha256:{found['FromImageID']}", found.get("FromImageDigest", ""), config.get("Labels") or {}
        )  # fmt: skip

    def pull(self, reference: str, log: Log, *, platform: str = "") -> Image:
        found = self.inspect(reference)
        if found is None:
            log(f"Pulling {reference} …")
            done = self._buildah("pull", "--quiet", *_tls(reference), reference)
            found = self.inspect(reference)
            if found is None:
                raise base_fault(reference, done.text)
        return found

    def probe(self, reference: str) -> str:
        container = self._buildah("from", "--pull-never", reference)
        if container.status:
            return ""
        name = container.lines[-1]
        try:
            done = self._buildah("run", name, "--", *PROBE)
        finally:
            self._buildah("rm", name)
        words = done.text.split()
        return words[1] if not done.status and words[:1] == ["dhpy-python"] else ""

    def build(self, request: Request, log: Log) -> Image:
        # Docker's format: the other one has no health check.
        command = ["bud", "--layers", "--timestamp=0", "--format=docker", f"--tag={request.reference}"]  # fmt: skip
        command += [f"--platform={request.platform}", *_tls(request.reference)]
        if request.network:
            command.append(f"--network={request.network}")
        for name, path in sorted(request.secrets.items()):
            command.append(f"--secret=id={name},src={path}")
        done = self._buildah(*command, str(request.context), log=log)
        built = None if done.status else self.inspect(request.reference)
        if built is None:
            raise build_fault(" ".join(done.lines[-3:]))
        return built

    def tag(self, reference: str, other: str) -> None:
        """Give an image another name as well."""
        self._buildah("tag", reference, other)

    def push(self, reference: str, log: Log, *, plain_http: bool = False) -> str:
        with tempfile.TemporaryDirectory() as folder:
            digest = Path(folder, "digest")
            options = ["--tls-verify=false"] if plain_http else _tls(reference)
            done = self._buildah("push", *options, f"--digestfile={digest}", reference, log=log)
            if done.status or not digest.exists():
                raise push_fault(reference, " ".join(done.lines[-2:]))
            return digest.read_text("utf-8").strip()

    def close(self) -> None:
        """Nothing stays open."""

    def _buildah(self, *arguments: str, log: Log | None = None) -> commands.Finished:
        return commands.run([self._program, *arguments], self._environ, log)


def _tls(reference: str) -> list[str]:
    return ["--tls-verify=false"] if parse(reference).on_loopback else []
