"""Maps what a function returned to results and stored outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Output:
    """A returned value as a file or folder on disk, ready to be stored as an entity."""

    name: str
    entity_type: str
    """`artifact`, `dataitem` or `model`: the singular of the API's plural."""
    kind: str
    """The entity's kind: `artifact`, `table`, `model`, `mlflow`, …"""
    path: Path
    """A file or a folder; it belongs to the run's workspace and goes with it."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """More of the entity's spec: a table's `schema`, the declaration's `spec_kwargs`."""
    status: Mapping[str, Any] = field(default_factory=dict)
    """More of the entity's status: a table's `preview`."""
    value: Any = None
    """The value itself, for a hub that stores from memory."""
