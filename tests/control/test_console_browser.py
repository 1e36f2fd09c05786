"""The console in a real browser, Debian's Chromium: pages that live, and content that must not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from serving import Plane, program, serving, settings_in, skip_or_fail, wait_until
from test_console import put, source

from digitalhub_python_control.running.logs import run_folder

selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 10), reason="one Python is enough for what a browser does"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    binary, driver = program("chromium", "/usr/bin"), program("chromedriver", "/usr/bin")
    if binary is None or driver is None:
        skip_or_fail("Chromium and its driver are needed: apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    found = selenium.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with serving(settings_in(tmp_path_factory.mktemp("console") / "home")) as plane:
        plane.project()
        yield plane


@pytest.fixture(scope="module")
def outside() -> Iterator[tuple[str, list[str]]]:
    """A server that nothing may ask: its address, and what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: Any) -> None: ...

    # With threads: Chromium connects without asking anything, and one thread would wait for that at the end.
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def go(browser: Any, plane: Plane, path: str) -> None:
    browser.get(f"{plane.settings.url}/console/{path}")


def text_of(browser: Any, selector: str) -> str:
    """In one step: an element that was found may be replaced before it is read."""
    script = "return document.querySelector(arguments[0])?.innerText ?? ''"
    return str(browser.execute_script(script, selector)).strip()


def log_of(plane: Plane, run: dict[str, Any], text: str) -> None:
    folder = run_folder(plane.settings.home, "proj", run["id"])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("a") as log:
        log.write(text)


def test_a_run_is_followed_to_its_end_without_a_reload(browser: Any, plane: Plane) -> None:
    run = plane.run(plane.task(plane.function("lives")))
    go(browser, plane, f"p/proj/runs/{run['id']}")
    browser.execute_script("window.same = true")
    for state in ("RUNNING", "COMPLETED"):
        log_of(plane, run, f"now {state}\n")
        plane.store.move_run("proj", run["id"], state)
        wait_until(lambda state=state: text_of(browser, "h1 .state") == state)
        wait_until(lambda state=state: f"now {state}" in text_of(browser, "#log"))
        api = plane.ask("GET", f"/-/proj/runs/{run['id']}")["status"]
        seen = browser.execute_script(
            "return [...document.querySelectorAll('#timeline .state')].map((one) => one.innerText)"
        )
        assert seen == [step["status"] for step in api["transitions"]][::-1]
    assert browser.execute_script("return window.same") is True
    wait_until(lambda: text_of(browser, "#state") == "Ended.")


def test_a_table_keeps_ticks_while_it_is_brought_up_to_date(browser: Any, plane: Plane) -> None:
    task = plane.task(plane.function("ticks"))
    first = plane.run(task)
    go(browser, plane, "p/proj/runs?function=ticks")
    browser.find_element("id", f"t-{first['id']}").click()
    second = plane.run(task)
    wait_until(lambda: browser.find_elements("css selector", f"tr[data-run='{second['id']}']"))
    assert browser.find_element("id", f"t-{first['id']}").is_selected()


def test_nothing_that_users_wrote_runs_or_asks_for_anything(
    browser: Any, plane: Plane, outside: tuple[str, list[str]]
) -> None:
    url, asked = outside
    evil = (
        f"<script>window.ran=1;fetch('{url}/fetch')</script><img src='{url}/img' onerror='window.ran=1'>"
        f"<svg onload='window.ran=1'></svg><iframe src='{url}/frame'></iframe><base href='{url}/'>"
        f"<link rel=stylesheet href='{url}/css'><style>@import '{url}/import'</style>"
        f"<meta http-equiv=refresh content='0;url={url}/refresh'><a href='javascript:window.ran=1'>x</a>"
    )
    picture = f"<svg xmlns='http://www.w3.org/2000/svg'><script>fetch('{url}/svg')</script><image href='{url}/image'/></svg>"
    function = plane.function("evil", source=source(f"def f(a):\n    '''{evil}'''\n"))
    run = plane.run(plane.task(function), parameters={evil: evil})
    outputs = {}
    for name, content in (
        ("page.html", evil),
        ("picture.svg", picture),
        ("data.json", f'["{evil}"]'),
    ):
        put(plane, f"evil/{name}", content.encode())
        spec = {"path": f"s3://digitalhub/evil/{name}"}
        outputs[name] = plane.create(
            "artifacts", kind="artifact", name=name.replace(".", "-"), spec=spec
        )
    error = {"type": evil, "message": evil, "traceback": evil, "file": "f.py", "line": 2}
    keys = {name: one["key"] for name, one in outputs.items()}
    status = {"error": error, "results": {evil: evil}, "outputs": {**keys, evil: evil}}
    plane.ask("PUT", f"/-/proj/runs/{run['id']}", json={**run, "status": status})
    log_of(plane, run, f"{evil}\n\x1b[31m{evil}\n")
    plane.store.move_run("proj", run["id"], "ERROR")
    paths = ["p/proj/runs", f"p/proj/runs/{run['id']}", f"p/proj/functions/{function['id']}"]
    paths += [f"p/proj/runs/compare?run={run['id']}", f"p/proj/runs/{run['id']}/log"]
    paths += [f"p/proj/runs/{run['id']}/find?q=script&at=0", f"p/proj/runs/{run['id']}/lineage"]
    paths += [
        f"p/proj/files/artifacts/{one['id']}/{name}"
        for name, one in outputs.items()
        if not name.endswith("json")
    ]
    for path in paths:
        go(browser, plane, path)
        time.sleep(0.3)  # for what would be asked
        assert browser.current_url.startswith(plane.settings.url), path
        assert browser.execute_script("return window.ran === undefined"), path
        for frame in browser.find_elements("css selector", "iframe"):
            browser.switch_to.frame(frame)
            assert browser.execute_script("return window.ran === undefined && origin === 'null'")
            browser.switch_to.default_content()
    assert asked == []


@pytest.mark.parametrize("width", [360, 1200])
def test_no_page_is_wider_than_its_window_and_nothing_is_refused_by_the_policy(
    browser: Any, plane: Plane, width: int
) -> None:
    function = plane.function("wide" + "x" * 60)
    runs = [plane.run(plane.task(function), parameters={"a" * 80: "b" * 300}) for _ in range(2)]
    log_of(plane, runs[0], "y" * 2000)
    browser.get_log("browser")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    for path in (
        "", "p/proj/runs", f"p/proj/runs/{runs[0]['id']}", "p/proj/functions", "p/proj/services",
        "p/proj/environments",
        f"p/proj/functions/{function['id']}", f"p/proj/runs/{runs[0]['id']}/lineage",
        f"p/proj/runs/{runs[0]['id']}/find?q=y&at=0",
        f"p/proj/runs/compare?run={runs[0]['id']}&run={runs[1]['id']}",
    ):  # fmt: skip
        go(browser, plane, path)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, path
        assert [entry["message"] for entry in browser.get_log("browser")] == [], path


def test_every_button_works_without_script_and_by_keyboard(browser: Any, plane: Plane) -> None:
    from selenium.webdriver.common.keys import Keys

    run = plane.run(plane.task(plane.function("keys")))
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        go(browser, plane, f"p/proj/runs/{run['id']}")
        for _ in range(40):
            browser.switch_to.active_element.send_keys(Keys.TAB)
            focused = browser.switch_to.active_element
            if focused.text == "Stop":
                break
        focused.send_keys(Keys.ENTER)
        wait_until(lambda: plane.store.get_run_record("proj", run["id"]).target == "STOP")  # type: ignore[union-attr]
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
