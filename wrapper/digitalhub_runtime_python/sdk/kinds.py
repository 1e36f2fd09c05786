"""What this runtime adds to the SDK: each kind is a row of `KINDS`, each parameter a row of a table below.

The classes that the SDK asks for (a spec, its validator) are made from the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Optional

from digitalhub.entities._base.entity.spec import Spec, SpecValidator
from pydantic import ConfigDict, Field, create_model

from digitalhub_runtime_python.sdk import models
from digitalhub_runtime_python.spec import ACTIONS

FUNCTION_KIND = "python"

Fields = Mapping[str, Any]
"""Name of a parameter -> its type. Every one is optional but those of `REQUIRED`."""

REQUIRED = frozenset({"function", "task", "source", "python_version"})

FUNCTION: Fields = {
    "source": models.Source,
    "python_version": str,
    "image": str,
    "base_image": str,
    "requirements": list[str],
}

TASK: Fields = {
    "node_selector": list[models.NodeSelector],
    "volumes": list[models.Volume],
    "resources": models.Resources,
    "affinity": models.Affinity,
    "tolerations": list[models.Toleration],
    "envs": list[models.Env],
    "secrets": list[str],
    "profile": str,
    "runtime_class": str,
    "priority_class": str,
}

ACTION: Mapping[str, Fields] = {
    "job": {"backoff_limit": Annotated[int, Field(ge=0)]},
    "serve": {
        "replicas": Annotated[int, Field(ge=1)],
        "service_type": models.ServiceType,
        "service_name": str,
    },
    "build": {"instructions": list[str]},
}

RUN: Fields = {
    "local_execution": bool,
    "inputs": dict[str, Any],
    "parameters": dict[str, Any],
    "init_parameters": dict[str, Any],
}

SOURCE_PARAMETERS = ("func", "code_src", "code", "base64", "handler", "init_function", "lang")
"""Parameters of a function that end in its `source`."""


@dataclass(frozen=True)
class Kind:
    """One kind of entity."""

    name: str
    entity_type: str
    """`function`, `task` or `run`."""
    action: str
    """`job`, `serve`, `build`; empty for the function."""
    fields: Fields
    optional: frozenset[str] = frozenset()
    """Fields of `REQUIRED` that this kind does without."""


KINDS: tuple[Kind, ...] = (
    Kind(FUNCTION_KIND, "function", "", FUNCTION),
    *(Kind(f"python+{a}", "task", a, {"function": str, **TASK, **ACTION[a]}) for a in ACTIONS),
    *(
        Kind(
            f"python+{a}:run",
            "run",
            a,
            {"task": str, "function": str, **FUNCTION, **TASK, **ACTION[a], **RUN},
            # A run has its function's part only once the platform has merged it.
            optional=frozenset({"function", "source", "python_version"}),
        )
        for a in ACTIONS
    ),
)

BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}


def run_parameters(action: str) -> Fields:
    """What `function.run(action, …)` takes."""
    return {**TASK, **ACTION[action], **RUN}


class Validator(SpecValidator):
    """Knows the table's fields; keeps what it does not know, so that a newer platform loses nothing."""

    # defer_build: most scripts use two of the seven kinds, and building one takes milliseconds.
    model_config = ConfigDict(extra="allow", use_enum_values=True, defer_build=True)


class KindSpec(Spec):
    """A spec with the table's fields as attributes, None where nothing was given."""

    FIELDS: tuple[str, ...] = ()

    def __init__(self, **values: Any) -> None:
        for name in self.FIELDS:
            setattr(self, name, None)
        for name, value in values.items():
            setattr(self, name, value)


def _make_validator(kind: Kind) -> type[Validator]:
    """The pydantic model of a kind's spec."""
    required = REQUIRED - kind.optional
    fields: dict[str, Any] = {
        name: (hint, ...) if name in required else (Optional[hint], None)
        for name, hint in kind.fields.items()
    }
    if "local_execution" in fields:
        fields["local_execution"] = (bool, False)
    model: type[Validator] = create_model(
        f"{_class_name(kind)}Validator", __base__=Validator, **fields
    )
    return model


def _make_spec(kind: Kind) -> type[KindSpec]:
    """The class of a kind's spec."""
    return type(f"{_class_name(kind)}Spec", (KindSpec,), {"FIELDS": tuple(kind.fields)})


def _class_name(kind: Kind) -> str:
    return f"{kind.entity_type.title()}Python{kind.action.title()}"


VALIDATORS: Mapping[str, type[Validator]] = {kind.name: _make_validator(kind) for kind in KINDS}
SPECS: Mapping[str, type[KindSpec]] = {kind.name: _make_spec(kind) for kind in KINDS}
