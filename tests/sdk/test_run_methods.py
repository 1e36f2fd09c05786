"""What a user calls on a run: outputs, results, wait, logs, stop, invoke."""

from __future__ import annotations

import pytest

from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.sdk import service
from sdk.conftest import Script, user_code

TWO_OUTPUTS = """
import pandas as pd
from digitalhub_runtime_python import handler
@handler(outputs=["data", "string"])
def f():
    return pd.DataFrame({"a": [1]}), "some value"
"""


def test_outputs_and_results_are_found_by_name_and_only_what_is_asked_for_is_read(
    script: Script,
) -> None:
    seen = script(
        user_code(
            f"""
            run = local({TWO_OUTPUTS!r})
            del sent[:]
            key = run.output("data", as_key=True)
            keys, results, string = run.outputs(as_key=True), run.results(), run.result("string")
            show(key=key, keys=keys, results=results, string=string, asked=list(sent))
            same, nothing = run.output("string"), run.output("strange")
            show(same=same, nothing=nothing, no_result=run.result("strange"), still=list(sent))
            entity, as_dict = run.output("data"), run.output("data", as_dict=True)
            show(entity=[entity.ENTITY_TYPE, entity.key], as_dict=as_dict["key"], gets=[s for s in sent if "/dataitems/" in s],
                 all=[e.kind for e in run.outputs().values()], dicts=list(run.outputs(as_dict=True)))
            """
        )
    )
    assert seen.key == seen.keys["data"] == seen.as_dict == seen.entity[1]
    assert seen.asked == seen.still == []
    assert seen.results == {"string": "some value"}
    assert seen.string == seen.same == "some value"
    assert seen.nothing is None and seen.no_result is None
    assert "has no output 'strange'; it has data, string" in seen.stderr
    assert len([g for g in seen.gets if not g.endswith(("/metrics", "/files/info"))]) == 2
    assert seen.entity[0] == "dataitem"
    assert seen.all == ["table"] and seen.dicts == ["data"]


def test_a_remote_run_needs_no_refresh_to_show_its_result(script: Script) -> None:
    seen = script(
        user_code(
            """
            import time
            function = new("def f(n): return n")
            run = function.run("job", parameters={"n": 5})
            start = time.monotonic()
            while time.monotonic() < start + 120 and run.result("output_0") is None:
                time.sleep(0.05)
            show(result=run.result("output_0"), state=run.status.state)
            """
        )
    )
    assert seen.result == 5


def test_wait_returns_soon_after_the_end_and_says_each_state_once(script: Script) -> None:
    seen = script(
        user_code(
            """
            import time
            from datetime import datetime, timezone
            function = new("def f(): return 1")
            function.run("job", wait=True, log_info=False)
            run = function.run("job")
            out = run.wait()
            returned = datetime.now(timezone.utc)
            start = time.monotonic()
            run.wait()
            again = time.monotonic() - start
            ended = datetime.fromisoformat(run.status.transitions[0]["time"].replace("Z", "+00:00"))
            show(same=out is run, state=run.status.state, late=(returned - ended).total_seconds(), again=again, id=run.id)
            """
        )
    )
    assert seen.same and seen.state == "COMPLETED"
    assert seen.late < 2, "upstream took five seconds and more"
    assert seen.again < 2
    said = [
        line.split("is ")[-1] for line in seen.stderr.splitlines() if f"run {seen.id} is" in line
    ]
    assert said[-1] == "COMPLETED"
    assert all(a != b for a, b in zip(said[:-2], said[1:-1])), said


def test_wait_returns_a_failed_run_and_shows_the_users_traceback(script: Script) -> None:
    seen = script(
        user_code(
            """
            function = new(code_src="work.py")
            run = function.run("job", wait=True)
            show(state=run.status.state, message=run.status.message, error=run.status.error)
            """
        ),
        files={"work.py": "def f():\n    raise ValueError('boom')\n"},
    )
    assert seen.state == "ERROR"
    assert seen.message == "ValueError: boom (work.py, line 2)"
    assert seen.error["type"] == "ValueError"
    assert "ValueError: boom (work.py, line 2)" in seen.stderr
    assert 'File "work.py", line 2, in f' in seen.stderr


def test_wait_gives_up_when_it_is_told_to_and_stop_ends_the_run(script: Script) -> None:
    seen = script(
        user_code(
            """
            import time
            function = new("import time\\ndef f():\\n    time.sleep(60)")
            run = function.run("job")
            while run.status.state in ("CREATED", "BUILT", "READY", "PENDING"):
                time.sleep(0.05)
                run.refresh()
            try:
                run.wait(timeout=0.2)
            except TimeoutError as exc:
                show(said=str(exc))
            run.stop()
            run.wait(timeout=60)
            show(state=run.status.state)
            run.stop()  # has ended: nothing to do, and no error
            """
        )
    )
    assert "it goes on" in seen.said
    assert seen.state == "STOPPED"


def test_stopping_and_logging_a_local_run_do_no_harm(script: Script) -> None:
    seen = script(
        user_code(
            """
            run = local("def f(): print('hello')")
            run.stop()
            show(logs=run.logs(), state=project.get_run(run.id).status.state)
            """
        )
    )
    assert seen.logs == []
    assert seen.state == "COMPLETED"
    assert "hello" in seen.stdout


def test_logs_of_a_remote_run_have_what_it_printed(script: Script) -> None:
    seen = script(
        user_code(
            """
            run = new("def f(): print('hello from afar')").run("job", wait=True)
            logs = run.logs()
            show(text="".join(log["content"] if isinstance(log, dict) else log.text for log in logs))
            """
        )
    )
    assert "hello from afar" in seen.text


def test_a_build_without_its_image_has_none_and_an_image_by_name_is_returned(
    script: Script,
) -> None:
    seen = script(
        user_code(
            """
            run = new("def f(): pass").run("build")
            show(none=run.image)
            run.status.outputs = {"image": "registry/name:tag"}
            run.status.state = "COMPLETED"
            show(image=run.image, outputs=run.outputs())
            """
        )
    )
    assert seen.none is None
    assert seen.image == "registry/name:tag"
    assert seen.outputs == {"image": "registry/name:tag"}


SERVER = """
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
asked = []
class Echo(BaseHTTPRequestHandler):
    def _answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        asked.append([self.command, self.path, self.rfile.read(length).decode()[:40]])
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"ok")
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _answer
    def log_message(self, *args): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
threading.Thread(target=server.serve_forever, daemon=True).start()
port = server.server_port
"""


def test_invoke_calls_the_service_and_leaves_method_files_and_params_as_they_are(
    script: Script,
) -> None:
    seen = script(
        user_code(
            f"""
            exec({SERVER!r})
            run = served_at(port)
            try:
                local("def f(): pass").invoke()
            except Exception as exc:
                show(job=str(exc))
            run.invoke()
            run.invoke(json={{"a": 1}})
            run.invoke(method="GET", json={{"a": 1}})
            run.invoke("PUT", data="x")
            run.invoke("POST")
            run.invoke(files={{"file": b"x"}})
            run.invoke(url="/path/below", params={{"q": 1}})
            run.invoke(url=f"http://127.0.0.1:{{port}}/other")
            response = run.invoke(url=f"127.0.0.1:{{port}}/third")
            show(asked=[[a[0], a[1]] for a in asked], text=response.text)
            """
        )
    )
    assert seen.asked == [
        ["GET", "/"],
        ["POST", "/"],
        ["GET", "/"],
        ["PUT", "/"],
        ["POST", "/"],
        ["POST", "/"],
        ["GET", "/path/below?q=1"],
        ["GET", "/other"],
        ["GET", "/third"],
    ]
    assert seen.text == "ok"
    assert "has no service" in seen.job and "state COMPLETED" in seen.job


@pytest.mark.parametrize(
    ("url", "called"),
    [
        (None, "http://host:8080"),
        ("", "http://host:8080"),
        ("/a/b", "http://host:8080/a/b"),
        ("a/b", "http://host:8080/a/b"),
        ("host:8080/a", "http://host:8080/a"),
        ("http://host:8080/a?q=1", "http://host:8080/a?q=1"),
        ("https://host:8080/", "https://host:8080/"),
        ("//other.example/a", "http://host:8080/other.example/a"),
        ("http://node.example:32047/a", "http://node.example:32047/a"),
        ("https://ingress.example/f", "https://ingress.example/f"),
        ("192.0.2.10:32047", "http://192.0.2.10:32047"),
        ("[2001:db8::1]:32047/a", "http://[2001:db8::1]:32047/a"),
        ("a:b/c", "http://host:8080/a:b/c"),
    ],
)
def test_a_path_of_the_service_or_a_whole_url_is_called(url: str | None, called: str) -> None:
    assert service.target("http://host:8080", url) == called


@pytest.mark.parametrize(
    "url",
    [
        "http://host:80801/a",
        "http://host:0/a",
        "host:99999",
        "ftp://host:8080/",
        "file:///etc/passwd",
        "http://host:port/",
    ],
)
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(UsageFault, match="is not an HTTP URL"):
        service.target("http://host:8080", url)


def test_waiting_for_a_service_ends_when_it_answers(script: Script) -> None:
    seen = script(
        user_code(
            f"""
            exec({SERVER!r})
            import time
            run = served_at(port)
            start = time.monotonic()
            show(same=run.wait() is run, took=time.monotonic() - start, url=run.status.service["url"])
            """
        )
    )
    assert seen.same and seen.took < 5
    assert seen.url.startswith("127.0.0.1:")


def test_a_function_is_served_called_and_stopped(script: Script) -> None:
    seen = script(
        user_code(
            """
            function = new("def f(a, b=2):\\n    return a + b")
            run = function.run("serve", wait=True)
            show(answer=run.invoke(json={"a": 40}).json(), state=run.status.state)
            run.stop()
            show(after=run.wait(timeout=60).status.state)
            """
        )
    )
    assert (seen.answer, seen.state) == (42, "RUNNING")
    assert seen.after == "STOPPED"


def test_waiting_outlives_a_platform_that_is_away_for_a_while(script: Script) -> None:
    seen = script(
        user_code(
            """
            run = new("def f(): return 1").run("job")
            send, refused = _requests.Session.send, []
            def away(self, request, **kwargs):
                if request.method == "GET" and "/runs/" in request.url and len(refused) < 3:
                    refused.append(1)
                    raise _requests.ConnectionError("connection refused")
                return send(self, request, **kwargs)
            _requests.Session.send = away
            show(state=run.wait().status.state, refused=len(refused))
            """
        )
    )
    assert (seen.state, seen.refused) == ("COMPLETED", 3)
    assert seen.stderr.count("cannot be read, trying again") == 1


def test_waiting_for_a_run_that_is_deleted_ends(script: Script) -> None:
    seen = script(
        user_code(
            """
            run = new("import time\\ndef f(): time.sleep(60)").run("job")
            dh.delete_run(run.key)
            show(state=run.wait(timeout=60).status.state)
            """
        )
    )
    assert seen.state == "DELETED"


def test_wait_shows_how_far_the_run_is_and_the_run_knows_it(script: Script) -> None:
    seen = script(
        user_code(
            """
            import io, pathlib, sys
            class Terminal(io.StringIO):
                def isatty(self):
                    return True
                def write(self, text):
                    if "epoch 3" in text:
                        pathlib.Path("go").touch()
                    return super().write(text)
            code = f'''
            import pathlib, time
            def f(context):
                context.progress(3, 10, "epoch 3")
                end = time.monotonic() + 120
                while not pathlib.Path({str(pathlib.Path("go").absolute())!r}).exists():
                    assert time.monotonic() < end
                    time.sleep(0.02)
            '''
            sys.stderr, kept = Terminal(), sys.stderr
            run = new(textwrap.dedent(code)).run("job")
            run.wait()
            local(textwrap.dedent(code))
            sys.stderr, terminal = kept, sys.stderr
            show(line=terminal.getvalue(), page=run._repr_html_(), state=run.status.state, progress=run.status.progress)
            """.replace("import io,", "import textwrap, io,")
        )
    )
    assert "\rf ██████░░░░░░░░░░░░░░ 3 of 10, 30 %, epoch 3" in seen.line
    assert seen.state == "COMPLETED"
    assert seen.progress == {"done": 3, "total": 10, "text": "epoch 3"}
    assert "30 %, epoch 3" in seen.page
