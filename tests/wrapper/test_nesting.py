"""Bombs of depth and of size are refused with one clear line at every entrance of the runtime and the builder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional, Union

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from walking import run_entity, run_process, walk

from digitalhub_python_builder import requirement_files
from digitalhub_python_builder.requirements import parse_requirements
from digitalhub_runtime_python import nesting
from digitalhub_runtime_python.convert import convert
from digitalhub_runtime_python.errors import Fault
from digitalhub_runtime_python.hub.offline import OfflineHub
from digitalhub_runtime_python.hub.opening import open_hub
from digitalhub_runtime_python.local import json_pairs
from digitalhub_runtime_python.nesting import DEEPEST, RESULT, is_deep, read_json, read_yaml
from digitalhub_runtime_python.nuclio.standin import translate
from digitalhub_runtime_python.settings import ServeSettings, Settings

BOMBS = {
    f"{what} of {depth}": opening * depth + "1" + closing * depth
    for depth in (250, 990, 100_000)
    for what, opening, closing in (("lists", "[", "]"), ("objects", '{"a": ', "}"))
}
ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)
YAML = {
    **{name: text for name, text in BOMBS.items() if "100000" not in name},
    "aliases": ALIASES,
    "merges": MERGES,
    "itself": "a: &a [*a]",
    "dashes": "- " * 3000,
}


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 3 * DEEPEST))
def test_the_limit_is_the_same_for_json_and_yaml(depth: int) -> None:
    for text in ("[" * depth + "]" * depth, '{"a":' * (depth - 1) + "[]" + "}" * (depth - 1)):
        for read in (read_json, lambda text: read_json(text.encode()), read_yaml):
            try:
                read(text)
                assert depth <= DEEPEST
            except ValueError as exc:
                assert depth > DEEPEST and "nested too deeply" in str(exc)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.recursive(
        st.none() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    ),
    st.integers(1, 4),
)
def test_depth_is_counted_by_the_deepest_branch(value: Any, deepest: int) -> None:
    def depth(one: Any) -> int:
        inside = one.values() if isinstance(one, dict) else one if isinstance(one, list) else None
        return 0 if inside is None else 1 + max(map(depth, inside), default=0)

    assert is_deep(value, deepest) == (depth(value) > deepest)
    assert read_json(json.dumps(value)) == value


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
def test_a_bomb_of_yaml_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"too deeply|too large"):
        read_yaml(text)


def test_anchors_and_merges_that_people_use_are_read() -> None:
    (found,) = read_yaml("base: &b {x: 1, y: [1, 2]}\nmine: {<<: *b, x: 2}\nagain: *b")
    assert found["mine"] == {"x": 2, "y": [1, 2]} and found["again"] == found["base"]


def run_file(text: str, folder: Path) -> Any:
    (folder / "run.json").write_text(
        json.dumps(run_entity("def f(): ...")).replace('"RUNNING"', text)
    )
    return OfflineHub(folder / "run.json", None).load_run()


def run_variable(text: str, folder: Path) -> Any:
    run = json.dumps(run_entity("def f(): ...")).replace('"RUNNING"', text)
    return open_hub(Settings.from_env({"DHPY_RUN": run, "DHPY_WORKSPACE": str(folder)}))


def pipfile(text: str, folder: Path) -> Any:
    (folder / "Pipfile.lock").write_text(f'{{"default": {text}}}')
    return requirement_files.read(folder / "Pipfile.lock")


def toml(text: str, folder: Path) -> Any:
    text = text.replace('"a": ', "a = ")
    (folder / "pyproject.toml").write_text(f"[project]\nname = 'x'\ndependencies = {text}")
    return requirement_files.read(folder / "pyproject.toml")


def dotted(text: str, folder: Path) -> Any:
    (folder / "pyproject.toml").write_text(f"[project]\na{'.a' * text.count('1') * 300} = 1")
    return requirement_files.read(folder / "pyproject.toml")


def requirement(text: str, folder: Path) -> Any:
    depth = 4 * len(text)  # some parsers still take a few hundred
    return parse_requirements([f"numpy; {'(' * depth}python_version > '3'{')' * depth}"])


def inference(text: str, folder: Path) -> Any:
    return ServeSettings.from_env({"DHPY_INFERENCE": text})


def conda(text: str, folder: Path) -> Any:
    (folder / "environment.yml").write_text(f"dependencies: {text}")
    return requirement_files.read(folder / "environment.yml")


ENTRANCES = [run_file, run_variable, pipfile, toml, dotted, requirement, inference]


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_bomb_is_a_fault_in_one_line_at_every_entrance(
    entrance: Callable[[str, Path], Any], bomb: str, tmp_path: Path
) -> None:
    with pytest.raises(Fault) as caught:
        entrance(bomb, tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("bomb", [ALIASES, MERGES, *YAML.values()])
def test_a_bomb_in_a_conda_environment_is_a_fault(bomb: str, tmp_path: Path) -> None:
    with pytest.raises(Fault):
        conda("[" * 300 + "]" * 300, tmp_path)
    (tmp_path / "environment.yml").write_text(bomb)
    with pytest.raises(Fault):
        requirement_files.read(tmp_path / "environment.yml")


@pytest.mark.parametrize("bomb", YAML.values(), ids=YAML)
def test_a_bomb_in_a_function_file_of_core_is_a_fault(bomb: str, tmp_path: Path) -> None:
    (tmp_path / "function.yaml").write_text(bomb)
    with pytest.raises(Fault):
        translate(["--config", str(tmp_path / "function.yaml")], {})


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("hint", [list, dict, list[Any], Optional[list], Union[int, list]])
def test_a_bomb_on_the_command_line_stays_text_and_does_not_fit(bomb: str, hint: Any) -> None:
    assert json_pairs((f"a={bomb}",)) == {"a": bomb}
    assert convert(bomb, Any, lax=True) == bomb
    with pytest.raises(ValueError, match="expects"):
        convert(bomb, hint, lax=True)


BOTTOMLESS = 100_000
"""Levels that no Python's pickle follows: some stop at 500, 3.13 at a few thousand."""


@pytest.mark.parametrize("depth", [RESULT, RESULT + 1, DEEPEST, BOTTOMLESS])
def test_a_returned_value_is_a_result_an_artifact_or_a_fault_by_its_depth(
    depth: int, tmp_path: Path
) -> None:
    code = f"""
    def f():
        value = 1
        for _ in range({depth}):
            value = [value]
        return value, "kept"
    """
    ending = walk(tmp_path, code)
    assert ending.status["results"]["output_1"] == "kept"
    assert ("output_0" in ending.status["results"]) == (depth <= RESULT)
    assert ("output_0" in ending.status["outputs"]) == (RESULT < depth < BOTTOMLESS)
    assert (ending.exit_status == 13) == (depth == BOTTOMLESS)


def test_a_job_whose_parameters_are_a_bomb_says_so_and_exits_with_2(tmp_path: Path) -> None:
    entity = run_entity("def f(a):\n    return 1", parameters={"a": nested(400)})
    done = run_process(tmp_path, entity)
    assert done.exit_status == 2
    assert "nested too deeply" in done.stderr and "RecursionError" not in done.stderr


def test_what_yaml_writes_out_may_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nesting, "MOST_NODES", 10)
    assert nesting.read_yaml(f"a: {list(range(300))}") == [{"a": list(range(300))}]
    with pytest.raises(ValueError, match="aliases"):
        nesting.read_yaml("a: &a [1, 2, 3, 4]\nb: [*a, *a, *a, *a, *a, *a, *a]")
