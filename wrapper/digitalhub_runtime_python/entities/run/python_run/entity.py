"""The run of a python function, where its documentation looks for it."""

from __future__ import annotations

from digitalhub_runtime_python.sdk.entities import RunPythonRun

__all__ = ["RunPythonRun"]
