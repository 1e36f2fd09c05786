"""DigitalHub Core's REST API from the container, without the SDK: 0.05 s of CPU where the SDK takes 1 s."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from digitalhub_runtime_python.error_report import first_line, text_of
from digitalhub_runtime_python.errors import (
    ArgumentFault,
    EnvironmentFault,
    Fault,
    OutputFault,
    PlatformFault,
    Terminated,
)
from digitalhub_runtime_python.hub.client import CoreClient
from digitalhub_runtime_python.hub.delivery import deliver, patiently
from digitalhub_runtime_python.outputs import Output
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.spec import RunSpec
from digitalhub_runtime_python.states import MERGED

logger = logging.getLogger(__name__)

_FINAL = {*MERGED, "error"}
_BRIEFLY = 5.0
"""Seconds that a request with a run's progress may take."""
_OFTEN, _SELDOM = 1.0, 15.0
"""Seconds between two of them: to a platform that merges a status; to one that must be written over as a whole."""


class CoreHub:
    """The platform as a run in a container sees it.

    Raises:
        PlatformFault: platform/not-configured, when the environment names no run or no endpoint.
    """

    def __init__(self, settings: Settings) -> None:
        missing = [
            name
            for name, value in (
                ("DHCORE_ENDPOINT", settings.endpoint),
                ("PROJECT_NAME", settings.project),
                ("RUN_ID", settings.run_id),
            )
            if not value
        ]
        if missing:
            raise PlatformFault(
                "platform/not-configured",
                f"The environment lacks {', '.join(missing)}.",
                "The platform sets them; without a platform set DHPY_RUN_FILE, or use `dhpy run`.",
            )
        self._settings = settings
        self._client = CoreClient(settings)
        self._session: tuple[Any, Any] | None = None
        self._writing = threading.Lock()  # between reading a status and writing it

    def load_run(self) -> RunSpec:
        # As long as a report waits: a platform that is just being restarted must not cost the run.
        return RunSpec.from_entity(patiently(self._read, self._settings.report_timeout))

    def resolve_input(self, key: str, form: str, folder: Path) -> Any:
        project, entity_type, name, entity_id = _parse_key(key)
        try:
            if form == "entity":
                self.project()  # the SDK finds an entity's project in its own context
                return _session_module().get_entity(key)
            if entity_id:
                entity = self._client.get(f"{entity_type}s", entity_id, project)
            else:
                entity = self._client.latest(f"{entity_type}s", name, project)
        except Exception as exc:
            missing = isinstance(exc, PlatformFault) and exc.http_status == 404
            if missing or type(exc).__module__.startswith("digitalhub."):
                raise _no_input(key, text_of(exc)) from exc
            raise
        path = (entity.get("spec") or {}).get("path")
        if not isinstance(path, str) or not path:
            raise _no_input(key, "the entity has no path.")
        from digitalhub_runtime_python.hub import files

        return files.load(path, form, self._settings, folder)

    def store_output(self, run: RunSpec, output: Output) -> str:
        if not self._settings.files_store:
            raise OutputFault(
                "outputs/no-store",
                f"Output {output.name!r} is a file, and the platform names no files store.",
                "Set DHCORE_DEFAULT_FILES_STORE, e.g. s3://bucket.",
            )
        entity_id = os.urandom(16).hex()
        place = f"{self._settings.files_store}/{run.project}/{output.entity_type}/{output.name}/{entity_id}/"
        entity: dict[str, Any] = {
            "id": entity_id,
            "name": output.name,
            "project": run.project,
            "kind": output.kind,
            "metadata": {
                "name": output.name,
                "project": run.project,
                "relationships": [{"type": "produced_by", "dest": run.key}],
            },
            "spec": {
                **output.spec,
                "path": place if output.path.is_dir() else place + output.path.name,
            },
            "status": {"state": "UPLOADING"},
        }
        plural = f"{output.entity_type}s"
        # First the entity, then the bytes: bytes without an entity would be nobody's to delete.
        self._client.create(plural, entity)
        try:
            from digitalhub_runtime_python.hub import files  # most runs store none

            info = files.upload(output.path, entity["spec"]["path"], self._settings)
        except Exception as exc:
            fault = OutputFault(
                "outputs/upload",
                f"Output {output.name!r} could not be uploaded to {entity['spec']['path']}: "
                f"{first_line(exc)}",
                "Check the files store and its credentials.",
            )
            with contextlib.suppress(Fault):
                entity["status"] = {"state": "ERROR", "message": fault.message[:500]}
                self._client.put(plural, entity)
            raise fault from exc
        entity["status"] = {**output.status, "state": "READY", "files": info}
        self._client.put(plural, entity)
        return f"store://{run.project}/{output.entity_type}/{output.kind}/{output.name}:{entity_id}"

    def report(self, status: Mapping[str, Any]) -> None:
        if self._session is not None and "outputs" in status:
            # What the handler logged by itself is found by its name too, as with upstream's runtime.
            logged = _session_module().logged(self._settings.project)
            # An entity that it also returned has its output's name already.
            more = {n: k for n, k in logged.items() if k not in status["outputs"].values()}
            status = {**status, "outputs": {**more, **status["outputs"]}}
        try:
            written = self._deliver(status)
            may_be_lost = self._settings.in_cluster and not self._client.merges
            if may_be_lost and _FINAL & status.keys():
                from digitalhub_runtime_python.hub.confirming import confirm

                confirm(status, written, self._read, lambda: self._write(status))
        except (Terminated, KeyboardInterrupt):
            self._client.hurry()
            self._deliver(status, 0)

    def progress(self, value: Mapping[str, Any]) -> float:
        with self._writing:
            entity = self._client.get("runs", self._settings.run_id, seconds=_BRIEFLY)
            entity["status"] = {**(entity.get("status") or {}), "progress": value}
            self._client.put("runs", entity, seconds=_BRIEFLY)
        return _OFTEN if self._client.merges else _SELDOM

    def _read(self) -> dict[str, Any]:
        return self._client.get("runs", self._settings.run_id)

    def _write(self, status: Mapping[str, Any]) -> dict[str, Any]:
        """Read, merge, PUT; the run as the platform answers it."""
        with self._writing:
            entity = self._read()
            entity["status"] = merge_status(entity.get("status") or {}, status)
            return self._client.put("runs", entity)

    def _deliver(self, status: Mapping[str, Any], seconds: float | None = None) -> dict[str, Any]:
        text = functools.partial(json.dumps, status)
        return deliver(
            lambda: self._write(status), self._settings.run_id, text, self._settings, seconds
        )

    def project(self) -> Any:
        return self._sdk_session()[0]

    def run(self) -> Any:
        return self._sdk_session()[1]

    def _sdk_session(self) -> tuple[Any, Any]:
        if self._session is None:
            module = _session_module()
            self._session = module.open_session(self._settings.project, self._settings.run_id)
        return self._session


def merge_status(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The status to PUT: what is there, with what is reported over it; the state stays as it is."""
    merged = {**old, **{k: v for k, v in new.items() if k != "state"}}
    for key in MERGED:
        if key in new:
            merged[key] = {**(old.get(key) or {}), **(new[key] or {})}
    if "error" not in new:
        merged.pop("error", None)  # of an earlier attempt
    return merged


def _parse_key(key: Any) -> tuple[str, str, str, str]:
    """(project, entity type, name, id) of `store://project/type/kind/name:id`; `:id` may be left out."""
    parts = key.partition("store://")[2].split("/") if isinstance(key, str) else []
    if len(parts) != 4 or not all(parts):
        raise ArgumentFault(
            "arguments/input",
            f"The input {key!r} is not an entity key.",
            "Pass an entity's key, as in inputs={'data': dataitem.key}.",
        )
    name, _, entity_id = parts[3].partition(":")
    return parts[0], parts[1], name, entity_id


def _no_input(key: str, why: str) -> ArgumentFault:
    return ArgumentFault(
        "arguments/input", f"The input {key!r} cannot be loaded: {why}", "Check the key."
    )


def _session_module() -> Any:
    # Only sdk/ imports digitalhub; by name, since most runs never come here.
    try:
        return importlib.import_module("digitalhub_runtime_python.sdk.session")
    except ModuleNotFoundError as exc:
        raise EnvironmentFault(
            "environment/sdk",
            f"This needs the digitalhub SDK, which is not installed here (no {exc.name}).",
            "Add digitalhub and pandas to the requirements, or use a full image; "
            "an input that is annotated, as a path or a DataFrame, needs no SDK.",
        ) from exc
