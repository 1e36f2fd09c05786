"""What the environment decides about the cluster, read once and in one place."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from digitalhub_python_control.running.kubernetes.parameters import SERVICE_TYPES
from digitalhub_python_control.settings import is_loopback
from digitalhub_runtime_python.errors import UsageFault

if TYPE_CHECKING:
    from digitalhub_python_control.settings import ControlSettings


@dataclass(frozen=True)
class KubernetesSettings:
    """The cluster's settings; each field names its variable, unit and default."""

    instance: str = "dhpy"
    """`DHPY_KUBERNETES_INSTANCE`: tells the objects of several control planes in one namespace apart.
    Default: made from the address of the database."""
    namespace: str = ""
    """`DHPY_KUBERNETES_NAMESPACE`. Default: the pod's own, or the context's, or `default`."""
    context: str = ""
    """`DHPY_KUBERNETES_CONTEXT`: of the kubeconfig. Default: its current one."""
    callback: str = ""
    """`DHPY_CALLBACK_URL`: where pods reach the control plane. Default: the address it listens on."""
    service_type: str = "NodePort"
    """`DHPY_KUBERNETES_SERVICE_TYPE`: of services that do not say."""
    node_address: str = ""
    """`DHPY_KUBERNETES_NODE_ADDRESS`: the host in a NodePort's URL. Default: the first node's address."""
    registry: str = ""
    """`DHPY_REGISTRY`: where images of functions with requirements are pushed; without one, pods install them."""
    build_image: str = ""
    """`DHPY_KUBERNETES_BUILD_IMAGE`: of pods that build images, the control plane's own. Default: builds are
    processes of the control plane."""
    push_secret: str = ""
    """`DHPY_KUBERNETES_PUSH_SECRET`: name of a Secret of type `kubernetes.io/dockerconfigjson`, for builds alone."""
    profiles: Path | None = None
    """`DHPY_KUBERNETES_PROFILES`: a YAML file, or a folder of them."""
    cpu: str = "100m"
    """`DHPY_KUBERNETES_CPU`: asked for where the run does not say."""
    memory: str = "256Mi"
    """`DHPY_KUBERNETES_MEMORY`: asked for where the run does not say; no limit then."""
    gpu: str = "nvidia.com/gpu"
    """`DHPY_KUBERNETES_GPU`: the resource that `gpu` stands for."""
    storage_class: str = ""
    """`DHPY_KUBERNETES_STORAGE_CLASS`: of claims that do not say. Default: the cluster's."""
    pull_policy: str = "IfNotPresent"
    """`DHPY_KUBERNETES_PULL_POLICY`: Always, IfNotPresent or Never."""
    pull_secret: str = ""
    """`DHPY_KUBERNETES_PULL_SECRET`: name of a Secret with a registry's login."""
    user: int = 8877
    """`DHPY_KUBERNETES_USER`: uid, gid and fsGroup of pods."""
    deadline: int = 259_200
    """`DHPY_KUBERNETES_DEADLINE`, seconds: the longest that a job may take, waiting included. Default: 3 days."""
    ttl: int = 3600
    """`DHPY_KUBERNETES_TTL`, seconds: a finished job that nobody has collected is removed by the cluster."""
    max_jobs: int = 10_000
    """`DHPY_KUBERNETES_MAX_JOBS`: jobs in the cluster at once; the scheduler queues the ones it has no node for."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str], control: ControlSettings) -> KubernetesSettings:
        """Read the settings from a mapping such as `os.environ`.

        Raises:
            UsageFault: a variable has a value that it cannot have, or pods could not reach the control plane.
        """

        def text(name: str, default: str = "") -> str:
            return environ.get(name, "").strip() or default

        def number(name: str, default: int, low: int) -> int:
            value = text(name, str(default))
            if not value.isascii() or not value.isdigit() or int(value) < low:
                raise UsageFault("usage/setting", f"{name} is {value!r}.", f"Set it to a whole number of at least {low}.")  # fmt: skip
            return int(value)

        profiles = text("DHPY_KUBERNETES_PROFILES")
        made = cls(
            instance=text("DHPY_KUBERNETES_INSTANCE") or _instance(control.database_url),
            namespace=text("DHPY_KUBERNETES_NAMESPACE"),
            context=text("DHPY_KUBERNETES_CONTEXT"),
            callback=text("DHPY_CALLBACK_URL", control.url).rstrip("/"),
            service_type=text("DHPY_KUBERNETES_SERVICE_TYPE", cls.service_type),
            node_address=text("DHPY_KUBERNETES_NODE_ADDRESS"),
            registry=text("DHPY_REGISTRY").rstrip("/"),
            build_image=text("DHPY_KUBERNETES_BUILD_IMAGE"),
            push_secret=text("DHPY_KUBERNETES_PUSH_SECRET"),
            profiles=Path(profiles) if profiles else None,
            cpu=text("DHPY_KUBERNETES_CPU", cls.cpu),
            memory=text("DHPY_KUBERNETES_MEMORY", cls.memory),
            gpu=text("DHPY_KUBERNETES_GPU", cls.gpu),
            storage_class=text("DHPY_KUBERNETES_STORAGE_CLASS"),
            pull_policy=text("DHPY_KUBERNETES_PULL_POLICY", cls.pull_policy),
            pull_secret=text("DHPY_KUBERNETES_PULL_SECRET"),
            user=number("DHPY_KUBERNETES_USER", cls.user, 1),
            deadline=number("DHPY_KUBERNETES_DEADLINE", cls.deadline, 1),
            ttl=number("DHPY_KUBERNETES_TTL", cls.ttl, 60),
            max_jobs=number("DHPY_KUBERNETES_MAX_JOBS", cls.max_jobs, 1),
        )
        _check("DHPY_KUBERNETES_SERVICE_TYPE", made.service_type, SERVICE_TYPES)
        _check("DHPY_KUBERNETES_PULL_POLICY", made.pull_policy, ("Always", "IfNotPresent", "Never"))
        return made

    def check_callback(self) -> None:
        """Refuse an address that no pod can reach.

        Raises:
            UsageFault: usage/callback.
        """
        host = self.callback.partition("://")[2].partition("/")[0].rpartition(":")[0].strip("[]")
        if not self.callback.startswith(("http://", "https://")) or is_loopback(host):
            raise UsageFault(
                "usage/callback",
                f"Pods would have to reach the control plane at {self.callback}, which is their own loopback.",
                "Listen where they can reach it, DHPY_HOST=0.0.0.0 with DHPY_TOKEN, and set DHPY_CALLBACK_URL "
                "to that address.",
            )


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageFault("usage/setting", f"{name} is {value!r}.", f"Set it to one of {', '.join(known)}.")  # fmt: skip


def _instance(database_url: str) -> str:
    """Control planes that share a database share their objects; a file of SQLite is one machine's."""
    where = database_url.rpartition("@")[2]
    if database_url.startswith("sqlite"):
        where = f"{socket.gethostname()}/{database_url}"
    return f"dhpy-{hashlib.sha256(where.encode()).hexdigest()[:10]}"
