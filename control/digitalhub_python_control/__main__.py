"""`python -m digitalhub_python_control`: the control plane in the foreground."""

from __future__ import annotations

import os
import sys

from digitalhub_python_control.server import main

if __name__ == "__main__":
    sys.exit(main(os.environ))
