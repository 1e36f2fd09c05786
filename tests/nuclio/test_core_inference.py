"""Openinference functions on our images: the protocol over real HTTP, started as DigitalHub Core starts it."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from digitalhub_runtime_python.calls import inference
from digitalhub_runtime_python.calls.inference import Model, Refused, Request
from digitalhub_runtime_python.errors import OutputFault, UsageFault
from digitalhub_runtime_python.nuclio import standin
from nuclio.core import Core, start
from nuclio.processor import free_port

TRIGGER = """\
    openinference:
      attributes:
        enable_rest: true
        enable_grpc: true
        model_name: "iris"
        model_version: "7"
        rest_port: {port}
        input_tensors:
        - name: "x"
          datatype: "FP32"
          shape:
          - -1
          - 2
      kind: "openinference"
"""
HEAD = '---\napiVersion: "nuclio.io/v1beta1"\nkind: "NuclioFunction"\nspec:\n  handler: "handler:handler"\n  triggers:\n'
CODE = """
def init(context):
    context.factor = 10
async def later(context, request):
    return now(context, request)
def now(context, request):
    if request.parameters == {"fail": True}:
        raise ValueError("boom")
    assert request["inputs"][0]["name"] == request.inputs[0].name
    return {"scaled": [n * context.factor for n in request.inputs[0].data]}
"""


def ask(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


@pytest.mark.parametrize("handler", ["now", "later"])
def test_an_openinference_function_answers_health_metadata_and_inference(
    tmp_path: Path, handler: str
) -> None:
    import time

    home = tmp_path / "shared"
    port = free_port()
    with Core(CODE, f"main:{handler}", action="serve") as core:
        core.run["kind"] = "openinference+serve:run"
        core.run["spec"]["source"]["init_function"] = "init"
        core.files(home)
        (home / "function.yaml").write_text(HEAD + TRIGGER.format(port=port) + '  runtime: "python"\n')  # fmt: skip
        tmp_path.chmod(0o755)
        home.chmod(0o777)
        process = start(core, home, through_script=False, DHPY_HOST="127.0.0.1", DHPY_MANAGEMENT_PORT=str(free_port()))  # fmt: skip
        try:
            give_up = time.monotonic() + 40
            while True:
                try:
                    assert ask(port, "/v2/health/ready") == (200, {"ready": True})
                    break
                except OSError:
                    assert process.poll() is None, process.communicate()[0]
                    assert time.monotonic() < give_up
                    time.sleep(0.05)
            assert ask(port, "/v2/health/live") == (200, {"live": True})
            assert ask(port, "/v2/models/iris")[1]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]  # fmt: skip
            assert ask(port, "/v2/models/iris/versions/7/ready")[1]["ready"] is True
            sent = {"id": "42", "inputs": [{"name": "x", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]}]}  # fmt: skip
            assert ask(port, "/v2/models/iris/infer", sent) == (200, {
                "model_name": "iris", "model_version": "7", "id": "42",
                "outputs": [{"name": "scaled", "shape": [2], "datatype": "INT64", "data": [10, 20]}],
            })  # fmt: skip
            assert ask(port, "/v2/models/iris/infer", b"{")[0] == 400
            assert ask(port, "/v2/models/other/infer", sent)[0] == 404
            assert ask(port, "/v2/models/iris/infer", {**sent, "parameters": {"fail": True}})[0] == 500  # fmt: skip
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=40)
        assert process.returncode == 0, output
        assert "ValueError: boom" in output


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/", 404),
        ("GET", "/v1/models", 404),
        ("GET", "/v2/models/m/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/models/m/versions/2", 404),
        ("GET", "/v2/models/m/explain", 404),
    ],
)
def test_what_the_protocol_does_not_have_is_refused(method: str, path: str, status: int) -> None:
    with pytest.raises(Refused) as refusal:
        inference.answer_of(Model("m"), method, path)
    assert refusal.value.status == status


@pytest.mark.parametrize(
    "body, said",
    [
        (lambda: json.loads("{"), "not JSON"),
        (list, "a list of inputs"),
        (lambda: {"inputs": {}}, "a list of inputs"),
        (lambda: {"inputs": [3]}, "inputs[0] has no name"),
        (lambda: {"inputs": [{"name": "x", "data": []}]}, "inputs[0] has no shape, datatype"),
    ],
)
def test_a_request_that_is_not_one_is_named(body: Any, said: str) -> None:
    with pytest.raises(Refused, match=said.replace("[", r"\[").replace("]", r"\]")):
        inference.read_request(body)


OUTPUT = {"name": "y", "shape": [1], "datatype": "INT32", "data": [3]}


@pytest.mark.parametrize(
    "value, outputs",
    [
        ({"outputs": [OUTPUT]}, [OUTPUT]),
        (json.dumps({"outputs": [OUTPUT], "model_name": ""}), [OUTPUT]),
        ([OUTPUT], [OUTPUT]),
        ({"y": [[1.5, 2], [3, 4]]}, [{"name": "y", "shape": [2, 2], "datatype": "FP64", "data": [1.5, 2, 3, 4]}]),
        ({"y": "text"}, [{"name": "y", "shape": [1], "datatype": "BYTES", "data": ["text"]}]),
        ({"y": [True]}, [{"name": "y", "shape": [1], "datatype": "BOOL", "data": [True]}]),
    ],
)  # fmt: skip
def test_what_a_function_returns_becomes_a_response(value: Any, outputs: list[Any]) -> None:
    response = inference.response_of(value, Request(id="9"), Model("m", "2"))
    assert response == {"model_name": "m", "model_version": "2", "id": "9", "outputs": outputs}


@pytest.mark.parametrize("value", [None, 3, "text", [1, 2], {"outputs": 3}])
def test_what_is_no_response_is_an_error_that_says_what_is(value: Any) -> None:
    with pytest.raises(OutputFault, match="not an inference response"):
        inference.response_of(value, Request(), Model())


def test_arrays_keep_their_shape_and_type() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(4, dtype="float32").reshape(2, 2)
    expected = {"shape": [2, 2], "datatype": "FP32", "data": [0.0, 1.0, 2.0, 3.0]}
    for value, name in ((array, "output_0"), ({"y": array}, "y")):
        response = inference.response_of(value, Request(), Model())
        assert response["outputs"] == [{"name": name, **expected}]


def test_without_pyyaml_the_model_is_named_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "function.yaml"
    file.write_text(HEAD + TRIGGER.format(port=8080))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    argv, environ = standin.translate(["--config", str(file)], {})
    assert argv == ["serve"]
    assert (environ["DHPY_PORT"], environ["DHPY_HOST"]) == ("8080", "0.0.0.0")
    assert json.loads(environ["DHPY_INFERENCE"])["model_name"] == "iris"


@pytest.mark.parametrize(
    "trigger, setting",
    [
        ('    g:\n      kind: "extproc"\n      attributes:\n        type: "preprocessor"\n', "RUNTIME_GUARDRAIL_IMAGE_3_"),
        (TRIGGER.replace("enable_rest: true", "enable_rest: false"), "RUNTIME_OPENINFERENCE_IMAGE_3_"),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused_with_the_setting_that_helps(
    tmp_path: Path, trigger: str, setting: str
) -> None:
    file = tmp_path / "function.yaml"
    file.write_text(HEAD + trigger.replace("{port}", "8080"))
    with pytest.raises(UsageFault) as fault:
        standin.translate(["--config", str(file)], {})
    assert setting in fault.value.hint


def test_a_refusal_is_reported_to_the_run(tmp_path: Path) -> None:
    home = tmp_path / "shared"
    with Core("def f(): pass\n", action="serve") as core:
        core.files(home)
        tmp_path.chmod(0o755)
        home.chmod(0o777)
        (home / "function.yaml").write_text(HEAD + '    g:\n      kind: "extproc"\n')
        process = start(core, home, through_script=False)
        output, _ = process.communicate(timeout=40)
        assert process.returncode == 2, output
        assert core.status["error"]["code"] == "usage/trigger"
        assert "RUNTIME_GUARDRAIL_IMAGE" in output
