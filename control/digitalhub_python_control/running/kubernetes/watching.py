"""A copy of the cluster's objects that are ours, kept up to date by watches: one for each kind.

A watch goes on from the version that it has seen (bookmarks keep that fresh); where the API server has
forgotten that version (410) everything is listed again. A watch that is silent for longer than it may be
is broken off and begun again, so a connection that hangs is found.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Callable

import msgspec

from digitalhub_python_control.running.kubernetes import names
from digitalhub_python_control.running.kubernetes.client import Api, Refused, Unreachable

logger = logging.getLogger(__name__)

SECONDS = 30
"""How long the API server keeps a watch open; then it is begun again where it was."""
PAUSES = (0.1, 5.0)
"""Seconds before a watch that failed is begun again: the first time, and at most."""
CHUNK = 500
"""Objects in one answer of a list."""

Object = dict[str, Any]
Changed = Callable[[str, Object], None]
"""`changed(kind, object)`: it is new, has changed, or is gone."""


class Watch:
    """The objects of one kind, by name.

    Args:
        changed: called after every change, from the watch's thread.
        query: `labelSelector` or `fieldSelector`.
    """

    def __init__(
        self, api: Api, kind: str, changed: Changed, query: Mapping[str, str], seconds: int = SECONDS
    ) -> None:  # fmt: skip
        self.kind = kind
        self.synced = threading.Event()
        """Set once everything was listed for the first time."""
        self.told = threading.Event()
        """Set as well where that has failed; it goes on being tried."""
        self.problem = ""
        """Why it fails now, in words."""
        self._api = api
        self._changed = changed
        self._query = dict(query)
        self._seconds = seconds
        self._objects: dict[str, Object] = {}
        self._lock = threading.Lock()
        self._version = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"watch {kind}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()

    def get(self, name: str) -> Object | None:
        with self._lock:
            return self._objects.get(name)

    def all(self) -> list[Object]:
        with self._lock:
            return list(self._objects.values())

    def put(self, obj: Object) -> None:
        """What a request of our own has answered, before the watch brings it."""
        with self._lock:
            there = self._objects.get(obj["metadata"]["name"])
            if there is None or _version(there) <= _version(obj):
                self._objects[obj["metadata"]["name"]] = _slim(obj)

    def _work(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                if not self._version:
                    self._list()
                self._follow()
                failures = 0
            except Unreachable as fault:
                failures += 1
                self.problem = fault.what
                if failures in (3, 30, 300):
                    logger.warning("watching %s: %s", self.kind, fault)
            except Refused as exc:
                self._version = ""
                failures += exc.status != 410
                if exc.status != 410:
                    self.problem = f"it refuses to watch {self.kind}s: {exc}"
                    logger.warning("watching %s is refused: %s", self.kind, exc)
            except Exception:
                # The thread must live, whatever the API server has sent.
                self._version, failures = "", failures + 1
                logger.exception("watching %s", self.kind)
            if failures:
                self.told.set()
                first, longest = PAUSES
                self._closing.wait(min(longest, first * 2 ** min(failures, 10)))

    def _list(self) -> None:
        found: dict[str, Object] = {}
        query: dict[str, Any] = {**self._query, "limit": CHUNK}
        version = ""
        path = self._api.path(self.kind)
        while True:
            answer = self._api.get(path, **query)
            for item in answer.get("items") or ():
                found[item["metadata"]["name"]] = _slim(item)
            version = answer["metadata"]["resourceVersion"]
            query["continue"] = answer["metadata"].get("continue")
            if not query["continue"]:
                break
        with self._lock:
            before, self._objects = self._objects, found
        self._version = version
        self.problem = ""
        self.synced.set()
        self.told.set()
        for name, obj in found.items():
            if name not in before or _version(before[name]) != _version(obj):
                self._changed(self.kind, obj)
        for name in before.keys() - found.keys():
            self._changed(self.kind, before[name])

    def _follow(self) -> None:
        lines = self._api.lines(
            self._api.path(self.kind), self._seconds + 10, longest=0, **self._query, watch="true",
            allowWatchBookmarks="true", timeoutSeconds=self._seconds, resourceVersion=self._version,
        )  # fmt: skip
        for line in lines:
            if self._closing.is_set():
                return
            if line.strip():
                self._take(msgspec.json.decode(line))

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":
            raise Refused(int(obj.get("code") or 500), str(obj.get("reason")), str(obj.get("message")))  # fmt: skip
        name = obj["metadata"].get("name", "")
        if kind != "BOOKMARK":
            with self._lock:
                if kind == "DELETED":
                    self._objects.pop(name, None)
                else:
                    self._objects[name] = _slim(obj)
            self._changed(self.kind, obj)
        self._version = obj["metadata"]["resourceVersion"]


class Cluster:
    """Everything of ours in the namespace: jobs, deployments, pods, and the warnings about them."""

    KINDS = ("Job", "Deployment", "Pod")

    def __init__(self, api: Api, instance: str, tell: Callable[[str, str], None], seconds: int = SECONDS) -> None:  # fmt: skip
        self._tell = tell
        self._lock = threading.Lock()
        self._pods: dict[tuple[str, str], set[str]] = {}
        self._warnings: dict[str, dict[str, Object]] = {}
        """Name of the object -> reason -> the last event of that reason."""
        mine = {"labelSelector": names.selector(instance=instance)}
        self.watches = {k: Watch(api, k, self._changed, mine, seconds) for k in self.KINDS}
        self.watches["Event"] = Watch(api, "Event", self._changed, {"fieldSelector": "type=Warning"}, seconds)  # fmt: skip

    def start(self) -> None:
        for watch in self.watches.values():
            watch.start()

    def close(self) -> None:
        for watch in self.watches.values():
            watch.close()

    def wait(self, seconds: float) -> bool:
        """Whether what is known is whole: everything was listed once. It does not wait for what fails."""
        for kind in self.KINDS:
            self.watches[kind].told.wait(seconds)
        return all(self.watches[kind].synced.is_set() for kind in self.KINDS)

    @property
    def problem(self) -> str:
        """Why the cluster cannot be watched now; empty where it can."""
        return next((one.problem for one in self.watches.values() if one.problem), "")

    def get(self, kind: str, name: str) -> Object | None:
        return self.watches[kind].get(name)

    def pods(self, project: str, run_id: str) -> list[Object]:
        """A run's pods, oldest first."""
        with self._lock:
            known = list(self._pods.get((project, run_id), ()))
        found = [pod for name in known if (pod := self.watches["Pod"].get(name)) is not None]
        return sorted(found, key=lambda pod: pod["metadata"].get("creationTimestamp") or "")

    def warnings(self, objects: Iterable[str]) -> list[Object]:
        """The warnings about these objects (by name), the last of each reason."""
        with self._lock:
            return [event for name in objects for event in self._warnings.get(name, {}).values()]

    def put(self, obj: Object) -> None:
        self.watches[obj["kind"]].put(obj)

    def _changed(self, kind: str, obj: Object) -> None:
        if kind == "Event":
            self._take_warning(obj)
            return
        key = names.run_of(obj)
        if key is None:
            return
        if kind == "Pod":
            name = obj["metadata"]["name"]
            gone = self.watches["Pod"].get(name) is None
            with self._lock:
                known = self._pods.setdefault(key, set())
                known.discard(name) if gone else known.add(name)
                if not known:
                    del self._pods[key]
        self._tell(*key)

    def _take_warning(self, event: Object) -> None:
        name = str((event.get("involvedObject") or {}).get("name") or "")
        if not name.startswith(names.PREFIX):
            return
        gone = self.watches["Event"].get(event["metadata"]["name"]) is None
        with self._lock:
            known = self._warnings.setdefault(name, {})
            reason = str(event.get("reason"))
            if not gone:
                known[reason] = event
            elif known.get(reason, {}).get("metadata", {}).get("name") == event["metadata"]["name"]:
                del known[reason]
            if not known:
                del self._warnings[name]
        # A ReplicaSet is told of by its Deployment, whose name its own begins with.
        for kind, owner in (("Pod", name), ("Job", name), ("Deployment", name.rpartition("-")[0])):
            about = self.watches[kind].get(owner)
            if about is not None and (key := names.run_of(about)) is not None:
                self._tell(*key)


def _slim(obj: Object) -> Object:
    """Without what nobody here reads, and which is half of an object."""
    obj.get("metadata", {}).pop("managedFields", None)
    return obj


def _version(obj: Object) -> int:
    # Opaque by contract, a number in fact; what is not one is taken as new.
    version = str(obj["metadata"].get("resourceVersion") or "")
    return int(version) if version.isdigit() else 1 << 63
