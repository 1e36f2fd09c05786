"""How the SDK makes our entities: strict on what a user passes, tolerant of what a platform stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
from digitalhub.context.api import get_context
from digitalhub.entities._commons.utils import map_actions
from digitalhub.entities.function._base.builder import FunctionBuilder
from digitalhub.entities.function._base.status import FunctionStatus
from digitalhub.entities.run._base.builder import RunBuilder
from digitalhub.entities.run._base.status import RunStatus
from digitalhub.entities.task._base.builder import TaskBuilder
from digitalhub.entities.task._base.status import TaskStatus

from digitalhub_runtime_python import error_report
from digitalhub_runtime_python.sdk import checks, compat, core, entities, kinds, pods, source
from digitalhub_runtime_python.sdk.requirements import read_requirements
from digitalhub_runtime_python.spec import ACTIONS, python_name

logger = compat.get_logger(__name__)


class PythonRunStatus(RunStatus):
    """A run's status; what was not reported is None."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**pods.with_reason(values, error_report.summary))
        for name in ("outputs", "results", "service", "error", "progress"):
            if not hasattr(self, name):
                setattr(self, name, None)


class KindBuilder:
    """What all our builders share; the attributes that the SDK asks for come from the kind's row."""

    EXECUTABLE_KIND = kinds.FUNCTION_KIND
    TASKS_KINDS = map_actions([(f"python+{action}", action) for action in ACTIONS])
    RUN_KINDS = map_actions([(f"python+{action}:run", action) for action in ACTIONS])
    ENTITY_KIND = ""

    def build_spec(self, validate: bool = True, **spec: Any) -> kinds.KindSpec:
        """A spec, also of an entity that a newer platform or a careless client has stored.

        One unreadable entity would make every list of its project fail. What a user passes has
        been checked before it comes here.
        """
        try:
            spec = kinds.VALIDATORS[self.ENTITY_KIND](**spec).to_dict() if validate else spec
        except pydantic.ValidationError as exc:
            problem = exc.errors(include_url=False, include_input=False)[0]
            logger.debug("taken as it is: a spec of kind %s (%s)", self.ENTITY_KIND, problem)
        return kinds.SPECS[self.ENTITY_KIND](**spec)


class PythonFunctionBuilder(KindBuilder, FunctionBuilder):
    def build(
        self,
        kind: str,
        project: str,
        name: str,
        uuid: str | None = None,
        description: str | None = None,
        labels: list[str] | None = None,
        embedded: bool = False,
        version: str | None = None,
        **parameters: Any,
    ) -> Any:
        """A new function; its code is checked, and uploaded where it has to be.

        Raises:
            UsageFault, SourceFault, HandlerFault: nothing was created.
        """
        checks.check_entity_name(name)
        parameters = source.with_function(parameters)
        if "python_version" in parameters:
            parameters["python_version"] = python_name(parameters["python_version"])
        spec = {k: v for k, v in parameters.items() if k not in kinds.SOURCE_PARAMETERS}
        code_parameters = {k: v for k, v in parameters.items() if k in kinds.SOURCE_PARAMETERS}
        if isinstance(spec.get("source"), Mapping):  # the stored form, as in an exported function
            stored = dict(spec["source"])
            code_parameters = {"code_src": stored.pop("source", None), **stored}
        # The rest first: what is wrong with it must not come out after code was read.
        checks.check_function({**spec, "requirements": None, "source": {}})
        core.check_python(str(spec.get("python_version")), lambda: get_context(project).client)
        requirements = read_requirements(spec.pop("requirements", None))
        code = source.read_code(code_parameters, str(spec.get("python_version")))
        spec = checks.check_function({**spec, "requirements": requirements, "source": code.source})
        identity = {"uuid": uuid, "description": description, "labels": labels}
        identity.update({"version": version} if version is not None else {})
        function = super().build(
            kind=kind, project=project, name=name, embedded=embedded, **identity, **spec
        )
        function.spec.source = source.upload(code, project, name, function.id)
        return function

    def _parse_dict(self, obj: dict[str, Any], **options: Any) -> dict[str, Any]:
        parsed: dict[str, Any] = super()._parse_dict(obj, **options)
        spec = parsed["spec"]
        if isinstance(spec.source, dict):
            spec.source = source.embed_if_local(spec.source)
        return parsed


class PythonTaskBuilder(KindBuilder, TaskBuilder):
    def build(
        self,
        project: str,
        kind: str,
        uuid: str | None = None,
        labels: list[str] | None = None,
        **parameters: Any,
    ) -> Any:
        name = {"name": parameters.pop("name")} if parameters.get("name") else {}  # 0.16 has it
        spec = checks.check_task(kind, parameters)
        return super().build(project=project, kind=kind, uuid=uuid, labels=labels, **name, **spec)


class PythonRunBuilder(KindBuilder, RunBuilder):
    def build(
        self,
        project: str,
        kind: str,
        name: str | None = None,
        uuid: str | None = None,
        labels: list[str] | None = None,
        task: str | None = None,
        **parameters: Any,
    ) -> Any:
        action = kinds.BY_NAME[kind].action
        parameters.pop("entity_type", None)  # SDK 0.15's task.run(save=False) leaves it in
        function = parameters.pop("function", None)
        more = {"extensions": parameters.pop("extensions")} if parameters.get("extensions") else {}
        inherited = {k: parameters.pop(k) for k in kinds.FUNCTION if k in parameters}
        values = checks.check_run(action, parameters)
        if not values.get("local_execution"):
            values = core.translated(values, lambda: get_context(project).client)
        return super().build(
            project=project,
            kind=kind,
            uuid=uuid,
            labels=labels,
            task=task,
            function=function,
            **more,
            **inherited,
            **values,
        )


_BASES: dict[str, tuple[type, type, type]] = {
    "function": (PythonFunctionBuilder, entities.FunctionPython, FunctionStatus),
    "task": (PythonTaskBuilder, entities.TaskPython, TaskStatus),
    "run": (PythonRunBuilder, entities.RunPythonRun, PythonRunStatus),
}


def make_builder(kind: kinds.Kind) -> type:
    """The builder class of a kind's row."""
    base, entity, status = _BASES[kind.entity_type]
    return type(
        f"{base.__name__}{kind.action.title()}",
        (base,),
        {
            "ENTITY_CLASS": entity,
            "ENTITY_SPEC_CLASS": kinds.SPECS[kind.name],
            "ENTITY_SPEC_VALIDATOR": kinds.VALIDATORS[kind.name],
            "ENTITY_STATUS_CLASS": status,
            "ENTITY_KIND": kind.name,
        },
    )
