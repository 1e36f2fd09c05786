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
from cases import USERS
from parts import ROOT, BaseImages, docker

CASES = ROOT / "tests" / "cases"
OPTIONS = {"--init-function": "init_function", "--init-parameter": "init_parameters", "-p": "parameters"}  # fmt: skip
LOCKED = ("--read-only", "--tmpfs", "/shared:mode=1777", "--network", "host", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # fmt: skip


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


def _run_of(case: dict[str, Any], source: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"parameters": {}, "init_parameters": {}, "lax_parameters": True}
    spec["source"] = {"source": source, "handler": f"main:{case['handler']}"}
    options = iter(case.get("options", []))
    for option in options:
        name, value = OPTIONS[option], next(options)
        if name == "init_function":
            spec["source"][name] = value
        else:
            key, _, text = value.partition("=")
            spec[name][key] = text
    return {"id": "r", "project": "p", "kind": "python+serve:run", "spec": spec}


def _environment(name: str, place: Path, inside: str) -> dict[str, str]:
    """The variables of a service of a case, whose folder `place` is `inside` in the container."""
    case = json.loads((CASES / name / "service.json").read_text("utf-8"))
    place.mkdir()
    place.chmod(0o1777)
    (place / "run.json").write_text(json.dumps(_run_of(case, f"/cases/{name}")))
    return {
        "DHPY_RUN_FILE": f"{inside}/run.json", "DHPY_READY_FILE": f"{inside}/ready",
        "DHPY_HOST": "127.0.0.1", "DHPY_PORT": "0", "DHPY_MANAGEMENT_PORT": "0", **case.get("env", {}),
    }  # fmt: skip


@contextmanager
def _container(place: Path, waits_for: list[Path], *options: str) -> Iterator[str]:
    """A container with the cases and `place`, once it has written `waits_for`; its name."""
    mounts = ["-v", f"{CASES}:/cases:ro", "-v", f"{place}:/place"]
    container = docker("run", "--detach", *LOCKED, *mounts, *options).stdout.strip()
    try:
        give_up = time.monotonic() + 120
        while not all(file.exists() for file in waits_for):
            running = docker("inspect", "--format", "{{.State.Running}}", container).stdout.strip()
            assert running == "true" and time.monotonic() < give_up, _log(container)
            time.sleep(0.1)
        yield container
    finally:
        docker("rm", "--force", container)


def _log(container: str) -> str:
    done = docker("logs", container, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("flavour", ["slim", "full"])
@pytest.mark.parametrize("python", ["3.9", "3.10", "3.11"])
def test_every_serve_case_passes_in_the_base_image(
    base_image: BaseImages, python: str, flavour: str, user: str, tmp_path: Path
) -> None:
    image, exchanges = base_image(python, flavour), _exchanges()
    names = sorted(p.parent.name for p in CASES.glob("serve_*/service.json"))
    assert len(names) > 5
    tmp_path.chmod(0o1777)
    variables = {n: _environment(n, tmp_path / n, f"/place/{n}") for n in names}
    (tmp_path / "services.json").write_text(json.dumps(variables))
    # One container for all of them: services of their own, one beside the other.
    script = ["-v", f"{Path(__file__).with_name('inside_services.py')}:/inside.py:ro"]
    command = [*script, "--init", "--entrypoint", "python3", image, "/inside.py", "/place"]
    wrong = []
    with _container(tmp_path, [tmp_path / n / "ready" for n in names], *USERS[user], *command):
        for name in names:
            case = json.loads((CASES / name / "service.json").read_text("utf-8"))
            url = json.loads((tmp_path / name / "ready").read_text())["url"]
            problems = [
                f"{name}: {exchange['title']}: {problem}"
                for exchange in case["exchanges"]
                for problem in exchanges.problems(
                    exchanges.CLIENTS["httpx"](url, exchange["request"]), exchange["response"]
                )
            ]
            if problems:
                wrong += [*problems, (tmp_path / name / "log").read_text()[-1500:]]
    assert not wrong, "\n".join(wrong)


def test_a_stopped_service_ends_well_and_says_how_it_is_until_then(
    base_image: BaseImages, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    env = _environment("serve_init", place, "/place")
    variables = [part for k, v in env.items() for part in ("-e", f"{k}={v}")]
    command = (*variables, base_image("3.11"), "serve")
    with _container(place, [place / "ready"], *command) as container:
        port = json.loads((place / "ready").read_text())["management_url"].rpartition(":")[2]
        check = ["exec", "-e", f"DHPY_MANAGEMENT_PORT={port}", container, "python3", "-m", "digitalhub_runtime_python.health"]  # fmt: skip
        assert docker(*check).returncode == 0
        wrong = [*check[:2], "DHPY_MANAGEMENT_PORT=1", *check[3:]]
        assert docker(*wrong, check=False).returncode == 1
        begun = time.monotonic()
        subprocess.run([docker_engine.debian_client(), "stop", "--time", "30", container], check=True, capture_output=True)  # fmt: skip
        assert time.monotonic() - begun < 25, "killed, not stopped"
        code = docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip()
        assert code == "0", _log(container)
