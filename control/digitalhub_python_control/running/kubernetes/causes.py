"""What is the matter with a run, in a person's words: from its pods, its Job, and the cluster's warnings. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from digitalhub_python_control.running.engines import Exit, how_it_ended
from digitalhub_python_control.running.kubernetes.manifests import CONTAINER

Object = Mapping[str, Any]

PATIENCE = 300.0
"""Seconds that a pod may wait for what often comes by itself: a registry that does not answer, a mount."""
NOT_STARTED = 125

_FINAL_PULLS = re.compile(
    r"not found|manifest unknown|name unknown|unauthorized|authentication required|denied|forbidden|"
    r"no match for platform|does not exist|invalid reference format|not present with pull policy",
    re.IGNORECASE,
)
"""Answers of a registry that the next try gets, too."""
_PULLS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable")  # fmt: skip
_CONFIGURATION = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError", "PostStartHookError")  # fmt: skip


@dataclass(frozen=True)
class Trouble:
    """Why something does not run."""

    message: str
    final: bool = False
    """Waiting does not help."""


def phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def container(pod: Object) -> Object:
    """The status of the function's container; empty where there is none yet."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((one for one in statuses if one.get("name") == CONTAINER), {})


def is_ready(pod: Object) -> bool:
    return _condition(pod, "Ready").get("status") == "True"


def runs(pod: Object) -> bool:
    """Whether the function's container has been started."""
    state = container(pod).get("state") or {}
    return "running" in state or "terminated" in state


def waiting(
    pod: Object, warnings: Iterable[Object], age: float, patience: float = PATIENCE
) -> Trouble | None:
    """Why a pod has not started; None where there is nothing to say.

    Args:
        age: seconds since it was created.
        patience: seconds that it may wait for what often comes by itself.
    """
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return Trouble(
            f"waits for a node: {unschedulable(str(scheduled.get('message') or ''), pod['spec'].get('nodeSelector'))}"
        )
    state = (container(pod).get("state") or {}).get("waiting") or {}
    reason, text = str(state.get("reason") or ""), _one_line(state.get("message"))
    if reason in _PULLS:
        return _pull(pod, reason, text, warnings, age > patience)
    if reason in _CONFIGURATION:
        return Trouble(f"the container cannot be made: {text or reason}", age > 30)
    for event in warnings:
        if event.get("reason") in ("FailedMount", "FailedAttachVolume"):
            return Trouble(f"waits for a volume: {_one_line(event.get('message'))}", age > patience)
        if event.get("reason") == "FailedCreatePodSandBox":
            return Trouble(f"the node cannot start it: {_one_line(event.get('message'))}", age > patience)  # fmt: skip
    return None


def _pull(pod: Object, reason: str, text: str, warnings: Iterable[Object], late: bool) -> Trouble:
    image = str(pod["spec"]["containers"][0].get("image"))
    for event in warnings:
        # "Back-off pulling image" says nothing; the registry's answer is in the event before it.
        if event.get("reason") == "Failed" and "ailed to pull" in str(event.get("message")):
            text = _one_line(event.get("message"))
    final = reason in ("InvalidImageName", "ErrImageNeverPull") or bool(_FINAL_PULLS.search(text))
    return Trouble(f"the image {image} cannot be pulled: {text or reason}", final or late)


def refused(warnings: Iterable[Object], conditions: Iterable[Object]) -> Trouble | None:
    """Why the cluster makes no pod: a quota that is used up, or admission that refuses."""
    texts = [str(e.get("message")) for e in warnings if e.get("reason") in ("FailedCreate", "ReplicaSetCreateError")]  # fmt: skip
    texts += [str(c.get("message")) for c in conditions if c.get("type") == "ReplicaFailure" and c.get("status") == "True"]  # fmt: skip
    if not texts:
        return None
    text = _one_line(texts[-1]).replace("Error creating: ", "")
    if "exceeded quota" in text:
        return Trouble(f"waits for room in the quota: {text}")
    # A webhook that does not answer, or a service account that is not there yet, comes by itself.
    passing = "failed calling webhook" in text or "serviceaccount" in text or "timeout" in text.lower()  # fmt: skip
    return Trouble(f"the cluster refuses the pod: {text}", not passing)


def unschedulable(message: str, selector: Mapping[str, str] | None = None) -> str:
    """The scheduler's message, with what it means: `0/3 nodes are available: 3 Insufficient nvidia.com/gpu. …`"""
    labels = ", ".join(f"{key}={value}" for key, value in (selector or {}).items())
    text = _one_line(message).partition(" preemption:")[0].rstrip(" .")
    for pattern, words in _CONSTRAINTS:
        found = re.search(pattern, text)
        if found:
            asked = f": {labels}" if labels and "node_selector" in words else ""
            return f"{words.format(*found.groups())}{asked} ({text})"
    return text or "the scheduler has not found one yet"


_CONSTRAINTS = (
    (r"Insufficient (\S*gpu)", "no node has so many {0} free (resources.gpu)"),
    (r"Insufficient cpu", "no node has so much CPU free (resources.cpu)"),
    (r"Insufficient memory", "no node has so much memory free (resources.mem)"),
    (r"Insufficient ephemeral-storage", "no node has so much disk free (resources.disk)"),
    (r"Insufficient (\S+)", "no node has so many {0} free"),
    (
        r"didn't match Pod's node affinity/selector",
        "no node has the labels of node_selector or affinity",
    ),
    (r"didn't match pod (anti-)?affinity", "no node fits the pod affinity"),
    (r"untolerated taint \{([^}:]+)", "every node that fits has a taint that the run does not tolerate: {0}"),
    (r"unbound immediate PersistentVolumeClaims", "its volume is not there yet"),
    (r"persistentvolumeclaim \"([^\"]+)\" not found", "there is no volume claim {0}"),
)  # fmt: skip


def ended(pod: Object | None, job: Object) -> Exit:
    """How a Job that has failed ended: what its last pod says, else the Job."""
    failed: Object = next((c for c in (job.get("status") or {}).get("conditions") or () if c.get("type") in ("Failed", "FailureTarget")), {})  # fmt: skip
    if failed.get("reason") == "DeadlineExceeded":
        seconds = (job.get("spec") or {}).get("activeDeadlineSeconds")
        return Exit(124, f"the deadline has passed: a job may take {seconds} s, waiting included")
    if pod is None:
        return Exit(137, "lost: its pod was deleted")
    status = pod.get("status") or {}
    state = (container(pod).get("state") or {}).get("terminated") or {}
    if status.get("reason") == "Evicted":
        return Exit(137, f"evicted from node {_node(pod)}: {_one_line(status.get('message'))}")
    if state.get("reason") == "OOMKilled":
        return Exit(137, out_of_memory(pod))
    lost = _condition(pod, "DisruptionTarget")
    if lost.get("status") == "True":
        return Exit(137, f"its pod was removed from node {_node(pod)}: {_one_line(lost.get('message'))}")  # fmt: skip
    if not state:
        return Exit(137, f"lost: its pod on node {_node(pod)} ended without a trace; {_one_line(status.get('message')) or 'it was deleted, or its node is gone'}")  # fmt: skip
    code = int(state.get("exitCode") or 0) or 1
    return Exit(code, _last_words(state, code))


def out_of_memory(pod: Object) -> str:
    limit = (pod["spec"]["containers"][0].get("resources") or {}).get("limits", {}).get("memory")
    if limit:
        return f"out of memory: the container may use {limit} (resources.mem)"
    return f"out of memory: node {_node(pod)} had no more (set resources.mem)"


def crashed(pod: Object) -> Exit | None:
    """How a service's container ended the last time; None where it has not."""
    now = container(pod)
    for part in ("state", "lastState"):
        state = (now.get(part) or {}).get("terminated")
        if state:
            if state.get("reason") == "OOMKilled":
                return Exit(137, out_of_memory(pod))
            code = int(state.get("exitCode") or 0)
            return Exit(code, _last_words(state, code))
    return None


def listed(pods: Iterable[Object]) -> list[dict[str, Any]]:
    """`status.pods`, as DigitalHub Core writes it, and the node."""
    return [
        {
            "name": pod["metadata"]["name"],
            "namespace": pod["metadata"].get("namespace"),
            "node": (pod.get("spec") or {}).get("nodeName"),
            "phase": phase(pod),
            "startTime": (pod.get("status") or {}).get("startTime"),
            "containers": [
                {
                    "name": one.get("name"),
                    "ready": bool(one.get("ready")),
                    "restartCount": int(one.get("restartCount") or 0),
                    "image": one.get("image"),
                    "state": _state(one.get("state") or {}),
                }
                for one in (pod.get("status") or {}).get("containerStatuses") or ()
            ],
        }
        for pod in pods
    ]


def events(warnings: Iterable[Object]) -> list[dict[str, Any]]:
    """`status.events`, as DigitalHub Core writes it: the last of each reason."""
    return [
        {
            "type": event.get("type"),
            "reason": event.get("reason"),
            "note": _one_line(event.get("message")),
            "timestamp": event.get("lastTimestamp") or event.get("eventTime"),
            "kind": (event.get("involvedObject") or {}).get("kind"),
            "name": (event.get("involvedObject") or {}).get("name"),
        }
        for event in warnings
    ]


def _state(state: Mapping[str, Any]) -> str:
    for name, told in state.items():
        told = told or {}
        if name == "running":
            return f"running since {told.get('startedAt')}"
        if name == "terminated":
            return f"terminated at {told.get('finishedAt')} exitCode: {told.get('exitCode')} reason: {told.get('reason')}"  # fmt: skip
        return f"waiting: {told.get('reason')}"
    return "waiting"


def _last_words(state: Mapping[str, Any], code: int) -> str:
    """What the process wrote into its termination message; the log's end where it could not."""
    said = str(state.get("message") or "").strip()
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
    how = how_it_ended(code)
    return f"{how}: {last.strip()[:500]}" if last else how


def _condition(obj: Object, kind: str) -> Object:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), {})


def _node(pod: Object) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "?")


def _one_line(text: Any) -> str:
    return " ".join(str(text or "").split())[:1000]
