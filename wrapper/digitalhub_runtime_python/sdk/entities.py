"""Function, Task and Run of kind python: what users call. The data behind them is in kinds.py."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from digitalhub.entities._commons.enums import Relationship
from digitalhub.entities.function._base.entity import Function
from digitalhub.entities.run._base.entity import Run
from digitalhub.entities.task._base.entity import Task
from digitalhub.factory.entity import entity_factory

from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.sdk import checks, compat, session, views
from digitalhub_runtime_python.states import ENDED

if TYPE_CHECKING:
    import requests

    from digitalhub_runtime_python.sdk.sweeps import Sweep

logger = compat.get_logger(__name__)

_RUN_SIGNATURE = inspect.signature(Function.run)
"""Of the installed SDK: the second positional argument is local_execution in 0.14, wait in 0.15."""
_TASKS = threading.RLock()
"""Functions that run in parallel threads share their task; it is created once."""
_SHOWN = (
    "kind",
    "metadata",
    "spec",
    "status",
    "user",
    "key",
    "project",
    "id",
    "name",
    "extensions",
)
_STARTING = ("CREATED", "BUILT", "READY", "RUNNING")
"""The states on the way of a local run; a platform may insist on every one of them."""


class _OwnAttributes:
    """What to_dict() shows. The SDK's base classes grow one list for all entities ever made."""

    @property
    def _obj_attr(self) -> list[str]:
        return [*_SHOWN]


class FunctionPython(_OwnAttributes, Function):
    """A function of kind python."""

    def __repr__(self) -> str:
        return views.function_line(self)

    def run(self, action: str = "job", *args: Any, **kwargs: Any) -> RunPythonRun:
        """Execute the function.

        Args:
            action: `job`, `serve` or `build`.
            *args: as the installed SDK orders them: `local_execution, wait, log_info` in 0.14,
                `wait, log_info, extensions` in 0.15. Name them, and both take them.
            **kwargs: `local_execution` (bool): execute in this process, jobs only.
                `wait` (bool): return when the run has ended. `log_info` (bool): say so meanwhile.
                `inputs`, `parameters`, `init_parameters` (dict), and the task's parameters:
                docs/reference/task.md.

        Returns:
            The run; ended, if it was executed locally or waited for.

        Raises:
            UsageFault: a parameter is unknown or has the wrong shape; nothing was created.
            BaseException: a local run raises what the user's code raised, as it is.
        """
        checks.check_action(action)
        args = tuple(a for a in args if a is not ...)  # the documentation writes run("serve", ...)
        call = _RUN_SIGNATURE.bind(self, action, *args, **kwargs)
        call.apply_defaults()
        given: dict[str, Any] = {**call.arguments, **call.arguments["kwargs"]}
        for name in ("self", "action", "kwargs"):
            del given[name]
        options = {name: given.pop(name, None) for name in ("wait", "log_info", "extensions")}
        identity = {k: given.pop(k) for k in ("uuid", "labels", "name") if k in given}
        values = checks.check_run(action, given)
        local = values.pop("local_execution", False)
        task = self._get_or_create_task(compat.task_name(self.kind, action))
        run = task.run(
            entity_factory.get_run_kind_from_action(self.kind, action),
            save=False,
            local_execution=local,
            **values,
            **identity,
        )
        if options["extensions"]:
            run.extensions = options["extensions"]
        run.add_relationship(Relationship.RUN_OF.value, self.key)
        if local:
            return run.start_local(self, task)  # type: ignore[no-any-return]
        run.save()
        return run.wait(bool(options["log_info"])) if options["wait"] else run  # type: ignore[no-any-return]

    def map(
        self,
        parameters: Sequence[Mapping[str, Any]],
        *,
        name: str | None = None,
        parallel: int = 8,
        **kwargs: Any,
    ) -> Sweep:
        """Run the function as a job once for each of `parameters`, and wait for all.

        Args:
            parameters: a dict for each run.
            name: of the sweep; one of the same name takes up what is there already, and runs the rest.
            parallel: how many are asked for at the same time; the platform has its own limit.
            **kwargs: as `run()` takes them: `inputs`, `resources`, …

        Returns:
            The sweep: `frame()` is its table, `best(name)` a run, `failed` runs, `retry()` runs those again.

        Raises:
            UsageFault: something cannot be run; nothing was started.
        """
        from digitalhub_runtime_python.sdk import sweeps

        return sweeps.sweep(self, parameters, "job", name, parallel, kwargs)

    def sweep(
        self,
        grid: Mapping[str, Sequence[Any]],
        *,
        name: str | None = None,
        parallel: int = 8,
        **kwargs: Any,
    ) -> Sweep:
        """`map` over every combination of the grid's values: `{"rate": [0.1, 0.2], "depth": [3, 5]}`."""
        from digitalhub_runtime_python.sdk import sweeps

        return sweeps.sweep(self, sweeps.grid(grid), "job", name, parallel, kwargs)

    def trigger(
        self,
        action: str,
        kind: str,
        name: str,
        template: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Have the platform run the function by itself.

        Args:
            action: `job`, `serve` or `build`.
            kind: `scheduler`; DigitalHub Core has `lifecycle` too.
            name: the trigger's.
            template: what the runs get, as `run()` takes it: `{"parameters": {…}, "inputs": {…}}`.
            **kwargs: `schedule` (str) of a scheduler: a Quartz cron expression, seconds first, in UTC.

        Raises:
            UsageFault: the template is not what a run takes; nothing was created.
        """
        checks.check_action(action)
        values = checks.check_run(action, dict(template or {}))
        if values.pop("local_execution", False):
            raise UsageFault(
                "usage/local",
                "A trigger's runs are executed by the platform.",
                "Leave local_execution out of the template.",
            )
        checks.check_entity_name(name)
        return super().trigger(action, kind, name, values, **kwargs)

    def _get_or_create_task(self, name: str) -> Any:
        """The function's task; the SDK's own way asks the platform twice."""
        with _TASKS:
            tasks: dict[str, Any] = self.__dict__.setdefault("_tasks", {})  # 0.16 keeps none
            if tasks.get(name) is None:
                kind = compat.task_kind(self.kind, name)
                found = self._get_task_from_backend(kind)
                if found:
                    task = found[0]
                else:
                    task = entity_factory.build_entity_from_params(
                        project=self.project, kind=kind, function=self._get_executable_string()
                    )
                    task.save()
                tasks[name] = task
            return tasks[name]


class TaskPython(_OwnAttributes, Task):
    """A task of kind python+job, python+serve or python+build."""


class RunPythonRun(_OwnAttributes, Run):
    """A run of a python function: a job, a service, or a build."""

    spec: Any
    status: Any

    # --- what it gave ----------------------------------------------------------------------------

    def output(self, output_name: str, as_key: bool = False, as_dict: bool = False) -> Any:
        """One output: the stored entity, or the result of that name where there is no such entity.

        Args:
            output_name: as declared in `@handler(outputs=[…])`, or `output_0`, `output_1`, …
            as_key: the entity's key, without reading the entity.
            as_dict: the entity as a dict.

        Returns:
            Artifact, Dataitem or Model; a plain value; None if the run has nothing of that name.
        """
        self._refresh_until_ended()
        outputs = self.status.outputs or {}
        if output_name in outputs:
            return _read(outputs[output_name], as_key, as_dict)
        results = self.results()
        if output_name not in results:
            names = ", ".join([*outputs, *results]) or "none"
            logger.warning("run %s has no output %r; it has %s", self.id, output_name, names)
        return results.get(output_name)

    def outputs(self, as_key: bool = False, as_dict: bool = False) -> dict[str, Any]:
        """Every stored entity by the output's name; `as_key` and `as_dict` as in `output`."""
        self._refresh_until_ended()
        return {n: _read(key, as_key, as_dict) for n, key in (self.status.outputs or {}).items()}

    def result(self, result_name: str) -> Any:
        """One result, a plain value; None if the run has none of that name."""
        return self.results().get(result_name)

    def results(self) -> dict[str, Any]:
        """Every result by its name."""
        self._refresh_until_ended()
        return dict(self.status.results or {})

    def inputs(self, as_dict: bool = False) -> dict[str, Any]:
        """The entities that the run takes, by the argument's name."""

        def read(value: Any) -> Any:
            if isinstance(value, list):
                return [read(item) for item in value]
            return _read(value, False, as_dict)

        return {name: read(value) for name, value in (self.spec.inputs or {}).items()}

    @property
    def image(self) -> str | None:
        """The image that a build made; None until it is there."""
        found = (self.status.outputs or {}).get("image")
        if isinstance(found, str) and found.startswith("store://"):
            return str(session.get_entity(found).spec.image)
        return found

    def __repr__(self) -> str:
        return views.run_line(self)

    def _repr_html_(self) -> str:
        return views.run_page(self)

    # --- its life --------------------------------------------------------------------------------

    def wait(self, log_info: bool = True, timeout: float | None = None) -> RunPythonRun:
        """Wait until a job or a build has ended, or until a service answers.

        Args:
            log_info: log each new state.
            timeout: seconds; None waits as long as it takes.

        Returns:
            The run, refreshed; also one that failed, whose error is then logged.

        Raises:
            TimeoutError: the time is over; the run goes on.
        """
        from digitalhub_runtime_python.sdk import waiting

        waiting.wait(self, log_info, timeout)
        return self

    def invoke(
        self, method: str | None = None, url: str | None = None, **kwargs: Any
    ) -> requests.Response:
        """Call the service of a serve run.

        Args:
            method: default: POST with a body (`json`, `data`, `files`), else GET.
            url: default: the service's own; a path below it, or a whole URL of that service.
            **kwargs: as `requests.request` takes them; `timeout` is 60 seconds unless given.

        Raises:
            UsageFault: usage/service, when there is no service (yet), or `url` is another's.
        """
        from digitalhub_runtime_python.sdk import service

        return service.invoke(self, method, url, kwargs)

    def logs(self) -> list[Any]:
        """What the run printed: dicts with SDK 0.14, Log objects with 0.15.

        Of a run that failed on a platform that keeps no logs this is empty, so its error is logged first.
        """
        from digitalhub_runtime_python.sdk import waiting

        self._refresh_until_ended()
        if self.status.state == "ERROR" and self.status.error:
            waiting.show_error(self)
        return super().logs()  # type: ignore[no-any-return]

    def stop(self) -> None:
        """Ask the platform to stop the run; a run that has ended, or runs here, is left as it is."""
        if self.local_execution():
            logger.info(
                "run %s is executed by the process that started it: nothing to stop", self.id
            )
            return
        self._refresh_until_ended()
        if self.status.state not in ENDED:
            super().stop()

    def local_execution(self) -> bool:
        """Whether the run is executed in the process that creates it."""
        return bool(self.spec.local_execution)

    def start_local(self, function: FunctionPython, task: TaskPython) -> RunPythonRun:
        """Create the run on the platform as a running one, and execute it here."""
        from digitalhub_runtime_python.sdk import runtime

        spec = runtime.merge_spec(function.spec.to_dict(), task.spec.to_dict(), self.spec.to_dict())
        self.spec = entity_factory.build_spec(self.kind, **spec)
        self.status.state = "RUNNING"
        self.save()
        return self.run()

    def run(self) -> RunPythonRun:
        """Execute a local run in this thread, and report how it ended.

        Raises:
            UsageFault: the platform executes this run.
            BaseException: what the user's code raised, as it is.
        """
        from digitalhub_runtime_python.sdk import runtime

        if not self.local_execution():
            raise UsageFault(
                "usage/local",
                f"Run {self.id} is executed by the platform.",
                "Use function.run(…, local_execution=True) to execute a function here.",
            )
        self._move_to_running()
        ending = runtime.execute(self)
        state = "COMPLETED" if ending.error is None else "ERROR"
        status = {**self.status.to_dict(), **ending.status, "state": state}
        self.status = entity_factory.build_status(self.kind, **status)
        runtime.deliver(self, ending)
        if ending.error is not None:
            raise ending.error
        return self

    def _move_to_running(self) -> None:
        for state in _STARTING[1:]:
            known = self.status.state in _STARTING
            if known and _STARTING.index(self.status.state) < _STARTING.index(state):
                self.status.state = state
                compat.update(self)

    def _refresh_until_ended(self) -> None:
        if self.status.state not in ENDED and not self.local_execution():
            self.refresh()


def _read(key: Any, as_key: bool, as_dict: bool) -> Any:
    """What an entry of a status or a spec names; what is not a key (an image's name) is returned as it is."""
    if as_key or not isinstance(key, str) or not key.startswith("store://"):
        return key
    entity = session.get_entity(key)
    return entity.to_dict() if as_dict else entity
