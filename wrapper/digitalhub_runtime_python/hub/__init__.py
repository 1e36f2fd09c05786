"""The seam to the platform: load a run, resolve its inputs, store its outputs, report its status.

Three implementations, one suite over them (tests/wrapper/test_hubs.py):
`core` speaks DigitalHub Core's REST API from the container, `sdk` lives in the caller's process
(digitalhub_runtime_python/sdk/hub.py), `offline` keeps everything in a folder and needs no platform.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from digitalhub_runtime_python.outputs import Output
from digitalhub_runtime_python.spec import RunSpec


class Hub(Protocol):
    """What a run needs of the platform it runs on."""

    def load_run(self) -> RunSpec:
        """The run to execute.

        Raises:
            PlatformFault: the platform cannot be reached, or has no such run.
        """
        ...

    def resolve_input(self, key: str, form: str, folder: Path) -> Any:
        """What an input's key stands for; never the user's own file, for a handler may write to what it gets.

        Args:
            key: an entity key, `store://project/dataitem/table/name:id`.
            form: `entity` (the SDK's object), `frame` (a pandas frame), `polars`, or `path` (a
                downloaded file or folder, a pathlib.Path).
            folder: where this input's files go, the run's own; it is made when it is needed.

        Raises:
            ArgumentFault: the key is not a key, or nothing is stored under it.
        """
        ...

    def store_output(self, run: RunSpec, output: Output) -> str:
        """Store a file or folder as an entity that the run produced; its key.

        Raises:
            OutputFault: it cannot be stored; the message names the output.
        """
        ...

    def report(self, status: Mapping[str, Any]) -> None:
        """Merge `results`, `outputs`, `error`, `source` and `message` into the run's status.

        The state is not touched: it belongs to whoever watches the process.
        A report that cannot be delivered within the settings' time is kept on disk, and its place
        is in the PlatformFault that is then raised.
        """
        ...

    def progress(self, value: Mapping[str, Any]) -> float:
        """Put how far the run is (`done`, `total`, `text`) where others see it; one try, and a brief one.

        Called by a thread of its own while the handler works.

        Returns:
            Seconds until the next is taken.

        Raises:
            PlatformFault: it did not get there.
        """
        ...

    def project(self) -> Any:
        """The SDK's Project object; imports the SDK."""
        ...

    def run(self) -> Any:
        """The SDK's Run object; imports the SDK."""
        ...
