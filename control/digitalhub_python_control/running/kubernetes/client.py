"""The Kubernetes API over HTTP: requests that are repeated where that helps, and streams that cannot hang.

The official client knows every kind of kubeconfig and keeps credentials fresh; requests go straight
through its pool of connections: its 700 model classes and its own watches are not used.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import urllib3

from digitalhub_runtime_python.errors import PlatformFault, UsageFault

logger = logging.getLogger(__name__)

TRIES = 5
"""A request is sent so often before the API server counts as unreachable."""
LONGEST_PAUSE = 5.0
"""Seconds between two tries, at most; an API server that asks for more gets it."""
TIMEOUT = urllib3.Timeout(connect=5, read=30)

_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TRANSIENT = frozenset({429, 500, 502, 503, 504})

KINDS: Mapping[str, tuple[str, str]] = {
    "ConfigMap": ("/api/v1", "configmaps"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "Event": ("/api/v1", "events"),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "Job": ("/apis/batch/v1", "jobs"),
    "NuclioFunction": ("/apis/nuclio.io/v1beta1", "nucliofunctions"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Pod": ("/api/v1", "pods"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Secret": ("/api/v1", "secrets"),
    "Service": ("/api/v1", "services"),
}
"""Kind -> group and plural of every object that we touch; the chart's RBAC is made from it."""


class Refused(Exception):
    """The API server answers with an error that another try would not change."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Unreachable(PlatformFault):
    """The API server does not answer now; no run is to blame for that, and it is tried again later."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            "platform/kubernetes",
            f"The Kubernetes API does not answer: {what}.",
            "It is tried again; if it lasts, check the cluster and the kubeconfig.",
            retry=True,
        )


class Api:
    """One cluster and one namespace.

    Args:
        context: of the kubeconfig; empty takes the current one, and inside a pod the pod's own account.
        namespace: empty takes the context's, or the pod's.

    Raises:
        UsageFault: usage/kubeconfig, none was found that can be used.
    """

    def __init__(self, context: str = "", namespace: str = "") -> None:
        configuration, found = _configuration(context)
        configuration.retries = False
        configuration.connection_pool_maxsize = 256
        from kubernetes.client import ApiClient

        self._configuration = configuration
        self._pool: urllib3.PoolManager = ApiClient(configuration).rest_client.pool_manager
        self._lock = threading.Lock()
        self.host = str(configuration.host).rstrip("/")
        self.namespace = namespace or found or "default"
        self.requests = 0
        """How many were sent."""

    def path(self, kind: str, name: str = "", *, namespace: str | None = None) -> str:
        """`/apis/batch/v1/namespaces/…/jobs/name`."""
        group, plural = KINDS[kind]
        inside = f"/namespaces/{quote(self.namespace if namespace is None else namespace)}"
        return f"{group}{inside}/{plural}" + (f"/{quote(name)}" if name else "")

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return self._json("GET", path, None, query)

    def create(self, path: str, body: Mapping[str, Any], **query: Any) -> dict[str, Any]:
        return self._json("POST", path, body, query)

    def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._json("PUT", path, body, {})

    def create_or_get(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object, or get the one of that name: a try whose answer was lost has made it."""
        try:
            return self.create(path, body)
        except Refused as exc:
            if exc.reason != "AlreadyExists":
                raise
            return self.get(f"{path}/{quote(body['metadata']['name'])}")

    def delete(
        self, path: str, *, propagation: str = "Background", grace: int | None = None
    ) -> bool:
        """Whether there was something to delete."""
        options: dict[str, Any] = {"propagationPolicy": propagation}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            self._json("DELETE", path, options, {})
        except Refused as exc:
            if exc.status != 404:
                raise
            return False
        return True

    def text(self, path: str, **query: Any) -> bytes:
        return self._send("GET", path, None, query)

    def lines(
        self, path: str, silence: float, *, longest: int = 0, **query: Any
    ) -> Iterator[bytes]:
        """The lines of an answer as they come, each with its line break.

        Args:
            silence: seconds without a byte after which it counts as broken off.
            longest: bytes after which a line comes in pieces; 0 for lines that are due as a whole.

        Raises:
            Refused: the API server answers with an error.
            Unreachable: it does not answer, or broke off.
        """
        timeout = urllib3.Timeout(connect=5, read=silence)
        try:
            answer = self._open("GET", path, None, query, timeout)
            try:
                if answer.status >= 300:
                    raise _refused(answer.status, answer.read(decode_content=True))
                rest = b""
                for chunk in answer.stream(65536, decode_content=True):
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line + b"\n"
                    if 0 < longest < len(rest):
                        yield rest
                        rest = b""
                if rest:
                    yield rest
            finally:
                # Not drained: a stream that is followed has no end that is worth waiting for.
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise Unreachable(_words(exc)) from exc

    def _json(self, method: str, path: str, body: Any, query: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._send(method, path, body, query)
        return dict(msgspec.json.decode(answer)) if answer else {}

    def _send(self, method: str, path: str, body: Any, query: Mapping[str, Any]) -> bytes:
        """One request; repeated while the answer says that it may go better the next time."""
        problem = ""
        for attempt in range(TRIES):
            pause = min(LONGEST_PAUSE, 0.1 * 3**attempt) * (0.5 + random.random())  # noqa: S311
            try:
                answer = self._open(method, path, body, query, TIMEOUT)
                data: bytes = answer.read(decode_content=True)
                answer.release_conn()
            except (urllib3.exceptions.HTTPError, OSError) as exc:
                problem = _words(exc)
            else:
                if answer.status < 300:
                    return data
                refusal = _refused(answer.status, data)
                if answer.status not in _TRANSIENT:
                    raise refusal
                problem = str(refusal)
                with suppress(ValueError):
                    pause = max(pause, min(30.0, float(answer.headers.get("Retry-After") or 0)))
            if attempt < TRIES - 1:
                time.sleep(pause)
        raise Unreachable(problem)

    def _open(
        self, method: str, path: str, body: Any, query: Mapping[str, Any], timeout: urllib3.Timeout
    ) -> Any:
        given = {k: v for k, v in query.items() if v is not None}
        url = f"{self.host}{path}" + (f"?{urlencode(given)}" if given else "")
        headers = {"Accept": "application/json, */*", "Accept-Encoding": "gzip"}
        for auth in self._configuration.auth_settings().values():
            if auth.get("in") == "header" and auth.get("value"):
                headers[str(auth["key"])] = str(auth["value"])
        payload = None
        if body is not None:
            payload, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        with self._lock:
            self.requests += 1
        return self._pool.request(
            method, url, body=payload, headers=headers, timeout=timeout,
            preload_content=False, retries=False, redirect=False,
        )  # fmt: skip


def _configuration(context: str) -> tuple[Any, str]:
    """The official client's configuration, and the namespace that goes with it."""
    try:
        from kubernetes import config
        from kubernetes.client import Configuration
    except ModuleNotFoundError as exc:
        raise UsageFault(
            "usage/kubeconfig",
            "The Kubernetes client is not installed.",
            "Install digitalhub-runtime-python[kubernetes].",
        ) from exc
    made = Configuration()
    try:
        if not context and _POD.exists():
            config.load_incluster_config(client_configuration=made)
            return made, _POD.read_text().strip()
        config.load_kube_config(context=context or None, client_configuration=made)
        _, active = config.list_kube_config_contexts()
        if context:
            known, _ = config.list_kube_config_contexts()
            active = next(one for one in known if one["name"] == context)
        return made, str(active["context"].get("namespace") or "")
    except (config.ConfigException, OSError, ValueError) as exc:
        raise UsageFault(
            "usage/kubeconfig",
            f"There is no cluster to use: {' '.join(str(exc).split())}",
            "Set KUBECONFIG, and DHPY_KUBERNETES_CONTEXT to one of its contexts.",
        ) from exc


def _refused(status: int, body: bytes) -> Refused:
    try:
        told = msgspec.json.decode(body)
        return Refused(status, str(told.get("reason") or ""), str(told.get("message") or status))
    except (msgspec.DecodeError, AttributeError):
        return Refused(status, "", f"{status} {body[:200].decode('utf-8', 'replace')}".strip())


def _words(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:300] or type(exc).__name__
