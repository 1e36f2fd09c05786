"""Which run is going on, so that what a user logs becomes its product.

The SDK has one answer for a whole project. Here each thread has its own, for local runs go on in
parallel; a thread that a handler starts has none, and gets the run that began last.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from digitalhub_runtime_python.sdk import compat

_MINE: ContextVar[tuple[Any, Any] | None] = ContextVar("digitalhub_current_run", default=None)
"""The calling thread's SDK context and run."""
_CHANGES = threading.Lock()


@contextmanager
def current_run(run: Any) -> Iterator[None]:
    """While this lasts, what this thread logs in the run's project is a product of the run."""
    context = run._context()
    with _CHANGES:
        if not isinstance(context, _OfThisThread):
            context.__class__ = type("Context", (_OfThisThread, type(context)), {})
        # The first entry is what was there before any of ours, e.g. a container's own run.
        going_on = context.__dict__.setdefault("_local_runs", [compat.shared_run(context)])
        going_on.append(run)
        compat.set_shared_run(context, run)
    token = _MINE.set((context, run))
    try:
        yield
    finally:
        _MINE.reset(token)
        with _CHANGES:
            going_on.remove(run)
            compat.set_shared_run(context, going_on[-1])
            if len(going_on) == 1:
                del context.__dict__["_local_runs"]


class _OfThisThread:
    """An SDK context that answers for the calling thread; what the SDK sets is the shared answer.

    The names are those that the two SDK versions read: `run` and `logged` (0.15), `_run_ctx` (0.14).
    """

    def _my_run(self) -> Any:
        mine = _MINE.get()
        return mine[1] if mine is not None and mine[0] is self else None

    @property
    def is_running(self) -> bool:
        return self._my_run() is not None or bool(self.__dict__["is_running"])

    @is_running.setter
    def is_running(self, value: bool) -> None:
        self.__dict__["is_running"] = value

    @property
    def run(self) -> Any:
        return self._my_run() or self.__dict__.get("run")

    @run.setter
    def run(self, value: Any) -> None:
        self.__dict__["run"] = value

    @property
    def _run_ctx(self) -> str | None:
        run = self._my_run()
        return f"{run.key}:{run.id}" if run is not None else self.__dict__.get("_run_ctx")

    @_run_ctx.setter
    def _run_ctx(self, value: str | None) -> None:
        self.__dict__["_run_ctx"] = value

    @property
    def logged(self) -> dict[str, str]:
        run = self._my_run()
        return self.__dict__["logged"] if run is None else run.__dict__.setdefault("_logged", {})  # type: ignore[no-any-return]

    @logged.setter
    def logged(self, value: dict[str, str]) -> None:
        self.__dict__["logged"] = value
