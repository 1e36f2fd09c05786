"""Deployments of a function on Nuclio, for an image that is there already. Pure: values in, mappings out."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.nuclio.functions import OWN_HANDLER

CODE = "/opt/function/code"
"""Where `dhpy build` puts a function's code."""
USER = 8877
_QUANTITY = re.compile(r"\d+(\.\d+)?([mkMGTPE]|[KMGTPE]i)?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Deployment:
    """What is deployed, and how much of it."""

    name: str
    image: str
    file: str
    """The function's file, relative to the folder that the image was built from."""
    handler: str
    """`module:function`, or a function of the file."""
    code: str = ""
    """The file's text, where it is to travel in the manifest; else the image has it."""
    plain: bool = False
    """A Nuclio handler, called with (context, event); else a function of ours, by its arguments."""
    init_function: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    init_parameters: Mapping[str, Any] = field(default_factory=dict)
    namespace: str = "nuclio"
    project: str = "default"
    python: str = "3.11"
    workers: int = 1
    min_replicas: int = 1
    max_replicas: int = 1
    requests: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    envs: Mapping[str, str] = field(default_factory=dict)
    secret: str = ""
    """Name of a Kubernetes Secret whose entries become variables."""
    event_timeout: str = ""
    worker_wait_ms: int = 10_000
    body_limit: int = 0
    readiness_seconds: int = 120


def resource(deployment: Deployment) -> dict[str, Any]:
    """The NuclioFunction that Nuclio's controller deploys (`kubectl apply`)."""
    made = function_file(deployment)
    made["apiVersion"] = "nuclio.io/v1beta1"
    made["spec"]["build"] = {"codeEntryType": "image", "mode": "neverBuild"}
    # The controller acts on functions that say that their image is made.
    made["metadata"]["annotations"] = {"skip-build": "true"}
    made["status"] = {"state": "waitingForResourceConfiguration"}
    return made


def function_file(deployment: Deployment) -> dict[str, Any]:
    """The same as `function.yaml`: for `nuctl deploy --file`, and as a processor's `--config`.

    Raises:
        UsageFault: usage/name, usage/deployment.
    """
    _check(deployment)
    spec: dict[str, Any] = {
        "handler": deployment.handler if deployment.plain else OWN_HANDLER,
        "runtime": f"python:{deployment.python}",
        "image": deployment.image,
        "imagePullPolicy": "IfNotPresent",
        "env": _env(deployment),
        "minReplicas": deployment.min_replicas,
        "maxReplicas": deployment.max_replicas,
        "readinessTimeoutSeconds": deployment.readiness_seconds,
        "eventTimeout": deployment.event_timeout,
        "triggers": {"http": _trigger(deployment)},
        "securityContext": {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER, "runAsNonRoot": True},
        "loggerSinks": [{"level": "info"}],
    }  # fmt: skip
    if deployment.secret:
        spec["envFrom"] = [{"secretRef": {"name": deployment.secret}}]
    resources = {"requests": dict(deployment.requests), "limits": dict(deployment.limits)}
    if any(resources.values()):
        spec["resources"] = {key: value for key, value in resources.items() if value}
    return {
        "apiVersion": "nuclio.io/v1",
        "kind": "NuclioFunction",
        "metadata": {
            "name": deployment.name,
            "namespace": deployment.namespace,
            "labels": {"nuclio.io/project-name": deployment.project},
        },
        "spec": spec,
    }


def _trigger(deployment: Deployment) -> dict[str, Any]:
    # Port 8080: Kubernetes' readiness probe asks there, at /__internal/health; liveness asks 8082.
    trigger: dict[str, Any] = {
        "kind": "http",
        "name": "http",
        "numWorkers": deployment.workers,
        "workerAvailabilityTimeoutMilliseconds": deployment.worker_wait_ms,
        "attributes": {"serviceType": "ClusterIP"},
    }
    if deployment.body_limit:
        trigger["attributes"]["maxRequestBodySize"] = deployment.body_limit
    return trigger


def _env(deployment: Deployment) -> list[dict[str, str]]:
    given = dict(deployment.envs)
    if deployment.plain:
        given.setdefault("NUCLIO_PYTHON_PATH", CODE)
    else:
        given["DHPY_RUN"] = json.dumps(_run(deployment), separators=(",", ":"))
    return [{"name": name, "value": value} for name, value in given.items()]


def _run(deployment: Deployment) -> dict[str, Any]:
    """The run that the worker reads, in place of one from a platform."""
    source: dict[str, Any] = {"handler": deployment.handler, "source": deployment.file}
    if deployment.code:
        source["base64"] = base64.b64encode(deployment.code.encode()).decode()
    else:
        source["source"] = f"{CODE}/"  # the folder: the file may import what lies beside it
    if deployment.init_function:
        source["init_function"] = deployment.init_function
    return {
        "id": deployment.name,
        "project": deployment.project,
        "kind": "python+serve:run",
        "spec": {
            "source": source,
            "parameters": dict(deployment.parameters),
            "init_parameters": dict(deployment.init_parameters),
            # They come from a command line: text, converted to the type hints.
            "lax_parameters": True,
        },
    }


def _check(deployment: Deployment) -> None:
    for what, name in (("name", deployment.name), ("namespace", deployment.namespace)):
        if not _NAME.fullmatch(name):
            raise UsageFault(
                "usage/name",
                f"The {what} {name!r} is not one that Kubernetes takes.",
                "Use lower-case letters, digits and -, at most 63.",
            )
    problems = []
    if deployment.workers < 1:
        problems.append("there must be a worker")
    if not 0 <= deployment.min_replicas <= max(deployment.max_replicas, 1):
        problems.append("replicas must be 0 or more, the least not above the most")
    if deployment.event_timeout and not re.fullmatch(
        r"(\d+(\.\d+)?(ms|s|m|h))+", deployment.event_timeout
    ):
        problems.append(
            f"the event timeout {deployment.event_timeout!r} is not a duration such as 30s"
        )
    for what, quantities in (("request", deployment.requests), ("limit", deployment.limits)):
        for resource_name, value in quantities.items():
            if not _QUANTITY.fullmatch(value):
                problems.append(
                    f"the {resource_name} {what} {value!r} is not a quantity such as 500m or 256Mi"
                )
    if deployment.plain and deployment.code:
        problems.append("a plain Nuclio handler must be in the image")
    if problems:
        raise UsageFault("usage/deployment", f"It cannot be deployed: {'; '.join(problems)}.", "")
