"""What a function and a run are, as frozen values; read from the platform's JSON, never from an SDK object.

Shared by the runtime, the builder and the control plane. Unknown keys of the JSON are kept in
`extra`, so that nothing of a newer platform is lost on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from digitalhub_runtime_python.errors import UsageFault

PYTHON_VERSIONS: dict[str, str] = {
    "PYTHON3_9": "3.9",
    "PYTHON3_10": "3.10",
    "PYTHON3_11": "3.11",
    "PYTHON3_12": "3.12",
    "PYTHON3_13": "3.13",
    "PYTHON3_14": "3.14",
}
"""`python_version` of a function -> the interpreter's version."""

ACTIONS = ("job", "serve", "build")


def python_name(version: object) -> object:
    """`PYTHON3_11` for `3.11` as people write it; anything else as it is, for `interpreter_version` to refuse."""
    return next((name for name, number in PYTHON_VERSIONS.items() if version == number), version)


def interpreter_version(python_version: str) -> str:
    """The interpreter's version, `"3.10"`, for a function's `python_version`, `"PYTHON3_10"`.

    Raises:
        UsageFault: `python_version` is not in the table; the message lists those that are.
    """
    try:
        return PYTHON_VERSIONS[python_version]
    except (KeyError, TypeError):
        raise UsageFault(
            "usage/python-version",
            f"python_version {python_version!r} is not known.",
            f"Use one of {', '.join(PYTHON_VERSIONS)}.",
        ) from None


@dataclass(frozen=True)
class SourceSpec:
    """Where a function's code is and which names in it are called (`spec.source` of the platform)."""

    source: str | None = None
    """A path, a file name, or a URI such as `git+https://host/repo#ref`."""
    handler: str | None = None
    """`module.sub:function`, `path/to/file.py:function` or a bare `function`."""
    init_function: str | None = None
    code: str | None = None
    """The code itself, as plain text."""
    base64: str | None = None
    """The code itself, base64 of its UTF-8 text."""
    lang: str | None = None

    @classmethod
    def from_dict(cls, obj: Mapping[str, Any] | None) -> SourceSpec:
        """Read `spec.source` of the platform's JSON; keys that are not known are left out.

        Raises:
            UsageFault: usage/shape, a part of it is not text; the message names the part.
        """
        obj = obj or {}
        return cls(**{f.name: _text(obj.get(f.name), f"source.{f.name}") for f in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}


@dataclass(frozen=True)
class FunctionSpec:
    """A function of kind `python`: its code, its interpreter, and what its image is made of."""

    name: str
    source: SourceSpec
    python_version: str
    project: str = ""
    id: str = ""
    image: str | None = None
    base_image: str | None = None
    requirements: tuple[str, ...] = ()

    @classmethod
    def from_entity(cls, entity: Mapping[str, Any]) -> FunctionSpec:
        """Read the platform's JSON of a function (`{"name", "project", "id", "spec": {…}}`).

        Raises:
            UsageFault: usage/shape, a part of it has the wrong shape; the message names the part.
        """
        entity = _mapping(entity, "function")
        spec = _mapping(entity.get("spec"), "spec of the function")
        return cls(
            name=str(entity.get("name") or ""),
            project=str(entity.get("project") or ""),
            id=str(entity.get("id") or ""),
            source=SourceSpec.from_dict(_mapping(spec.get("source"), "source")),
            python_version=str(spec.get("python_version") or ""),
            image=_text(spec.get("image"), "image"),
            base_image=_text(spec.get("base_image"), "base_image"),
            requirements=_texts(spec.get("requirements"), "requirements"),
        )


@dataclass(frozen=True)
class RunSpec:
    """One run: the function's spec, the task's and the run's own, as the platform merged them."""

    id: str
    project: str
    action: str
    """`job`, `serve` or `build`."""
    source: SourceSpec
    kind: str = "python+job:run"
    key: str = ""
    function: str = ""
    """The function's reference, `python://project/name:id`."""
    python_version: str = ""
    requirements: tuple[str, ...] = ()
    image: str | None = None
    base_image: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Argument name -> entity key, or a list or dict of keys."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    init_parameters: Mapping[str, Any] = field(default_factory=dict)
    local_execution: bool = False
    envs: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    lax_parameters: bool = False
    """Their values are text from a command line; no platform's run can say so."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Every other key of the run's spec: resources, volumes, replicas, instructions, …"""

    @property
    def function_name(self) -> str:
        """`name` out of `python://project/name:id`; empty where the run names no function."""
        return self.function.rsplit("/", 1)[-1].split(":", 1)[0]

    @classmethod
    def from_entity(cls, entity: Mapping[str, Any], *, own: bool = False) -> RunSpec:
        """Read the platform's JSON of a run.

        Args:
            own: it was written by a command of ours, not by a platform.

        Raises:
            UsageFault: a part of it has the wrong shape; the message names the part.
        """
        entity = _mapping(entity, "run")
        spec = _mapping(entity.get("spec"), "spec of the run")
        kind = str(entity.get("kind") or "python+job:run")
        action = action_of(kind)
        if action not in ACTIONS:
            raise UsageFault(
                "usage/action",
                f"A run of kind {kind!r} is not one of {', '.join(ACTIONS)}.",
                "Run the function with one of those actions.",
            )
        project, run_id = str(entity.get("project") or ""), str(entity.get("id") or "")
        known = {f.name for f in fields(cls)}
        return cls(
            id=run_id,
            project=project,
            action=action,
            source=SourceSpec.from_dict(_mapping(spec.get("source"), "source")),
            kind=kind,
            # Core writes run keys as …/{id}:{id}, the SDK as …/{id}; relationships use Core's form.
            key=f"store://{project}/run/{kind}/{run_id}:{run_id}",
            function=str(spec.get("function") or ""),
            python_version=str(spec.get("python_version") or ""),
            requirements=_texts(spec.get("requirements"), "requirements"),
            image=_text(spec.get("image"), "image"),
            base_image=_text(spec.get("base_image"), "base_image"),
            inputs=_mapping(spec.get("inputs"), "inputs"),
            parameters=_mapping(spec.get("parameters"), "parameters"),
            init_parameters=_mapping(spec.get("init_parameters"), "init_parameters"),
            local_execution=bool(spec.get("local_execution")),
            envs=_envs(spec.get("envs")),
            secrets=_texts(spec.get("secrets"), "secrets"),
            lax_parameters=own and bool(spec.get("lax_parameters")),
            extra={k: v for k, v in spec.items() if k not in known},
        )


def _mapping(value: object, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _wrong_shape(what, "a JSON object", value)
    return dict(value)


def _text(value: object, what: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise _wrong_shape(what, "text", value)


def _texts(value: object, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        raise _wrong_shape(what, "a list of text only", value)
    return tuple(value)


def _envs(value: object) -> dict[str, str]:
    """`[{"name": …, "value": …}]`, the platform's form, as a dict."""
    if value is None:
        return {}
    if not isinstance(value, (list, tuple)) or not all(map(_is_env, value)):
        raise _wrong_shape("envs", "a list of objects with name and value", value)
    return {item["name"]: _env_text(item.get("value")) for item in value}


def _is_env(item: object) -> bool:
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        return False
    name = item["name"]
    # What no process can be given.
    return bool(name) and "=" not in name and "\0" not in name + _env_text(item.get("value"))


def _env_text(value: object) -> str:
    return "" if value is None else str(value)


def _wrong_shape(what: str, wanted: str, value: object) -> UsageFault:
    return UsageFault(
        "usage/shape",
        f"The {what} must be {wanted}; it is {type(value).__name__}.",
        "Correct it in the function's or the run's spec.",
    )


def action_of(kind: str) -> str:
    """The action in a run's kind: `serve` of `python+serve:run`."""
    return kind.partition("+")[2].partition(":")[0]
