"""Runs and functions as the platform's JSON has them: read as they are, or refused with a UsageFault."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.spec import (
    PYTHON_VERSIONS,
    FunctionSpec,
    RunSpec,
    SourceSpec,
    interpreter_version,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = [
    "source", "parameters", "inputs", "init_parameters", "envs", "secrets", "requirements", "image",
    "base_image", "python_version", "function", "local_execution", "kind", "id", "name", "project",
]  # fmt: skip
SPECS = st.dictionaries(st.sampled_from(KEYS), JSON)
ENTITIES = JSON | st.fixed_dictionaries(
    {},
    optional={
        "spec": SPECS | JSON,
        "kind": st.sampled_from(["python+job:run", "python"]) | JSON,
        "id": JSON,
    },
)


@given(ENTITIES)
def test_any_json_is_a_run_or_a_usage_fault(entity: Any) -> None:
    try:
        run = RunSpec.from_entity(entity)
    except UsageFault as fault:
        assert fault.code.startswith("usage/")
    else:
        assert run.action in ("job", "serve", "build")
        assert all(isinstance(text, str) for text in (*run.requirements, *run.secrets))
        assert all(isinstance(text, str) for pair in run.envs.items() for text in pair)


@given(ENTITIES)
def test_any_json_is_a_function_or_a_usage_fault(entity: Any) -> None:
    try:
        function = FunctionSpec.from_entity(entity)
    except UsageFault as fault:
        assert fault.code == "usage/shape"
    else:
        assert isinstance(function.source, SourceSpec)


@pytest.mark.parametrize(
    "spec, said",
    [
        ({"source": {"handler": 5}}, "The source.handler must be text; it is int."),
        ({"source": "main.py"}, "The source must be a JSON object; it is str."),
        ({"parameters": [1]}, "The parameters must be a JSON object; it is list."),
        ({"requirements": "numpy"}, "The requirements must be a list of text only; it is str."),
        ({"requirements": ["numpy", 5]}, "The requirements must be a list of text only"),
        ({"secrets": {"a": "b"}}, "The secrets must be a list of text only; it is dict."),
        (
            {"envs": {"A": "b"}},
            "The envs must be a list of objects with name and value; it is dict.",
        ),
        ({"envs": [{"value": "b"}]}, "The envs must be a list of objects with name and value"),
        ({"envs": [{"name": "A=B", "value": "b"}]}, "The envs must be"),
        ({"envs": [{"name": "A", "value": "\0"}]}, "The envs must be"),
        ({"image": ["x"]}, "The image must be text; it is list."),
    ],
)
def test_a_part_of_another_shape_is_named(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageFault) as caught:
        RunSpec.from_entity({"kind": "python+job:run", "spec": spec})
    assert caught.value.code == "usage/shape"
    assert said in caught.value.message


def test_what_a_message_says_of_a_shape_holds_no_value() -> None:
    with pytest.raises(UsageFault) as caught:
        RunSpec.from_entity({"spec": {"envs": [{"name": "TOKEN", "value": "hunter2"}, 5]}})
    assert "hunter2" not in str(caught.value)


def test_a_run_of_another_kind_is_refused_with_the_actions_that_exist() -> None:
    with pytest.raises(UsageFault, match="not one of job, serve, build"):
        RunSpec.from_entity({"kind": "dbt+transform:run", "spec": {}})


def test_a_run_keeps_what_it_does_not_know() -> None:
    run = RunSpec.from_entity({"spec": {"volumes": [1], "new": {"a": 1}, "envs": None}})
    assert run.extra == {"volumes": [1], "new": {"a": 1}}
    assert run.envs == {}


def test_a_runs_key_is_cores() -> None:
    run = RunSpec.from_entity({"id": "abc", "project": "p", "kind": "python+job:run", "spec": {}})
    assert run.key == "store://p/run/python+job:run/abc:abc"


def test_a_run_knows_the_name_of_its_function() -> None:
    run = RunSpec.from_entity({"spec": {"function": "python://proj/my-fn:0a1b"}})
    assert run.function_name == "my-fn"


def test_envs_are_text() -> None:
    envs = [{"name": "A", "value": 1}, {"name": "B", "value": None}, {"name": "C"}]
    assert RunSpec.from_entity({"spec": {"envs": envs}}).envs == {"A": "1", "B": "", "C": ""}


def test_a_source_goes_to_json_and_back() -> None:
    source = SourceSpec(source="git+https://host/repo#main", handler="main:f", lang="python")
    assert SourceSpec.from_dict(source.to_dict()) == source
    assert SourceSpec.from_dict({**source.to_dict(), "new": 1}) == source


def test_every_python_version_has_its_interpreter() -> None:
    assert interpreter_version("PYTHON3_10") == "3.10"
    for version in PYTHON_VERSIONS:
        assert interpreter_version(version).startswith("3.")
    for odd in ("PYTHON2_7", "", None, 3.10, []):
        with pytest.raises(UsageFault, match="Use one of PYTHON3_9, PYTHON3_10"):
            interpreter_version(odd)  # type: ignore[arg-type]


def test_no_platforms_run_can_say_that_its_parameters_are_text() -> None:
    entity = {
        "kind": "python+job:run",
        "spec": {"source": {"handler": "f"}, "lax_parameters": True},
    }
    assert not RunSpec.from_entity(entity).lax_parameters
    assert "lax_parameters" not in RunSpec.from_entity(entity).extra
    assert RunSpec.from_entity(entity, own=True).lax_parameters
