"""Locks requirements, with hashes, for the Python and platform of an image; not for this machine's."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from digitalhub_python_builder import caches
from digitalhub_python_builder.environments import DISTRIBUTION, FULL_PARTS, RUNTIME_PARTS
from digitalhub_python_builder.interpreters import find_uv, uv_environment
from digitalhub_python_builder.requirement_files import Wanted
from digitalhub_python_builder.requirements import normalise, parse_requirements, redact
from digitalhub_runtime_python.errors import EnvironmentFault

Log = Callable[[str], None]

# Debian bookworm, which our base images have, can take newer wheels; who knows what others have.
_PLATFORM_TAGS = {"linux/amd64": "x86_64-manylinux_2_28", "linux/arm64": "aarch64-manylinux_2_28"}
_ENTRY = re.compile(r"\n(?=\S)")
_REFUSED = re.compile(r"401 Unauthorized|403 Forbidden")
_PIN = re.compile(r"([A-Za-z0-9._-]+)==\S+")


def lock(
    wanted: Wanted,
    python: str,
    platform: str,
    *,
    flavour: str = "full",
    preferred: str = "",
    cache: Path | None = None,
    upgrade: bool = False,
    environ: Mapping[str, str] | None = None,
    log: Log = lambda line: None,
) -> str:
    """`name==version --hash=…` lines for everything that `wanted` needs, sorted.

    The runtime's own dependencies are part of it, so that what a function wants fits them.

    Args:
        python: `"3.11"`.
        platform: `linux/amd64` or `linux/arm64`.
        flavour: `full` adds the SDK and what it needs, `slim` does not.
        preferred: another lock, whose versions are kept where they fit: the base image's.
        cache: locks are kept here; the same question gets the same answer until `upgrade`.
        environ: uv's settings (its indexes) are taken from it; default `os.environ`.

    Raises:
        EnvironmentFault: the requirements contradict each other, or have no wheel for the target.
    """
    environ = os.environ if environ is None else environ
    lines = _with_runtime(wanted.lines, flavour)
    # Another index may have other files under the same names.
    index = redact(environ.get("UV_DEFAULT_INDEX", ""))
    question = json.dumps([lines, sorted(wanted.constraints), python, platform, preferred, index])
    kept = cache / "locks" / f"{_sha256(question)}.txt" if cache is not None else None
    if kept is not None and kept.is_file() and not upgrade:
        found = kept.read_text("utf-8")
    else:
        log(f"Locking {len(lines)} requirements for Python {python} on {platform} …")
        found = _compile(
            lines, wanted.constraints, python, platform, "" if upgrade else preferred, environ
        )
        if kept is not None and cache is not None:
            caches.keep(kept, found, cache)
    return _only_allowed(found, dict(wanted.hashes))


def lock_alone(lines: Sequence[str], python: str, platform: str, *, preferred: str = "") -> str:
    """A lock of `lines` and nothing else; for tools, in images that the runtime is not in.

    Raises:
        EnvironmentFault: as `lock`.
    """
    return _compile(normalise(lines), (), python, platform, preferred, os.environ)


def own_requirements(flavour: str) -> list[str]:
    """What the runtime itself needs in an image of a flavour, as in pyproject.toml."""
    parts = {*RUNTIME_PARTS, *(FULL_PARTS if flavour == "full" else ())}
    declared = (Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or ())
    return [str(one) for one in declared if canonicalize_name(one.name) in parts]


def _with_runtime(lines: Sequence[str], flavour: str) -> list[str]:
    users = [
        one for one in parse_requirements(lines) if canonicalize_name(one.name) != DISTRIBUTION
    ]
    return list(normalise([*map(str, users), *own_requirements(flavour)]))


def _compile(
    lines: Sequence[str],
    constraints: Sequence[str],
    python: str,
    platform: str,
    preferred: str,
    environ: Mapping[str, str],
) -> str:
    with tempfile.TemporaryDirectory() as place:
        output = Path(place, "lock.txt")
        # uv keeps the versions that the output file has, where they fit.
        output.write_text(preferred, "utf-8")
        limits = Path(place, "constraints.txt")
        limits.write_text("".join(f"{line}\n" for line in constraints), "utf-8")
        # A repository must be built to know what it needs; everything else must be a wheel.
        builds = any(Requirement(line).url for line in lines)
        command = [
            find_uv(), "pip", "compile", "-", "--quiet", "--generate-hashes", "--no-header",
            "--no-annotate", "--python-version", python, "--python-platform", _PLATFORM_TAGS[platform],
            "--constraint", str(limits), "--output-file", str(output),
            *([] if builds else ["--only-binary", ":all:"]),
        ]  # fmt: skip
        done = subprocess.run(
            command,
            input="\n".join(lines),
            env=uv_environment(environ),
            # uv reads the settings of the project around it; ours are the user's own.
            cwd=os.sep,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            if refusal := _REFUSED.search(done.stderr):
                raise EnvironmentFault(
                    "environment/index",
                    f"The package index refuses ({refusal[0]}): {_reason(done.stderr)}",
                    "Check the user and password in UV_DEFAULT_INDEX or --index-url.",
                )
            raise EnvironmentFault(
                "environment/lock",
                f"The requirements cannot be had for Python {python} on {platform}: {_reason(done.stderr)}",
                "Change them or the python_version; what has no wheel cannot be installed in an image.",
            )
        return output.read_text("utf-8")


def _only_allowed(found: str, allowed: Mapping[str, frozenset[str]]) -> str:
    """The lock with only those hashes that the user's own lock file has."""
    if not allowed:
        return found
    entries = []
    for entry in _ENTRY.split(found.strip()):
        pin = _PIN.match(entry)
        hashes = re.findall(r"--hash=(\S+)", entry)
        users = allowed.get(canonicalize_name(pin[1])) if pin else None
        if pin is None or users is None:
            entries.append(entry)
            continue
        kept = [value for value in hashes if value in users]
        if not kept:
            raise EnvironmentFault(
                "environment/hash",
                f"No file of {pin[0]} on the index has a hash that your lock file allows.",
                "Lock it again, or check which index it comes from.",
            )
        entries.append(" \\\n".join([pin[0], *(f"    --hash={value}" for value in kept)]))
    return "".join(f"{entry}\n" for entry in entries)


def _reason(text: str) -> str:
    words = " ".join(redact(text).replace("×", " ").replace("╰─▶", " ").replace("│", " ").split())
    words = words.partition(" hint: ")[0].rstrip(".") + "."
    return words if len(words) <= 700 else f"{words[:500]} … {words[-190:]}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
