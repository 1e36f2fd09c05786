"""What an image is made of, as one frozen value. Pure: no engine, no network, no clock.

`make_plan` checks everything that a Dockerfile could be made to say by a value, so that rendering
cannot go wrong.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from digitalhub_python_builder.instructions import CONTROL, SECRET_ID, checked
from digitalhub_python_builder.requirements import redact
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.spec import FunctionSpec, interpreter_version

Content = Union[bytes, Path]
"""A file of the context: its bytes, or where they lie."""

LAYOUT = 2
"""Part of every plan's hash: raise it when the same plan makes another image."""
PLATFORMS = ("linux/amd64", "linux/arm64")
PIP_CONFIG_SECRET = "pip.conf"  # noqa: S105 - the name of a build secret, not one
"""The build secret that carries pip's index where its URL has a password."""

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")


@dataclass(frozen=True)
class Plan:
    """All that decides an image; two equal plans make the same one."""

    base_image: str
    python: str
    """The interpreter's version, `"3.11"`."""
    has_runtime: bool = True
    """The base image is one of ours: it has the runtime, its user and its entry point."""
    base_id: str = ""
    """Which image `base_image` is right now, where the engine can tell."""
    platform: str = PLATFORMS[0]
    labels: Mapping[str, str] = field(default_factory=dict)
    envs: Mapping[str, str] = field(default_factory=dict)
    instructions: tuple[str, ...] = ()
    requirements: str = ""
    """The lock: `name==version --hash=…` lines; empty for none."""
    index_url: str = ""
    """Where pip finds them, if not at its default; without a password."""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    wheels: Mapping[str, Content] = field(default_factory=dict, repr=False)
    """Wheels that the lock names and no index has: file name -> content."""
    index_secret: bool = False
    """pip's index comes as the build secret `pip.conf`."""
    ca_bundle: bytes = b""
    runtime: Mapping[str, Content] = field(default_factory=dict, repr=False)
    """The runtime's own files, for base images that do not have it."""
    files: Mapping[str, Content] = field(default_factory=dict, repr=False)
    """Other files of a base image: path without its first slash -> content."""
    has_init: bool = True
    """The base image with the runtime has an init process."""
    code: Mapping[str, Content] = field(default_factory=dict, repr=False)
    """Relative path -> content."""
    entrypoint: tuple[str, ...] = ()
    """What a container runs instead of the runtime."""
    bytecode: str = ""
    """`none` for an image whose packages come without bytecode, since nothing here could make it."""
    secrets: tuple[str, ...] = ()
    """Ids of the build secrets that the instructions mount."""

    @property
    def digest(self) -> str:
        """64 hex digits over everything in it."""
        steps = [[name, key] for name, key in self.steps()]
        return _sha256(json.dumps([LAYOUT, self.platform, steps]).encode())

    @property
    def tag(self) -> str:
        """The tag of its image."""
        return self.digest[:16]

    @property
    def image_labels(self) -> dict[str, str]:
        """`labels`, and a version: the hash of what stands above them, where none was given."""
        above = hashlib.sha256(json.dumps([LAYOUT, self.platform, self._above_labels()]).encode())
        return {"org.opencontainers.image.version": above.hexdigest()[:16], **self.labels}

    def steps(self) -> list[tuple[str, str]]:
        """(name, key) of each step in the order of the Dockerfile; a changed key rebuilds from there."""
        return [
            *self._above_labels(),
            ("labels", json.dumps(dict(sorted(self.labels.items())))),
            ("code", self._code_digest),
        ]

    @functools.cached_property
    def _code_digest(self) -> str:
        return tree_digest(self.code) if self.code else ""

    def _above_labels(self) -> list[tuple[str, str]]:
        pip = [self.requirements, self.index_url, self.index_secret, self.python, self.extra_index_urls, self.find_links]  # fmt: skip
        return [
            ("base image", f"{self.base_image} {self.base_id}".strip()),
            ("environment", json.dumps(dict(sorted(self.envs.items())))),
            ("CA bundle", _sha256(self.ca_bundle) if self.ca_bundle else ""),
            *((f"instruction {i + 1}", text) for i, text in enumerate(self.instructions)),
            ("requirements", _sha256(json.dumps(pip).encode()) if self.requirements else ""),
            ("runtime", tree_digest(self.runtime) if self.runtime else ""),
            *([("files", tree_digest(self.files))] if self.files else []),
            *([("bytecode", self.bytecode)] if self.bytecode else []),
            *([("entry point", json.dumps(self.entrypoint))] if self.entrypoint else []),
        ]


def make_plan(
    function: FunctionSpec,
    base_image: str,
    *,
    has_runtime: bool = True,
    base_id: str = "",
    platform: str = PLATFORMS[0],
    instructions: Sequence[str] = (),
    envs: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    requirements: str = "",
    index_url: str = "",
    ca_bundle: bytes = b"",
    secrets: Sequence[str] = (),
    code: Mapping[str, Content] | None = None,
    runtime: Mapping[str, Content] | None = None,
) -> Plan:
    """The plan of a function's image.

    Args:
        function: its name, project and python_version are used.
        requirements: the lock, as `locks.lock` makes it.
        index_url: pip's index; one with a password comes to the build as a secret.
        secrets: the ids of the build secrets at hand.

    Raises:
        UsageFault: a value could not stand in a Dockerfile, or asks for what is not there.
    """
    python = interpreter_version(function.python_version)
    if platform not in PLATFORMS:
        raise UsageFault("build/platform", f"The platform {platform!r} is not known.", f"Use one of {', '.join(PLATFORMS)}.")  # fmt: skip
    if not _IMAGE.fullmatch(base_image):
        raise UsageFault("build/base-image", f"{base_image!r} is not a reference of an image.", "Write e.g. python:3.11-slim.")  # fmt: skip
    password = redact(index_url) != index_url
    return Plan(
        base_image=base_image,
        base_id=base_id,
        python=python,
        has_runtime=has_runtime,
        platform=platform,
        labels=_labels(function, python, base_image, labels or {}),
        envs=_envs(envs or {}),
        instructions=tuple(checked(text, secrets) for text in _list(instructions)),
        requirements=requirements,
        index_url="" if password else _line("the index URL", index_url, "build/index"),
        index_secret=bool(password and requirements),
        ca_bundle=ca_bundle,
        runtime={} if has_runtime else dict(runtime or {}),
        code=dict(code or {}),
        secrets=tuple(sorted({i for t in instructions for i in SECRET_ID.findall(t)})),
    )


def tree_digest(files: Mapping[str, Content]) -> str:
    """The sha256 over the paths, modes and contents of files."""
    total = hashlib.sha256()
    for name in sorted(files):
        content = files[name]
        data = content if isinstance(content, bytes) else content.read_bytes()
        runs = not isinstance(content, bytes) and bool(content.stat().st_mode & 0o111)
        total.update(f"{_sha256(data)} {int(runs)} {name}\n".encode())
    return total.hexdigest()


def _labels(
    function: FunctionSpec, python: str, base: str, given: Mapping[str, str]
) -> dict[str, str]:
    # The base image's own title, version and base would otherwise be the function's.
    own = {
        "org.opencontainers.image.title": function.name or "function",
        "org.opencontainers.image.base.name": base,
        "io.digitalhub.project": function.project,
        "io.digitalhub.function": function.name,
        "io.digitalhub.python": python,
    }
    for name in given:
        if not _LABEL_NAME.fullmatch(name):
            raise UsageFault("build/label", f"{name!r} cannot be the name of a label.", "Use letters, digits, '.', '_', '-' and '/'.")  # fmt: skip
    both = {**{k: v for k, v in own.items() if v}, **given}
    return {name: _line(f"the label {name}", value, "build/label") for name, value in both.items()}


def _envs(given: Mapping[str, str]) -> dict[str, str]:
    for name in given:
        if not _ENV_NAME.fullmatch(name):
            raise UsageFault("build/env", f"{name!r} cannot be the name of an environment variable.", "Use letters, digits and '_'.")  # fmt: skip
    return {
        name: _line(f"the variable {name}", value, "build/env") for name, value in given.items()
    }


def _line(what: str, value: object, code: str) -> str:
    if not isinstance(value, str):
        raise UsageFault(
            code, f"{what} is {type(value).__name__}, not a string.", "Write it as text."
        )
    if CONTROL.search(value):
        raise UsageFault(code, f"{what} contains a line break, a NUL or another control character.", "Write it in one line.")  # fmt: skip
    return value


def _list(instructions: Sequence[str]) -> list[str]:
    if isinstance(instructions, (str, bytes)):
        raise UsageFault("build/instruction", "instructions are a list of strings, not one string.", 'Write e.g. ["apt-get install -y git"].')  # fmt: skip
    return list(instructions)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
