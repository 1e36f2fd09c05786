"""The container's entry: `python -m digitalhub_runtime_python job|serve`."""

from __future__ import annotations

import sys

from digitalhub_runtime_python.entry import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
