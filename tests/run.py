"""Runs the suite in every environment of .venvs/: everything in the main one and in 3.9, the runtime's own in the others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environments

RUNTIME_ONLY = ["tests/wrapper", "tests/docs"]


def main() -> None:
    found = environments.interpreters()
    main_version = environments.main_version(found)
    everything = [v for v in dict.fromkeys([main_version, "3.9"]) if v in found]
    failed = []
    for version in [*everything, *(v for v in found if v not in everything)]:
        paths = (
            []
            if version in everything
            else [p for p in RUNTIME_ONLY if (environments.ROOT / p).exists()]
        )
        python = environments.HOME / version / "bin" / "python"
        print(f"\n=== Python {version}: {' '.join(paths) or 'everything'}", flush=True)
        start = time.monotonic()
        command = [str(python), "-m", "pytest", "-q", *paths, *sys.argv[1:]]
        # The interpreters' own folders: runs and images ask for `python3.10` by name.
        folders = [str(Path(p).parent) for p in found.values()]
        env = {**os.environ, "PATH": os.pathsep.join([os.environ["PATH"], *folders])}
        if subprocess.run(command, cwd=environments.ROOT, env=env).returncode:
            failed.append(version)
        print(f"=== Python {version}: {time.monotonic() - start:.0f} s", flush=True)
    if failed:
        sys.exit(f"Tests failed under Python {', '.join(failed)}.")
    print(f"\nAll tests passed under Python {', '.join(found)}.")


if __name__ == "__main__":
    main()
