"""The table of routes: every path that the control plane answers, and who answers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from digitalhub_python_control.api import (
    details,
    metrics,
    platform_info,
    projects,
    removal,
    resources,
    runs,
    search,
    triggers,
)
from digitalhub_python_control.api.access import Access
from digitalhub_python_control.api.metrics import Counting
from digitalhub_python_control.api.web import Handler, endpoint, failure, refuse
from digitalhub_python_control.files.blobs import Blobs
from digitalhub_python_control.files.objects import Objects
from digitalhub_python_control.files.s3 import routes as s3
from digitalhub_python_control.settings import ControlSettings
from digitalhub_python_control.store.entities import TYPES
from digitalhub_python_control.store.store import Store

if TYPE_CHECKING:
    from digitalhub_python_control.running.reconcile import Reconciler

API = "/api/v1"
IN_PROJECT = "/api/v1/-/{project}"

_CREATING = {"tasks": runs.create_task, "runs": runs.create, "triggers": triggers.create}
_CHANGING = {"runs": runs.put, "triggers": triggers.put}
"""What is not created, or changed, as every other type is."""


def create_app(
    settings: ControlSettings,
    store: Store,
    reconciler: Reconciler | None = None,
    pages: Sequence[BaseRoute] = (),
) -> Starlette:
    """The control plane as an ASGI application.

    Args:
        settings: with the port that is really listened on.
        store: where everything is kept; the application does not close it.
        reconciler: is told of every run that changes; None: runs are stored and stay as they are.
        pages: the console's routes, which let in by themselves.
    """
    if reconciler is not None:
        store.on_change = reconciler.tell
    counters = metrics.Counters(store, dict if reconciler is None else reconciler.places)
    app = Starlette(
        routes=[*_platform_routes(), *_project_routes(), *_entity_routes(), *_s3_routes(), *pages],
        middleware=[
            Middleware(Counting, counters=counters),
            Middleware(Access, settings=settings, store=store),
        ],
        exception_handlers={404: _no_route, 405: _no_method, Exception: _broken},
    )
    app.state.settings = settings
    app.state.store = store
    app.state.objects = Objects(store, Blobs(settings.home / "files"))
    app.state.counters = counters
    return app


class _Key(Convertor[str]):
    """Starlette's own `path` ends at a line feed, and a file's key may have one."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


def _route(method: str, path: str, handler: Handler) -> Route:
    return Route(path, endpoint(handler), methods=[method])


def _platform_routes() -> list[Route]:
    return [
        _route("GET", "/health", platform_info.health),
        Route("/metrics", metrics.respond, methods=["GET"]),
        _route("GET", "/api/auth", platform_info.who),
        _route("GET", "/api/status", platform_info.status),
        _route("GET", "/.well-known/configuration", platform_info.configuration),
    ]


def _project_routes() -> list[Route]:
    one = f"{API}/projects/{{project}}"
    return [
        _route("POST", f"{API}/projects", projects.create),
        _route("GET", f"{API}/projects", projects.list_projects),
        _route("GET", one, projects.read),
        _route("PUT", one, projects.put),
        _route("DELETE", one, projects.delete),
        *(_route(method, f"{one}/share", projects.share) for method in ("GET", "POST", "DELETE")),
    ]


def _entity_routes() -> list[Route]:
    secrets = f"{IN_PROJECT}/secrets/data"
    routes = [
        _route("GET", f"{IN_PROJECT}/solr/search/item", search.find_entities),
        _route("GET", secrets, details.read_secrets),
        _route("PUT", secrets, details.write_secrets),
        _route("GET", f"{IN_PROJECT}/runs/{{id}}/logs", runs.read_logs),
        _route("POST", f"{IN_PROJECT}/runs/{{id}}/stop", runs.stop),
        _route("POST", f"{IN_PROJECT}/runs/{{id}}/resume", runs.resume),
        _route("POST", f"{IN_PROJECT}/triggers/{{id}}/stop", triggers.stop),
    ]
    for plural in TYPES:
        if plural != "projects":
            routes += _routes_of(plural)
    for plural in (
        "runs",
        "functions",
        "triggers",
    ):  # of every project, for those who look after a platform
        routes.append(_route("GET", f"{API}/{plural}", resources.listing(plural)))
    return routes


def _routes_of(plural: str) -> list[Route]:
    every, one = f"{IN_PROJECT}/{plural}", f"{IN_PROJECT}/{plural}/{{id}}"
    routes = [
        _route("POST", every, _CREATING.get(plural) or resources.creating(plural)),
        _route("GET", every, resources.listing(plural)),
        _route("DELETE", every, removal.deleting_by_name(plural)),
        _route("GET", one, resources.reading(plural)),
        _route("PUT", one, _CHANGING.get(plural) or resources.changing(plural)),
        _route("DELETE", one, removal.deleting(plural)),
        _route("GET", f"{one}/relationships", resources.relating(plural)),
    ]
    if plural in details.WITH_METRICS:
        routes += [
            _route("GET", f"{one}/metrics", details.reading_metrics(plural)),
            _route("GET", f"{one}/metrics/{{name}}", details.reading_metric(plural)),
            _route("PUT", f"{one}/metrics/{{name}}", details.writing_metric(plural)),
        ]
    if plural in details.WITH_FILES:
        routes += [
            _route("GET", f"{one}/files/info", details.reading_files(plural)),
            _route("PUT", f"{one}/files/info", details.writing_files(plural)),
        ]
    return routes


def _s3_routes() -> list[Route]:
    register_url_convertor("key", _Key())
    methods = ["GET", "HEAD", "PUT", "POST", "DELETE"]
    return [Route(path, s3.respond, methods=methods) for path in ("/s3", "/s3/{address:key}")]


async def _no_route(request: Request, _exc: Exception) -> Response:
    return refuse(404, f"There is nothing at {request.url.path}.")


async def _broken(request: Request, exc: Exception) -> Response:
    return failure(exc, f"{request.method} {request.url.path}")


async def _no_method(request: Request, exc: Exception) -> Response:
    headers = getattr(exc, "headers", None)
    return refuse(405, f"{request.method} is not possible at {request.url.path}.", headers)
