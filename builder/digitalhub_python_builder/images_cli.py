"""`dhpy images`: the base images of the project, and what was built on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

import click

from digitalhub_python_builder.bases import matrix
from digitalhub_python_builder.caches import cache_of
from digitalhub_python_builder.plan import PLATFORMS
from digitalhub_runtime_python.spec import PYTHON_VERSIONS, interpreter_version


@click.group("images", short_help="Make and list images; no Docker is needed.")
def images() -> None:
    """Make the project's base images, and list and push what this machine has built without a daemon."""


@images.command("build")
@click.option("--python", "pythons", multiple=True, metavar="VERSION", help="3.11 or PYTHON3_11; may be given again. Default: this Python's.")  # fmt: skip
@click.option("--flavour", "flavours", multiple=True, type=click.Choice(sorted(matrix()["flavours"])), help="May be given again. Default: full.")  # fmt: skip
@click.option("--base-image", default="", help=f"What they are put on. Default: {matrix()['base'].format(python='VERSION')}.")  # fmt: skip
@click.option("--platform", type=click.Choice(PLATFORMS), help="Default: this machine's.")
@click.option("--push", is_flag=True, help="Push them to the registry that DHPY_IMAGES names.")
@click.option("--plain-http", is_flag=True, help="That registry speaks HTTP.")
@click.option("--output", default="", metavar="KIND:PATH", help="Write it there as well: oci:FOLDER, oci-archive:FILE or docker-archive:FILE.")  # fmt: skip
def build_(
    pythons: tuple[str, ...], flavours: tuple[str, ...], base_image: str, platform: str | None,
    push: bool, plain_http: bool, output: str,
) -> None:  # fmt: skip
    """Make base images: Python's own image, and the runtime with what it needs on top.

    \b
    Examples:
      dhpy images build --python 3.11 --flavour slim
      DHPY_IMAGES=registry.example:5000/team dhpy images build --push
    """
    from digitalhub_python_builder import base_images

    for python in pythons or (f"3.{sys.version_info[1]}",):
        for flavour in flavours or ("full",):
            image = base_images.build(
                _version(python), flavour, os.environ, base=base_image, platform=platform or "",
                push=push, plain_http=plain_http, output=output, log=lambda line: click.echo(f"dhpy: {line}", err=True),
            )  # fmt: skip
            click.echo(image.reference)


@images.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List the images that were built here without a daemon: name, platform, size of what each adds to its base."""
    from digitalhub_python_builder.native.store import Store

    store = Store(cache_of(os.environ))
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in store.all_noted("images"):
        if not one.get("reference") or not all(store.has(digest) for digest in one["own"]):
            continue
        size = sum(store.path(digest).stat().st_size for digest in one["own"])
        row = {"image": one["reference"], "platform": one["platform"], "base": one["base"], "digest": one["manifest"], "size": size}  # fmt: skip
        found[one["reference"], one["platform"]] = row
    if as_json:
        click.echo(json.dumps([found[key] for key in sorted(found)]))
        return
    if not found:
        click.echo("No image was built here without a daemon; `dhpy images build` makes the base images.", err=True)  # fmt: skip
    for key in sorted(found):
        row = found[key]
        click.echo(f"{row['image']}  {row['platform']}  {row['size'] / 1e6:.1f} MB over {row['base']}")  # fmt: skip


@images.command("push")
@click.argument("image")
@click.option("--plain-http", is_flag=True, help="The registry speaks HTTP.")
def push_(image: str, plain_http: bool) -> None:
    """Push IMAGE, which was built here without a daemon, to the registry in its name."""
    from digitalhub_python_builder.engines.native import NativeEngine

    with contextlib.closing(NativeEngine(os.environ)) as engine:
        digest = engine.push(image, lambda line: click.echo(f"dhpy: {line}", err=True), plain_http=plain_http)  # fmt: skip
    click.echo(f"{image}@{digest}")


def _version(text: str) -> str:
    """`3.11` of `3.11` or `PYTHON3_11`.

    Raises:
        UsageFault: it is neither.
    """
    name = f"PYTHON{text.replace('.', '_')}"
    return interpreter_version(name if name in PYTHON_VERSIONS else text)
