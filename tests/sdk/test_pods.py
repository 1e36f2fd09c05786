"""Why a run does not get on, read from what DigitalHub Core keeps of its pods."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from digitalhub_runtime_python import error_report
from digitalhub_runtime_python.sdk import pods
from digitalhub_runtime_python.sdk.builders import PythonRunStatus

NAME = "j-pythonjob-" + "2" * 32 + "-mbnnx"
BACKOFF = "Job condition failed: Job has reached the specified backoff limit"


def status(state: str = "", **more: Any) -> dict[str, Any]:
    """A failed job's status as Core 0.15 writes it."""
    return {
        "state": "ERROR",
        "message": BACKOFF,
        "transitions": [{"status": "ERROR", "message": BACKOFF}],
        "pods": [
            {
                "name": NAME,
                "namespace": "default",
                "phase": "Failed",
                "containers": [{"name": "c", "image": "i:1", "restartCount": 0, "state": state}],
                "conditions": [{"type": "Ready", "status": "False", "reason": "PodFailed"}],
            }
        ],
        "events": [{"reason": "BackoffLimitExceeded", "note": BACKOFF, "kind": "Job", "name": "j"}],
        **more,
    }


def objects(**own: Any) -> dict[str, Any]:
    """The pod as the cluster has it."""
    return {
        "pods": [
            {
                "metadata": {"name": NAME},
                "spec": {
                    "nodeName": "node-7",
                    "containers": [{"name": "c", "resources": {"limits": {"memory": "295279008"}}}],
                },
                "status": own,
            }
        ]
    }


def ended(code: int, reason: str = "Error") -> str:
    return f"terminated at 2026-11-20T12:48:52Z exitCode: {code} reason: {reason}"


@pytest.mark.parametrize(
    "given, kind, exit_status, said",
    [
        (status(ended(137, "OOMKilled")), "OOMKilled", 137, ["more memory than its limit", NAME]),
        (
            status(ended(137, "OOMKilled"), k8s=objects()),
            "OOMKilled",
            137,
            ["its limit of 281Mi", "on node node-7", "resources={'mem'"],
        ),
        (status(ended(15)), "ContainerExited", 15, ["the requirements could not be installed"]),
        (status(ended(137)), "ContainerExited", 137, ["SIGKILL"]),
        (status(ended(42)), "ContainerExited", 42, ["exit status 42"]),
        (
            status(
                ended(15),
                k8s=objects(
                    containerStatuses=[
                        {"state": {"terminated": {"exitCode": 15, "reason": "Error", "message": "a\nno matching distribution for x\n"}}}
                    ]
                ),
            ),
            "ContainerExited",
            15,
            ["It said: no matching distribution for x"],
        ),
        (
            status(
                ended(0, "Completed"),
                k8s=objects(
                    initContainerStatuses=[{"state": {"terminated": {"exitCode": 128, "reason": "StartError"}}}]
                ),
            ),
            "StartError",
            128,
            ["exit status 128"],
        ),
        (
            status(
                "",
                events=[{"reason": "Evicted", "note": "The node was low on resource: memory.", "name": NAME}],
            ),
            "Evicted",
            137,
            ["The node was low on resource: memory"],
        ),
        (
            {
                **status(ended(137)),
                "pods": [
                    {
                        **status(ended(137))["pods"][0],
                        "conditions": [
                            {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempted by another"}
                        ],
                    }
                ],
            },
            "PreemptionByScheduler",
            137,
            ["preempted by another"],
        ),
        (
            status("", k8s=objects(reason="Evicted", message="The node had condition: [DiskPressure].")),
            "Evicted",
            137,
            ["DiskPressure", "node-7"],
        ),
        (
            status(
                "waiting: CrashLoopBackOff",
                message="Multiple pod restarts",
                k8s=objects(
                    containerStatuses=[
                        {"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
                    ]
                ),
            ),
            "OOMKilled",
            137,
            ["limit of 281Mi"],
        ),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_a_failure_that_nobody_reported_is_told_by_the_pods(
    given: dict[str, Any], kind: str, exit_status: int, said: list[str]
) -> None:
    seen = PythonRunStatus(**copy.deepcopy(given))
    assert seen.error["type"] == kind
    assert seen.error["exit_status"] == exit_status
    for text in said:
        assert text in seen.error["message"]
        assert text in seen.message
    assert "backoff" not in seen.message


def test_what_the_run_itself_reported_goes_before_the_pods_and_cores_words() -> None:
    error = {"type": "ValueError", "message": "boom", "file": "main.py", "line": 2}
    seen = PythonRunStatus(**status(ended(1), error=error))
    assert seen.error == error
    assert seen.message == "ValueError: boom (main.py, line 2)"


def test_a_reason_that_core_gives_stays() -> None:
    late = "Job condition failed: Job was active longer than specified deadline"
    assert PythonRunStatus(**status(ended(143), message=late)).message == late


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "COMPLETED", "STOPPED"])
def test_of_a_run_that_has_not_failed_nothing_is_said(state: str) -> None:
    given = {**status(ended(137, "OOMKilled")), "state": state, "message": None}
    seen = PythonRunStatus(**given)
    assert (seen.error, seen.message) == (None, None)


@pytest.mark.parametrize(
    "pod, events, said",
    [
        (
            {"containers": [{"name": "c", "image": "no/such:1", "state": "waiting: ImagePullBackOff"}]},
            [{"reason": "Failed", "note": "Failed to pull image: not found", "name": NAME}],
            "ImagePullBackOff (image no/such:1): Failed to pull image: not found",
        ),
        ({"containers": [{"state": "waiting: CreateContainerConfigError"}]}, [], "CreateContainerConfigError"),
        ({"containers": [{"state": "waiting: InvalidImageName"}]}, [], "InvalidImageName"),
        (
            {"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}]},
            [],
            "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.",
        ),
        ({"containers": [{"state": "waiting: ContainerCreating"}]}, [], None),
        ({"containers": [{"state": "waiting: PodInitializing"}]}, [], None),
        ({"containers": [{"state": "running since 2026-11-20T12:47:53Z"}]}, [], None),
        (
            {"conditions": [{"reason": "Unschedulable", "message": "0/1 nodes are available: waiting for ephemeral volume controller to create the claim"}]},
            [],
            None,
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_keeps_a_pod_from_starting_is_told_unless_it_passes_by_itself(
    pod: dict[str, Any], events: list[dict[str, Any]], said: str | None
) -> None:
    assert pods.obstacle({"pods": [{"name": NAME, **pod}], "events": events}) == said


@pytest.mark.parametrize("broken", ["", 3, ["x", None, {}], {"a": 1}, [{"containers": "x"}]])
def test_pods_of_another_shape_are_not_read(broken: Any) -> None:
    given = {"state": "ERROR", "pods": broken, "events": broken, "k8s": {"pods": broken}}
    assert pods.failure(given) is None
    assert pods.obstacle(given) is None


def test_the_sample_of_a_real_core_is_understood() -> None:
    sample = Path("/work/shared/contracts/core-samples/run-error.json")
    if not sample.is_file():
        pytest.skip("the samples of a real Core are not on this machine")
    real = json.loads(sample.read_text("utf-8"))["body"]["status"]
    seen = pods.with_reason(real, error_report.summary)
    assert seen["error"]["exit_status"] == 1
    assert seen["message"].startswith("ContainerExited: Error, exit status 1: ")
