"""Lets threads that use the SDK for the first time at once register the plug-in once.

The SDK's registry looks whether plug-ins are registered, and registers them, without a lock: a second
thread that comes meanwhile would get "Builder … already exists".
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from digitalhub_runtime_python.sdk import compat

_LOCK = threading.RLock()


class Table:
    """Kinds and their builders, as the SDK iterates over them: what it has already is left out.

    One thread iterates at a time, and registers what it is given before it goes on; the next one
    then finds that nothing is left.
    """

    def __init__(self, rows: list[tuple[str, type]], what: str) -> None:
        self._rows = rows
        self._what = what

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[str, type]]:
        with _LOCK:
            for kind, builder in self._rows:
                if not compat.is_registered(self._what, kind):
                    yield kind, builder
