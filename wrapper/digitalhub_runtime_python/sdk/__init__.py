"""The plug-in for the `digitalhub` SDK, 0.14 and 0.15: loaded when the SDK asks for it, never before.

The SDK reads the two tables below once and makes one instance of each class.
"""

from __future__ import annotations

from digitalhub_runtime_python.sdk.builders import make_builder
from digitalhub_runtime_python.sdk.kinds import KINDS
from digitalhub_runtime_python.sdk.registering import Table
from digitalhub_runtime_python.sdk.runtime import RuntimePythonBuilder

entity_builders = Table([(kind.name, make_builder(kind)) for kind in KINDS], "entity")
runtime_builders = Table(
    [(kind.name, RuntimePythonBuilder) for kind in KINDS if kind.entity_type == "run"], "runtime"
)
