"""BuildKit, through a `docker` client that has it.

Not through buildctl: a buildkitd of its own keeps no images that could be looked at or run, and builds without a
Docker Engine are what buildah and kaniko are for.
"""

from __future__ import annotations

import json
import os
import re
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

_STEP_FAILED = re.compile(r"#(\d+) ERROR")
_STEP_OUTPUT = re.compile(r"#(\d+) \d+\.\d+ (.*)")
_DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64})")


class BuildKitEngine:
    """Builds with secrets and in parallel; the images are the Docker Engine's."""

    name = "buildkit"
    abilities = frozenset({"local", "secrets"})

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {**environ, "DOCKER_BUILDKIT": "1"}
        self._found = ""

    def describe(self) -> str:
        clients = _clients(self._environ.get("PATH", ""))
        if not clients:
            raise _absent("there is no docker client on PATH")
        why = ""
        for client in clients:
            version = commands.run(
                [client, "version", "--format", "{{.Client.Version}} {{.Server.Version}}"],
                self._environ,
            )
            words = version.text.split()
            if version.status or len(words) < 2:
                why = f"{client} reaches no Docker Engine"
            # From 23 on, clients build with BuildKit through their plug-in buildx only.
            elif int(words[0].partition(".")[0] or 0) >= 23 and commands.run([client, "buildx", "version"], self._environ).status:  # fmt: skip
                why = f"{client} {words[0]} lacks its plug-in buildx"
            else:
                self._found = client
                return f"BuildKit of Docker Engine {words[1]} by {client} {words[0]}"
        raise _absent(why)

    def inspect(self, reference: str) -> Image | None:
        done = self._docker("image", "inspect", reference)
        if done.status:
            return None
        found = json.loads(done.text)[0]
        name = parse(reference).name
        digests = [d.partition("@")[2] for d in found.get("RepoDigests") or () if d.startswith(f"{name}@")]  # fmt: skip
        labels = (found.get("Config") or {}).get("Labels") or {}
        return Image(reference, found["Id"], digests[0] if digests else "", labels, found["Size"])

    def pull(self, reference: str, log: Log, *, platform: str = "") -> Image:
        found = self.inspect(reference)
        if found is None:
            log(f"Pulling {reference} …")
            done = self._docker("pull", "--quiet", reference)
            found = self.inspect(reference)
            if found is None:
                raise base_fault(reference, done.text)
        return found

    def probe(self, reference: str) -> str:
        program, *arguments = PROBE
        done = self._docker("run", "--rm", "--network=none", f"--entrypoint={program}", reference, *arguments)  # fmt: skip
        words = done.text.split()
        return words[1] if not done.status and words[:1] == ["dhpy-python"] else ""

    def build(self, request: Request, log: Log) -> Image:
        command = ["build", "--progress=plain", f"--tag={request.reference}", f"--platform={request.platform}"]  # fmt: skip
        if request.network:
            command.append(f"--network={request.network}")
        for name, path in sorted(request.secrets.items()):
            command.append(f"--secret=id={name},src={path}")
        done = self._docker(*command, str(request.context), log=log)
        built = None if done.status else self.inspect(request.reference)
        if built is None:
            raise build_fault(_reason(done.lines))
        return built

    def tag(self, reference: str, other: str) -> None:
        """Give an image another name as well."""
        self._docker("tag", reference, other)

    def push(self, reference: str, log: Log, *, plain_http: bool = False) -> str:
        done = self._docker("push", reference, log=log)
        digest = _DIGEST.search(done.text)
        if done.status or digest is None:
            raise push_fault(reference, " ".join(done.lines[-2:]))
        return digest[1]

    def close(self) -> None:
        """Nothing stays open."""

    def _docker(self, *arguments: str, log: Log | None = None) -> commands.Finished:
        if not self._found:
            self.describe()
        return commands.run([self._found, *arguments], self._environ, log)


def _clients(path: str) -> list[str]:
    found = [Path(folder, "docker") for folder in path.split(os.pathsep) if folder]
    return list(dict.fromkeys(str(one) for one in found if os.access(one, os.X_OK)))


def _absent(why: str) -> EnvironmentFault:
    return EnvironmentFault(
        "build/engine-absent",
        f"BuildKit cannot be used: {why}.",
        "Install Docker's client with buildx, or take another engine; buildctl is not used.",
    )


def _reason(lines: tuple[str, ...]) -> str:
    """What failed, out of BuildKit's plain progress: the step's last words, and its status."""
    step = next((m[1] for line in reversed(lines) if (m := _STEP_FAILED.match(line))), "")
    words = [m[2] for line in lines if (m := _STEP_OUTPUT.match(line)) and m[1] == step]
    if not words:
        return " ".join(lines[-3:])
    status = re.search(r"exit code: (\d+)", "\n".join(lines))
    return f"exit status {status[1] if status else 'unknown'}: {' '.join(words[-4:])}"
