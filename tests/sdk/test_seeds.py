"""Every example of the documentation that concerns functions, jobs, parameters, outputs and runs, as it is there.

seeds/*.py are scripts; what stands between <verbatim> and </verbatim> is the documentation's text,
down to its indents, and the rest is what the text takes for granted. Each runs locally and remotely.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdk.conftest import Script, Seen

SEEDS = Path(__file__).parent / "seeds"

HELPERS = """
import digitalhub as dh

MODE = _os.environ["TEST_MODE"]
HANDLERS = _os.environ["TEST_HANDLERS"]
project = dh.get_or_create_project(PROJECT)

if MODE == "local":
    # The examples leave the choice to a parameter; here it is made for all of them.
    from digitalhub_runtime_python.sdk.entities import FunctionPython
    _run = FunctionPython.run
    FunctionPython.run = lambda self, *a, **kw: _run(self, *a, **{"local_execution": True, **kw})

def new_function(module, handler, **kwargs):
    return project.new_function(
        name=handler.replace("_", "-"), kind="python", code_src=f"{HANDLERS}/{module}.py",
        handler=handler, python_version=VERSION, **kwargs)

def log_table():
    import pandas as pd
    return project.log_dataitem(name="table", kind="table", data=pd.DataFrame({"a": [1, 2, 3]}))

def last_run(function):
    run, = [r for r in function.list_runs() if r.spec.function == function._get_executable_string()]
    return run.wait()

def run_to_its_end(function):
    try:
        return function.run("job", wait=True)
    except Exception as exc:
        show(raised=type(exc).__name__)
        return last_run(function)

def log_text(run):
    logs = run.logs()
    return "".join(log["content"] if isinstance(log, dict) else log.text for log in logs)
"""

MODES = pytest.mark.parametrize("mode", ["local", "remote"])


@pytest.fixture
def seed(script: Script) -> Any:
    def run(name: str, mode: str) -> Seen:
        code = HELPERS + (SEEDS / f"{name}.py").read_text("utf-8")
        handlers = str(SEEDS / "handlers")
        return script(code, TEST_MODE=mode, TEST_HANDLERS=handlers)

    return run


@MODES
def test_form_1_a_plain_function(seed: Any, mode: str) -> None:
    seen = seed("form_1", mode)
    assert seen.state == "COMPLETED"
    assert seen.results == {"output_0": "hello world"}
    assert seen.first == "hello world"
    assert seen.outputs == {}


@MODES
def test_form_2_a_decorated_function(seed: Any, mode: str) -> None:
    seen = seed("form_2", mode)
    assert seen.results == {"result": "hello world"}
    assert seen.output == "hello world"


@MODES
def test_form_3_the_project_argument(seed: Any, mode: str) -> None:
    seen = seed("form_3", mode)
    assert seen.state == "ERROR", "the example itself warns that there will be an error"
    assert "TypeError" in seen.message and "form3.py, line" in seen.message
    assert "source" in seen.error["message"]
    assert seen.produced_by == [{"type": "produced_by", "dest": seen.run_key}]
    assert list(seen.results) == ["output_0"]
    if mode == "local":
        assert seen.raised == "TypeError"


@MODES
def test_form_4_context_and_events(seed: Any, mode: str) -> None:
    seen = seed("form_4", mode)
    assert seen.state == "COMPLETED"
    assert "Some log" in (seen.logs if mode == "remote" else seen.stdout)


@MODES
def test_form_5_mixed_arguments(seed: Any, mode: str) -> None:
    seen = seed("form_5", mode)
    assert seen.results == {"output_0": True, "output_1": "table", "output_2": "text"}


@MODES
def test_form_6_an_init_function(seed: Any, mode: str) -> None:
    assert seed("form_6", mode).results == {"output_0": 3}


@MODES
def test_inputs_by_key(seed: Any, mode: str) -> None:
    assert seed("composition", mode).results == {"output_0": 6}


@MODES
def test_inputs_and_parameters(seed: Any, mode: str) -> None:
    assert seed("composition_with_parameter", mode).results == {"output_0": "some value: 6"}


@MODES
def test_outputs_and_results(seed: Any, mode: str) -> None:
    seen = seed("outputs", mode)
    assert seen.string == "some value"
    assert seen.of_a_class == "artifact"
    assert seen.of_a_frame == ["dataitem", "table"]
    assert seen.values["values"] == [2, 4, 6]


@MODES
def test_the_execution_overview(seed: Any, mode: str) -> None:
    seen = seed("execution_overview", mode)
    assert seen.state == "COMPLETED"
    assert seen.results == {"output_0": "table", "output_1": 0.5}


@MODES
def test_function_creation(seed: Any, mode: str) -> None:
    seen = seed("function_creation", mode)
    assert seen.state == "COMPLETED"
    assert seen.source["source"] == "main.py" and seen.source["base64"]
    assert seen.python_version == "PYTHON3_9"
    assert seen.versions


@MODES
def test_tasks(seed: Any, mode: str) -> None:
    seen = seed("tasks", mode)
    assert seen.results == {"output_0": "table"}
    if mode == "remote":
        assert seen.instructions == ["apt-get install -y git"]
        assert (seen.replicas, seen.service_type) == (2, "NodePort")


def test_requirements_and_instructions(seed: Any) -> None:
    seen = seed("parameters", "remote")
    assert seen.requirements == ["numpy", "pandas>1, <3", "scikit-learn==1.2.0"]
    assert seen.instructions == ["apt-get install -y git"]


def test_invoking_a_service(seed: Any) -> None:
    seen = seed("service", "remote")
    assert seen.asked == ["POST /", "POST /"]
    assert seen.answer == {"some-func-param": [1, 2, 3]}
    assert seen.service["url"]
