"""The table of pages: every address of the console, and who answers it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from digitalhub_python_control.api.access import allowed, asks_for_page
from digitalhub_python_control.api.web import Refusal, read_body, refuse
from digitalhub_python_control.console import (
    environments,
    functions,
    gate,
    lineage,
    live,
    previews,
    runs,
)
from digitalhub_python_control.console.web import (
    Handler,
    Page,
    local,
    read_form,
    redirect,
    render,
    serve,
)
from digitalhub_python_control.settings import ControlSettings

_STATIC = Path(__file__).parent / "static"
_KINDS = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
_PROJECT = "/console/p/{project}"


def pages() -> list[BaseRoute]:
    """Every route of the console."""
    one = f"{_PROJECT}/runs/{{id}}"
    read: list[tuple[str, Handler]] = [
        ("/console/", functions.projects),
        (f"{_PROJECT}/runs", runs.table),
        (f"{_PROJECT}/runs/compare", runs.compare),
        (one, runs.one),
        (f"{one}/log", runs.log),
        (f"{one}/find", runs.find_in_log),
        (f"{one}/lineage", lineage.one),
        (f"{_PROJECT}/functions", functions.table),
        (f"{_PROJECT}/functions/{{id}}", functions.one),
        (f"{_PROJECT}/services", functions.services),
        (f"{_PROJECT}/environments", environments.page),
        (f"{_PROJECT}/dataitems/{{id}}/profile", previews.profile),
        (f"{_PROJECT}/files/{{plural}}/{{id}}/{{name:path}}", previews.file),
    ]
    write: list[tuple[str, Handler]] = [
        (f"{_PROJECT}/runs", runs.act),
        (one, runs.act),
        (f"{_PROJECT}/functions/{{id}}", functions.run),
        (f"{_PROJECT}/environments", environments.prune),
    ]
    return [
        Route("/", _front, methods=["GET"]),
        Route("/console", _front, methods=["GET"]),
        Route("/console/login", _login, methods=["GET", "POST"]),
        Route("/console/logout", _logout, methods=["POST"]),
        Route("/console/static/{name}", _static, methods=["GET"]),
        Route(f"{_PROJECT}/events", live.stream, methods=["GET"]),
        Route(f"{one}/events", live.stream, methods=["GET"]),
        Route(f"{_PROJECT}", _project, methods=["GET"]),
        *(Route(path, serve(handler), methods=["GET"]) for path, handler in read),
        *(Route(path, serve(handler), methods=["POST"]) for path, handler in write),
    ]


async def _front(request: Request) -> Response:
    """A browser is led to the console; a program is told that there is nothing here."""
    if request.url.path == "/" and not asks_for_page(request.headers):
        return refuse(404, "There is nothing at /.")
    return redirect(gate.HOME)


async def _project(request: Request) -> Response:
    return redirect(f"{gate.HOME}p/{quote(request.path_params['project'], safe='')}/runs")


async def _login(request: Request) -> Response:
    settings = request.app.state.settings
    after = local(request.query_params.get("next", gate.HOME))
    if not settings.needs_credentials:
        return redirect(after)
    values: dict[str, Any] = {
        "after": after,
        "by_token": bool(settings.token),
        "by_user": bool(settings.user),
    }
    if request.method == "GET":
        return render(request, Page("login.html", values))
    try:
        form = read_form(await read_body(request))
    except Refusal as exc:
        return render(request, Page("login.html", {**values, "error": exc.message}, exc.status))
    sent = {name: (form.get(name) or [""])[0] for name in ("secret", "user", "next")}
    values["after"] = local(sent["next"])
    if _knows(sent["user"], sent["secret"], settings):
        answer = redirect(values["after"])
        gate.let_in(answer, settings, secure=request.url.scheme == "https")
        return gate.protect(answer)
    return render(request, Page("login.html", {**values, "error": "That is not right."}, 401))


def _knows(user: str, secret: str, settings: ControlSettings) -> bool:
    pair = base64.b64encode(f"{user}:{secret}".encode("utf-8", "replace")).decode()
    return allowed(f"Bearer {secret}", settings) or allowed(f"Basic {pair}", settings)


async def _logout(request: Request) -> Response:
    answer = redirect(f"{gate.HOME}login")
    answer.delete_cookie(gate.COOKIE, path=gate.HOME, httponly=True, samesite="strict")
    return gate.protect(answer)


async def _static(request: Request) -> Response:
    kind = _KINDS.get(request.path_params["name"])
    if kind is None:
        return gate.protect(Response(status_code=404))
    headers = {"Cache-Control": "no-cache"}
    return gate.protect(FileResponse(_STATIC / request.path_params["name"], 200, headers, kind))
