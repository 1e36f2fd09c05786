"""What an entity looks like: types, kinds, names, keys, and the fields that the server fills.

Pure: JSON documents in, JSON documents out; nothing here knows the store or HTTP.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from digitalhub_python_control.store import times
from digitalhub_python_control.store.names import check_name, check_project_name, check_same, plain
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.spec import FunctionSpec, interpreter_version
from digitalhub_runtime_python.states import SDK_STATES

Entity = dict[str, Any]


@dataclass(frozen=True)
class EntityType:
    """One row of the table of types; its key there is the plural, as in the paths."""

    singular: str
    kinds: tuple[str, ...] = ()
    """The kinds that exist; empty: any."""
    versioned: bool = True
    """Has a name of its own, and several versions under it."""
    frozen_spec: bool = False
    """A change of the spec is ignored, as Core does: a version is what it was created as."""
    has_extensions: bool = False
    has_version: bool = True
    """Carries `metadata.version`."""

    @property
    def label(self) -> str:
        """The word that the SDKs look for in a 404: `EntityName.ARTIFACT(value=artifact)`."""
        return f"EntityName.{self.singular.upper()}(value={self.singular})"


_ACTIONS = ("python+job", "python+serve", "python+build")

TYPES: dict[str, EntityType] = {
    "projects": EntityType("project", ("project",)),
    "functions": EntityType("function", ("python",), frozen_spec=True),
    "tasks": EntityType("task", _ACTIONS, versioned=False, has_version=False),
    "runs": EntityType(
        "run", tuple(f"{action}:run" for action in _ACTIONS), versioned=False, has_extensions=True
    ),
    "artifacts": EntityType("artifact", frozen_spec=True, has_extensions=True),
    "dataitems": EntityType("dataitem", frozen_spec=True, has_extensions=True),
    "models": EntityType("model", frozen_spec=True, has_extensions=True),
    "secrets": EntityType("secret", ("secret",), has_version=False),
    "workflows": EntityType("workflow", frozen_spec=True),
    "triggers": EntityType("trigger", ("scheduler", "lifecycle", "automl")),
    "extensions": EntityType("extension"),
    "containerimages": EntityType("containerimage", has_extensions=True),
}

EMBEDDED = ("artifacts", "dataitems", "functions", "models", "workflows")
"""The lists in a project's spec: the latest version of each."""

_KIND = re.compile(r"[a-zA-Z0-9._+:-]{1,128}")

# Two words name a version, as Core does it: easier to tell apart than hexadecimal digits.
_FIRST = [
    "alert",
    "bold",
    "calm",
    "deep",
    "early",
    "fair",
    "glad",
    "high",
    "keen",
    "light",
    "mild",
    "near",
    "open",
    "quiet",
    "ready",
    "sharp",
]
_SECOND = [
    "badger",
    "crane",
    "finch",
    "heron",
    "ibex",
    "jay",
    "koala",
    "lark",
    "lynx",
    "mole",
    "otter",
    "raven",
    "seal",
    "tern",
    "wolf",
    "wren",
]


def check_kind(entity_type: EntityType, kind: object) -> str:
    """The kind of an entity, if there is such a one.

    Raises:
        UsageFault: there is not; the message lists those that there are.
    """
    known = entity_type.kinds
    if isinstance(kind, str) and (kind in known if known else _KIND.fullmatch(kind)):
        return kind
    raise UsageFault(
        "usage/kind",
        f"There is no kind {str(kind)[:80]!r} of {entity_type.singular} here.",
        f"Kinds are: {', '.join(known)}." if known else "Use letters, digits and . _ + : -",
    )


def new_entity(plural: str, project: str, sent: Mapping[str, Any], user: str, now: int) -> Entity:
    """The entity that is stored for what a client sent, with all that the server fills in.

    Raises:
        UsageFault: a part of it is not well formed; the message names the part.
    """
    entity_type = TYPES[plural]
    kind = check_kind(entity_type, sent.get("kind") or _only(entity_type))
    if plural == "projects":
        identity = name = check_project_name(sent.get("name"))
        project = name
    else:
        # The address decides on the project: an import into another one sends the old name.
        identity = check_name(sent.get("id") or uuid.uuid4().hex, "id")
        name = check_name(sent.get("name"), "name") if entity_type.versioned else identity
    metadata = _mapping(sent, "metadata")
    spec, status = _mapping(sent, "spec"), _mapping(sent, "status")
    if plural == "functions":
        _check_function(spec)
    created = times.parse(metadata.get("created") or times.text(now), "metadata.created")
    metadata.update(
        project=project,
        name=metadata.get("name") or name,
        created=times.text(created),
        updated=times.text(max(created, now)),
        created_by=user,
        updated_by=user,
    )
    if entity_type.has_version and metadata.get("version") in (None, "", identity):
        metadata["version"] = f"{secrets.choice(_FIRST)}-{secrets.choice(_SECOND)}"
    check_state(status.setdefault("state", "CREATED"))
    entity: Entity = (
        {"extensions": sent.get("extensions") or []} if entity_type.has_extensions else {}
    )
    entity.update(
        id=identity,
        key=key_of(plural, project, kind, name, identity),
        kind=kind,
        metadata=metadata,
        name=name,
        project=project,
        spec=spec,
        status=status,
        user=user,
    )
    return entity


def updated_entity(
    plural: str, old: Entity, sent: Mapping[str, Any], user: str, now: int, *, force: bool = False
) -> Entity:
    """The entity after a PUT: what identifies it stays, metadata and status are the client's.

    Raises:
        UsageFault: what was sent is not well formed, or is another entity.
    """
    entity_type = TYPES[plural]
    for field in ("id", "kind", "project", "name"):
        if field != "name" or TYPES[plural].versioned:  # SDK 0.16 names runs by itself
            check_same(sent.get(field), old[field], field)
    metadata = _mapping(sent, "metadata") or dict(old["metadata"])
    for field in ("project", "created", "created_by"):
        metadata[field] = old["metadata"][field]
    metadata.setdefault("name", old["metadata"].get("name", old["name"]))
    if entity_type.has_version:
        metadata.setdefault("version", old["metadata"].get("version"))
    metadata.update(updated=times.text(now), updated_by=user)
    status = _mapping(sent, "status")
    check_state(status.setdefault("state", old["status"]["state"]))
    frozen = entity_type.frozen_spec and not force
    spec = _mapping(sent, "spec") if "spec" in sent and not frozen else old["spec"]
    if plural == "tasks" and "function" in old["spec"]:
        spec = {**spec, "function": old["spec"]["function"]}
    entity = {**old, "metadata": metadata, "spec": spec, "status": status}
    if entity_type.has_extensions and isinstance(sent.get("extensions"), list):
        entity["extensions"] = sent["extensions"]
    return entity


def key_of(plural: str, project: str, kind: str, name: str, identity: str) -> str:
    """The key by which Core knows an entity."""
    if plural == "projects":
        return f"store://{project}"
    singular = TYPES[plural].singular
    tail = {
        "tasks": identity,
        "runs": f"{identity}:{identity}",
        "secrets": name,
    }.get(plural, f"{name}:{identity}")
    return f"store://{project}/{singular}/{kind}/{tail}"


def check_state(state: object) -> None:
    """Refuse a state that the SDKs could not read back.

    Raises:
        UsageFault: it is not one of the 22.
    """
    if state not in SDK_STATES:
        raise UsageFault(
            "usage/state",
            f"There is no state {str(state)[:40]!r}.",
            f"States are: {', '.join(sorted(SDK_STATES))}.",
        )


def searched(entity: Entity) -> dict[str, str]:
    """What a search looks through besides names: `description` and `labels`, in lower case.

    Each label is a line of its own, between line feeds.
    """
    metadata = entity["metadata"]
    labels = metadata.get("labels")
    lines = [" ".join(str(label).split()) for label in labels] if isinstance(labels, list) else []
    return {
        "description": plain(str(metadata.get("description") or "").lower()),
        "labels": plain("".join(f"\n{line}\n" for line in lines).lower()),
    }


def _mapping(sent: Mapping[str, Any], field: str) -> dict[str, Any]:
    value = sent.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageFault(
            "usage/shape",
            f"{field} must be a JSON object; it is {type(value).__name__}.",
            f"Send {field} as an object, or leave it out.",
        )
    result = dict(value)
    if field == "metadata" and not isinstance(result.get("relationships", []), list):
        # The SDKs write null for none, and cannot read it back.
        if result["relationships"] is not None:
            raise UsageFault(
                "usage/shape",
                "metadata.relationships must be a list.",
                "Send a list, or leave it out.",
            )
        del result["relationships"]
    return result


def _check_function(spec: dict[str, Any]) -> None:
    """Refuse what no run of this function could read."""
    FunctionSpec.from_entity({"spec": spec})
    if spec.get("python_version") is not None:
        interpreter_version(spec["python_version"])


def _only(entity_type: EntityType) -> str | None:
    return entity_type.kinds[0] if len(entity_type.kinds) == 1 else None


def parent_of(entity: Mapping[str, Any]) -> str | None:
    """The id of the run, of the same project, that has started a run; None where none did."""
    parent = entity["status"].get("parent")
    return str(parent["run"]) if isinstance(parent, Mapping) and "run" in parent else None
