"""A report stays, also on a platform that writes older statuses over newer ones, as Core was seen to do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from moody import MoodyPlatform, moody_platform
from walking import run_entity

from digitalhub_runtime_python.hub import confirming
from digitalhub_runtime_python.hub.core import CoreHub
from digitalhub_runtime_python.settings import Settings

STATUS = {"results": {"sum": 3}, "outputs": {"frame": "store://…"}}
FAILED = {"error": {"type": "ValueError", "message": "no"}, "results": {}}


def in_pod(platform: MoodyPlatform, folder: Path) -> Settings:
    return platform.settings(folder, KUBERNETES_SERVICE_HOST="192.0.2.1")


@pytest.fixture
def platform() -> Iterator[MoodyPlatform]:
    with moody_platform(json.loads(json.dumps(run_entity("def f(): ...")))) as platform:
        platform.merges = False
        yield platform


@pytest.mark.parametrize(
    "writes",
    [
        [("PENDING", True), ("PENDING", False), ("RUNNING", False)],
        [("RUNNING", True)],
        [("PENDING", True), ("PENDING", False), ("RUNNING", True), ("RUNNING", False)],
        [("PENDING", False), ("PENDING", False), ("RUNNING", True)],
        [("ERROR", True)],
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [STATUS, FAILED], ids=["results", "error"])
def test_a_report_that_was_written_over_is_sent_again(
    platform: MoodyPlatform, tmp_path: Path, writes: list[tuple[str, bool]], status: dict
) -> None:
    platform.run["status"]["state"] = "PENDING"
    platform.writes = list(writes)
    CoreHub(in_pod(platform, tmp_path)).report(status)
    there = platform.run["status"]
    assert not platform.writes
    assert there["state"] == writes[-1][0]
    assert {key: there[key] for key in status} == status


def test_a_run_that_the_platform_has_not_seen_start_is_waited_for(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.run["status"]["state"] = "PENDING"
    platform.writes = [("PENDING", False)] * 10 + [("RUNNING", False)]
    CoreHub(in_pod(platform, tmp_path)).report(STATUS)
    assert platform.run["status"]["state"] == "RUNNING"


def test_a_platform_that_writes_nothing_is_not_waited_for_long(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    CoreHub(in_pod(platform, tmp_path)).report(STATUS)
    run = "/api/v1/-/proj/runs/run1"
    assert platform.requests[:2] == [f"GET {run}", f"PUT {run}"]
    assert set(platform.requests[2:]) == {f"GET {run}"}
    assert len(platform.requests) <= 2 + confirming.QUIET / confirming.LOOK_EVERY + 1


def test_a_platform_that_never_starts_the_run_is_not_waited_for_for_ever(
    platform: MoodyPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirming, "PATIENCE", 1.0)
    platform.run["status"]["state"] = "PENDING"
    CoreHub(in_pod(platform, tmp_path)).report(STATUS)
    assert platform.run["status"]["results"] == {"sum": 3}


@pytest.mark.parametrize("state", confirming._BEFORE_START)
def test_a_pod_does_not_stay_until_a_quiet_platform_looks_at_it(
    platform: MoodyPlatform, tmp_path: Path, state: str
) -> None:
    platform.run["status"]["state"] = state
    CoreHub(in_pod(platform, tmp_path)).report(STATUS)
    assert platform.run["status"]["state"] == state
    # Counted, not timed: so many looks fit into the time that it is given.
    looks = len(platform.requests) - 2
    assert looks <= confirming.QUIET_BEFORE_START / confirming.LOOK_EVERY + 1


def test_a_platform_that_goes_away_after_the_report_is_no_failure(
    platform: MoodyPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirming, "PATIENCE", 0.5)
    hub = CoreHub(in_pod(platform, tmp_path))
    platform.moods, platform.always = [None, None], 403
    hub.report(STATUS)
    assert platform.run["status"]["results"] == {"sum": 3}


def test_where_statuses_are_merged_nobody_looks_again(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.merges = True
    CoreHub(in_pod(platform, tmp_path)).report(STATUS)
    assert len(platform.requests) == 2


def test_outside_of_a_cluster_nobody_looks_again(platform: MoodyPlatform, tmp_path: Path) -> None:
    CoreHub(platform.settings(tmp_path)).report(STATUS)
    assert len(platform.requests) == 2


def test_what_may_be_lost_is_not_looked_after(platform: MoodyPlatform, tmp_path: Path) -> None:
    """A service tells where its code came from while it starts: nobody waits for that."""
    began = time.monotonic()
    CoreHub(in_pod(platform, tmp_path)).report({"source": {"revision": "sha256:1"}})
    assert len(platform.requests) == 2
    assert time.monotonic() - began < confirming.QUIET
