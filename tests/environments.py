"""Makes one virtual environment per Python that this machine has, below .venvs/; standard library only.

    python3 tests/environments.py          make what is missing or out of date; print what there is
    python3 tests/environments.py main     print the python of the main environment

The main environment has every tool and runs every test; 3.9 has the last SDK for Python 3.9, and runs
them too; the others run the runtime's own tests.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venvs"
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
REQUIRED = ("3.9", "3.10", "3.11")  # what the images must have; CI may not go without
MAIN = ("3.11", "3.12", "3.13", "3.10", "3.9")  # in order of preference


def uv() -> str:
    """uv from PATH, or one of our own made with pip."""
    found = shutil.which("uv")
    own = HOME / "uv" / "bin" / "uv"
    if found is None and not own.exists():
        print("uv is not on PATH: installing it into .venvs/uv", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(HOME / "uv")], check=True)
        pip = [str(HOME / "uv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"]
        subprocess.run(pip, check=True)
    return found or str(own)


def interpreters() -> dict[str, str]:
    """Version -> path of each interpreter on PATH or below pyenv's versions."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found: dict[str, str] = {}
    for version in VERSIONS:
        # pyenv first: its shims on PATH exist for every version but answer only for the chosen one.
        places = [str(p / "bin" / "python") for p in sorted(pyenv.glob(f"{version}.*"))]
        places += [w for w in [shutil.which(f"python{version}"), shutil.which("python3")] if w]
        for python in places:
            if _version_of(python) == version:
                found[version] = python
                break
    return found


def _version_of(python: str) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def make(version: str, python: str) -> None:
    """Make or update the environment of one version; nothing to do costs nothing."""
    place = HOME / version
    stamp = place / ".made-from"
    made_from = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + python.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == made_from:
        return
    print(f"making .venvs/{version} with {python}", flush=True)
    run = [uv(), "--quiet"]
    subprocess.run([*run, "venv", "--clear", "--python", python, str(place)], check=True)
    target = ["--python", str(place / "bin" / "python")]
    # Installing compiles nothing and downloads each package once: uv's cache serves the next version.
    install = [
        *run,
        "pip",
        "install",
        *target,
        "--editable",
        str(ROOT),
        "--group",
        f"{ROOT}/pyproject.toml:dev",
    ]
    subprocess.run(install, check=True)
    stamp.write_text(made_from)


def main_version(found: dict[str, str]) -> str:
    for version in MAIN:
        if version in found:
            return version
    sys.exit(
        f"No Python of {', '.join(MAIN)} is on this machine. Install one, e.g. `uv python install 3.11`."
    )


def main() -> None:
    found = interpreters()
    wanted = (
        [main_version(found)] if "main" in sys.argv[1:] else [v for v in VERSIONS if v in found]
    )
    for version in wanted:
        make(version, found[version])
    if "main" in sys.argv[1:]:
        print(HOME / wanted[0] / "bin" / "python")
        return
    absent = [v for v in REQUIRED if v not in found]
    if absent and os.environ.get("CI"):
        sys.exit(f"Python {', '.join(absent)} is not on this machine, and CI must test it.")
    for version in VERSIONS:
        print(f"Python {version}: {found.get(version, 'absent; its tests are skipped')}")


if __name__ == "__main__":
    main()
