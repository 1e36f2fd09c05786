"""Names and labels of a run's objects. Pure, and no two runs have the same."""

from __future__ import annotations

import hashlib
import re
from typing import Any

PREFIX = "dhpy-"
MANAGED_BY = "digitalhub-python"
RUN = "digitalhub.io/run"
PROJECT = "digitalhub.io/project"
INSTANCE = "digitalhub.io/control-plane"

_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def object_name(project: str, run_id: str, attempt: int) -> str:
    """The name of all objects of an attempt; at most 63 characters, as pods' host names have."""
    # An id is unique by itself where the platform made it; a user's own only within its project.
    own = (
        run_id
        if re.fullmatch(r"[0-9a-f]{32}", run_id)
        else f"{_slug(run_id)}-{_digest(project, run_id)}"
    )
    return f"{PREFIX}{own}" + (f"-{attempt}" if attempt else "")


def alias_name(project: str, function: str, service_name: str) -> str:
    """The name of a Service that stays the same over runs."""
    return f"{_slug(project, 14)}-{_slug(function, 14)}-{_slug(service_name, 14)}-{_digest(project, function, service_name)}"  # fmt: skip


def claim_name(project: str, volume: str) -> str:
    """The claim that a project's `persistent_volume_claim` of that name is, in all of its runs."""
    return f"{PREFIX}{_slug(project)}-{_slug(volume)}-{_digest(project, volume)}"


def labels(project: str, run_id: str, function: str, action: str, instance: str) -> dict[str, str]:
    """Kubernetes' recommended labels and our own."""
    return {
        "app.kubernetes.io/name": label(function or "function"),
        "app.kubernetes.io/instance": object_name(project, run_id, 0),
        "app.kubernetes.io/component": action,
        "app.kubernetes.io/part-of": label(project),
        "app.kubernetes.io/managed-by": MANAGED_BY,
        RUN: label(run_id),
        PROJECT: label(project),
        INSTANCE: label(instance),
    }


def label(value: str) -> str:
    """The value as a label; another one, with a digest of it, where a label cannot have it."""
    if _LABEL.fullmatch(value):
        return value
    cleaned = re.sub(r"[^A-Za-z0-9]+", "-", value).strip("-")[:40].strip("-") or "x"
    return f"{cleaned}-{_digest(value)}"


def selector(*, instance: str) -> str:
    """The label selector of everything that a control plane has made."""
    return f"app.kubernetes.io/managed-by={MANAGED_BY},{INSTANCE}={label(instance)}"


def run_of(obj: dict[str, Any]) -> tuple[str, str] | None:
    """Project and id of the run that an object belongs to, from its annotations."""
    notes = obj.get("metadata", {}).get("annotations") or {}
    if PROJECT in notes and RUN in notes:
        return str(notes[PROJECT]), str(notes[RUN])
    return None


def _slug(text: str, longest: int = 20) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:longest].strip("-") or "x"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]
