"""Pages that keep themselves up to date: a stream that says when what a page shows has changed.

It says nothing else: the page's script asks for the page again. So there is one rendering of
everything, and what a page shows is what the server said at one moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from digitalhub_python_control.api.web import request_of
from digitalhub_python_control.console import gate
from digitalhub_python_control.running import logs

_LOOK = 1.0
"""Seconds between two looks at what is shown; pages that show the same share them."""
_SILENCE = 15
"""Looks after which something is sent, so that a connection that is gone is seen to be."""
_LASTS = 600
"""Seconds of one stream; the browser opens the next."""


@dataclass
class _Watch:
    """The last look at each thing that pages show."""

    closing: bool = False
    seen: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)


def close(app: Any) -> None:
    """End all streams within a look."""
    watch = getattr(getattr(app, "state", None), "watch", None)
    if watch is not None:
        watch.closing = True


async def stream(request: Request) -> Response:
    """Server-sent events for a project's runs (`…/events`) or for one of them."""
    if not gate.may_enter(request, request.app.state.settings):
        return gate.protect(Response(status_code=401))
    project, identity = request.path_params["project"], request.path_params.get("id", "")
    answer = StreamingResponse(
        _changes(request.app, project, identity), media_type="text/event-stream"
    )
    return gate.protect(answer)


async def _changes(app: Any, project: str, identity: str) -> AsyncIterator[str]:
    if not hasattr(app.state, "watch"):
        app.state.watch = _Watch()
    watch: _Watch = app.state.watch
    last = await _look(app, watch, project, identity)
    yield f"retry: 2000\ndata: {last}\n\n"
    silent, ends = 0, time.monotonic() + _LASTS
    while not watch.closing and time.monotonic() < ends:
        await asyncio.sleep(_LOOK)
        mark = await _look(app, watch, project, identity)
        silent = 0 if mark != last else silent + 1
        if mark != last:
            last = mark
            yield f"data: {mark}\n\n"
        elif silent % _SILENCE == 0:
            yield ": still here\n\n"


async def _look(app: Any, watch: _Watch, project: str, identity: str) -> str:
    key = project, identity
    at, mark = watch.seen.get(key, (0.0, ""))
    if time.monotonic() - at < _LOOK * 0.9:
        return mark
    # Marked before the look, so that pages that come meanwhile wait for no look of their own.
    watch.seen[key] = time.monotonic(), mark
    mark = await run_in_threadpool(_mark, app, project, identity)
    watch.seen[key] = time.monotonic(), mark
    if len(watch.seen) > 1000:
        watch.seen = dict(list(watch.seen.items())[-500:])
    return mark


def _mark(app: Any, project: str, identity: str) -> str:
    """A text that is another one after every change that the page would show."""
    call = request_of(app, project)
    if not identity:
        return str(call.store.last_change("runs", project))
    record = call.store.get_run_record(project, identity)
    if record is None:
        return "gone"
    path = logs.run_folder(logs.home_of(record, call.settings.home), project, identity) / "log"
    try:
        size = path.lstat().st_size
    except OSError:
        size = 0
    return f"{record.state} {record.entity['metadata']['updated']} {len(str(record.entity['status']))} {size}"
