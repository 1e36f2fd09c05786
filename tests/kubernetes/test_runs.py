"""Runs as pods of a real cluster, over the API: how they end, what is said of them, what stays."""

from __future__ import annotations

from cluster import Cluster
from planes import Plane, gone


def test_a_job_runs_as_a_pod_and_leaves_nothing_behind(plane: Plane, cluster: Cluster) -> None:
    code = "import os\ndef main(a):\n    print('hello from', a, os.environ['DHCORE_ACCESS_TOKEN'])\n    return a + 1\n"
    run = plane.run(code, parameters={"a": 1})
    status = run.wait("COMPLETED")
    assert status["results"] == {"output_0": 2}
    assert status["pods"][0]["node"] == "node-1"
    assert "hello from 1 •••\n" in run.log()
    gone(cluster, run)


def test_a_failing_job_says_what_was_raised_and_where(plane: Plane, cluster: Cluster) -> None:
    run = plane.run("def main():\n    return {}['absent']\n")
    status = run.wait("ERROR")
    assert status["message"].startswith("KeyError: 'absent'")
    assert status["error"]["line"] == 2
    gone(cluster, run)
