"""Control planes of the tests: processes in the cluster's network, whose pods call them back at the node's address."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
from cluster import NODE, Cluster

from digitalhub_python_control.clientenv import client_environment, foreign_variables
from digitalhub_python_control.settings import ControlSettings
from digitalhub_runtime_python.states import ENDED

TOKEN = "token-of-the-tests"
CLI = [sys.executable, "-c", "from digitalhub_runtime_python.cli import main; main()"]


class Plane:
    """A control plane that runs; it can be killed and started again."""

    def __init__(self, cluster: Cluster, home: Path, environ: dict[str, str]) -> None:
        self.cluster = cluster
        self.home = home
        own = {k: v for k, v in os.environ.items() if not k.startswith(("DH", "AWS_", "S3_"))}
        self.environ = {
            **own,
            "DHPY_HOME": str(home),
            "DHPY_HOST": NODE,
            "DHPY_PORT": "0",
            "DHPY_TOKEN": TOKEN,
            "DHPY_ENGINE": "kubernetes",
            "KUBECONFIG": str(cluster.kubeconfig),
            **environ,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        (self.home / "server.json").unlink(missing_ok=True)
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.cluster.inside(sys.executable, "-m", "digitalhub_python_control"),
                env=self.environ, stdout=log, stderr=log,
            )  # fmt: skip
        give_up = time.monotonic() + 60
        while not (self.home / "server.json").exists():
            assert self.process.poll() is None and time.monotonic() < give_up, self.log()
            time.sleep(0.05)
        self.url = json.loads((self.home / "server.json").read_text())["url"]
        # Started again it is where pods look for it.
        self.environ["DHPY_PORT"] = self.url.rpartition(":")[2]

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None

    def log(self) -> str:
        return (self.home / "server.log").read_text(errors="replace")[-6000:]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        with self.cluster.entered(), urllib3.PoolManager() as http:
            answer = http.request(
                method, f"{self.url}/api/v1{path}",
                body=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"},
            )  # fmt: skip
        assert answer.status < 300, (method, path, answer.status, answer.data)
        return json.loads(answer.data) if answer.data else None

    def client_environment(self) -> dict[str, str]:
        """What a process needs to use the SDK against this control plane."""
        settings = ControlSettings.from_env(self.environ)
        variables = client_environment(self.url, settings, {})
        foreign = foreign_variables(variables)
        own = {k: v for k, v in os.environ.items() if k not in foreign and not k.startswith("DHPY")}
        return {**own, **variables}

    def script(self, text: str, folder: Path) -> str:
        """What a script of the user's prints, run with the SDK of this Python beside the cluster."""
        done = subprocess.run(
            self.cluster.inside(sys.executable, "-c", text),
            env={**self.client_environment(), "HOME": str(folder)},
            cwd=folder, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}\n{self.log()}"
        return done.stdout

    # Runs over the API, without the SDK

    def run(
        self, code: str, action: str = "job", *, function: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None, parameters: dict[str, Any] | None = None,
        project: str = "", **task: Any,
    ) -> Run:  # fmt: skip
        """Start a run of a function whose code is given; `task` are the task's parameters."""
        project = project or f"p{uuid.uuid4().hex[:10]}"
        with contextlib.suppress(AssertionError):
            self.ask("POST", "/projects", {"name": project, "kind": "project"})
        name = f"f{uuid.uuid4().hex[:8]}"
        source = {
            "source": "main.py",
            "base64": base64.b64encode(code.encode()).decode(),
            "handler": "main",
        }
        spec = {"source": source, "python_version": "PYTHON3_11", **(function or {})}
        made = self.ask("POST", f"/-/{project}/functions", {"kind": "python", "name": name, "project": project, "spec": spec})  # fmt: skip
        reference = f"python://{project}/{name}:{made['id']}"
        started = self.ask(
            "POST", f"/-/{project}/tasks",
            {"kind": f"python+{action}", "project": project, "spec": {"function": reference, **task}},
        )  # fmt: skip
        key = f"python+{action}://{project}/{started['id']}"
        run = self.ask(
            "POST", f"/-/{project}/runs",
            {
                "kind": f"python+{action}:run", "project": project,
                "spec": {"task": key, "inputs": inputs or {}, "parameters": parameters or {}},
            },
        )  # fmt: skip
        return Run(self, project, run["id"])


class Run:
    """A run of a control plane."""

    def __init__(self, plane: Plane, project: str, identity: str) -> None:
        self.plane = plane
        self.project = project
        self.id = identity

    @property
    def name(self) -> str:
        """Of its objects in the cluster."""
        return f"dhpy-{self.id}"

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.plane.ask("GET", f"/-/{self.project}/runs/{self.id}")["status"])

    def wait(self, *states: str, seconds: float = 180) -> dict[str, Any]:
        """Its status once it is in one of these states; default: once it has ended."""
        give_up = time.monotonic() + seconds
        while True:
            status = self.status
            if status["state"] in (states or ENDED):
                return status
            assert time.monotonic() < give_up and (status["state"] not in ENDED), (
                f"{json.dumps(status, indent=1)}\n{self.log()}\n{self.plane.log()}"
            )
            time.sleep(0.1)

    def until(self, words: str, seconds: float = 120) -> dict[str, Any]:
        """Its status once its message has these words."""
        give_up = time.monotonic() + seconds
        while words not in str((status := self.status).get("message")):
            assert time.monotonic() < give_up, f"{status}\n{self.plane.log()}"
            time.sleep(0.1)
        return status

    def pods(self) -> list[dict[str, Any]]:
        query = f"?labelSelector=digitalhub.io/run%3D{self.id}"
        return list(self.plane.cluster.ask("GET", f"/api/v1/namespaces/default/pods{query}")["items"])  # fmt: skip

    def log(self) -> str:
        items = self.plane.ask("GET", f"/-/{self.project}/runs/{self.id}/logs")
        return "".join(base64.b64decode(item["content"]).decode() for item in items)

    def stop(self) -> None:
        self.plane.ask("POST", f"/-/{self.project}/runs/{self.id}/stop", {})


@contextlib.contextmanager
def control_plane(cluster: Cluster, home: Path, **environ: str) -> Iterator[Plane]:
    plane = Plane(cluster, home, environ)
    plane.start()
    try:
        yield plane
    finally:
        plane.end()


def gone(cluster: Cluster, run: Run, seconds: float = 90) -> None:
    """Wait until nothing of a run is in the cluster.

    Raises:
        AssertionError: something stays.
    """
    kinds = {
        "/api/v1": ("secrets", "services", "pods"),
        "/apis/batch/v1": ("jobs",),
        "/apis/apps/v1": ("deployments", "replicasets"),
        "/apis/policy/v1": ("poddisruptionbudgets",),
    }
    give_up = time.monotonic() + seconds
    while True:
        query = f"?labelSelector=digitalhub.io/run%3D{run.id}"
        left = [
            f"{plural}/{item['metadata']['name']}"
            for group, plurals in kinds.items()
            for plural in plurals
            for item in cluster.ask("GET", f"{group}/namespaces/default/{plural}{query}")["items"]
        ]
        if not left:
            return
        assert time.monotonic() < give_up, left
        time.sleep(0.2)
