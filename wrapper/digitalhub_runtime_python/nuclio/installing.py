"""Installs requirements where DigitalHub Core asks for it, and tells the platform when that fails.

`python -m digitalhub_runtime_python.nuclio.installing install …` is Core's pip at the start of a pod
(images/nuclio/core.sh). `uv` answers for `/opt/nuclio/uv/uv`, which Core's builds and layers call: what
they ask of uv is done by pip, which every image of Python has; uv itself would be 60 MB in each.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from digitalhub_runtime_python.nuclio import installed

UV_OPTIONS: dict[str, tuple[str, ...]] = {
    "--system": ("--break-system-packages", "--root-user-action=ignore", "--no-cache-dir"),
    "--no-cache": ("--no-cache-dir",),
    "-n": ("--no-cache-dir",),
    "--compile-bytecode": ("--compile",),
    "--no-progress": ("--progress-bar=off",),
    "--no-build": ("--only-binary=:all:",),
    "--offline": ("--no-index",),
    "--strict": (), "--no-config": (), "--no-python-downloads": (), "--native-tls": (),
    "--allow-existing": (), "--reinstall": ("--force-reinstall",),
}  # fmt: skip
"""uv's flags -> pip's."""
UV_VALUES: dict[str, str] = {
    "--default-index": "--index-url", "--index": "--extra-index-url", "--link-mode": "",
    "--index-strategy": "", "--color": "", "--requirements": "--requirement",
    "--constraints": "--constraint", "--allow-insecure-host": "--trusted-host",
    "--python": "", "-p": "",
}  # fmt: skip
"""uv's options with a value -> pip's; empty: left out."""
_PATIENCE = {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "10"}
"""Where nobody sets them: an index that is not there is reported within seconds."""
_USAGE = """This is the DigitalHub runtime's own uv, which calls pip. It answers:
  uv pip install [OPTIONS] -r FILE | REQUIREMENT …
  uv pip list | freeze | show | check | uninstall …
  uv venv FOLDER [--system-site-packages]
  uv --version
"""


def main(argv: list[str]) -> int:
    """`install …` as pip takes it; the exit status, 15 where requirements cannot be installed."""
    return _install(sys.executable, argv[1:])


def uv(argv: list[str], layer: str = "") -> int:
    """A call of uv; the exit status.

    Args:
        layer: a folder of packages that goes onto the path of the Python that is installed into,
            behind its own; it need not exist.
    """
    words = [word for word in argv if word not in ("-q", "--quiet", "-v", "--verbose")]
    if words[:1] in (["--version"], ["-V"]):
        sys.stdout.write("uv 0.0.0 (the DigitalHub runtime's own, which calls pip)\n")
        return 0
    if words[:1] == ["venv"]:
        return _venv(words[1:], layer)
    if words[:1] == ["pip"] and words[1:2]:
        python = _python(words)
        if words[1] == "install":
            _add_layer(python, layer)
            return _install(python, list(_for_pip(words[2:])))
        if words[1] in ("list", "freeze", "show", "check", "uninstall"):
            more = ["--yes"] if words[1] == "uninstall" else []
            rest = [word for word in words[2:] if word != "--system"]
            return subprocess.run([python, "-m", "pip", words[1], *more, *rest], check=False).returncode  # fmt: skip
    asked_for = words[:1] in (["--help"], ["-h"], ["help"])
    (sys.stdout if asked_for else sys.stderr).write(_USAGE)
    return 0 if asked_for else 2


def _for_pip(words: list[str]) -> Iterator[str]:
    """pip's words for uv's."""
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in UV_OPTIONS:
            yield from UV_OPTIONS[name]
        elif name in UV_VALUES:
            value = value if equals else next(rest, "")
            if UV_VALUES[name]:
                yield from (UV_VALUES[name], value)
        elif name == "--prerelease":
            if (value if equals else next(rest, "")) == "allow":
                yield "--pre"
        else:
            yield word


def _python(words: list[str]) -> str:
    """The Python that a call of uv is about."""
    for place, word in enumerate(words):
        if word in ("--python", "-p"):
            return words[place + 1] if place + 1 < len(words) else sys.executable
        if word.startswith("--python="):
            return word.partition("=")[2]
    venv = os.environ.get("VIRTUAL_ENV", "")
    own = Path(venv, "bin", "python")
    return str(own) if venv and "--system" not in words and own.exists() else sys.executable


def _venv(words: list[str], layer: str) -> int:
    folder = next((word for word in words if not word.startswith("-")), ".venv")
    options = ["--system-site-packages", "--without-pip"] if "--system-site-packages" in words else []  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "venv", *options, folder], check=False)
    if done.returncode == 0:
        _add_layer(str(Path(folder, "bin", "python")), layer)
    return done.returncode


def _add_layer(python: str, layer: str) -> None:
    """Put the layer's packages on a Python's path; pip then knows that they are there."""
    if not layer or not Path(layer).is_dir():
        return
    ask = "import sys, sysconfig; print(sysconfig.get_path('purelib'), *sys.path, sep='\\n')"
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    site, *path = done.stdout.splitlines()
    if layer not in path:
        Path(site, "dhpy-layer.pth").write_text(f"{layer}\n", "utf-8")


def _install(python: str, arguments: list[str]) -> int:
    quick = [word for word in arguments if word not in UV_OPTIONS["--system"]]
    if python == sys.executable and installed.main(quick) == 0:
        return 0
    unmet = installed.unmet(installed.wanted(arguments), sys.path)
    if unmet:
        sys.stdout.write(f"Not installed, pip is asked for: {'; '.join(unmet)}\n")
        sys.stdout.flush()
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    environ = {**_PATIENCE, **os.environ}
    said: list[str] = []
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:  # fmt: skip
        for line in pip.stdout or ():
            sys.stdout.write(line)
            sys.stdout.flush()
            said.append(line.rstrip())
            del said[:-400]
    return _tell(unmet, said) if pip.returncode else 0


def reason(said: list[str]) -> str:
    """Why pip failed, from what it printed."""
    errors = [line.partition("ERROR:")[2].strip() for line in said if line.startswith("ERROR:")]
    lines = list(dict.fromkeys(error for error in errors if error))
    away = [line for line in said if re.search(r"Retrying|NewConnectionError|name resolution|Read timed out", line)]  # fmt: skip
    if away:
        lines.append("the package index cannot be reached")
    return "; ".join(lines[-4:]) or next(
        (line for line in reversed(said) if line), "it gave no reason"
    )


def _tell(unmet: list[str], said: list[str]) -> int:
    """Report that the requirements cannot be installed; the exit status."""
    from digitalhub_runtime_python.errors import EnvironmentFault
    from digitalhub_runtime_python.nuclio.telling import tell

    missing = f" It is missing {'; '.join(unmet)}." if unmet else ""
    fault = EnvironmentFault(
        "environment/pip",
        f"pip cannot install the function's requirements: {reason(said)}.{missing}",
        "Change the requirements, reach an index (PIP_INDEX_URL), or build an image that has them.",
    )
    return tell(fault, os.environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
