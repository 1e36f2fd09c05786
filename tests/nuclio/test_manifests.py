"""`dhpy manifests`: what it prints is what Nuclio reads, and the processor runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.nuclio import manifests
from digitalhub_runtime_python.nuclio.cli import manifests as command
from nuclio.processor import Real

CODE = "def prepare(context, start): context.start = start\ndef f(context, a: int, b: int = 1): return a + b + context.start\n"


@pytest.fixture
def target(tmp_path: Path) -> str:
    (tmp_path / "main.py").write_text(CODE)
    return f"{tmp_path / 'main.py'}:f"


def test_a_nuclio_function_has_what_the_controller_needs(target: str) -> None:
    options = ["--image", "r/f:1", "--workers", "2", "--replicas", "0:3", "--cpu", "100m:1", "--memory", "64Mi",
               "--event-timeout", "30s", "--env", "A=b", "--secret", "s", "--json", "--name", "my-f"]  # fmt: skip
    made = json.loads(_printed(target, *options))
    spec = made["spec"]
    assert (made["apiVersion"], made["kind"]) == ("nuclio.io/v1beta1", "NuclioFunction")
    assert made["metadata"]["name"] == "my-f"
    assert made["metadata"]["annotations"] == {"skip-build": "true"}
    assert made["status"] == {"state": "waitingForResourceConfiguration"}
    assert spec["image"] == "r/f:1"
    assert spec["build"] == {"codeEntryType": "image", "mode": "neverBuild"}
    assert spec["triggers"]["http"]["numWorkers"] == 2
    assert "url" not in spec["triggers"]["http"]  # 8080: the readiness probe's port
    assert (spec["minReplicas"], spec["maxReplicas"]) == (0, 3)
    assert spec["resources"] == {
        "requests": {"cpu": "100m", "memory": "64Mi"},
        "limits": {"cpu": "1"},
    }
    assert spec["eventTimeout"] == "30s"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["envFrom"] == [{"secretRef": {"name": "s"}}]
    assert {"name": "A", "value": "b"} in spec["env"]


def test_the_code_is_in_the_image_unless_it_is_inlined(target: str) -> None:
    for options, key in ((), "source"), (("--inline",), "base64"):
        made = json.loads(_printed(target, "--image", "i", "--json", *options))
        (value,) = [e["value"] for e in made["spec"]["env"] if e["name"] == "DHPY_RUN"]
        assert key in json.loads(value)["spec"]["source"]
        assert ("base64" in value) == bool(options)


def test_a_plain_handler_is_named_as_nuclio_does(target: str) -> None:
    made = json.loads(_printed(target, "--image", "i", "--json", "--plain"))
    assert made["spec"]["handler"] == "main:f"
    assert made["spec"]["env"] == [{"name": "NUCLIO_PYTHON_PATH", "value": "/opt/function/code"}]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Not_Valid"}, {"namespace": ""}, {"workers": 0}, {"min_replicas": 3},
        {"event_timeout": "soon"}, {"plain": True, "code": "x"},
    ],
)  # fmt: skip
def test_what_cannot_be_deployed_is_refused(change: dict[str, Any]) -> None:
    given = {"name": "f", "image": "i", "file": "main.py", "handler": "main:f", **change}
    with pytest.raises(UsageFault):
        manifests.function_file(manifests.Deployment(**given))


def test_the_processor_runs_the_function_file(target: str, real: Any, tmp_path: Path) -> None:
    text = _printed(
        target, "--image", "i", "--form", "function", "--inline", "-p", "b=40",
        "--init-function", "prepare", "--init-parameter", "start=1",
    )  # fmt: skip
    made = yaml.safe_load(text)
    processor: Real = real(
        handler=made["spec"]["handler"],
        spec={k: v for k, v in made["spec"].items() if k != "triggers"},
        trigger={k: v for k, v in made["spec"]["triggers"]["http"].items() if k != "attributes"},
        # What the platform does with spec.env.
        env={e["name"]: e["value"] for e in made["spec"]["env"]},
    )
    got = processor.call(b'{"a": 1}', content_type="application/json")
    assert (got.status, got.text) == (200, "42")


def test_the_command_is_dhpys() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dhpy")), "manifests", "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "--image" in done.stdout


def _printed(*arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output
