"""Between Starlette and the pages: a handler takes a Call, whose body is a form, and returns a Page."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Callable, Union
from urllib.parse import parse_qs, quote, urlsplit

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from digitalhub_python_control import shown
from digitalhub_python_control.api.web import Call, Refusal, call_of, failure, read_body
from digitalhub_python_control.console import gate
from digitalhub_python_control.store import times
from digitalhub_runtime_python._version import __version__
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.states import ENDED


@dataclass(frozen=True)
class Page:
    """A template and what it shows."""

    template: str
    values: dict[str, Any] = field(default_factory=dict)
    status: int = 200


Handler = Callable[[Call], Union[Page, Response]]


def serve(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for who may enter; any other browser is sent to log in."""

    async def respond(request: Request) -> Response:
        settings = request.app.state.settings
        if not gate.may_enter(request, settings):
            wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            after = f"?next={quote(wanted)}" if request.method == "GET" else ""
            return gate.protect(redirect(f"{gate.HOME}login{after}"))
        try:
            content = await read_body(request)
            return await run_in_threadpool(_answer, handler, request, content)
        except ClientDisconnect:
            return Response(status_code=400)
        except Refusal as exc:
            return _refused(request, exc.status, exc.message)

    return respond


def redirect(place: str) -> Response:
    """303: what follows is asked for with GET, whatever was sent."""
    return RedirectResponse(place, 303)


def local(place: str) -> str:
    """The address within the console that `place` is, or the console's first page."""
    parts = urlsplit(place.replace("\\", "/"))
    fits = not parts.scheme and not parts.netloc and parts.path.startswith(gate.HOME)
    return place if fits and place.isprintable() else gate.HOME


def render(request: Request, page: Page) -> Response:
    settings = request.app.state.settings
    frame = {
        "token": gate.form_token(request, settings),
        "has_login": settings.needs_credentials,
        "version": __version__,
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "project": request.path_params.get("project"),
        "error": None,
    }
    text = _templates().get_template(page.template).render({**frame, **page.values})
    return gate.protect(HTMLResponse(text, page.status))


def read_form(content: bytes) -> dict[str, list[str]]:
    """A form's fields, empty ones too.

    Raises:
        Refusal: it is not a form, or has too many fields (400).
    """
    try:
        return parse_qs(content.decode(), keep_blank_values=True, max_num_fields=5000)
    except ValueError as exc:
        raise Refusal(400, f"The form cannot be read: {exc}.") from None


def _answer(handler: Handler, request: Request, content: bytes) -> Response:
    try:
        form = read_form(content) if request.method == "POST" else {}
        if request.method == "POST":
            sent = form.pop("token", [""])[0]
            if not gate.is_own_form(request, request.app.state.settings, sent):
                raise Refusal(403, "This form is of an older session. Go back, reload the page, and send it again.")  # fmt: skip
        result = handler(call_of(request, form))
        return render(request, result) if isinstance(result, Page) else result
    except Refusal as exc:
        return _refused(request, exc.status, exc.message)
    except UsageFault as exc:
        return _refused(request, 400, str(exc))
    except Exception as exc:  # noqa: BLE001 - the one place that answers for what went wrong
        return gate.protect(failure(exc, f"{request.method} {request.url.path}"))


def _refused(request: Request, status: int, message: str) -> Response:
    return render(request, Page("refused.html", {"message": message, "status": status}, status))


@lru_cache(maxsize=1)
def _templates() -> jinja2.Environment:
    loader = jinja2.PackageLoader("digitalhub_python_control.console")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    environment.filters.update(
        moment=shown.moment,
        duration=shown.duration,
        function_of=shown.function_of,
        action_of=shown.action_of,
        part=lambda text: quote(str(text), safe=""),
        size=size_text,
        short=lambda text, most=120: text if len(text) <= most else f"{text[: most - 1]}…",
    )
    environment.globals.update(ENDED=ENDED, error_text=shown.error_text, now=times.now)
    return environment


def size_text(size: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
