"""`dhpy serve` and `dhpy invoke`: a function on this machine over HTTP, with no platform."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from digitalhub_runtime_python import log
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.local import in_place, json_pairs, pairs, split_target
from digitalhub_runtime_python.nesting import read_json
from digitalhub_runtime_python.settings import ServeSettings, Settings
from digitalhub_runtime_python.spec import RunSpec, SourceSpec


@click.command("serve", short_help="Serve a function over HTTP.")
@click.argument("target", metavar="FILE:HANDLER")
@click.option("--port", type=click.IntRange(0, 65535), help="Of the function; 0 takes a free one. [default: 8080]")  # fmt: skip
@click.option("--management-port", type=click.IntRange(0, 65535), help="Of health, metrics, OpenAPI and the page to try it. [default: 8082]")  # fmt: skip
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes, each with a context of its own. [default: 1]")  # fmt: skip
@click.option("--reload", is_flag=True, help="Start again when a Python file in the folder changes.")  # fmt: skip
@click.option("-p", "--parameter", "parameters", multiple=True, metavar="K=V", help="An argument that every call gets; V is converted to the type hint.")  # fmt: skip
@click.option("-i", "--input", "inputs", multiple=True, metavar="K=PATH", help="An argument that is a local file or folder.")  # fmt: skip
@click.option("--init-function", help="Call this function of the file first, with the context.")
@click.option("--init-parameter", "init_parameters", multiple=True, metavar="K=V", help="A parameter of the init function.")  # fmt: skip
@click.option("--debug", is_flag=True, help="Send tracebacks to clients.")
def serve(
    target: str,
    reload: bool,
    parameters: tuple[str, ...],
    inputs: tuple[str, ...],
    init_function: str | None,
    init_parameters: tuple[str, ...],
    debug: bool,
    **given: Any,
) -> None:
    """Serve HANDLER of FILE over HTTP until Ctrl-C.

    \b
    Examples:
      dhpy serve main.py:predict
      dhpy serve main.py:predict --reload --port 9000 -p threshold=0.5
    Every other setting is a variable: dhpy help reference/serving
    """
    import os
    from dataclasses import replace

    from digitalhub_runtime_python.hub.offline import OfflineHub
    from digitalhub_runtime_python.lifecycle import workspace
    from digitalhub_runtime_python.serve import reloading
    from digitalhub_runtime_python.serve.command import serve_code

    settings = Settings.from_env(os.environ)
    chosen = {name: value for name, value in given.items() if value is not None}
    options = replace(ServeSettings.from_env(os.environ), **chosen)
    options = _with_free_ports(options, {*chosen, *os.environ})
    log.configure(settings.log_level, settings.log_format)
    file, handler = split_target(target)
    run = RunSpec(
        id="local",
        project="local",
        action="serve",
        kind="python+serve:run",
        source=SourceSpec(source=file.name, handler=handler, init_function=init_function),
        parameters=pairs(parameters),
        inputs=pairs(inputs),
        init_parameters=pairs(init_parameters),
        lax_parameters=True,
    )
    code = in_place(file)
    with workspace(settings) as place:
        status = serve_code(
            run,
            code,
            lambda: OfflineHub(run, None),
            settings,
            options,
            place,
            debug=debug,
            watch=reloading.changes(code.root) if reload else None,
            announce=_announce,
        )
    sys.exit(status)


def _with_free_ports(options: ServeSettings, asked: set[str]) -> ServeSettings:
    """The default ports where they are free, else other ones; a port that was asked for stays as it is."""
    from dataclasses import replace

    from digitalhub_runtime_python.serve import sockets

    for name, variables in _ASKED.items():
        port = getattr(options, name)
        if not asked.isdisjoint((name, *variables)) or sockets.is_free(options.host, port):
            continue
        click.echo(f"Port {port} is taken; another one is used.", err=True)
        chosen: dict[str, Any] = {name: 0}
        options = replace(options, **chosen)
    return options


_ASKED = {
    "port": ("DHPY_PORT", "PORT", "LISTEN_ADDRESS", "DHPY_LISTEN_FD"),
    "management_port": ("DHPY_MANAGEMENT_PORT",),
}
"""Port -> the variables that ask for one."""


def _announce(url: str, management_url: str) -> None:
    click.echo(f"Function   {url}\nTry it     {management_url}\nCtrl-C ends it.", err=True)


@click.command("invoke", short_help="Call a served function.")
@click.argument("url", default="http://127.0.0.1:8080")
@click.option("-p", "--parameter", "parameters", multiple=True, metavar="K=V", help="A field of the JSON object to send; V is JSON, or else text.")  # fmt: skip
@click.option("-d", "--data", help="The body to send; @FILE reads it from a file, @- from standard input.")  # fmt: skip
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME: VALUE", help="A header to send.")  # fmt: skip
@click.option("-X", "--method", help="[default: POST, or GET where there is nothing to send]")
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Seconds to wait for the answer.")  # fmt: skip
def invoke(
    url: str,
    parameters: tuple[str, ...],
    data: str | None,
    headers: tuple[str, ...],
    method: str | None,
    timeout: float,
) -> None:
    """Call the function at URL and print what it answers; the exit status is 1 for an error.

    \b
    Examples:
      dhpy invoke -p n=5 -p name=first
      dhpy invoke http://127.0.0.1:9000/path -d @body.json -H 'X-Key: 1'
    """
    import urllib3

    if parameters and data is not None:
        raise UsageFault("usage/invoke", "Both -p and --data were given.", "Use one of them.")
    sent, body = _request(parameters, data)
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            raise UsageFault("usage/invoke", f"{header!r} is not NAME: VALUE.", "Write 'X-Key: 1'.")
        sent[name.strip().lower()] = value.strip()
    http = urllib3.PoolManager(retries=False, timeout=timeout)
    try:
        response = http.request(
            method or ("POST" if body is not None else "GET"),
            url,
            body=body,
            headers=sent,
            preload_content=False,
        )
        _print(response)
    except urllib3.exceptions.HTTPError as exc:
        raise UsageFault(
            "usage/invoke",
            f"{url} does not answer: {exc}.",
            "Is it served there? See `dhpy serve`.",
        ) from exc
    sys.exit(0 if response.status < 400 else 1)


def _request(parameters: tuple[str, ...], data: str | None) -> tuple[dict[str, str], bytes | None]:
    if parameters:
        fields = json.dumps(json_pairs(parameters))
        return {"content-type": "application/json"}, fields.encode()
    if data is None:
        return {}, None
    if data.startswith("@"):
        try:
            with click.open_file(data[1:], "rb") as file:
                body: bytes = file.read()
        except OSError as exc:
            raise UsageFault("usage/invoke", f"{data[1:]} cannot be read: {exc.strerror}.", "Check the path after @.") from exc  # fmt: skip
    else:
        body = data.encode()
    try:
        read_json(body)
    except ValueError:
        return {}, body
    return {"content-type": "application/json"}, body


def _print(response: Any) -> None:
    """The body: JSON indented, anything else as it comes."""
    if response.status >= 400:
        click.echo(f"{response.status} {response.reason}", err=True)
    if "json" in response.headers.get("content-type", "").partition(";")[0].replace("ndjson", ""):
        raw = response.read()
        try:
            click.echo(json.dumps(read_json(raw), indent=2, ensure_ascii=False))
        except ValueError:
            click.echo(raw)
        return
    last = b"\n"
    for chunk in response.stream(65536, decode_content=True):
        last = chunk[-1:] or last
        click.echo(chunk, nl=False)
    if last != b"\n":
        click.echo()
