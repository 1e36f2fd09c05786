"""`make demo`: sets up what is missing, starts a control plane of its own, runs the example, stops it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import environments  # noqa: E402


def penguins_csv() -> Path:
    """The data set, out of the package that publishes it; fetched once."""
    place = environments.HOME / "demo-data"
    if not (place / "palmerpenguins").exists():
        print("fetching the palmerpenguins data set", flush=True)
        install = [
            environments.uv(),
            "--quiet",
            "pip",
            "install",
            "--no-deps",
            "--target",
            str(place),
        ]
        subprocess.run([*install, "palmerpenguins"], check=True)
    return next(place.rglob("penguins.csv"))


def main() -> int:
    found = environments.interpreters()
    version = environments.main_version(found)
    environments.make(version, found[version])
    data = penguins_csv()
    bin_folder = environments.HOME / version / "bin"
    with tempfile.TemporaryDirectory(prefix="dhpy-demo-") as home:
        env = {
            **os.environ,
            "DHPY_HOME": home,
            "DHPY_PORT": "0",
            # SDK 0.15 announces what 0.16 will call log_dataitem(kind="table"); 0.14 knows no other name.
            "PYTHONWARNINGS": "ignore::UserWarning:digitalhub.entities.dataitem.crud",
            "PATH": os.pathsep.join([str(bin_folder), os.environ["PATH"]]),
        }
        dhpy = str(bin_folder / "dhpy")
        try:
            script = [dhpy, "exec", "--", "python", "penguins.py", str(data)]
            return subprocess.run(script, cwd=ROOT / "examples" / "penguins", env=env).returncode
        finally:
            subprocess.run([dhpy, "down"], env=env, check=True)


if __name__ == "__main__":
    sys.exit(main())
