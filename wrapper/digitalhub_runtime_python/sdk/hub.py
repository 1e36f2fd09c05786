"""The hub that lives in the caller's process: the platform through the SDK, the status in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from digitalhub.entities._constructors.uuid import build_uuid
from digitalhub.factory.entity import entity_factory
from digitalhub.stores.data.api import get_store

from digitalhub_runtime_python import copies
from digitalhub_runtime_python.errors import ArgumentFault, OutputFault
from digitalhub_runtime_python.frames import read_frame, read_polars
from digitalhub_runtime_python.hub.files import local_path
from digitalhub_runtime_python.outputs import Output
from digitalhub_runtime_python.progress import Line, line_of
from digitalhub_runtime_python.sdk import compat, session, views
from digitalhub_runtime_python.spec import RunSpec


class SdkHub:
    """One run of the SDK as a Hub; the status stays here until the run is saved."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._project: Any = None
        self.status: dict[str, Any] = {}
        """What was reported."""
        self._line = Line()

    def load_run(self) -> RunSpec:
        return RunSpec.from_entity(self._run.to_dict())

    def resolve_input(self, key: str, form: str, folder: Path) -> Any:
        entity = _read_entity(key)
        self._run.add_relationship("consumes", entity.key)
        if form == "entity":
            return entity
        try:
            return _load(entity, form, folder)
        except Exception as exc:
            raise ArgumentFault(
                "arguments/input",
                f"The input {key!r} cannot be loaded as a {form}: {type(exc).__name__}: {exc}",
                "Take the entity itself: annotate the argument with its class, or not at all.",
            ) from exc

    def store_output(self, run: RunSpec, output: Output) -> str:
        entity_id = build_uuid()
        try:
            target = compat.files_path(
                run.project, output.entity_type, output.name, entity_id, str(output.path)
            )
        except ValueError as exc:
            raise OutputFault(
                "outputs/no-store",
                f"Output {output.name!r} is a file, and the project has no default store.",
                "Set DHCORE_DEFAULT_FILES_STORE, e.g. s3://bucket.",
            ) from exc
        entity = entity_factory.build_entity_from_params(
            project=run.project,
            name=output.name,
            kind=output.kind,
            uuid=entity_id,
            path=target,
            **output.spec,
        )
        entity.add_relationship("produced_by", run.key)
        entity.status.state = "UPLOADING"
        # First the entity, then the bytes: bytes without an entity would be nobody's to delete.
        entity.save()
        try:
            store = get_store(target)
            files = store.get_file_info(target, store.upload(str(output.path), target))
        except Exception as exc:
            fault = OutputFault(
                "outputs/upload",
                f"Output {output.name!r} could not be uploaded to {target}: {exc}",
                "Check the default store and its credentials.",
            )
            entity.status.state, entity.status.message = "ERROR", fault.message[:500]
            compat.update(entity)
            raise fault from exc
        for name, value in output.status.items():
            setattr(entity.status, name, value)
        entity.status.state = "READY"
        compat.save_with_files(entity, files)
        return str(entity.key)

    def report(self, status: Mapping[str, Any]) -> None:
        self._line.end()
        self.status.update(status)

    def progress(self, value: Mapping[str, Any]) -> float:
        # Shown and not saved: the SDK's objects are the handler's, whose thread this is not.
        self._line.show(f"{views.function_name(self._run)} {line_of(value)}")
        return 0.2

    def project(self) -> Any:
        if self._project is None:
            self._project = session.get_project(self._run.project)
        return self._project

    def run(self) -> Any:
        return self._run


def _read_entity(key: str) -> Any:
    """The entity under a key, whose id may be left out for the latest version."""
    try:
        return session.get_entity(key)
    except Exception as exc:
        raise ArgumentFault(
            "arguments/input", f"The input {key!r} cannot be loaded: {exc}", "Check the key."
        ) from exc


def _load(entity: Any, form: str, folder: Path) -> Any:
    if form == "frame" and hasattr(entity, "as_df"):
        return entity.as_df(engine="pandas")
    own = local_path(entity.spec.path)
    if form == "path":
        if own is not None:
            return copies.copy(own, folder)
        return Path(entity.download(destination=str(folder)))
    path = own or Path(entity.download(destination=str(folder)))
    return read_frame(path) if form == "frame" else read_polars(path)
