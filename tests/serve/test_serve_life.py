"""A service from its start to its end: ready, draining, signals, reload, shared sockets, runs of a platform."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from services import Service, alive, read_response, request_bytes, serving, started, wait_until

Serve = Callable[..., Service]

SLEEPY = """
import asyncio, os, time
def handler(context, event, s: float = 0):
    time.sleep(s)
    return str(os.getpid())
async def ahandler(context, event, s: float = 0):
    await asyncio.sleep(s)
    return str(os.getpid())
"""


# --- start ------------------------------------------------------------------------------------


def test_the_ready_file_names_where_it_answers(serve: Serve) -> None:
    service = serve(SLEEPY, "handler")
    assert service.post().text.isdigit()
    ready = service.manage("/ready").json()
    assert ready == {"ready": 1, "workers": 1, "state": "ready"}
    assert service.manage("/live").text == "OK\n"


def test_it_listens_on_loopback_unless_told_otherwise(serve: Serve) -> None:
    service = serve(SLEEPY, "handler")
    assert service.url.startswith("http://127.0.0.1:")
    assert service.management_url.startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SLEEPY)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = {"DHPY_READY_FILE": ""}
        port = str(taken.getsockname()[1])
        with serving(
            tmp_path / "main.py", "handler", "--port", port, tmp_path=tmp_path, env=env, wait=False
        ) as service:
            assert service.process.wait(30) == 2
    assert "[serve/address]" in service.log
    assert port in service.log


FAILING = {
    "import": ("import nothing_that_exists\ndef handler(): pass\n", 11, "nothing_that_exists"),
    "syntax": ("def handler(:\n", 11, "SyntaxError"),
    "no handler": ("def handlr(): pass\n", 11, "Did you mean 'handlr'"),
    "init raises": ("def handler(): pass\ndef init(context): raise ValueError('no model')\n", 1, "no model"),
    "init exits": ("def handler(): pass\ndef init(context): raise SystemExit(9)\n", 1, "SystemExit"),
    "a parameter that does not fit": ("def handler(): pass\ndef init(context): pass\n", 12, "'n' is unknown"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILING)
def test_a_function_that_cannot_be_served_ends_the_service_and_says_why(
    tmp_path: Path, name: str
) -> None:
    code, status, text = FAILING[name]
    (tmp_path / "main.py").write_text(code)
    options = ["--init-function", "init"] if "def init" in code else []
    options += ["-p", "n=1"] if status == 12 else []
    with serving(
        tmp_path / "main.py", "handler", *options, "--workers", "2", tmp_path=tmp_path, wait=False
    ) as service:
        assert service.process.wait(30) == status, service.log
    assert text in service.log
    assert "the function cannot be served" in service.log


# --- end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", ["handler", "ahandler"])
def test_sigterm_during_500_requests_in_flight_loses_none(serve: Serve, handler: str) -> None:
    service = serve(SLEEPY, handler, "--workers", "2", env={"DHPY_WAIT": "60"})
    seconds = 1.0 if handler == "ahandler" else 0.005
    body = json.dumps({"s": seconds}).encode()
    request = request_bytes(body, content_type="application/json")
    clients = [service.connect(request) for _ in range(500)]
    try:
        service.process.send_signal(signal.SIGTERM)
        answers = [read_response(client) for client in clients]
    finally:
        for client in clients:
            client.close()
    assert [status for status, _, _ in answers] == [200] * 500
    # Those that were answered after the signal are told that the connection ends.
    assert sum(headers.get("connection") == "close" for _, headers, _ in answers) > 100
    assert service.process.wait(30) == 0


def test_sigterm_lets_a_stream_end(serve: Serve) -> None:
    code = """
import time
def handler():
    for n in range(10):
        yield f"{n}\\n"
        time.sleep(0.1)
"""
    service = serve(code, "handler")
    with requests.post(service.url, stream=True, timeout=30) as response:
        lines = response.iter_lines()
        next(lines)
        service.process.send_signal(signal.SIGTERM)
        assert len(list(lines)) == 9
    assert service.process.wait(30) == 0


def test_sigterm_makes_it_not_ready_and_takes_no_more_connections(serve: Serve) -> None:
    service = serve(SLEEPY, "handler")
    with service.connect(request_bytes(b'{"s": 1.5}', content_type="application/json")) as client:
        time.sleep(0.3)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: service.manage("/ready").status_code == 503)
        assert service.manage("/live").status_code == 200
        assert read_response(client)[0] == 200
    assert service.process.wait(30) == 0


def test_the_termination_callback_runs_after_the_last_request(serve: Serve, tmp_path: Path) -> None:
    code = f"""
import pathlib, time, atexit
place = pathlib.Path({str(tmp_path)!r})
def init(context):
    context.platform.set_termination_callback(lambda: (place / "terminated").write_text(str(done)))
    atexit.register((place / "exited").touch)
done = 0
def handler(event):
    global done
    time.sleep(0.5)
    done += 1
"""
    service = serve(code, "handler", "--init-function", "init")
    with service.connect(request_bytes()) as client:
        time.sleep(0.2)
        service.process.send_signal(signal.SIGTERM)
        assert read_response(client)[0] == 204
    assert service.process.wait(30) == 0
    assert (tmp_path / "terminated").read_text() == "1"
    assert (tmp_path / "exited").exists()


def test_an_async_termination_callback_is_awaited(serve: Serve, tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib
async def end():
    await asyncio.sleep(0.01)
    pathlib.Path({str(tmp_path / "terminated")!r}).touch()
async def init(context):
    context.platform.set_termination_callback(end)
async def handler():
    return "x"
"""
    service = serve(code, "handler", "--init-function", "init")
    assert service.stop() == 0
    assert (tmp_path / "terminated").exists()


def test_requests_that_outlast_the_grace_time_end_with_it(serve: Serve) -> None:
    service = serve(SLEEPY, "handler", env={"DHPY_GRACE": "0.5"})
    with service.connect(request_bytes(b'{"s": 60}', content_type="application/json")):
        time.sleep(0.3)
        start = time.monotonic()
        assert service.stop() != 0
    assert time.monotonic() - start < 20
    assert "did not end within the grace time" in service.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(serve: Serve, number: int) -> None:
    service = serve(SLEEPY, "handler", "--workers", "2")
    children = service.children()
    with service.connect(request_bytes(b'{"s": 60}', content_type="application/json")):
        time.sleep(0.3)
        service.process.send_signal(number)
        wait_until(lambda: "ending" in service.log)
        service.process.send_signal(number)
        assert service.process.wait(20) == 128 + number
    assert not any(alive(pid) for pid in children)


def test_ctrl_c_ends_it_with_0_and_leaves_nothing_behind(serve: Serve, tmp_path: Path) -> None:
    service = serve(SLEEPY, "handler", "--workers", "2")
    children = service.children()
    assert service.stop(signal.SIGINT) == 0
    assert not list(tmp_path.rglob("ready.json"))  # nothing answers there any more
    assert not any(alive(pid) for pid in children)
    assert not list(tmp_path.glob("service*/work/*"))


@pytest.mark.parametrize("handler", ["handler", "ahandler"])
def test_a_worker_that_is_sent_sigterm_finishes_and_is_replaced(serve: Serve, handler: str) -> None:
    service = serve(SLEEPY, handler)
    pid = int(service.post().text)
    with service.connect(request_bytes(b'{"s": 0.5}', content_type="application/json")) as client:
        time.sleep(0.2)
        os.kill(pid, signal.SIGTERM)
        assert read_response(client)[0] == 200
    assert int(service.post().text) != pid


# --- keep-alive, several workers ---------------------------------------------------------------


def test_a_busy_worker_leaves_new_connections_to_the_free_one(serve: Serve) -> None:
    service = serve(SLEEPY, "handler", "--workers", "2")
    slow = request_bytes(b'{"s": 0.8}', content_type="application/json")
    waited = 0
    for _ in range(8):
        with service.connect(slow) as client:
            time.sleep(0.1)
            waited += service.post().elapsed.total_seconds() > 0.5
            assert read_response(client)[0] == 200
    assert waited <= 2  # by chance it would be half of them


def test_replicas_that_share_a_socket_are_replaced_under_load_without_loss(
    tmp_path: Path,
) -> None:
    (tmp_path / "main.py").write_text(SLEEPY)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.set_inheritable(True)
        fd = listener.fileno()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        run = tmp_path / "run.json"
        run.write_text(json.dumps(run_of(SLEEPY, "handler")))

        @contextlib.contextmanager
        def replica(name: str) -> Iterator[Service]:
            command = [sys.executable, "-m", "digitalhub_runtime_python", "serve"]
            env = {
                "DHPY_LISTEN_FD": str(fd),
                "DHPY_MANAGEMENT_PORT": "0",
                "DHPY_RUN_FILE": str(run),
            }
            with started(command, tmp_path=tmp_path / name, env=env, pass_fds=[fd]) as service:
                yield service

        answers: list[int] = []
        stop = threading.Event()
        lost: list[str] = []

        def keep_asking(keep_alive: bool) -> None:
            session = requests.Session()
            while not stop.is_set():
                client = session if keep_alive else requests
                try:
                    answers.append(client.post(url, json={"s": 0.002}, timeout=30).status_code)
                except requests.RequestException as exc:
                    lost.append(repr(exc))

        with contextlib.ExitStack() as stack:
            old = [stack.enter_context(replica(f"old{i}")) for i in range(2)]
            threads = [threading.Thread(target=keep_asking, args=(i % 2 == 0,)) for i in range(6)]
            for thread in threads:
                thread.start()
            try:
                for i, service in enumerate(old):
                    stack.enter_context(replica(f"new{i}"))
                    assert service.stop() == 0
            finally:
                time.sleep(0.5)
                stop.set()
                for thread in threads:
                    thread.join()
        assert not lost
        assert set(answers) == {200}
        assert len(answers) > 100


# --- reload, debug ----------------------------------------------------------------------------


def test_reload_serves_the_code_that_was_just_saved(tmp_path: Path) -> None:
    main, helper = tmp_path / "main.py", tmp_path / "helper.py"
    helper.write_text("TEXT = 'first'\n")
    main.write_text("import helper\ndef handler():\n    return helper.TEXT\n")
    with serving(main, "handler", "--reload", tmp_path=tmp_path / "service") as service:
        assert service.post().text == "first"
        helper.write_text("TEXT = 'second'\n")
        wait_until(lambda: service.post().text == "second")
        helper.write_text("TEXT = \n")
        wait_until(lambda: "tried again when its code changes" in service.log)
        wait_until(lambda: service.post().status_code == 503)
        answer = service.post()
        assert answer.headers["content-type"] == "application/problem+json"
        assert "SyntaxError" in answer.json()["detail"] and "helper.py" in answer.json()["detail"]
        helper.write_text("TEXT = 'third'\n")
        wait_until(lambda: service.post().text == "third")


def test_a_default_port_that_is_taken_is_not_used_but_one_that_was_asked_for_is_a_fault(
    tmp_path: Path,
) -> None:
    (tmp_path / "main.py").write_text("def handler():\n    return 'here'\n")
    code = "from digitalhub_runtime_python.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", f"{tmp_path}/main.py:handler"]
    with contextlib.ExitStack() as stack:
        for port in (8080, 8082):
            with contextlib.suppress(OSError):  # somebody else's: as good
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        with started(command, tmp_path=tmp_path / "service") as service:
            assert "Port 8080 is taken" in service.log and "Port 8082 is taken" in service.log
            assert service.post().text == "here"
        ports = ["--port", "8080", "--management-port", "0"]
        refused = subprocess.run([*command, *ports], capture_output=True, text=True, timeout=60)
        assert refused.returncode == 2 and "8080" in refused.stderr


def test_reload_waits_for_code_that_can_be_served(tmp_path: Path) -> None:
    main = tmp_path / "main.py"
    main.write_text("def handler(:\n")
    with serving(main, "handler", "--reload", tmp_path=tmp_path / "service", wait=False) as service:
        wait_until(lambda: "tried again when its code changes" in service.log)
        main.write_text("def handler():\n    return 'fine'\n")
        wait_until((tmp_path / "service" / "ready.json").exists)


def test_debug_sends_the_traceback(serve: Serve) -> None:
    service = serve("def handler():\n    raise ValueError('what for')\n", "handler", "--debug")
    error = service.post().json()["error"]
    assert error["message"] == "what for"
    assert (error["file"], error["line"]) == ("main.py", 2)
    assert "Traceback" in error["traceback"]
    assert "digitalhub_runtime_python" not in error["traceback"]


def test_debug_logs_each_request(serve: Serve) -> None:
    service = serve("def handler(event):\n    return 'x'\n", "handler", "--debug")
    requests.get(f"{service.url}/a/b?c=d", timeout=10)
    wait_until(lambda: "GET /a/b 200" in service.log)


def test_a_service_under_nohup_does_not_end_with_its_terminal(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SLEEPY)
    code = "from digitalhub_runtime_python.cli import main; main()"
    command = ["nohup", sys.executable, "-c", code, "serve", f"{tmp_path}/main.py:handler"]
    command += ["--port", "0", "--management-port", "0"]
    with started(command, tmp_path=tmp_path / "service") as service:
        service.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert service.post().status_code == 200
        assert service.stop() == 0


def test_what_the_function_prints_is_in_the_log_at_once(serve: Serve) -> None:
    code = "def handler(context):\n    print('printed')\n    context.logger.info('logged')\n"
    service = serve(code, "handler", env={"PYTHONUNBUFFERED": ""})
    service.post()
    wait_until(lambda: "printed" in service.log and "logged" in service.log)


def test_secrets_are_in_no_error(serve: Serve) -> None:
    code = "import os\ndef handler():\n    raise ValueError(os.environ['DB_PASSWORD'])\n"
    service = serve(code, "handler", "--debug", env={"DB_PASSWORD": "hunter2hunter2"})
    assert "•••" in service.post().text
    assert "hunter2" not in service.log


# --- runs -------------------------------------------------------------------------------------


def run_of(code: str, handler: str, **spec: Any) -> dict[str, Any]:
    run_id = uuid.uuid4().hex
    return {
        "id": run_id,
        "name": run_id,
        "kind": "python+serve:run",
        "project": "p",
        "spec": {
            "function": "python://p/served:1",
            "source": {"code": code, "handler": handler, "source": "main.py"},
            "python_version": "PYTHON3_11",
            **spec,
        },
        "status": {"state": "READY"},
    }


def test_a_run_in_a_file_is_served_with_its_parameters_and_inputs(tmp_path: Path) -> None:
    code = """
import pathlib
def init(context, name):
    context.name = name
def handler(context, a: int, b: int, data: pathlib.Path, c: int = 0):
    return {"sum": a + b + c, "name": context.name, "data": data.read_text()}
"""
    (tmp_path / "data.txt").write_text("content")
    run = run_of(
        code,
        "main:handler",
        parameters={"a": 1, "b": 2},
        inputs={"data": str(tmp_path / "data.txt")},
        init_parameters={"name": "n"},
    )
    run["spec"]["source"]["init_function"] = "init"
    (tmp_path / "run.json").write_text(json.dumps(run))
    command = [sys.executable, "-m", "digitalhub_runtime_python", "serve", "--port", "0"]
    env = {"DHPY_RUN_FILE": str(tmp_path / "run.json"), "DHPY_MANAGEMENT_PORT": "0"}
    with started(command, tmp_path=tmp_path / "service", env=env) as service:
        answer = service.post({"b": 10, "c": 100}).json()
        assert answer == {"sum": 111, "name": "n", "data": "content"}
        assert service.manage("/openapi.json").json()["info"]["title"] == "served"
        assert service.stop() == 0
    # As after a job: what the run reported, and nothing else.
    left = [
        p.relative_to(tmp_path / "service" / "work")
        for p in (tmp_path / "service" / "work").rglob("*")
    ]
    assert sorted(map(str, left)) == ["outputs", "outputs/status.json"]


def test_what_a_run_fixes_is_converted_once_and_not_per_request(tmp_path: Path) -> None:
    code = """
from dataclasses import dataclass
@dataclass
class Model:
    weights: list
seen = []
def handler(model: Model, n: int):
    seen.append(model)
    return {"n": n, "weights": model.weights, "same": all(m is seen[0] for m in seen)}
"""
    run = run_of(code, "main:handler", parameters={"model": {"weights": [1.5]}})
    (tmp_path / "run.json").write_text(json.dumps(run))
    command = [sys.executable, "-m", "digitalhub_runtime_python", "serve", "--port", "0"]
    env = {"DHPY_RUN_FILE": str(tmp_path / "run.json"), "DHPY_MANAGEMENT_PORT": "0"}
    with started(command, tmp_path=tmp_path / "service", env=env) as service:
        for n in range(5):
            assert service.post({"n": n}).json() == {"n": n, "weights": [1.5], "same": True}


def test_a_run_whose_code_cannot_be_had_ends_with_its_exit_status(tmp_path: Path) -> None:
    run = run_of("", "handler")
    run["spec"]["source"] = {"source": "ftp://host/code.py", "handler": "handler"}
    (tmp_path / "run.json").write_text(json.dumps(run))
    command = [sys.executable, "-m", "digitalhub_runtime_python", "serve", "--port", "0"]
    env = {"DHPY_RUN_FILE": str(tmp_path / "run.json"), "DHPY_MANAGEMENT_PORT": "0"}
    with started(command, tmp_path=tmp_path / "service", env=env, wait=False) as service:
        assert service.process.wait(30) == 10
    assert "[source/scheme]" in service.log


def test_a_run_of_the_control_plane_is_served_and_its_failure_reported(
    control_plane: Any, tmp_path: Path
) -> None:
    project = control_plane.project(f"serve-{uuid.uuid4().hex[:8]}")
    command = [sys.executable, "-m", "digitalhub_runtime_python", "serve", "--port", "0"]
    for code, fails in (("def handler(n: int):\n    return n + 1\n", False), ("1 / 0\n", True)):
        # A local execution: the platform keeps the run, and starts nothing for it.
        run = run_of(code, "handler", local_execution=True)
        run["project"] = project
        run["spec"]["function"] = f"python://{project}/served:1"
        control_plane.ask("POST", f"/-/{project}/runs", run)
        env = {
            **control_plane.environ,
            "PROJECT_NAME": project,
            "RUN_ID": run["id"],
            "DHPY_MANAGEMENT_PORT": "0",
        }
        place = tmp_path / run["id"]
        with started(command, tmp_path=place, env=env, wait=not fails) as service:
            if fails:
                assert service.process.wait(60) == 11, service.log
            else:
                assert service.post({"n": 1}).text == "2"
        status = control_plane.ask("GET", f"/-/{project}/runs/{run['id']}")["status"]
        assert ("error" in status) == fails, status
        if fails:
            assert status["error"]["type"] == "ZeroDivisionError"
            assert status["error"]["line"] == 1
        else:
            assert status["source"]["revision"].startswith("sha256:")


def test_the_context_has_the_platform_s_project_and_run(control_plane: Any, tmp_path: Path) -> None:
    code = """
def handler(context, project, run, event):
    return {"context": [context.project.name, context.run.id], "given": [project.name, run.id]}
"""
    project = control_plane.project(f"serve-{uuid.uuid4().hex[:8]}")
    run = run_of(code, "handler", local_execution=True)
    run["project"], run["spec"]["function"] = project, f"python://{project}/served:1"
    control_plane.ask("POST", f"/-/{project}/runs", run)
    command = [sys.executable, "-m", "digitalhub_runtime_python", "serve", "--port", "0"]
    settings = {"PROJECT_NAME": project, "RUN_ID": run["id"], "DHPY_MANAGEMENT_PORT": "0"}
    env = {**control_plane.environ, **settings, "HOME": str(tmp_path)}
    with started(command, tmp_path=tmp_path / "service", env=env) as service:
        assert service.post().json() == {
            "context": [project, run["id"]],
            "given": [project, run["id"]],
        }


def test_an_option_that_cannot_be_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "digitalhub_runtime_python", "serve", "--workers", "0"]
    with started(command, tmp_path=tmp_path, wait=False) as service:
        assert service.process.wait(30) == 2
    assert "DHPY_WORKERS is '0'" in service.log


def test_the_function_of_another_service_can_be_called(serve: Serve) -> None:
    other = serve("def handler(n: int):\n    return {'twice': 2 * n}\n", "handler")
    host, port = other.address
    code = """
import nuclio_sdk
def handler(context, event):
    answer = context.platform.call_function("other", nuclio_sdk.Event(body={"n": 21}, method="POST"))
    return answer.body["twice"]
"""
    service = serve(code, "handler", env={"DHPY_FUNCTION_ADDRESSES": f"other={host}:{port}"})
    assert service.post().text == "42"


def test_serving_needs_neither_the_sdk_nor_pandas(serve: Serve) -> None:
    code = """
import sys
def handler(event):
    heavy = {"digitalhub", "pandas", "numpy", "pydantic", "boto3", "pyarrow", "sqlalchemy", "starlette"}
    return sorted(heavy & sys.modules.keys())
"""
    service = serve(code, "handler")
    assert service.post().json() == []
    assert service.metric("dhpy_worker_resident_bytes") < 40 * 1024 * 1024


def test_invoke_calls_a_served_function(serve: Serve, tmp_path: Path) -> None:
    service = serve(
        "def handler(n: int, name: str = 'x'):\n    return {'n': n, 'name': name}\n", "handler"
    )
    (tmp_path / "body.json").write_text('{"n": 2}')

    def invoke(*options: str) -> tuple[int, str]:
        code = "from digitalhub_runtime_python.cli import main; main()"
        command = [sys.executable, "-c", code, "invoke", service.url, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    status, text = invoke("-p", "n=5", "-p", "name=y")
    assert (status, json.loads(text)) == (0, {"n": 5, "name": "y"})
    status, text = invoke("-d", f"@{tmp_path / 'body.json'}")
    assert json.loads(text)["n"] == 2
    status, text = invoke("-p", "n=five")
    assert status == 1
    assert "422" in text and "expects int" in text
    assert invoke("-p", "n=5", "-d", "{}")[0] == 2
