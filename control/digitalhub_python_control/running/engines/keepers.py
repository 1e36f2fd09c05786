"""The control plane's end of keeper.py: one process that forks a keeper for every attempt."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from digitalhub_python_control.running.engines import keeper
from digitalhub_python_control.running.engines.processes import Process, process_of
from digitalhub_runtime_python import redaction
from digitalhub_runtime_python.errors import PlatformFault

logger = logging.getLogger(__name__)

_ANSWER = 30.0
"""Seconds that a keeper may take to say that it is there; a machine that swaps takes a few."""


class Keepers:
    """Starts attempts of runs; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, order: Mapping[str, Any]) -> Process:
        """Start an attempt, or find who runs it already; the keeper's process.

        Args:
            order: as `keeper.keep` takes it.

        Raises:
            OSError: its folder cannot be used.
            PlatformFault: control/keeper, no keeper answers; worth repeating.
        """
        with self._lock:
            try:
                answer = self._ask(order)
            except OSError:
                self._end()  # it was killed; and who has claimed the attempt meanwhile is answered
                answer = self._asked_again(order)
        if "error" in answer:
            raise OSError(answer["error"])
        return process_of(answer["claim"])

    def close(self) -> None:
        """Let go of the process; keepers, and what they keep, go on."""
        with self._lock:
            self._end()

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        if self._socket is None:
            self._begin()
        assert self._socket is not None  # noqa: S101 - _begin() has set it
        keeper.send(self._socket, dict(order))
        answer: dict[str, Any] | None = keeper.receive(self._socket)
        if answer is None:
            raise ConnectionResetError("the keepers' parent is gone")
        return answer

    def _asked_again(self, order: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._ask(order)
        except OSError as exc:
            self._end()
            raise PlatformFault(
                "control/keeper",
                f"No process of this machine can be started: {exc}.",
                "Look at the machine's memory and number of processes.",
            ) from exc

    def _begin(self) -> None:
        mine, theirs = socket.socketpair()
        mine.settimeout(_ANSWER)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, str(Path(redaction.__file__).parent)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=None,
                cwd="/",
                env={name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
                start_new_session=True,
            )
        self._socket = mine

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None
