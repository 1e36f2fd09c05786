"""Profiles: the administrator's templates, chosen by a task's `profile`.

A YAML file, or a folder of them; each document is one profile:

    id: gpu
    name: GPU nodes
    description: One GPU, on nodes that nothing else runs on
    defaults: {resources: {gpu: 1}}                     # a task's parameters, where the run has none
    labels: {kueue.x-k8s.io/queue-name: research}       # of the Job, Deployment and Service
    pod: {spec: {tolerations: [{key: gpu, operator: Exists}]}}      # merged over the pod, strategically
    job: {spec: {suspend: true}}                        # over the Job; deployment, service likewise

What a profile says of a pod goes before what the user says. `default` is the profile of runs that name none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from digitalhub_python_control.running.kubernetes.shapes import fault, known_keys, nearest
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.nesting import read_yaml

DEFAULT = "default"


@dataclass(frozen=True)
class Profile:
    """One template; the empty one changes nothing."""

    id: str = ""
    name: str = ""
    description: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    pod: Mapping[str, Any] = field(default_factory=dict)
    job: Mapping[str, Any] = field(default_factory=dict)
    deployment: Mapping[str, Any] = field(default_factory=dict)
    service: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, str]:
        """As DigitalHub Core lists its own."""
        return {"id": self.id, "name": self.name or self.id, "description": self.description}


_FIELDS = tuple(f.name for f in fields(Profile))
_MAPS = ("defaults", "labels", "pod", "job", "deployment", "service")


def load(place: Path | None) -> dict[str, Profile]:
    """Id -> profile; read anew each time, so that an edit needs no restart.

    Raises:
        UsageFault: a file cannot be read, or a profile is not well formed; the message names both.
    """
    if place is None:
        return {}
    found: dict[str, Profile] = {}
    files = sorted(place.glob("*.y*ml")) if place.is_dir() else [place]
    for file in files:
        try:
            documents = [one for one in read_yaml(file.read_text("utf-8")) if one]
        except (OSError, ValueError) as exc:
            raise UsageFault(
                "usage/profile", f"The profiles in {file} cannot be read: {' '.join(str(exc).split())}.",
                "Correct the file, or DHPY_KUBERNETES_PROFILES.",
            ) from exc  # fmt: skip
        for document in documents:
            profile = read(document, str(file))
            if profile.id in found:
                raise _malformed(str(file), f"the profile {profile.id!r} is there twice")
            found[profile.id] = profile
    return found


def read(document: Any, where: str) -> Profile:
    """One profile.

    Raises:
        UsageFault: usage/profile, usage/parameter.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("id"), str) or not document["id"]:  # fmt: skip
        raise _malformed(where, "a profile has no id")
    given = known_keys(document, _FIELDS, f"The profile {document['id']!r} of {where}")
    for key in _MAPS:
        if not isinstance({} if given.get(key) is None else given[key], Mapping):
            raise _malformed(where, f"{key} of the profile {document['id']!r} is not a mapping")
    return Profile(**{key: value for key, value in given.items() if value is not None})


def chosen(profiles: Mapping[str, Profile], name: str) -> Profile:
    """The profile that a run names, or the one for runs that name none.

    Raises:
        UsageFault: usage/parameter, there is no such profile.
    """
    if not name:
        return profiles.get(DEFAULT, Profile())
    if name not in profiles:
        known = (
            f"There are: {', '.join(profiles)}." if profiles else "This platform has no profiles."
        )
        raise fault(f"profile is {name!r}, which does not exist{nearest(name, profiles)}.", known)
    return profiles[name]


def _malformed(where: str, what: str) -> UsageFault:
    return UsageFault("usage/profile", f"In {where} {what}.", "Correct the file.")
