"""Runs the suite in every environment of .venvs/, two at a time: most tests wait for processes of their own.

Everything runs in the main environment; in 3.9, which has the last SDK for it, all but the images, which do not
depend on the Python of the tests; in the others the runtime's own tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environments

ELSEWHERE = {
    "3.9": ["tests", "--ignore=tests/images", "--ignore=tests/docs"],
    "": ["tests/wrapper"],
}
LANES = 2


def main() -> None:
    found = environments.interpreters()
    first = environments.main_version(found)
    rest = [v for v in dict.fromkeys(("3.9", *found)) if v in found and v != first]
    versions = [first, *rest]
    folders = [str(Path(p).parent) for p in found.values()]
    # The interpreters' own folders: runs and images ask for `python3.10` by name.
    env = {**os.environ, "PATH": os.pathsep.join([os.environ["PATH"], *folders])}

    def test(version: str) -> bool:
        what = ["tests"] if version == first else ELSEWHERE.get(version, ELSEWHERE[""])
        return run(version, [*what, *sys.argv[1:]], env)

    with ThreadPoolExecutor(LANES) as lanes:
        passed = dict(zip(versions, lanes.map(test, versions)))
    failed = [version for version, good in passed.items() if not good]
    if failed:
        sys.exit(f"Tests failed under Python {', '.join(failed)}.")
    print(f"\nAll tests passed under Python {', '.join(passed)}.")


def run(version: str, arguments: list[str], env: dict[str, str]) -> bool:
    """Run pytest in one environment, each line with the version before it; whether all passed."""
    python = environments.HOME / version / "bin" / "python"
    start = time.monotonic()
    print(f"{version:>4} | pytest {' '.join(arguments)}", flush=True)
    process = subprocess.Popen(
        [str(python), "-m", "pytest", "-q", *arguments],
        cwd=environments.ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{version:>4} | {line}", end="", flush=True)
    good = process.wait() == 0
    print(
        f"{version:>4} | {'passed' if good else 'FAILED'} in {time.monotonic() - start:.0f} s",
        flush=True,
    )
    return good


if __name__ == "__main__":
    main()
