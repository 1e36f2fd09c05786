"""The action `serve` on the embedded control plane: both SDKs, real processes, real HTTP."""

from __future__ import annotations

import textwrap

from sdk.conftest import Script, user_code

SERVICE = """
import os, time

def init(context, greeting="hello"):
    context.greeting = greeting

def serve(context, event, name: str = "nobody", times: int = 1):
    if name == "die":
        os._exit(7)
    if name == "slow":
        time.sleep(0.5)
    context.logger.info("greeting %s", name)
    return {"said": [f"{context.greeting} {name}"] * times, "method": event.method,
            "path": event.path, "supervisor": os.getppid(), "worker": os.getpid()}

def body(context, event):
    return {"type": event.content_type, "size": len(event.body), "method": event.method}

def echo(event):
    return event.body
"""


def serving(text: str) -> str:
    """A script that has a project and the code of the service."""
    return user_code(f"CODE = {SERVICE!r}\n" + textwrap.dedent(text))


def test_the_documentations_calls_reach_the_service(script: Script) -> None:
    seen = script(
        serving("""
        function = new(CODE, handler="echo")
        run = function.run("serve", wait=True)
        data = [1, 2, 3]
        json = {
            "some-func-param": data
        }
        first = run.invoke(json=json)
        second = run.invoke(method="POST", json=json)
        run.refresh()
        run.status
        show(state=run.status.state, service=run.status.service, answers=[first.json(), second.json()])
        run.stop()
        """)
    )
    assert seen.state == "RUNNING"
    host, _, port = seen.service["url"].partition(":")
    assert (host, int(port) > 0) == ("127.0.0.1", True)
    assert seen.answers == [{"some-func-param": [1, 2, 3]}] * 2


def test_a_service_has_its_context_parameters_and_replicas(script: Script) -> None:
    seen = script(
        serving("""
        run = new(CODE, handler="serve", init_function="init").run(
            "serve", wait=True, replicas=2, init_parameters={"greeting": "ciao"}, parameters={"times": 2})
        import concurrent.futures as futures
        with futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: run.invoke(json={"name": "slow"}).json(), range(16)))
        show(said=answers[0]["said"], workers=len({a["worker"] for a in answers}))
        run.stop()
        """)
    )
    assert seen.said == ["ciao slow", "ciao slow"]
    assert seen.workers == 2


def test_invoke_sends_what_it_is_given_and_nothing_else(script: Script) -> None:
    seen = script(
        serving("""
        run = new(CODE, handler="body").run("serve", wait=True)
        base = "http://" + run.status.service["url"]
        answers = {
            "get": run.invoke().json(),
            "put": run.invoke(method="PUT", data=b"abc").json(),
            "files": run.invoke(files={"file": ("a.txt", b"abc")}).json(),
            "params": run.invoke(method="GET", params={"q": "1"}).json(),
            "url": run.invoke(url=base + "/some/path", data=b"x").json(),
        }
        # From outside of a cluster the platform's own name is of no use; a whole URL takes its place.
        run.status.service = {"url": "s-pythonserve-1.no-such-namespace.invalid:8080",
                              "ports": [{"port": 8080, "nodePort": 32047}]}
        answers["other"] = run.invoke(url=base.replace("http://", "")).json()
        for name in ("name", "path"):
            try:
                run.invoke(url="/x" if name == "path" else None)
            except Exception as exc:
                answers[name] = f"{exc.code}: {exc}"
        run.status.service = None
        answers["none"] = run.invoke(url=base + "/y").json()
        show(**answers)
        run.stop()
        """)
    )
    assert seen.get["method"] == "GET"
    assert (seen.put["method"], seen.put["size"]) == ("PUT", 3)
    assert seen.files["type"].startswith("multipart/form-data")
    assert seen.params["method"] == "GET"
    assert seen.url["method"] == "POST"
    assert seen.other["method"] == seen.none["method"] == "GET"
    for said in (seen.name, seen.path):
        assert said.startswith("platform/service-name: ")
        assert "'s-pythonserve-1.no-such-namespace.invalid' does not resolve" in said
        assert "http://NODE:32047/" in said


def test_stopping_a_service_ends_its_processes_and_keeps_its_log(script: Script) -> None:
    seen = script(
        serving("""
        import os, time
        run = new(CODE, handler="serve", init_function="init").run("serve", wait=True)
        supervisor = run.invoke(json={"name": "ann"}).json()["supervisor"]
        started = time.monotonic()
        run.stop()
        run.wait()
        took = time.monotonic() - started
        try:
            os.kill(supervisor, 0)
            alive = True
        except ProcessLookupError:
            alive = False
        logs = run.logs()
        text = "".join(entry["content"] if isinstance(entry, dict) else entry.text for entry in logs)
        show(state=run.status.state, took=took, alive=alive, text=text)
        """)
    )
    assert (seen.state, seen.alive) == ("STOPPED", False)
    assert seen.took < 3
    assert "greeting ann" in seen.text


def test_a_service_whose_process_is_killed_comes_back_at_its_address(script: Script) -> None:
    seen = script(
        serving("""
        import os, signal, time, requests
        run = new(CODE, handler="serve", init_function="init").run("serve", wait=True)
        url = run.status.service["url"]
        os.kill(run.invoke(json={}).json()["supervisor"], signal.SIGKILL)
        give_up = time.monotonic() + 30
        answer = None
        while answer is None and time.monotonic() < give_up:
            time.sleep(0.1)
            try:
                answer = requests.post("http://" + url, json={"name": "again"}, timeout=5).json()
            except requests.ConnectionError:
                pass
        while time.monotonic() < give_up:
            run.refresh()
            if (run.status.service or {}).get("url") == url and not run.status.message:
                break
            time.sleep(0.1)
        show(answer=answer, url=url, now=run.status.service["url"], state=run.status.state)
        run.stop()
        """)
    )
    assert seen.answer["said"] == ["hello again"]
    assert (seen.now, seen.state) == (seen.url, "RUNNING")


def test_a_worker_that_dies_is_replaced_and_the_service_goes_on(script: Script) -> None:
    seen = script(
        serving("""
        import time, requests
        run = new(CODE, handler="serve", init_function="init").run("serve", wait=True)
        first = run.invoke(json={}).json()
        try:
            died = run.invoke(json={"name": "die"}).status_code
        except requests.ConnectionError:
            died = 0  # the connection was that worker's own
        give_up = time.monotonic() + 20
        second = None
        while second is None and time.monotonic() < give_up:
            try:
                second = run.invoke(json={}).json()
            except Exception:
                time.sleep(0.1)
        show(died=died, same=first["supervisor"] == second["supervisor"],
             other=first["worker"] != second["worker"])
        run.stop()
        """)
    )
    assert seen.died == 0 or seen.died >= 500
    assert (seen.same, seen.other) == (True, True)


def test_a_service_that_cannot_start_is_an_error_with_the_users_own_words(script: Script) -> None:
    seen = script(
        user_code("""
        run = new("def serve():\\n    pass\\nraise ValueError('no model')", handler="serve").run("serve", wait=True)
        show(state=run.status.state, message=run.status.message, error=run.status.error)
        """)
    )
    assert seen.state == "ERROR"
    assert seen.message.startswith("ValueError: no model (")
    assert seen.error["line"] == 3


def test_what_metrics_counted_can_be_read(script: Script) -> None:
    seen = script(
        serving("""
        import requests
        run = new(CODE, handler="serve", init_function="init").run("serve", wait=True)
        for _ in range(3):
            run.invoke(json={})
        management = run.status.service["management_url"]
        show(metrics=requests.get(management + "/metrics", timeout=10).text)
        run.stop()
        """)
    )
    counted = [
        float(line.split()[-1])
        for line in seen.metrics.splitlines()
        if "requests_total" in line and not line.startswith("#")
    ]
    assert sum(counted) == 3
