"""Imports packages without a module that they name and seldom use: in a pod of 0.1 CPU 10 ms are 0.1 s of waiting."""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Inside, `import` of these modules gives stand-ins; whoever uses one later gets the module itself.

    For imports of packages that are known: none of them may subclass what such a module has. Whoever
    imports one of the modules outside gets the real one, whether it was put off or not.
    """
    standing_in: dict[str, ModuleType] = {}
    collects = gc.isenabled()
    gc.disable()  # an import makes much and drops next to nothing: a twelfth of its time goes into looking
    for name in names:
        if name not in sys.modules:
            sys.modules[name] = standing_in[name] = _stand_in(name)
    try:
        yield
    finally:
        if collects:
            gc.enable()
        for name, module in standing_in.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
            parent = sys.modules.get(name.rpartition(".")[0])
            if parent is not None:
                _resolve_later(parent, name)


def load_msgspec() -> None:
    """Import msgspec without typing_extensions, which is a sixth of what a service imports.

    It takes from it what Python's own typing has from 3.11 on, and does so itself where it is absent.
    Before there is code of the user's: another thread that imports it meanwhile would not find it.
    """
    loaded = {"msgspec", "typing_extensions"} & sys.modules.keys()
    if loaded or not hasattr(typing, "Required"):
        return
    absent: Any = None
    sys.modules["typing_extensions"] = absent
    try:
        importlib.import_module("msgspec")
    finally:
        del sys.modules["typing_extensions"]


def _stand_in(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = []  # so that `import name.more` is refused as missing, not as no package
    module.__getattr__ = lambda attribute: _Later(name, attribute)  # type: ignore[method-assign]
    return module


def _resolve_later(parent: ModuleType, name: str) -> None:
    """Have the package look up what it lacks now: the module, and what it took from it."""
    taken = {key: value for key, value in vars(parent).items() if isinstance(value, _Later)}
    for key in taken:
        delattr(parent, key)
    before = getattr(parent, "__getattr__", None)

    def look_up(attribute: str) -> Any:
        if attribute in taken:
            for key, value in taken.items():
                setattr(parent, key, value._value())
            return getattr(parent, attribute)
        if attribute == name.rpartition(".")[2]:
            return importlib.import_module(name)
        if before is not None:
            return before(attribute)
        raise AttributeError(f"module {parent.__name__!r} has no attribute {attribute!r}")

    parent.__getattr__ = look_up  # type: ignore[method-assign]


class _Later:
    """A function or a class of a module that is imported when it is called."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def _value(self) -> Any:
        return getattr(importlib.import_module(self._module), self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._value()(*args, **kwargs)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._value(), attribute)
