"""The serve cases in every base image: as its own user and as any, on a read-only root."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker_engine
import pytest
from parts import ROOT, BaseImages, docker

CASES = ROOT / "tests" / "cases"
OPTIONS = {"--init-function": "init_function", "--init-parameter": "init_parameters", "-p": "parameters"}  # fmt: skip
LOCKED = ("--read-only", "--network", "host", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # fmt: skip


def _exchanges() -> Any:
    """What tests/serve sends and checks; only the place of the service is another one here."""
    folder = ROOT / "tests" / "serve"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("serve_exchanges", folder / "test_serve_cases.py")  # fmt: skip
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def _run_of(case: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = {"parameters": {}, "init_parameters": {}, "lax_parameters": True}
    spec["source"] = {"source": "/case", "handler": f"main:{case['handler']}"}
    options = iter(case.get("options", []))
    for option in options:
        name, value = OPTIONS[option], next(options)
        if name == "init_function":
            spec["source"][name] = value
        else:
            key, _, text = value.partition("=")
            spec[name][key] = text
    return {"id": "r", "project": "p", "kind": "python+serve:run", "spec": spec}


@contextmanager
def _service(image: str, name: str, place: Path, *options: str) -> Iterator[dict[str, str]]:
    """A container that serves a case; its URLs, and its name."""
    case = json.loads((CASES / name / "service.json").read_text("utf-8"))
    place.mkdir()
    place.chmod(0o1777)
    (place / "run.json").write_text(json.dumps(_run_of(case)))
    env = {
        "DHPY_RUN_FILE": "/place/run.json", "DHPY_READY_FILE": "/place/ready", "DHPY_HOST": "127.0.0.1",
        "DHPY_PORT": "0", "DHPY_MANAGEMENT_PORT": "0", **case.get("env", {}),
    }  # fmt: skip
    variables = [part for k, v in env.items() for part in ("-e", f"{k}={v}")]
    mounts = ["-v", f"{CASES / name}:/case:ro", "-v", f"{place}:/place"]
    command = ["run", "--detach", *LOCKED, *options, *variables, *mounts, image, "serve"]
    container = docker(*command).stdout.strip()
    try:
        give_up = time.monotonic() + 60
        while not (place / "ready").exists():
            running = docker("inspect", "--format", "{{.State.Running}}", container).stdout.strip()
            assert running == "true" and time.monotonic() < give_up, _log(container)
            time.sleep(0.05)
        yield {**json.loads((place / "ready").read_text()), "container": container}
    finally:
        docker("rm", "--force", container)


def _log(container: str) -> str:
    done = docker("logs", container, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("flavour", ["slim", "full"])
@pytest.mark.parametrize("python", ["3.9", "3.10", "3.11"])
def test_every_serve_case_passes_in_the_base_image(
    base_image: BaseImages, python: str, flavour: str, tmp_path: Path
) -> None:
    image, exchanges = base_image(python, flavour), _exchanges()
    # Half of them as the image's own user, half as one that the image has never heard of.
    users = [("--tmpfs", "/shared"), ("--user", "1234567:0", "--tmpfs", "/shared:mode=1777")]
    names = sorted(p.parent.name for p in CASES.glob("serve_*/service.json"))
    assert len(names) > 5
    wrong = []
    for number, name in enumerate(names):
        case = json.loads((CASES / name / "service.json").read_text("utf-8"))
        options = users[(number + (flavour == "full")) % 2]
        with _service(image, name, tmp_path / name, *options) as service:
            for exchange in case["exchanges"]:
                answer = exchanges.CLIENTS["httpx"](service["url"], exchange["request"])
                problems = exchanges.problems(answer, exchange["response"])
                wrong += [f"{name}: {exchange['title']}: {problem}" for problem in problems]
            if problems := [w for w in wrong if w.startswith(name)]:
                wrong.append(_log(service["container"])[-1500:] if problems else "")
    assert not wrong, "\n".join(wrong)


def test_a_stopped_service_ends_well_and_says_how_it_is_until_then(
    base_image: BaseImages, tmp_path: Path
) -> None:
    options = ("--tmpfs", "/shared")
    with _service(base_image("3.11"), "serve_init", tmp_path / "place", *options) as service:
        container = service["container"]
        port = service["management_url"].rpartition(":")[2]
        check = ["exec", "-e", f"DHPY_MANAGEMENT_PORT={port}", container, "python3", "-m", "digitalhub_runtime_python.health"]  # fmt: skip
        assert docker(*check).returncode == 0
        wrong = [*check[:2], "DHPY_MANAGEMENT_PORT=1", *check[3:]]
        assert docker(*wrong, check=False).returncode == 1
        begun = time.monotonic()
        subprocess.run([docker_engine.debian_client(), "stop", "--time", "30", container], check=True, capture_output=True)  # fmt: skip
        assert time.monotonic() - begun < 25, "killed, not stopped"
        code = docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip()
        assert code == "0", _log(container)
