"""docs/reference/api.md names every path and every setting."""

from __future__ import annotations

import re
from pathlib import Path

from serving import settings_in
from starlette.routing import Route

from digitalhub_python_control import settings
from digitalhub_python_control.api import app
from digitalhub_python_control.store.entities import TYPES
from digitalhub_python_control.store.store import Store

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "api.md").read_text("utf-8")


def test_every_path_and_method_is_on_the_page(tmp_path: Path) -> None:
    place = settings_in(tmp_path)
    store = Store(place.database_url)
    routes = app.create_app(place, store).routes
    store.close()
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "`/" in line]
    for route in routes:
        assert isinstance(route, Route)
        path = re.sub(rf"(?<=\}}/)({'|'.join(TYPES)})(?=/|$)", "{plural}", route.path)
        path = path.replace("{address:key}", "{bucket}/{key}")
        found = [r for r in rows if f"`{path}`" in r or f"`{route.path}`" in r]
        assert found, f"{route.path} is not on the page"
        if not path.startswith("/s3"):
            methods = route.methods - {"HEAD"}
            assert any(all(f"`{m}`" in row for m in methods) for row in found), (path, methods)


def test_every_setting_is_on_the_page_and_no_other() -> None:
    source = Path(settings.__file__).read_text("utf-8")
    read = set(re.findall(r'"(DHPY_[A-Z0-9_]+)"', source))
    assert set(re.findall(r"DHPY_[A-Z0-9_]+", PAGE)) == read
