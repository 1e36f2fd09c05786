"""Pods' logs: followed through the API server while the pod lives, and kept in the run's own log.

A place is written down after each line, so a control plane that is started again goes on there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from digitalhub_python_control.running.container_logs import copy, noted
from digitalhub_python_control.running.engines.keeper import Log
from digitalhub_python_control.running.kubernetes import causes
from digitalhub_python_control.running.kubernetes.client import Api, Refused, Unreachable
from digitalhub_python_control.running.kubernetes.manifests import CONTAINER

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Logs that are followed at the same time; those of further pods are fetched when they have ended."""
LONGEST = 1 << 16
"""Bytes of a line that are read before they are written."""
SILENCE = 3600.0
"""Seconds without a line after which a log is asked for again, from where it was."""
PATIENCE = 10.0
"""Seconds that the end of a run waits for the last lines of its log."""


class Following:
    """The logs of all pods that run.

    Args:
        max_log: bytes of a run's log.
        done: `done(pod)`, the log of an ended pod is complete, or is lost.
    """

    def __init__(self, api: Api, max_log: int, done: Callable[[Mapping[str, Any]], None]) -> None:
        self._api = api
        self._max_log = max_log
        self._writing = threading.Lock()
        self._done = done
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._followed: set[str] = set()
        self._complete: set[str] = set()

    def look(
        self, pod: Mapping[str, Any], folder: Path, prefix: str, hidden: Callable[[], Sequence[bytes]]
    ) -> None:  # fmt: skip
        """Follow a pod's log if its container runs or has run, and nobody does already.

        Args:
            hidden: what the log may not show; asked once, before anything is followed.
        """
        uid = pod["metadata"]["uid"]
        if not causes.runs(pod) or uid in self._followed or uid in self._complete:
            return
        forms = hidden()
        ended = causes.phase(pod) in ("Succeeded", "Failed")
        with self._lock:
            if uid in self._followed or uid in self._complete:
                return
            if not ended and not self._places.acquire(blocking=False):
                return
            self._followed.add(uid)
        thread = threading.Thread(
            target=self._work,
            args=(pod, folder, prefix, forms, not ended),
            name=f"log {pod['metadata']['name']}",
            daemon=True,
        )
        thread.start()

    def is_complete(self, pod: Mapping[str, Any]) -> bool:
        return pod["metadata"]["uid"] in self._complete or not causes.runs(pod)

    def forget(self, pod: Mapping[str, Any]) -> None:
        with self._lock:
            self._complete.discard(pod["metadata"]["uid"])

    def _work(
        self, pod: Mapping[str, Any], folder: Path, prefix: str, hidden: Sequence[bytes], placed: bool
    ) -> None:  # fmt: skip
        uid = pod["metadata"]["uid"]
        try:
            for _ in range(5):
                try:
                    self._copy(pod, folder, prefix, hidden)
                    break
                except Unreachable:
                    continue
        except Refused as exc:
            if exc.status != 404:  # it is gone: with it, its log
                logger.warning("the log of pod %s cannot be read: %s", pod["metadata"]["name"], exc)
        except OSError:
            logger.exception("the log of pod %s cannot be kept", pod["metadata"]["name"])
        finally:
            if placed:
                self._places.release()
            with self._lock:
                self._followed.discard(uid)
                self._complete.add(uid)
            self._done(pod)

    def _copy(
        self, pod: Mapping[str, Any], folder: Path, prefix: str, hidden: Sequence[bytes]
    ) -> None:
        name = pod["metadata"]["name"]
        position = folder / f"{name}.position"
        since = {"sinceTime": last} if (last := noted(position)) else {}
        pieces = self._api.lines(
            f"{self._api.path('Pod', name)}/log", SILENCE, longest=LONGEST,
            container=CONTAINER, follow="true", timestamps="true", **since,
        )  # fmt: skip
        log = _Shared(folder.parent / "log", self._max_log, self._writing)
        try:
            copy(pieces, log, hidden, position, prefix.encode())
        finally:
            log.end()


class _Shared(Log):
    """A run's log, to which all its pods write: a half of it is begun by one of them at a time."""

    def __init__(self, path: Path, limit: int, lock: threading.Lock) -> None:
        super().__init__(str(path), limit)
        self._lock = lock

    def add(self, content: bytes) -> None:
        with self._lock:
            super().add(content)
