"""What an API server and the way to it can do wrong: no run is lost, doubled, or blamed for it, and it says what it waits for."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import proxy
import pytest
import urllib3
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


def test_a_control_plane_that_is_killed_at_each_of_its_calls_runs_the_job_once(
    cluster: Cluster, between: Proxy, behind: Plane
) -> None:
    """The API server does what it was asked, and nobody is there any more to hear that it has."""
    killed: list[str] = []
    lock = threading.Lock()

    def choose(method: str, path: str) -> Fault:
        reads = method == "GET" and "/log" not in path
        call = f"{method} {path.partition('/namespaces/default/')[2].partition('/')[0]}"
        with lock:
            if not reads and call not in killed and behind.process is not None:
                killed.append(call)
                behind.process.kill()
                behind.process.wait()
        return None

    run = behind.run("import time\ndef main():\n    print('it ran')\n    time.sleep(2)\n    return 'here'\n")  # fmt: skip
    secret = f"/api/v1/namespaces/default/secrets?labelSelector=digitalhub.io/run%3D{run.id}"
    between.choose = choose
    state, left, give_up = "", [], time.monotonic() + 150
    while state != "COMPLETED" or left or "DELETE secrets" not in killed:
        assert time.monotonic() < give_up, (state, left, killed, behind.log())
        assert behind.process is not None
        if behind.process.poll() is not None:
            with suppress(AssertionError):  # killed again before it was up
                behind.start()
        with suppress(urllib3.exceptions.HTTPError):
            state = run.status["state"]
        left = cluster.ask("GET", secret)["items"]
        time.sleep(0.1)
    between.choose = lambda method, path: None
    if behind.process is not None and behind.process.poll() is not None:
        behind.start()
    assert killed == ["POST secrets", "POST jobs", "GET pods", "DELETE jobs", "DELETE secrets"]
    assert run.status["results"] == {"output_0": "here"}
    assert run.log().count("it ran") == 1
    gone(cluster, run)
