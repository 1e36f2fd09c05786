"""Starts a service per case inside a container, as its entry point would, and waits for all of them.

python3 inside_services.py PLACE     PLACE has services.json (name -> variables) and a folder per name
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    place = Path(sys.argv[1])
    command = ["python3", "--check-hash-based-pycs", "never", "-m", "digitalhub_runtime_python"]
    services = []
    for name, variables in json.loads((place / "services.json").read_text("utf-8")).items():
        home = Path("/shared", name)  # the working folder is a service's own
        home.mkdir()
        with (place / name / "log").open("wb") as log:
            services.append(
                subprocess.Popen(
                    [*command, "serve"],
                    env={**os.environ, "DHPY_WORKSPACE": str(home), **variables},
                    cwd=home,
                    stdout=log,
                    stderr=log,
                )
            )
    sys.exit(max(service.wait() for service in services))


if __name__ == "__main__":
    main()
