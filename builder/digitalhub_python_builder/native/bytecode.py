"""Compiles for an image, run by an interpreter of its version: `python -S -B bytecode.py < JOBS`.

JOBS is JSON: [source, the path it will have, where the bytecode goes] of each file. The bytecode is never
checked against its source (nothing changes in an image), and is the same bytes each time: Python's own
writer marks what happens to be referred to elsewhere, so an older form of it is used, without references.
"""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import sys
import warnings

UNCHECKED = (1).to_bytes(4, "little")


def main() -> None:
    warnings.simplefilter("ignore")
    for source, path, target in json.load(sys.stdin):
        with open(source, "rb") as file:  # noqa: PTH123 - pathlib takes as long to import as this runs
            data = file.read()
        try:
            code = compile(data, path, "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError, RecursionError):
            continue  # a template, or for another Python: imported it fails as it would anyway
        try:
            body = marshal.dumps(code, 2)
        except ValueError:
            body = marshal.dumps(code)  # 3.14 has constants that the older form lacks
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        with open(target, "wb") as file:  # noqa: PTH123
            head = importlib.util.MAGIC_NUMBER + UNCHECKED + importlib.util.source_hash(data)
            file.write(head + body)


if __name__ == "__main__":
    main()
