"""What `/metrics` answers (Prometheus): requests and their times by area and method; runs by state."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from digitalhub_python_control.api.web import failure
from digitalhub_python_control.store.store import Store

logger = logging.getLogger(__name__)

PlaceCounts = Mapping[str, Mapping[str, int]]
"""Engine -> `held`, `lent` and `waiting` -> how many."""

_READING = ("GET", "HEAD")
_AREAS = (("/api/", "api"), ("/s3", "s3"))
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})


class Counters:
    """One application's counters; its own registry, so that two of them can live in a process."""

    def __init__(self, store: Store, places: Callable[[], PlaceCounts]) -> None:
        self._store = store
        self._places = places
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "dhpy_requests",
            "Requests answered.",
            ("area", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "dhpy_request_seconds",
            "Time until a request was answered whole.",
            ("area", "method"),
            registry=self.registry,
        )
        self.registry.register(self)

    def describe(self) -> list[GaugeMetricFamily]:
        return []  # or registering would ask the database

    def collect(self) -> Iterator[GaugeMetricFamily]:
        runs = GaugeMetricFamily("dhpy_runs", "Runs that are stored, by state.", labels=["state"])
        for state, count in sorted(self._store.count_runs().items()):
            runs.add_metric([state], count)
        yield runs
        places = GaugeMetricFamily(
            "dhpy_places",
            "Jobs by what they have: a place, that of the run that has started them (lent), or none yet.",
            labels=["engine", "use"],
        )
        for engine, uses in sorted(self._places().items()):
            for use, count in uses.items():
                places.add_metric([engine, use], count)
        yield places


class Counting:
    """Middleware that counts answers."""

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        area = next((name for prefix, name in _AREAS if path.startswith(prefix)), "other")
        # What clients make up must not make new series.
        method = scope["method"] if scope["method"] in _METHODS else "other"

        began, status = time.perf_counter(), 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._counters.requests.labels(area, method, status).inc()
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            seconds = time.perf_counter() - began
            self._counters.seconds.labels(area, method).observe(seconds)
            _log(scope, status, seconds)


def _log(scope: Scope, status: int, seconds: float) -> None:
    """A line for each request that changes something or is refused; at DEBUG, for every one.

    Never with its query, which may hold what is nobody's business.
    """
    level = logging.INFO if scope["method"] not in _READING or status >= 400 else logging.DEBUG
    if not logger.isEnabledFor(level):
        return
    client = (scope.get("client") or ("",))[0]
    fields = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(seconds * 1000, 1),
        "client": client,
    }
    text = "%(method)s %(path)r %(status)d in %(ms)s ms for %(client)s"
    logger.log(level, text, fields, extra={"fields": fields})


async def respond(request: Request) -> Response:
    """The endpoint of `/metrics`."""
    registry = request.app.state.counters.registry
    try:
        content = await run_in_threadpool(generate_latest, registry)
    except Exception as exc:  # noqa: BLE001 - answered like every other error
        return failure(exc, "GET /metrics")
    return Response(content, media_type=CONTENT_TYPE_LATEST)
