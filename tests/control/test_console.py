"""The console: its pages say what the API says, who may open them, and what users' content may do there."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Plane, serving, settings_in
from test_access import LOCK
from test_s3 import boto

from digitalhub_python_control.console import charts, logtext, signature
from digitalhub_python_control.running.logs import run_folder

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
CODE = '''from typing import Literal

def f(a: int, how: Literal["fast", "slow"] = "fast", *, deep: bool = False):
    """Adds up."""
    return a
'''


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Plane]:
    with serving(settings_in(tmp_path / "home", **LOCK), auth=("ada", "pass:wörd")) as plane:
        plane.project()
        yield plane


def source(code: str) -> dict[str, str]:
    return {"source": "f.py", "handler": "f", "base64": base64.b64encode(code.encode()).decode()}


def page(plane: Plane, path: str = "", status: int = 200) -> str:
    answer = plane.http.get(f"/console/{path}")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    return answer.text


def token(plane: Plane) -> str:
    found = re.search('name="token" value="([0-9a-f]+)"', page(plane, "p/proj/runs"))
    assert found
    return found.group(1)


def post(plane: Plane, path: str, **form: Any) -> httpx.Response:
    return plane.http.post(f"/console/p/proj/{path}", data={"token": token(plane), **form})


def test_a_browser_is_led_to_the_console_and_a_program_gets_json(plane: Plane) -> None:
    led = plane.http.get("/", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (led.status_code, led.headers["location"]) == (303, "/console/")
    told = plane.http.get("/")
    assert told.status_code == 404 and told.json()["status"] == 404


def test_pages_say_what_the_api_says(plane: Plane) -> None:
    task = plane.task(plane.function())
    runs = [plane.run(task, parameters={"a": n}) for n in range(30)]
    for run, states in zip(runs, (["RUNNING", "COMPLETED"], ["RUNNING"], ["ERROR"])):
        for state in states:
            plane.store.move_run("proj", run["id"], state)
    for query in ("", "?page=1", "?state=READY", "?state=ERROR", "?q=nothing", "?action=job"):
        asked = plane.ask("GET", f"/-/proj/runs{query}")
        text = page(plane, f"p/proj/runs{query}")
        rows = re.findall(
            r'<tr data-run="(\w+)">.*?<span class="state \w+">(\w+)</span>', text, re.DOTALL
        )
        assert rows == [(run["id"], run["status"]["state"]) for run in asked["content"]], query
    shown = page(plane, f"p/proj/runs/{runs[0]['id']}")
    states = re.findall(
        r'class="state \w+">(\w+)<', shown[shown.index('id="timeline"') :].partition("</ol>")[0]
    )
    run = plane.ask("GET", f"/-/proj/runs/{runs[0]['id']}")
    assert states == [step["status"] for step in run["status"]["transitions"]][::-1]


def test_a_run_is_stopped_rerun_with_changes_and_deleted_by_forms(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()), parameters={"a": 1})
    again = post(plane, f"runs/{run['id']}", do="rerun", parameters='{"a": 2}')
    assert again.status_code == 303
    new = plane.ask("GET", f"/-/proj/runs/{again.headers['location'].rpartition('/')[2]}")
    assert new["spec"]["parameters"] == {"a": 2} and new["id"] != run["id"]
    assert post(plane, f"runs/{run['id']}", do="stop").status_code == 303
    assert plane.store.get_run_record("proj", run["id"]).target == "STOP"  # type: ignore[union-attr]
    assert post(plane, "runs", do="delete", run=[run["id"], new["id"]]).status_code == 303
    assert plane.ask("GET", "/-/proj/runs")["totalElements"] == 0


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"do": "explode"}, 400),
        ({"do": "rerun", "parameters": "{"}, 400),
        ({"do": "rerun", "parameters": "[1]"}, 400),
        ({"do": "delete", "token": "0" * 64}, 403),
        ({"do": "delete", "token": ""}, 403),
    ],
)
def test_a_form_that_cannot_be_done_changes_nothing(
    plane: Plane, form: dict[str, str], status: int
) -> None:
    run = plane.run(plane.task(plane.function()))
    assert post(plane, f"runs/{run['id']}", **form).status_code == status
    assert [r["id"] for r in plane.ask("GET", "/-/proj/runs")["content"]] == [run["id"]]


def test_a_wrong_run_among_several_leaves_the_others_alone(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()))
    assert post(plane, "runs", do="delete", run=[run["id"], "nope"]).status_code == 404
    assert plane.ask("GET", "/-/proj/runs")["totalElements"] == 1


def test_forms_of_other_sites_are_refused_and_their_links_are_not(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()))
    mark = token(plane)
    path = f"/console/p/proj/runs/{run['id']}"
    sent = {"do": "delete", "token": mark}
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert plane.http.post(path, data=sent, headers=headers).status_code == 403
    link = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    assert plane.http.get(path, headers=link).status_code == 200
    assert plane.http.get(path, headers={**link, "Sec-Fetch-Dest": "iframe"}).status_code == 403
    assert plane.http.get(path, headers={**link, "Host": "evil.example"}).status_code == 403
    assert plane.http.get("/api/v1/projects", headers=link).status_code == 403


def test_a_server_with_credentials_shows_nothing_before_login(locked: Plane) -> None:
    run = locked.run(locked.task(locked.function()))
    paths = ["", "p/proj/runs", f"p/proj/runs/{run['id']}", f"p/proj/runs/{run['id']}/log"]
    with httpx.Client(base_url=locked.settings.url) as http:
        for path in paths:
            answer = http.get(f"/console/{path}")
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/console/login?next=/console/")
            assert not answer.content
        assert http.get("/console/p/proj/events").status_code == 401
        assert http.post("/console/p/proj/runs", data={"do": "delete"}).status_code == 303
        assert (
            http.get("/console/p/proj/runs", headers={"Authorization": "Bearer t0ken"}).status_code
            == 303
        )
        assert http.post("/console/login", data={"secret": "wrong"}).status_code == 401
        for good in ({"secret": "t0ken"}, {"user": "ada", "secret": "pass:wörd"}):
            http.cookies.clear()
            answer = http.post("/console/login", data={**good, "next": "/console/p/proj/runs"})
            assert (answer.status_code, answer.headers["location"]) == (303, "/console/p/proj/runs")
            cookie = answer.headers["set-cookie"]
            for part in ("HttpOnly", "Path=/console/", "SameSite=strict"):
                assert part in cookie
            assert not any(
                secret in cookie for secret in ("t0ken", "pass:w", "ada")
            )  # it holds none
            assert http.get("/console/p/proj/runs").status_code == 200
            assert http.get("/api/v1/projects").status_code == 401  # the API takes no cookie
        name, value = cookie.partition(";")[0].split("=", 1)
        ends, _, proof = value.partition(".")
        for forged in (f"{int(ends) + 1}.{proof}", f"{ends}.", "", ".", "x.y", f"1.{proof}"):
            http.cookies.clear()
            assert (
                http.get("/console/", headers={"Cookie": f"{name}={forged}"}).status_code == 303
            ), forged


@pytest.mark.parametrize(
    "place", ["https://evil.example/", "//evil.example", "/\\evil.example", "/api/v1", "javascript:1", "/console/\r\nx"]
)  # fmt: skip
def test_a_login_leads_nowhere_but_into_the_console(locked: Plane, place: str) -> None:
    with httpx.Client(base_url=locked.settings.url) as http:
        answer = http.post("/console/login", data={"secret": "t0ken", "next": place})
        assert answer.headers["location"] == "/console/"


def test_what_users_wrote_is_text_on_every_page(plane: Plane) -> None:
    function = plane.function("f", source=source(f"def f(a):\n    '''{EVIL}'''\n"), image=EVIL)
    task = plane.task(function)
    run = plane.run(task, parameters={EVIL: EVIL}, inputs={"x": EVIL})
    error = {"type": EVIL, "message": EVIL, "traceback": EVIL, "file": "f.py", "line": 2}
    status = {"error": error, "results": {EVIL: EVIL}, "outputs": {EVIL: EVIL}, "message": EVIL}
    status["metrics"] = {EVIL: [1, 2, 3]}
    plane.ask("PUT", f"/-/proj/runs/{run['id']}", json={**run, "status": status})
    plane.store.move_run("proj", run["id"], "ERROR")
    folder = run_folder(plane.settings.home, "proj", run["id"])
    folder.mkdir(parents=True)
    (folder / "log").write_text(f"{EVIL}\n\x1b[31m{EVIL}\x1b[0m\r{EVIL}\n")
    paths = ["p/proj/runs", f"p/proj/runs/{run['id']}", f"p/proj/functions/{function['id']}"]
    paths += [f"p/proj/runs/compare?run={run['id']}&run={run['id']}", "p/proj/functions"]
    for path in [*paths, f"p/proj/runs?q={EVIL}&function={EVIL}"]:
        text = page(plane, path)
        assert "<script>alert" not in text and "<img src=x" not in text, path
    whole = html.unescape(page(plane, paths[1]))
    assert whole.count(EVIL) >= 8
    raw = plane.http.get(f"/console/p/proj/runs/{run['id']}/log")
    assert raw.headers["content-type"].startswith("text/plain")
    assert raw.headers["x-content-type-options"] == "nosniff"


def test_stored_files_are_in_an_origin_of_their_own_or_attachments(plane: Plane) -> None:
    for name, kind in (("a.html", "text/html"), ("a.svg", "image/svg"), ("a.js", None)):
        path = f"s3://digitalhub/x/{name}"
        entity = plane.create(
            "artifacts", kind="artifact", name=name.replace(".", "-"), spec={"path": path}
        )
        put(plane, f"x/{name}", EVIL.encode())
        answer = plane.http.get(f"/console/p/proj/files/artifacts/{entity['id']}/{name}")
        assert answer.status_code == 200 and answer.content == EVIL.encode()
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("sandbox; default-src 'none'") and "allow-" not in policy
        if kind is None:
            assert answer.headers["content-disposition"].startswith("attachment")
            assert answer.headers["content-type"] == "application/octet-stream"
        else:
            assert answer.headers["content-type"].startswith(kind)
        other = plane.http.get(f"/console/p/proj/files/artifacts/{entity['id']}/other")
        assert other.status_code == 404


def put(plane: Plane, key: str, content: bytes) -> None:
    boto(plane, "dhpy", "dhpy").put_object(Bucket="digitalhub", Key=key, Body=content)


def test_a_function_is_run_by_a_form_of_its_signature(plane: Plane) -> None:
    old = plane.function(source=source("def f(a):\n    return a\n"))
    function = plane.function(source=source(CODE))
    text = page(plane, f"p/proj/functions/{function['id']}")
    assert 'name="p.a" type="number"' in text and "<option>slow</option>" in text
    assert "Adds up." in text and old["id"][:8] in text and '<span class="add">+' in text
    made = post(plane, f"functions/{function['id']}", **{"p.a": "3", "p.how": "slow", "p.deep": ""})
    run = plane.ask("GET", f"/-/proj/runs/{made.headers['location'].rpartition('/')[2]}")
    assert run["spec"]["parameters"] == {"a": 3, "how": "slow"}
    assert post(plane, f"functions/{function['id']}", **{"p.a": "three"}).status_code == 400
    assert post(plane, f"functions/{function['id']}", **{"p.a": ""}).status_code == 400
    assert plane.ask("GET", "/-/proj/runs")["totalElements"] == 1


def test_runs_are_compared_a_column_each(plane: Plane) -> None:
    task = plane.task(plane.function())
    runs = [plane.run(task, parameters={"a": n, "same": 1}) for n in (1, 2)]
    chosen = post(plane, "runs", do="compare", run=[run["id"] for run in runs])
    text = plane.http.get(chosen.headers["location"]).text
    assert re.search(r'<tr class="differs"><th scope="row">a ', text)
    assert re.search(r'<tr><th scope="row">same</th><td>1</td><td>1</td>', text)


@pytest.mark.parametrize(
    "path", ["p/nope/runs", "p/proj/runs/nope", "p/proj/functions/nope", "p/proj/runs?state=NO"]
)
def test_what_is_not_there_is_a_page_that_says_so(plane: Plane, path: str) -> None:
    text = page(plane, path, status=400 if "?" in path else 404)
    assert 'role="alert"' in text


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        ("a & <b>", "a &amp; &lt;b&gt;"),
        ("\x1b[31mred\x1b[0m no", '<span class="c1">red</span> no'),
        ("10%\r 50%\r100%", "100%"),
        ("long line\rshort", "shortline"),
        ("long line\r\x1b[Kshort", "short"),
        ("abc\b\bX", "aXc"),
        ("one\r\ntwo", "one\ntwo"),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x07", "link"),
        ("\x1b[38;5;200mx\x1b[48;2;1;2;3my", "xy"),
        ("\x1b[1mbold\nstill\x1b[22m", '<span class="bold">bold</span>\n<span class="bold">still</span>'),
        ("\x1b[", ""),
    ],
)  # fmt: skip
def test_a_log_looks_as_on_a_terminal(log: str, shown: str) -> None:
    assert logtext.html(log) == shown


@pytest.mark.parametrize(
    "values",
    [[1, 2], [1, 1], [0], [float("nan")], [1e308, -1e308], [float("inf"), 1, 2], [1] * 5000, []],
)
def test_any_numbers_make_a_chart_of_numbers(values: list[float]) -> None:
    drawn = charts.line("loss", values)
    assert "nan" not in drawn.partition("<polyline")[2] and "inf" not in drawn.partition("<polyline")[2]  # fmt: skip
    assert bool(drawn) == any(abs(v) < float("inf") for v in values)


def test_a_signature_is_read_without_running_the_code() -> None:
    read = signature.read("raise SystemExit\ndef f(context, a: 'int', *, b='x'): ...", "f")
    assert read is not None and [p.name for p in read.parameters] == ["a", "b"]
    assert signature.read("def f(:", "f") is None and signature.read("x = 1", "f") is None


def test_the_page_of_a_run_says_how_far_it_is_as_text(plane: Plane) -> None:
    run = plane.run(plane.task(plane.function()))
    run["status"]["progress"] = {"done": 1, "total": 4, "text": EVIL}
    plane.ask("PUT", f"/-/proj/runs/{run['id']}", json=run)
    shown = page(plane, f"p/proj/runs/{run['id']}")
    assert "1 of 4, 25 %" in shown and html.escape(EVIL, quote=False)[:20] in shown
    assert EVIL not in shown
