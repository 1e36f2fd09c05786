"""Why a run does not get on, from what DigitalHub Core keeps of its pods; `status.message` does not say it.

Core writes `status.pods` and `status.events`, with the state of each container as text, and the
objects of the cluster themselves in `status.k8s`, if it is so configured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_ENDED = re.compile(r"terminated\b.*?exitCode: (?P<code>\d+)(?:.*?reason: (?P<reason>\w+))?", re.S)
_WAITING = re.compile(r"waiting: (?P<reason>\w+)(?P<rest>.*)", re.S)
_GENERIC = re.compile(r"Job failed|Job condition failed: .*backoff limit|Multiple pod restarts")
"""Messages of Core's that give no reason."""
_IN_VAIN = re.compile(r"\w*(BackOff|Err\w*|Error|Invalid\w+)$")
"""Reasons of a waiting container that do not pass by themselves."""

EXITS = {
    1: "the function raised, or its start failed",
    2: "a setting or the run is not well formed",
    10: "the code could not be fetched",
    11: "the handler could not be found or imported",
    12: "the arguments do not fit the function",
    13: "an output could not be stored",
    14: "the platform could not be reached",
    15: "the requirements could not be installed",
    124: "it took longer than its deadline",
    126: "its program cannot be executed",
    127: "its program was not found in the image",
    130: "it was interrupted",
    137: "it was killed (SIGKILL)",
    139: "it crashed (SIGSEGV)",
    143: "it was asked to end (SIGTERM)",
}
"""Exit status of a container -> what it means, as in docs/reference/errors.md."""


def failure(status: Mapping[str, Any]) -> dict[str, Any] | None:
    """Why the pods of a run failed, as `status.error`; None where they tell no reason."""
    for pod in _dicts(status.get("pods")):
        found = _evicted(pod, status) or _ended(pod, status)
        if found:
            return found
    return None


def obstacle(status: Mapping[str, Any]) -> str | None:
    """What keeps a pod from starting, and will not pass by itself; None where nothing is known to."""
    for pod in _dicts(status.get("pods")):
        for container in _dicts(pod.get("containers")):
            match = _WAITING.match(str(container.get("state") or ""))
            if match and _IN_VAIN.match(match["reason"]):
                note = _note(status, pod, "Failed", "BackOff", "FailedMount", "InspectFailed")
                image = f" (image {container['image']})" if container.get("image") else ""
                more = note or match["rest"].strip(" :-")
                return f"{match['reason']}{image}{': ' if more else ''}{more}"
        for condition in _dicts(pod.get("conditions")):
            if condition.get("reason") == "Unschedulable":
                more = condition.get("message") or _note(status, pod, "FailedScheduling")
                if "waiting for ephemeral volume controller" in str(more):
                    continue  # so it is with every pod, for a moment
                return f"Unschedulable{': ' if more else ''}{more}"
    return None


def with_reason(status: dict[str, Any], summary: Any) -> dict[str, Any]:
    """The status, with the pods' reason where Core's message gives none.

    Args:
        status: as the platform stores it.
        summary: one line of an error.
    """
    if status.get("state") != "ERROR":
        return status
    error = status.get("error") or failure(status)
    message = str(status.get("message") or "")
    if not isinstance(error, Mapping):
        return status
    if not message or _GENERIC.match(message):
        message = summary(error)
    return {**status, "error": error, "message": message}


def _ended(pod: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any] | None:
    for container in _dicts(pod.get("containers")):
        code, reason, note = _last_end(pod, container, status)
        if not code:
            continue
        name = reason if reason not in ("", "Error") else "ContainerExited"
        meaning = EXITS.get(code) or (
            f"it was ended by signal {code - 128}"
            if 128 < code < 160
            else "the code called sys.exit"
        )
        if reason == "OOMKilled":
            limit = _limit(pod, container, status)
            meaning = f"it used more memory than its limit{f' of {limit}' if limit else ''}"
        where = _node(pod, status)
        message = f"{reason or 'Error'}, exit status {code}: {meaning}"
        if reason == "OOMKilled":
            message += ". Ask for more with resources={'mem': …}"
        message += f" (pod {pod.get('name')}{f' on node {where}' if where else ''})."
        if note.strip():
            message += f" It said: {note.strip().splitlines()[-1]}"
        error = {"type": name, "message": message, "exit_status": code}
        return {**error, "traceback": note} if note else error
    return None


def _last_end(
    pod: Mapping[str, Any], container: Mapping[str, Any], status: Mapping[str, Any]
) -> tuple[int, str, str]:
    """(exit status, reason, termination message) of how a container ended last; 0: it has not failed."""
    own = _object(pod, status).get("status") or {}
    for one in _dicts(own.get("initContainerStatuses")) + _dicts(own.get("containerStatuses")):
        for when in ("state", "lastState"):
            ended = (one.get(when) or {}).get("terminated") or {}
            if ended.get("exitCode"):
                note = str(ended.get("message") or "")
                return int(ended["exitCode"]), str(ended.get("reason") or ""), note
    match = _ENDED.search(str(container.get("state") or ""))
    return (int(match["code"]), match["reason"] or "", "") if match else (0, "", "")


def _evicted(pod: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any] | None:
    own = _object(pod, status).get("status") or {}
    disrupted = [c for c in _dicts(pod.get("conditions")) if c.get("type") == "DisruptionTarget"]
    note = _note(status, pod, "Evicted", "Preempted", "TaintManagerEviction", "NodeNotReady")
    reason = "Evicted" if own.get("reason") == "Evicted" or note else ""
    if disrupted:
        reason = reason or str(disrupted[0].get("reason") or "Evicted")
        note = str(disrupted[0].get("message") or note)
    if not reason:
        return None
    where = _node(pod, status)
    text = f"{reason}: {own.get('message') or note or 'the node gave the pod up'}"
    message = f"{text.rstrip('. ')} (pod {pod.get('name')}{f' on node {where}' if where else ''})."
    return {"type": reason, "message": message, "exit_status": 137}


def _limit(pod: Mapping[str, Any], container: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """The memory limit of a container, as a person reads it."""
    spec = _object(pod, status).get("spec") or {}
    for one in _dicts(spec.get("containers")):
        if one.get("name") == container.get("name"):
            limit = str(((one.get("resources") or {}).get("limits") or {}).get("memory") or "")
            return f"{int(limit) >> 20}Mi" if limit.isdigit() else limit
    return ""


def _node(pod: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    return str((_object(pod, status).get("spec") or {}).get("nodeName") or "")


def _object(pod: Mapping[str, Any], status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pod as the cluster has it; empty where Core keeps none."""
    k8s = status.get("k8s")
    for one in _dicts(k8s.get("pods") if isinstance(k8s, Mapping) else None):
        if (one.get("metadata") or {}).get("name") == pod.get("name"):
            return one
    return {}


def _note(status: Mapping[str, Any], pod: Mapping[str, Any], *reasons: str) -> str:
    """What the latest event of these reasons says of a pod."""
    found = [
        str(event.get("note") or event["reason"])
        for event in _dicts(status.get("events"))
        if event.get("reason") in reasons and event.get("name") == pod.get("name")
    ]
    return max(found, key=len) if found else ""


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    """The mappings of a list; what is of another shape is not read."""

    def each() -> Iterator[Mapping[str, Any]]:
        for one in value if isinstance(value, (list, tuple)) else ():
            if isinstance(one, Mapping):
                yield one

    return list(each())
