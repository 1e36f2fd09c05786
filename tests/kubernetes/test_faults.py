"""What an API server and the way to it can do wrong: no run is lost, doubled, or blamed for it, and it says what it waits for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import proxy
import pytest
from cluster import TOKEN, Cluster, kubeconfig
from planes import Plane, control_plane, gone
from proxy import LOST, Fault, Proxy


@pytest.fixture(scope="module")
def between(cluster: Cluster) -> Iterator[Proxy]:
    with proxy.before(cluster) as started:
        yield started


@pytest.fixture(scope="module")
def behind(
    cluster: Cluster, between: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plane]:
    """A control plane whose way to the API server is the proxy."""
    folder = tmp_path_factory.mktemp("behind")
    config = folder / "kubeconfig"
    config.write_text(kubeconfig(between.url, TOKEN, None))
    home = folder / "home"
    home.mkdir()
    with control_plane(cluster, home, KUBECONFIG=str(config)) as started:
        yield started


def test_a_run_says_that_the_api_server_does_not_answer_and_runs_once_it_does(
    cluster: Cluster, between: Proxy, behind: Plane
) -> None:
    between.choose = lambda method, path: 503
    between.break_off()
    run = behind.run("def main():\n    return 'here'\n")
    status = run.until("The Kubernetes API does not answer")
    assert status["state"] in ("READY", "PENDING") and "the proxy says 503" in status["message"]
    between.choose = lambda method, path: None
    status = run.wait("COMPLETED")
    assert status["results"] == {"output_0": "here"} and not status.get("message")
    gone(cluster, run)


@pytest.mark.parametrize("first", [LOST, 409, 429, 500])
def test_each_request_that_goes_wrong_once_changes_nothing_of_the_run(
    cluster: Cluster, between: Proxy, behind: Plane, first: Fault
) -> None:
    """Every request but those of watches: with 409 each creation, of what is there already."""
    seen: Counter[tuple[str, str]] = Counter()

    def choose(method: str, path: str) -> Fault:
        if "watch=true" in path or (first == 409 and method != "POST"):
            return None
        seen[method, path] += 1
        # What was created before, without us hearing of it, is answered with 409 by the API server itself.
        return (LOST if first == 409 else first) if seen[method, path] == 1 else None

    between.choose = choose
    run = behind.run("def main():\n    return 'here'\n")
    assert run.wait("COMPLETED")["results"] == {"output_0": "here"}
    assert {method for method, _ in seen} >= {"POST"} and len(run.pods()) <= 1
    gone(cluster, run)


def test_watches_that_break_off_and_versions_that_are_forgotten_lose_no_end(
    cluster: Cluster, between: Proxy, behind: Plane
) -> None:
    between.choose = lambda method, path: None
    run = behind.run("import time\ndef main():\n    time.sleep(3)\n    return 'here'\n")
    run.wait("RUNNING")
    forgotten = Counter[str]()

    def choose(method: str, path: str) -> Fault:
        name = path.partition("?")[0]
        if "watch=true" in path and forgotten[name] < 2:
            forgotten[name] += 1
            return 410
        return None

    between.choose = choose
    for _ in range(4):
        between.break_off()
        time.sleep(0.5)
    assert run.wait("COMPLETED")["results"] == {"output_0": "here"}
    assert set(forgotten.values()) == {2}
    gone(cluster, run)
