"""Runs as pods: a Job, or a Deployment behind a Service, beside the Secret that owns them.

What a run is, is in the cluster: nothing here is remembered that could not be read from there, so a
control plane that is started again, or another one on the same database, goes on where one has stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digitalhub_python_control.running import logs
from digitalhub_python_control.running.engines import Exit, Hidden, Progress, Tell
from digitalhub_python_control.running.kubernetes import causes, manifests, names
from digitalhub_python_control.running.kubernetes.client import Api, Refused, Unreachable
from digitalhub_python_control.running.kubernetes.following import PATIENCE, Following
from digitalhub_python_control.running.kubernetes.garbage import Garbage
from digitalhub_python_control.running.kubernetes.preparing import (
    Prepared,
    building,
    environment,
    unit_of,
)
from digitalhub_python_control.running.kubernetes.settings import KubernetesSettings
from digitalhub_python_control.running.kubernetes.watching import Cluster
from digitalhub_python_control.running.services import is_service
from digitalhub_runtime_python.errors import PlatformFault

if TYPE_CHECKING:
    from digitalhub_python_control.settings import ControlSettings
    from digitalhub_python_control.store.store import RunRecord

logger = logging.getLogger(__name__)

SYNCING = 20.0
"""Seconds that the first look waits for the lists of what is in the cluster."""


class KubernetesEngine:
    """Jobs and services as pods of a cluster.

    Raises:
        UsageFault: there is no kubeconfig, a setting is wrong, or pods could not reach the control plane.
    """

    actions = frozenset({"job", "serve"})
    """And `build` where there is an image for that."""

    def __init__(self, settings: ControlSettings) -> None:
        self.settings = KubernetesSettings.from_env(settings.environ, settings)
        self.settings.check_callback()
        if self.settings.build_image:
            self.actions = self.actions | {"build"}
        self.max_jobs = self.settings.max_jobs
        self._home = settings.home
        self._url = settings.url
        self._cache = settings.cache
        self._environ = settings.environ
        self.api = Api(self.settings.context, self.settings.namespace)
        self._tell: Tell = lambda project, run_id: None
        self._hidden: Hidden = lambda run: []
        self._cluster = Cluster(self.api, self.settings.instance, self._changed)
        self._logs = Following(self.api, settings.max_run_log, self._log_complete)
        self._garbage = Garbage(self._delete)
        self._strays: set[str] = set()
        self._seen: dict[tuple[str, str], float] = {}
        """Uid of a pod and what it has come to -> when that was seen here: the cluster's clock is another."""

    # The seam

    def watch(self, tell: Tell, hidden: Hidden) -> None:
        self._tell = tell
        self._hidden = hidden
        self._cluster.start()
        self._garbage.start()

    def close(self) -> None:
        self._cluster.close()
        self._garbage.close()

    def prepare(self, run: RunRecord) -> dict[str, Any]:
        self._folder(run).mkdir(parents=True, exist_ok=True, mode=0o700)
        prepared = Prepared(
            self.api, self.settings, self._cache, self._environ, lambda line: self.log(run, line)
        )
        return prepared.of(run)

    def start(
        self, run: RunRecord, env: Mapping[str, str], prepared: Mapping[str, Any]
    ) -> dict[str, Any]:
        literal, secret = environment(env, run.entity, self._url, self.settings.callback)
        if prepared["image"] == self.settings.build_image:
            secret.update(building(self._environ))  # an index has its password in it
        unit = replace(unit_of(run, prepared, self.settings), env=literal, secret_env=secret)
        try:
            uids = self._create(unit)
        except Refused as exc:
            self._delete(unit.name)
            raise _refusal(exc) from exc
        return {"kubernetes": unit.name, "attempt": run.attempt, "uid": uids[-1], "pending": True}

    def poll(self, run: RunRecord) -> Progress:
        if not self._cluster.wait(SYNCING):
            raise Unreachable(self._cluster.problem or "what runs in the cluster is not known yet")
        if is_service(run.entity):
            return self._poll_service(run)
        return self._poll_job(run)

    def stop(self, run: RunRecord, *, force: bool) -> None:
        name = self._name(run)
        if not force:
            self._delete(name)
            return
        pods = self._cluster.pods(run.project, run.id)
        if not pods:
            # Its Job or its Secret may be there alone: of a control plane that was killed between two deletions.
            self._delete(name)
        for pod in pods:
            # The kubelet kills what does not end in time; a pod that is there still has lost its node.
            if "deletionTimestamp" not in pod["metadata"]:
                self._delete(name)
            elif self._since(pod, "deleted") > 15 + int(
                pod["metadata"].get("deletionGracePeriodSeconds") or 0
            ):
                self.api.delete(self.api.path("Pod", pod["metadata"]["name"]), grace=0)

    def settle(self, run: RunRecord) -> None:
        for pod in self._cluster.pods(run.project, run.id):
            self._logs.forget(pod)
            for what in ("created", "deleted", "ended"):
                self._seen.pop((pod["metadata"]["uid"], what), None)
        self._garbage.add(self._name(run))

    def remove(self, run: RunRecord) -> None:
        self.settle(run)
        logs.remove_run_folder(self._home, run.project, run.id)

    def log(self, run: RunRecord, line: str) -> None:
        logs.add_line(self._home, run.project, run.id, line)

    def sweep(self, handles: Iterable[Mapping[str, Any]]) -> None:
        """What a control plane has left that was killed between an end and what follows it."""
        needed = {handle.get("kubernetes") for handle in handles}
        for secret in self._secrets():
            name = secret["metadata"]["name"]
            # One without a handle may be about to be started: it is left for the next time.
            if name not in needed and name in self._strays:
                self._garbage.add(name)
        self._strays = {secret["metadata"]["name"] for secret in self._secrets()} - needed

    def unfinished(self) -> Collection[tuple[str, str]]:
        with suppress(PlatformFault, Refused):
            return {key for secret in self._secrets() if (key := names.run_of(secret)) is not None}
        return set()

    def _secrets(self) -> list[Any]:
        """Of every run that has anything in the cluster."""
        query = {"labelSelector": names.selector(instance=self.settings.instance)}
        return list(self.api.get(self.api.path("Secret"), **query).get("items") or ())

    # To run

    def _create(self, unit: manifests.Unit) -> list[str]:
        """Everything that the attempt needs; what an earlier try has made already is taken as it is."""
        secret = manifests.secret(unit, self.settings)
        owner = self.api.create_or_get(self.api.path("Secret"), secret)
        if owner.get("data") != secret.get("data"):
            # Of a control plane that was killed here and has other credentials now.
            self.api.delete(self.api.path("Secret", unit.name))
            owner = self.api.create(self.api.path("Secret"), secret)
        uids = []
        for made in manifests.of(unit, self.settings, owner):
            there = self.api.create_or_get(self.api.path(made["kind"]), made)
            if there["kind"] in Cluster.KINDS:
                self._cluster.put(there)
            uids.append(there["metadata"]["uid"])
        return uids

    def _delete(self, name: str) -> None:
        """The workload at once, for its pods shall end now; the rest goes with the Secret that owns it."""
        for kind in ("Job", "Deployment"):
            if self._cluster.get(kind, name) is not None or not self._cluster.wait(0):
                self.api.delete(self.api.path(kind, name))
        self.api.delete(self.api.path("Secret", name))

    # To look

    def _poll_job(self, run: RunRecord) -> Progress:
        job = self._cluster.get("Job", self._name(run))
        pods = self._pods(run)
        if job is None:
            return self._without(run, pods)
        last = pods[-1] if pods else None
        done = next((pod for pod in pods if causes.phase(pod) == "Succeeded"), None)
        if done is not None:
            return self._ending(run, done, Exit(0, final=True))
        conditions = (job.get("status") or {}).get("conditions") or ()
        if any(c.get("type") == "Complete" and c.get("status") == "True" for c in conditions):
            return Progress("ended", Exit(0, final=True))
        if any(c.get("type") == "Failed" and c.get("status") == "True" for c in conditions):
            return self._ending(run, last, replace(causes.ended(last, job), final=True))
        trouble = self._trouble(run, [pod for pod in pods if not causes.runs(pod)], job)
        if trouble is not None and trouble.final:
            return Progress("ended", Exit(causes.NOT_STARTED, trouble.message, final=True))
        working = any(causes.runs(pod) for pod in pods)
        return self._alive(run, pods, trouble, pending=not working and run.state != "RUNNING")

    def _poll_service(self, run: RunRecord) -> Progress:
        deployment = self._cluster.get("Deployment", self._name(run))
        pods = [pod for pod in self._pods(run) if "deletionTimestamp" not in pod["metadata"]]
        if deployment is None:
            return self._without(run, pods)
        ready = [pod for pod in pods if causes.is_ready(pod)]
        announced = "service" in run.entity["status"]
        if ready and not announced:
            address = self._address(run)
            if address is not None:
                return replace(self._alive(run, pods, None, pending=False), service=address)
            waits = causes.Trouble("waits for the address of its load balancer")
            return self._alive(run, pods, waits, pending=True)
        if ready:
            return self._alive(run, pods, None, pending=False)
        trouble = self._trouble(run, pods, deployment)
        crash = next((end for pod in pods if (end := causes.crashed(pod)) is not None), None)
        if not announced and crash is not None and crash.status != PlatformFault.exit_status:
            # It has never answered: what cannot be imported today cannot be in a minute.
            return self._ending(run, pods[-1], replace(crash, final=True))
        if trouble is not None and trouble.final and not announced:
            return Progress("ended", Exit(causes.NOT_STARTED, trouble.message, final=True))
        if crash is not None:
            trouble = causes.Trouble(f"no replica answers; the last one ended: {crash.message or 'with 0'}")  # fmt: skip
        return self._alive(run, pods, trouble, pending=not announced)

    def _without(self, run: RunRecord, pods: list[Any]) -> Progress:
        """The Job or Deployment of the attempt is not in the cluster."""
        handle = run.handle or {}
        if any(causes.phase(pod) in ("Running", "Pending") for pod in pods):
            return Progress("alive")
        if handle.get("attempt") == run.attempt and handle.get("uid"):
            return Progress("ended", Exit(137, "lost: it was removed from the cluster by somebody else", final=True))  # fmt: skip
        return Progress("absent")

    def _ending(self, run: RunRecord, pod: Any, end: Exit) -> Progress:
        """The end of a run, once its log is complete."""
        if pod is not None and not self._logs.is_complete(pod):
            self._logs.look(pod, self._attempt(run), "", lambda: self._hidden(run))
            if self._since(pod, "ended") < PATIENCE:
                return Progress("alive", status=self._status(run, None))
        return Progress("ended", end, status=self._status(run, None))

    def _alive(
        self, run: RunRecord, pods: list[Any], trouble: causes.Trouble | None, *, pending: bool
    ) -> Progress:
        many = len(pods) > 1 or is_service(run.entity)
        for pod in pods:
            suffix = pod["metadata"]["name"].rpartition("-")[2]
            self._logs.look(pod, self._attempt(run), f"[{suffix}] " if many else "", lambda: self._hidden(run))  # fmt: skip
        return Progress("alive", pending=pending, status=self._status(run, trouble))

    def _trouble(self, run: RunRecord, pods: list[Any], owner: Any) -> causes.Trouble | None:
        """Why the run does not run: its pods', or why there are none."""
        for pod in pods:
            warnings = self._cluster.warnings([pod["metadata"]["name"]])
            found = causes.waiting(pod, warnings, self._since(pod, "created"))
            if found is not None:
                return found
        if pods:
            return None
        conditions = (owner.get("status") or {}).get("conditions") or ()
        return causes.refused(self._cluster.warnings([owner["metadata"]["name"]]), conditions)

    def _status(self, run: RunRecord, trouble: causes.Trouble | None) -> dict[str, Any]:
        """What of the run's status the cluster says."""
        pods = self._cluster.pods(run.project, run.id)
        told: dict[str, Any] = {"pods": causes.listed(pods)}
        listed = [self._name(run), *(pod["metadata"]["name"] for pod in pods)]
        if warnings := causes.events(self._cluster.warnings(listed)):
            told["events"] = warnings
        told["message"] = trouble.message if trouble else None
        return told

    def _address(self, run: RunRecord) -> dict[str, Any] | None:
        """Where the service answers; None while its load balancer has no address."""
        service = self.api.get(self.api.path("Service", self._name(run)))
        spec, name = service["spec"], service["metadata"]["name"]
        inside = f"{name}.{self.api.namespace}:{manifests.PORT}"
        urls = [inside]
        if spec["type"] == "LoadBalancer":
            ingress = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []
            if not ingress:
                return None
            urls.insert(0, f"{ingress[0].get('hostname') or ingress[0].get('ip')}:{manifests.PORT}")
        if spec["type"] == "NodePort":
            urls.insert(0, f"{self._node_address(run)}:{spec['ports'][0]['nodePort']}")
        return {
            "url": f"http://{urls[0]}",
            "management_url": None,
            "status": {
                "name": name,
                "namespace": self.api.namespace,
                "type": spec["type"],
                "clusterIP": spec.get("clusterIP"),
                "urls": urls,
                "ports": spec["ports"],
            },
        }

    def _node_address(self, run: RunRecord) -> str:
        if self.settings.node_address:
            return self.settings.node_address
        hosts = [(pod.get("status") or {}).get("hostIP") for pod in self._pods(run)]
        return next((str(host) for host in hosts if host), "")

    def _pods(self, run: RunRecord) -> list[Any]:
        """The attempt's pods, oldest first."""
        return [
            pod
            for pod in self._cluster.pods(run.project, run.id)
            if (pod["metadata"].get("annotations") or {}).get("digitalhub.io/attempt") == str(run.attempt)
        ]  # fmt: skip

    # What tells

    def _changed(self, project: str, run_id: str) -> None:
        self._tell(project, run_id)

    def _log_complete(self, pod: Mapping[str, Any]) -> None:
        if (key := names.run_of(dict(pod))) is not None:
            self._tell(*key)

    def _since(self, pod: Mapping[str, Any], what: str) -> float:
        """Seconds since something was first seen of a pod."""
        now = time.monotonic()
        return now - self._seen.setdefault((pod["metadata"]["uid"], what), now)

    def _name(self, run: RunRecord) -> str:
        return names.object_name(run.project, run.id, run.attempt)

    def _folder(self, run: RunRecord) -> Path:
        return logs.run_folder(self._home, run.project, run.id)

    def _attempt(self, run: RunRecord) -> Path:
        folder = self._folder(run) / f"attempt-{run.attempt}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder


def _refusal(exc: Refused) -> PlatformFault:
    text = " ".join(str(exc).split())
    hint = "Correct the parameter that it names."
    if exc.status == 403:
        hint = "The quota is used up, admission refuses it, or the control plane lacks a right; `dhpy help kubernetes` lists them."
    return PlatformFault("platform/kubernetes-refused", f"The cluster refuses the run: {text}.", hint)  # fmt: skip
