"""Python functions as jobs, services and images for DigitalHub.

This import costs the standard library and nothing else; what the SDK looks for here
(`entity_builders`, `runtime_builders`) is loaded when the SDK asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from digitalhub_runtime_python._version import __version__
from digitalhub_runtime_python.decorator import handler

if TYPE_CHECKING:
    from nuclio_sdk import Context, Event, Response

    from digitalhub_runtime_python.sdk import entity_builders, runtime_builders

__all__ = [
    "Context",
    "Event",
    "Response",
    "__version__",
    "entity_builders",
    "handler",
    "runtime_builders",
]

# Loaded at first use: name -> module that has it.
_LAZY = {
    "Context": "nuclio_sdk",
    "Event": "nuclio_sdk",
    "Response": "nuclio_sdk",
    "entity_builders": "digitalhub_runtime_python.sdk",
    "runtime_builders": "digitalhub_runtime_python.sdk",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    try:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    except AttributeError as exc:
        # The SDK's getattr(module, name, []) would read an AttributeError as "no plug-in here".
        raise ImportError(f"cannot load {name!r} of digitalhub_runtime_python: {exc}") from exc
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
