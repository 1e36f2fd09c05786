"""Locks requirements, with hashes, for the Python and platform of an image; not for this machine's."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable
from urllib.parse import unquote, urlsplit

from packaging.pylock import Pylock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from digitalhub_python_builder import caches, logins, pylock, toml, wheels
from digitalhub_python_builder.environments import DISTRIBUTION, FULL_PARTS, RUNTIME_PARTS
from digitalhub_python_builder.incompatible import known_conflicts
from digitalhub_python_builder.interpreters import find_uv, nearest_interpreter, uv_environment
from digitalhub_python_builder.requirements import (
    VARIABLE,
    Wanted,
    check_python,
    expand,
    normalise,
    parse_requirements,
    redact,
)
from digitalhub_runtime_python.errors import EnvironmentFault

Log = Callable[[str], None]

# Debian bookworm, which our base images have, can take newer wheels; who knows what others have.
_PLATFORM_TAGS = {"linux/amd64": "x86_64-manylinux_2_28", "linux/arm64": "aarch64-manylinux_2_28"}
_ENTRY = re.compile(r"\n(?=\S)")
_REFUSED = re.compile(r"401 Unauthorized|403 Forbidden")
_NO_WHEEL = re.compile(
    r"no usable wheels|building source distributions is disabled|has no wheels", re.I
)
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")
_LAYOUT = 2
"""Part of the name of a kept lock: raise it when the same question gets another answer."""


def lock(
    wanted: Wanted,
    python: str,
    platform: str,
    *,
    flavour: str = "full",
    preferred: str = "",
    cache: Path | None = None,
    upgrade: bool = False,
    allow_sdist: bool = False,
    environ: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    log: Log = lambda line: None,
) -> str:
    """`name==version --hash=…` lines for everything that `wanted` needs, sorted.

    The runtime's own dependencies are part of it, so that what a function wants fits them. A repository, a
    folder and a source distribution become a wheel of one's own; `wheels.needed` finds those of a lock.

    Args:
        python: `"3.11"`.
        platform: `linux/amd64` or `linux/arm64`.
        flavour: `full` adds the SDK and what it needs, `slim` does not.
        preferred: another lock, whose versions are kept where they fit: the base image's.
        cache: locks and wheels are kept here; the same question gets the same answer until `upgrade`.
        allow_sdist: build here what has no wheel.
        environ: uv's settings (its indexes) are taken from it; default `os.environ`.
        variables: what `${VAR}` in a URL stands for; default `environ`.

    Raises:
        EnvironmentFault: the requirements contradict each other, or have no wheel for the target.
    """
    environ = os.environ if environ is None else environ
    variables = environ if variables is None else variables
    check_python(wanted, python)
    lines = _with_runtime(wanted.lines, flavour)
    # Another index may have other files under the same names.
    index = redact(environ.get("UV_DEFAULT_INDEX", ""))
    question = json.dumps(
        [_LAYOUT, lines, sorted(wanted.constraints), wanted.options, python, platform, preferred, index,
         allow_sdist, [wheels.stamp(line) for line in lines], _digest_of_variables(wanted, variables)]
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        if cache is None:
            cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dhpy-lock-")))
        kept = cache / "locks" / f"{_sha256(question)}.txt"
        found = None if upgrade else _kept(kept, cache)
        if found is None:
            log(f"Locking {len(lines)} requirements for Python {python} on {platform} …")
            target = Target(
                python, platform, "" if upgrade else preferred, flavour, allow_sdist, cache
            )
            found = _resolve(wanted, lines, target, environ, variables, log)
            caches.keep(kept, found, cache)
            # A lock is worth nothing without the wheels that only this machine has.
            own = [path.parent.name for path in wheels.needed(found, cache).values()]
            if own:
                caches.keep(kept.with_suffix(".wheels"), json.dumps(own), cache)
        for line in known_conflicts(found):
            log(line)
        return _only_allowed(found, wanted.allowed, cache)


@dataclass(frozen=True)
class Target:
    """What a lock is for, and how it is made."""

    python: str
    platform: str
    preferred: str
    flavour: str
    allow_sdist: bool
    cache: Path


def _kept(file: Path, cache: Path) -> str | None:
    """A lock that was kept, with all its wheels."""
    try:
        found = file.read_text("utf-8")
        own = json.loads(file.with_suffix(".wheels").read_text("utf-8")) if file.with_suffix(".wheels").is_file() else []  # fmt: skip
    except (OSError, ValueError):
        return None
    return found if all(any((cache / "wheels" / one).glob("*.whl")) for one in own) else None


def _digest_of_variables(wanted: Wanted, variables: Mapping[str, str]) -> str:
    """A login decides what may be seen, so it is part of the question; only its hash is."""
    text = " ".join([*wanted.lines, *(value for _, value in wanted.options)])
    used = sorted(set(VARIABLE.findall(text)))
    return _sha256(json.dumps([[name, variables.get(name, "")] for name in used])) if used else ""


def _resolve(
    wanted: Wanted,
    lines: Sequence[str],
    target: Target,
    environ: Mapping[str, str],
    variables: Mapping[str, str],
    log: Log,
) -> str:
    """The lock, its repositories, folders and source distributions as wheels of one's own."""
    settings = logins.settings_of(wanted, uv_environment(environ), variables)
    clean, known = logins.taken_out(lines, variables)
    clean = [expand(line, variables) for line in clean]
    with logins.environment(known, settings) as ready:
        arguments = _arguments(wanted)
        try:
            text = _compile(clean, wanted.constraints, target, arguments, ready)
        except _NoWheel as fault:
            if not target.allow_sdist:
                raise
            log(f"{fault.message} Looking for source distributions …")
            text = _compile(clean, wanted.constraints, target, arguments, ready, sdists=True)
            text = _sdists_built(text, target, ready, log)
        except EnvironmentFault as fault:
            raise _blamed(fault, wanted, clean, target, arguments, ready) from fault
        text = _direct_built(text, [one.host for one in known], target, ready, log)
        folders = [value for name, value in wanted.options if name == "--find-links" and value.startswith("file:")]  # fmt: skip
        wheels.from_folders(
            text, [Path(unquote(urlsplit(one).path)) for one in folders], target.cache
        )
        return text


def _arguments(wanted: Wanted) -> list[str]:
    names = {name for name, _ in wanted.options}
    found = ["--no-index"] if "--no-index" in names else []
    found += ["--prerelease", "allow"] if "--pre" in names else []
    # pip takes the best version of all indexes, and that is what the file was written for.
    return [
        *found,
        *(["--index-strategy", "unsafe-best-match"] if "--extra-index-url" in names else []),
    ]


def _direct_built(
    text: str, hosts: Sequence[str], target: Target, environ: Mapping[str, str], log: Log
) -> str:
    """What has no wheel at a public URL becomes one of ours."""
    entries = []
    for entry in _ENTRY.split(text.strip()) if text.strip() else []:
        where = re.match(r"\S+ @ (\S+)", entry)
        path = urlsplit(where[1]).path if where else ""
        if where is None or (
            path.endswith(".whl")
            and where[1].startswith("http")
            and urlsplit(where[1]).netloc not in hosts
        ):
            entries.append(entry)
        elif path.endswith(".whl") and where[1].startswith("file:"):
            entries.append(wheels.kept(Path(unquote(path)), target.cache)[0])
        else:
            line = entry.partition("\\")[0].strip()
            entries.append(
                wheels.made(line, target.python, target.platform, environ, target.cache, log)[0]
            )
    return "".join(f"{entry}\n" for entry in entries)


def _sdists_built(text: str, target: Target, environ: Mapping[str, str], log: Log) -> str:
    """What has no wheel that fits is built; all others stay as they are."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "pylock.toml")
        pylock.write(text, file, target.python, environ)
        packages = {one.name: one for one in Pylock.from_dict(toml.load(file)).packages}
    entries = []
    for entry in _ENTRY.split(text.strip()):
        pin = _PIN.match(entry)
        package = packages.get(canonicalize_name(pin[1])) if pin else None
        names = [one.filename for one in package.wheels or ()] if package else []
        if package is None or any(wheels.fits(name, target.python, target.platform) for name in names):  # fmt: skip
            entries.append(entry)
        else:
            entries.append(wheels.made(entry, target.python, target.platform, environ, target.cache, log)[0])  # fmt: skip
    return "".join(f"{entry}\n" for entry in entries)


def lock_alone(lines: Sequence[str], python: str, platform: str, *, preferred: str = "") -> str:
    """A lock of `lines` and nothing else; for tools, in images that the runtime is not in.

    Raises:
        EnvironmentFault: as `lock`.
    """
    target = Target(python, platform, preferred, "slim", False, Path())
    return _compile(normalise(lines), (), target, [], uv_environment(os.environ))


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


class _NoWheel(EnvironmentFault):
    """There is only a source distribution."""


def _compile(
    lines: Sequence[str],
    constraints: Sequence[str],
    target: Target,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    sdists: bool = False,
) -> str:
    """uv's answer.

    Args:
        environ: uv's own environment.

    Raises:
        _NoWheel: something that is needed has a source distribution only.
        EnvironmentFault: the requirements contradict each other, or an index refuses.
    """
    with tempfile.TemporaryDirectory() as place:
        output = Path(place, "lock.txt")
        # uv keeps the versions that the output file has, where they fit.
        output.write_text(target.preferred, "utf-8")
        limits = Path(place, "constraints.txt")
        limits.touch(mode=0o600)
        limits.write_text("".join(f"{line}\n" for line in constraints), "utf-8")
        command = [
            find_uv(), "pip", "compile", "-", "--quiet", "--generate-hashes", "--no-header", "--no-annotate",
            "--python-version", target.python, "--python-platform", _PLATFORM_TAGS[target.platform],
            "--python", str(nearest_interpreter(target.python, environ)),
            "--constraint", str(limits), "--output-file", str(output), "--no-python-downloads", *arguments,
        ]  # fmt: skip
        if not sdists:
            # What the user names by its place may be built to see what it needs; nothing else may.
            command += ["--only-binary", ":all:"]
            for one in parse_requirements(lines):
                if one.url and not urlsplit(one.url).path.endswith(".whl"):
                    command += ["--no-binary", canonicalize_name(one.name)]
        done = subprocess.run(
            command,
            input="\n".join(lines),
            env=dict(environ),
            # uv reads the settings of the project around it; ours are the user's own.
            cwd=os.sep,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise _compile_fault(done.stderr, target)
        return output.read_text("utf-8")


def _compile_fault(said: str, target: Target) -> EnvironmentFault:
    if refusal := _REFUSED.search(said):
        return EnvironmentFault(
            "environment/index",
            f"The package index refuses ({refusal[0]}): {_reason(said)}",
            "Check the user and password in UV_DEFAULT_INDEX or --index-url.",
        )
    what = f"The requirements do not resolve for Python {target.python} on {target.platform}: {_reason(said)}"
    if _NO_WHEEL.search(" ".join(said.replace("│", " ").split())):
        return _NoWheel(
            "environment/lock",
            what,
            "What has no wheel cannot be installed in an image: choose another version or python_version, "
            "or build it here: dhpy build --allow-sdist.",
        )
    return EnvironmentFault("environment/lock", what, "Change them or the python_version.")


def _blamed(
    fault: EnvironmentFault,
    wanted: Wanted,
    lines: Sequence[str],
    target: Target,
    arguments: Sequence[str],
    environ: Mapping[str, str],
) -> EnvironmentFault:
    """The same fault with who asked: two lines of the user's, or one of them and the image."""
    if fault.code != "environment/lock":
        return fault
    own = {
        canonicalize_name(Requirement(one).name): one for one in own_requirements(target.flavour)
    }
    users = [line for line in lines if line not in normalise(own_requirements(target.flavour))]

    def resolves(some: Sequence[str]) -> bool:
        with contextlib.suppress(EnvironmentFault):
            _compile(some, wanted.constraints, target, arguments, environ)
            return True
        return False

    if not resolves(users):
        asked = [f"{redact(line)} ({where})" for line, where in wanted.origins if re.split(r"[^A-Za-z0-9._-]", line)[0] in fault.message]  # fmt: skip
        said = f" Asked for: {'; '.join(dict.fromkeys(asked))}." if asked else ""
        return EnvironmentFault(fault.code, f"{fault.message}{said}", fault.hint or "")
    blamed = [
        text for name, text in own.items() if re.search(rf"\b{re.escape(name)}\b", fault.message)
    ]
    hint = "Change the function's requirement."
    slim = [*users, *own_requirements("slim")]
    if target.flavour == "full" and resolves(slim):
        hint = "Take the slim flavour, which does not have these (--flavour slim), or change the function's requirement."
    return EnvironmentFault(
        fault.code,
        f"The {target.flavour} image needs {', '.join(blamed) or 'other versions'}: {fault.message}",
        hint,
    )


def _only_allowed(found: str, allowed: Mapping[str, frozenset[str]], cache: Path) -> str:
    """The lock with only those hashes that the user's own lock file has."""
    if not allowed:
        return found
    entries = []
    for entry in _ENTRY.split(found.strip()):
        pin = _PIN.match(entry)
        hashes = re.findall(r"--hash=(\S+)", entry)
        users = allowed.get(canonicalize_name(pin[1])) if pin else None
        if pin is None or users is None or wheels.needed(entry, cache):
            entries.append(entry)
            continue
        kept = [value for value in hashes if value in users]
        if not kept:
            raise EnvironmentFault(
                "environment/hash",
                f"No file of {pin[0]} on the index has a hash that your lock file allows.",
                "Lock it again, or check which index it comes from.",
            )
        entries.append(" \\\n".join([pin[0].strip(), *(f"    --hash={value}" for value in kept)]))
    return "".join(f"{entry}\n" for entry in entries)


def _reason(text: str) -> str:
    words = " ".join(redact(text).replace("×", " ").replace("╰─▶", " ").replace("│", " ").split())
    words = words.partition(" hint: ")[0].removeprefix("error: ").replace(" cause: ", " ").rstrip(".") + "."  # fmt: skip
    # uv takes whoever starts it for the one who asks.
    words = words.replace("Because you require", "Because the function requires").replace("you require", "the function requires")  # fmt: skip
    words = words.replace("your requirements are", "the requirements are")
    return words if len(words) <= 700 else f"{words[:500]} … {words[-190:]}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
