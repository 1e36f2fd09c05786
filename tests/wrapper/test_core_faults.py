"""What a run makes of a platform that is down, slow, confused or that refuses: nothing is lost silently."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moody import Mood, MoodyPlatform, moody_platform
from walking import PATIENCE, job_environ, run_entity

from digitalhub_runtime_python.errors import PlatformFault
from digitalhub_runtime_python.hub.core import CoreHub, merge_status
from digitalhub_runtime_python.lifecycle import run_job
from digitalhub_runtime_python.spec import RunSpec

RUN = run_entity("def f(n): return n + 1", parameters={"n": 1})
STATUS = {"results": {"output_0": 2}, "outputs": {}}


@pytest.fixture
def platform() -> Iterator[MoodyPlatform]:
    with moody_platform(json.loads(json.dumps(RUN))) as platform:
        yield platform


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def kept(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report-run1.json").read_text("utf-8")))


def test_a_run_is_loaded_walked_and_reported_in_three_requests(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    settings = platform.settings(tmp_path)
    outcome = run_job(CoreHub(settings), settings)
    assert outcome.exit_status == 0
    run = "/api/v1/-/proj/runs/run1"
    assert platform.requests == [f"GET {run}", f"GET {run}", f"PUT {run}"]
    assert platform.run["status"]["results"] == {"output_0": 2}
    assert platform.run["status"]["state"] == "RUNNING"


@pytest.mark.parametrize(
    "moods", [[500, 502, 503], [429], ["drop"], ["cut"], ["drop", 500, "cut"]], ids=str
)
def test_trouble_that_passes_is_only_a_delay(
    platform: MoodyPlatform, tmp_path: Path, moods: list[Mood]
) -> None:
    platform.moods = list(moods)
    settings = platform.settings(tmp_path)
    hub = CoreHub(settings)
    assert hub.load_run().parameters == {"n": 1}
    platform.moods = list(moods)
    hub.report(STATUS)
    assert platform.run["status"]["results"] == {"output_0": 2}
    assert not list(tmp_path.iterdir())


def test_a_run_is_loaded_from_a_platform_that_comes_back_later_than_one_request_waits(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.moods = [503] * 7  # one more than a request is repeated
    settings = platform.settings(tmp_path, DHPY_REPORT_TIMEOUT="60")
    assert CoreHub(settings).load_run().parameters == {"n": 1}


def test_an_answer_that_tells_to_wait_for_an_hour_is_asked_again_soon(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.moods, platform.retry_after = [503, 429], "3600"
    started = time.monotonic()
    CoreHub(platform.settings(tmp_path)).load_run()
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "mood, code, said",
    [
        (403, "platform/refused", "answered 403"),
        (400, "platform/refused", "answered 400"),
        (401, "platform/refused", "answered 401"),
        (404, "platform/not-found", "answered 404"),
        (302, "platform/refused", "answered 302"),
        ("html", "platform/failed", 'answered no JSON object: "<html>Welcome'),
        ("list", "platform/failed", "answered no JSON object: '[]'"),
    ],
)
def test_an_answer_that_cannot_be_used_is_named(
    platform: MoodyPlatform, tmp_path: Path, mood: Mood, code: str, said: str
) -> None:
    platform.always = mood
    with pytest.raises(PlatformFault) as caught:
        CoreHub(platform.settings(tmp_path)).load_run()
    assert caught.value.code == code
    assert said in caught.value.message
    assert "GET" in caught.value.message
    assert platform.url in caught.value.message


def test_a_run_that_cannot_be_loaded_ends_with_14_and_is_not_reported(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.always = 403
    settings = platform.settings(tmp_path)
    outcome = run_job(CoreHub(settings), settings)
    assert outcome.exit_status == 14
    assert isinstance(outcome.error, PlatformFault)
    assert len(platform.requests) == 1
    assert not list(tmp_path.iterdir())


def test_a_refused_report_is_kept_at_once_and_its_place_is_said(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    settings = platform.settings(tmp_path, DHPY_REPORT_TIMEOUT="600")
    hub = CoreHub(settings)
    hub.load_run()
    platform.always = 403
    with pytest.raises(PlatformFault) as caught:
        hub.report(STATUS)
    assert caught.value.code == "platform/report"
    assert str(tmp_path / "report-run1.json") in caught.value.message
    assert kept(tmp_path) == STATUS


def test_a_report_to_nobody_is_kept_and_the_run_says_so(tmp_path: Path) -> None:
    with moody_platform(json.loads(json.dumps(RUN))) as platform:
        settings = platform.settings(tmp_path)
        hub = CoreHub(settings)
        hub.load_run()
    with pytest.raises(PlatformFault) as caught:
        hub.report(STATUS)
    assert "cannot be reached" in caught.value.message
    assert kept(tmp_path) == STATUS


def test_a_report_that_cannot_even_be_kept_is_in_the_fault(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    hub = CoreHub(platform.settings(tmp_path / "file" / "below"))
    platform.always = 403
    with pytest.raises(PlatformFault) as caught:
        hub.report(STATUS)
    assert json.dumps(STATUS) in caught.value.message


def test_a_report_is_tried_again_until_the_platform_is_back(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    hub = CoreHub(platform.settings(tmp_path, DHPY_REPORT_TIMEOUT="60"))
    platform.always = 500

    def recover() -> None:
        platform.always = None

    timer = threading.Timer(8, recover)  # longer than one request tries
    timer.start()
    hub.report(STATUS)
    timer.join()
    assert platform.run["status"]["results"] == {"output_0": 2}


def test_a_platform_that_takes_no_nan_gets_text_for_it(
    platform: MoodyPlatform, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    platform.strict = True
    hub = CoreHub(platform.settings(tmp_path))
    hub.report({"results": {"a": [float("nan")], "b": {"c": float("-inf")}, "d": 1.5}})
    assert platform.run["status"]["results"] == {"a": ["NaN"], "b": {"c": "-Infinity"}, "d": 1.5}
    assert "takes no NaN" in caplog.text


def test_an_expired_token_is_refreshed_where_the_issuer_says(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.token = "current"
    settings = platform.settings(
        tmp_path,
        DHCORE_ACCESS_TOKEN="expired",
        DHCORE_REFRESH_TOKEN="refresh+me",
        DHCORE_CLIENT_ID="client",
        DHCORE_ISSUER=f"{platform.url}/issuer/",
    )
    hub = CoreHub(settings)
    hub.load_run()
    assert platform.forms == [
        "grant_type=refresh_token&refresh_token=refresh%2Bme&client_id=client&scope=credentials"
    ]
    platform.token = platform.fresh_token = "another"
    hub.report(STATUS)
    assert "refresh_token=next" in platform.forms[1], "a refresh token is used once"
    assert platform.run["status"]["results"] == {"output_0": 2}


def test_an_expired_token_is_refreshed_at_the_token_endpoint_that_is_set(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.token = "current"
    settings = platform.settings(
        tmp_path,
        DHCORE_ACCESS_TOKEN="expired",
        DHCORE_REFRESH_TOKEN="r",
        OAUTH2_TOKEN_ENDPOINT=f"{platform.url}/token",
    )
    assert CoreHub(settings).load_run().id == "run1"


@pytest.mark.parametrize("issuer", ["", "http://127.0.0.1:9/issuer", "no url at all"])
def test_a_token_that_cannot_be_refreshed_is_a_refusal(
    platform: MoodyPlatform, tmp_path: Path, issuer: str
) -> None:
    platform.token = "current"
    settings = platform.settings(
        tmp_path, DHCORE_ACCESS_TOKEN="expired", DHCORE_REFRESH_TOKEN="r", DHCORE_ISSUER=issuer
    )
    with pytest.raises(PlatformFault) as caught:
        CoreHub(settings).load_run()
    assert caught.value.code == "platform/refused"
    assert "answered 401" in caught.value.message
    assert "expired" not in str(caught.value)


def test_a_user_and_a_password_are_sent(platform: MoodyPlatform, tmp_path: Path) -> None:
    hub = CoreHub(platform.settings(tmp_path, DHCORE_USER="ada", DHCORE_PASSWORD="secret"))
    headers: list[str] = []
    original = hub._client._http.request

    def request(*args: Any, **kwargs: Any) -> Any:
        headers.append(kwargs["headers"]["authorization"])
        return original(*args, **kwargs)

    hub._client._http.request = request  # type: ignore[method-assign]
    hub.load_run()
    assert headers == ["Basic YWRhOnNlY3JldA=="]


@pytest.mark.parametrize(
    "endpoint", ["", "http://127.0.0.1:{port}", "ftp://127.0.0.1", "::::", "x"]
)
def test_an_endpoint_that_is_none_is_one_line(tmp_path: Path, endpoint: str) -> None:
    # A port may be listened on and a name be known later; those are tried again.
    extra = {"DHPY_REPORT_TIMEOUT": "1"} if endpoint in ("http://127.0.0.1:{port}", "x") else {}
    done = subprocess.run(
        [sys.executable, "-m", "digitalhub_runtime_python", "job"],
        env=job_environ(
            tmp_path,
            DHCORE_ENDPOINT=endpoint.format(port=free_port()),
            PROJECT_NAME="p",
            RUN_ID="r",
            **extra,
        ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 14, done.stderr
    assert "Traceback" not in done.stderr
    assert "DHCORE_ENDPOINT" in done.stderr


def test_an_output_whose_entity_cannot_be_made_is_named_and_the_others_are_kept(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.run = run_entity("def f(): return 1, b'x'")
    platform.refused = ("POST",)
    settings = platform.settings(tmp_path, DHCORE_DEFAULT_FILES_STORE="s3://bucket")
    outcome = run_job(CoreHub(settings), settings)
    assert outcome.exit_status == 13
    error = platform.run["status"]["error"]
    assert error["code"] == "outputs/not-stored"
    assert "Output 'output_1' (bytes) could not be stored: POST" in error["message"]
    assert platform.run["status"]["results"] == {"output_0": 1}


def test_an_entity_whose_answer_got_lost_is_not_made_twice(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    hub = CoreHub(platform.settings(tmp_path))
    platform.moods = ["drop"]  # after it was stored
    hub._client.create("artifacts", {"id": "a1", "project": "proj"})
    assert list(platform.created) == ["a1"]
    assert [r.split()[0] for r in platform.requests] == ["POST", "POST", "GET"]


def test_an_output_without_a_files_store_says_what_to_set(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.run = run_entity("def f(): return b'x'")
    settings = platform.settings(tmp_path)
    outcome = run_job(CoreHub(settings), settings)
    assert outcome.exit_status == 13
    assert outcome.status["error"]["code"] == "outputs/no-store"
    assert "DHCORE_DEFAULT_FILES_STORE" in outcome.status["error"]["message"]


def test_the_users_error_is_said_also_when_the_report_is_not_delivered(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.run = run_entity(
        """
        import os, urllib.request

        def f():
            urllib.request.urlopen(os.environ["SWITCH"], data=b"403")
            raise ValueError("the user's own")
        """
    )
    with switch(platform) as url:
        done = run_core_process(platform, tmp_path, SWITCH=url)
    assert done.returncode == 1
    assert "ValueError: the user's own" in done.stderr
    assert "[platform/report]" in done.stderr
    assert kept(tmp_path / "work")["error"]["message"] == "the user's own"


def test_a_good_run_whose_report_is_not_delivered_exits_with_14(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.run = run_entity(
        """
        import os, urllib.request

        def f():
            urllib.request.urlopen(os.environ["SWITCH"], data=b"500")
            return 1
        """
    )
    with switch(platform) as url:
        done = run_core_process(platform, tmp_path, SWITCH=url)
    assert done.returncode == 14
    assert "[platform/report]" in done.stderr
    assert kept(tmp_path / "work")["results"] == {"output_0": 1}


def test_sigterm_while_a_report_is_retried_keeps_it_on_disk(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.run = run_entity(
        """
        import os, urllib.request

        def f():
            urllib.request.urlopen(os.environ["SWITCH"], data=b"500")
            return 1
        """
    )
    with switch(platform) as url:
        environ = core_environ(platform, tmp_path, SWITCH=url, DHPY_REPORT_TIMEOUT="3600")
        command = [sys.executable, "-m", "digitalhub_runtime_python", "job"]
        process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "trying again" in line:
                    break
            process.send_signal(signal.SIGTERM)
            stderr = process.stderr.read()
            assert process.wait(PATIENCE) == 14, stderr
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
    assert "[platform/report]" in stderr
    assert kept(tmp_path / "work")["results"] == {"output_0": 1}


def test_what_is_reported_goes_over_what_is_there_and_leaves_the_rest() -> None:
    old = {
        "state": "RUNNING",
        "transitions": [1],
        "results": {"a": 1, "b": 1},
        "outputs": None,
        "error": {"type": "Old"},
    }
    new = {"state": "COMPLETED", "results": {"b": 2}, "outputs": {"o": "k"}}
    assert merge_status(old, new) == {
        "state": "RUNNING",
        "transitions": [1],
        "results": {"a": 1, "b": 2},
        "outputs": {"o": "k"},
    }
    assert merge_status(old, {"error": {"type": "New"}})["error"] == {"type": "New"}


def test_a_run_of_another_shape_is_refused_before_anything_is_done(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    platform.run = {**RUN, "spec": {**RUN["spec"], "parameters": [1, 2]}}
    settings = platform.settings(tmp_path)
    outcome = run_job(CoreHub(settings), settings)
    assert outcome.exit_status == 2
    assert outcome.status["error"]["code"] == "usage/shape"
    assert platform.run["status"]["error"]["message"].startswith("The parameters must be")


def test_inputs_that_are_no_keys_are_named_with_their_argument(
    platform: MoodyPlatform, tmp_path: Path
) -> None:
    code = "from pathlib import Path\ndef f(data: Path): return data"
    for value in ("x", 5, "store://", "store://p/artifact/artifact/", None):
        platform.run = run_entity(code, inputs={"data": value})
        settings = platform.settings(tmp_path)
        outcome = run_job(CoreHub(settings), settings)
        assert outcome.exit_status == 12, outcome.status
        assert outcome.status["error"]["code"] == "arguments/input"
        assert (
            f"'data': The input {value!r} is not an entity key."
            in outcome.status["error"]["message"]
        )


def test_an_input_that_does_not_exist_is_named(platform: MoodyPlatform, tmp_path: Path) -> None:
    code = "from pathlib import Path\ndef f(data: Path): return data"
    key = "store://proj/artifact/artifact/thing:abc"
    platform.run = run_entity(code, inputs={"data": key})
    settings = platform.settings(tmp_path)
    outcome = run_job(CoreHub(settings), settings)
    assert outcome.exit_status == 12
    assert f"'data': The input {key!r} cannot be loaded" in outcome.status["error"]["message"]


def test_a_run_spec_is_what_the_platform_sends(platform: MoodyPlatform, tmp_path: Path) -> None:
    assert CoreHub(platform.settings(tmp_path)).load_run() == RunSpec.from_entity(RUN)


# --- helpers ---------------------------------------------------------------------------------------


class switch:
    """A URL; what is POSTed to it is how the platform answers from then on."""

    def __init__(self, platform: MoodyPlatform) -> None:
        self.platform = platform

    def __enter__(self) -> str:
        from http.server import BaseHTTPRequestHandler, HTTPServer

        from servers.web import serving

        platform = self.platform

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                platform.always = int(self.rfile.read(length))
                self.send_response(204)
                self.end_headers()

        server = HTTPServer(("127.0.0.1", 0), Handler)
        self.serving = serving(server)  # type: ignore[arg-type]
        self.serving.__enter__()
        return f"http://127.0.0.1:{server.server_port}/"

    def __exit__(self, *details: Any) -> None:
        self.serving.__exit__(*details)


def core_environ(platform: MoodyPlatform, folder: Path, **environ: str) -> dict[str, str]:
    proxies = {k: "" for k in os.environ if k.lower().endswith("_proxy")}
    own = job_environ(folder, **proxies)
    return {**own, **platform.environ(folder / "work", **environ)}


def run_core_process(
    platform: MoodyPlatform, folder: Path, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "digitalhub_runtime_python", "job"],
        env=core_environ(platform, folder, **environ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
