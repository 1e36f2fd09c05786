"""Runs the suite in every environment of .venvs/, three parts at a time: most tests wait for processes of their own.

Everything runs in the main environment, what needs containers or a cluster beside the rest; in 3.9, which has the
last SDK for it, all that depends on the Python of the tests; in the others the runtime's own tests. What
failed is tried once more when all is quiet, and named in the last lines whether it passes then or not.

    python3 tests/run.py [PYTEST ARGUMENTS…]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environments

CONTAINERS = ("tests/images", "tests/kubernetes")
"""Folders whose tests wait for engines more than they compute; each is a part of its own."""
LANES = 3
AGAIN = 10
"""Failed tests of a part that are tried once more, alone; where more have failed, it is not the load."""


def main() -> None:
    found = environments.interpreters()
    folders = [str(Path(p).parent) for p in found.values()]
    # The interpreters' own folders: runs and images ask for `python3.10` by name.
    env = {**os.environ, "PATH": os.pathsep.join([os.environ["PATH"], *folders])}
    todo = dict(parts(list(found), environments.main_version(found)))

    def test(name: str, *more: str) -> list[str] | None:
        return run(name, [*todo[name], *more, *sys.argv[1:]], env)

    with ThreadPoolExecutor(LANES) as lanes:
        results = dict(zip(todo, lanes.map(test, todo)))
    failed = {name: lines for name, lines in results.items() if lines is not None}
    # With three lanes on two cores a test may miss its time. It is told of even if it passes alone: a race to mend.
    for name, lines in list(failed.items()):
        if 0 < len(lines) <= AGAIN and test(name, "--last-failed") is None:
            del failed[name]
            print(f"\nOnly passed when tried again ({name}):", *lines, sep="\n  ")
    if failed:
        for name, lines in failed.items():
            print(f"\nFailed ({name}):", *lines[:50], sep="\n  ")
        sys.exit(f"Tests failed: {', '.join(failed)}.")
    print(f"\nAll tests passed: {', '.join(results)}.")


def parts(versions: list[str], first: str) -> Iterator[tuple[str, list[str]]]:
    """(`VERSION` or `VERSION WHAT`, pytest's arguments) of each part, the longest first."""
    apart = [folder for folder in CONTAINERS if (environments.ROOT / folder).is_dir()]
    without = [f"--ignore={folder}" for folder in apart]
    yield first, ["tests", *without]
    for folder in apart:
        yield f"{first} {Path(folder).name}", [folder]
    if "3.9" in versions and first != "3.9":
        yield "3.9", ["tests", *without, "--ignore=tests/docs"]
    for version in versions:
        if version not in (first, "3.9"):
            yield version, ["tests/wrapper"]


def run(name: str, arguments: list[str], env: dict[str, str]) -> list[str] | None:
    """Run one part, each line with its name before it; what failed, a line each, or None where all passed."""
    python = environments.HOME / name.split()[0] / "bin" / "python"
    start = time.monotonic()
    print(f"{name:>4} | pytest {' '.join(arguments)}", flush=True)
    process = subprocess.Popen(
        [str(python), "-m", "pytest", "-q", "-o", f"cache_dir=.pytest_cache/{name}", *arguments],
        cwd=environments.ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    failed = []
    for line in process.stdout:
        print(f"{name:>4} | {line}", end="", flush=True)
        if line.startswith(("FAILED ", "ERROR ")):
            failed.append(line.strip()[:200])
    # Where somebody asked for some tests, a part may have none of them.
    good = process.wait() in ((0, 5) if sys.argv[1:] else (0,))
    print(
        f"{name:>4} | {'passed' if good else 'FAILED'} in {time.monotonic() - start:.0f} s",
        flush=True,
    )
    return None if good else failed


if __name__ == "__main__":
    main()
