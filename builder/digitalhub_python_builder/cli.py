"""`dhpy dockerfile` and `dhpy build`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any, Callable, TypeVar

import click

from digitalhub_python_builder import bill, pylock, requirement_files
from digitalhub_python_builder.bases import FILES, matrix
from digitalhub_python_builder.build import Options, build, prepare
from digitalhub_python_builder.caches import cache_of
from digitalhub_python_builder.context import code_of
from digitalhub_python_builder.dockerfile import render
from digitalhub_python_builder.engines import ENGINES
from digitalhub_python_builder.plan import PLATFORMS, Content
from digitalhub_python_builder.platforms import build_index, read_platforms
from digitalhub_python_builder.requirements import parse_requirements
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.handlers import check_handler_exists
from digitalhub_runtime_python.local import pairs, python_option, split_target
from digitalhub_runtime_python.spec import FunctionSpec, SourceSpec

Command = TypeVar("Command", bound=Callable[..., Any])

_SHARED = (
    click.argument("target", metavar="FILE:HANDLER"),
    python_option("The image's Python:"),
    click.option("-r", "--requirement", "requirements", multiple=True, metavar="R", help="A pip requirement; may be given again."),
    click.option("--requirements-file", type=click.Path(path_type=Path), multiple=True, help="requirements.txt, pyproject.toml, uv.lock, pylock.toml, poetry.lock, Pipfile.lock, environment.yml or a script with a # /// script block."),
    click.option("--extra", "extras", multiple=True, help="An extra of the pyproject.toml or uv.lock."),
    click.option("--group", "groups", multiple=True, help="A dependency group of it."),
    click.option("--instruction", "instructions", multiple=True, metavar="I", help="A RUN instruction, as root, before the requirements."),
    click.option("--base-image", default="", help="Instead of the project's own base image."),
    click.option("--flavour", type=click.Choice(sorted(matrix()["flavours"])), default="full", show_default=True, help="Of the project's base image."),
    click.option("--env", "envs", multiple=True, metavar="K=V", help="An environment variable in the image; no secrets."),
    click.option("--label", "labels", multiple=True, metavar="K=V", help="A label of the image."),
    click.option("--platform", default="", metavar="P[,P]", help=f"{' or '.join(PLATFORMS)}; `build` takes several. Default: this machine's."),
    click.option("--index-url", default="", help="pip's index; a password in it is used as a build secret. Default: UV_DEFAULT_INDEX."),
    click.option("--ca-bundle", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="PEM file with the certificates that pip trusts."),
    click.option("--secret", "secrets", multiple=True, metavar="NAME[=FILE]", help="A build secret for --mount=type=secret,id=NAME; its value is the variable NAME, or FILE's content."),
    click.option("--allow-sdist", is_flag=True, help="Build wheels here, isolated, of what has none; their code runs on this machine."),
    click.option("--upgrade", is_flag=True, help="Lock the requirements anew."),
)  # fmt: skip


def _shared(command: Command) -> Command:
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.command("dockerfile", short_help="Print the Dockerfile of a function's image.")
@_shared
def dockerfile(**given: Any) -> None:
    """Print the Dockerfile of HANDLER of FILE. Nothing is built; no engine is needed.

    \b
    Example:
      dhpy dockerfile main.py:train --requirement pandas --instruction "apt-get install -y git"
    """
    _one_platform(given["platform"])
    function, options, code = _read(given)
    plan = prepare(function, options, code=code, environ=os.environ, cache=cache_of(os.environ))
    click.echo(render(plan), nl=False)


@click.command("lock", short_help="Lock a function's requirements.")
@_shared
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a pylock.toml there; its name begins with pylock. Default: print name==version lines with hashes.")  # fmt: skip
def lock_(output: Path | None, **given: Any) -> None:
    """Lock the requirements of HANDLER of FILE for the Python and platform of its image, with what the runtime needs.

    \b
    Examples:
      dhpy lock main.py:train --requirement pandas
      dhpy lock main.py:train --requirements-file pyproject.toml -o pylock.toml
    """
    if output is not None and not pylock.is_name(output.name):
        raise UsageFault("usage/output", f"{output.name!r} is not the name of a pylock.toml.", "Write pylock.toml, or pylock.NAME.toml.")  # fmt: skip
    _one_platform(given["platform"])
    function, options, code = _read(given)
    plan = prepare(
        function, options, code=code, environ=os.environ, cache=cache_of(os.environ), log=_say
    )
    if output is None:
        click.echo(plan.requirements, nl=False)
    else:
        pylock.write(plan.requirements, output, plan.python, os.environ)
        _say(f"{output} is written.")


@click.command("build", short_help="Build a function's image.")
@_shared
@click.option("-t", "--tag", default="", metavar="NAME[:TAG]", help="Name of the image; it always gets the plan's hash as a tag.")  # fmt: skip
@click.option("-e", "--engine", default="", help=f"One of {', '.join(ENGINES)}. Default: the first that this machine has.")  # fmt: skip
@click.option("--push", is_flag=True, help="Push it to its registry.")
@click.option("--output", default="", metavar="KIND:PATH", help="Write it there instead: oci:FOLDER, oci-archive:FILE or docker-archive:FILE, by the native engine.")  # fmt: skip
@click.option("--compression", type=click.Choice(["gzip", "zstd"]), default="gzip", show_default=True, help="Of the layers that the native engine makes; old engines read gzip alone.")  # fmt: skip
@click.option("--sbom", "bills", multiple=True, type=click.Path(dir_okay=False, path_type=Path), help="Write the bill of materials there: NAME.cdx.json (CycloneDX) or NAME.spdx.json; may be given again.")  # fmt: skip
@click.option("--provenance", type=click.Path(dir_okay=False, path_type=Path), help="Write what it was made from there, as SLSA provenance.")  # fmt: skip
@click.option("--plain-http", is_flag=True, help="The registry speaks HTTP; on this machine that is tried by itself.")  # fmt: skip
@click.option("--network", default="", help="The network of RUN instructions, e.g. host.")
@click.option("--explain", is_flag=True, help="Say of each step whether and why it is rebuilt; build nothing.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Without the engine's output.")
def build_(
    tag: str, engine: str, push: bool, output: str, compression: str, plain_http: bool, network: str,
    bills: tuple[Path, ...], provenance: Path | None, explain: bool, as_json: bool, quiet: bool, **given: Any,
) -> None:  # fmt: skip
    """Build the image of HANDLER of FILE.

    The folder of FILE goes into it, without what a .dhignore file there names. A build whose image
    exists does nothing.

    \b
    Examples:
      dhpy build main.py:train --requirement scikit-learn --tag registry:5000/team/train --push
      dhpy build main.py:train --requirements-file uv.lock --explain
      dhpy build main.py:train --requirement pandas --sbom train.cdx.json --provenance train.provenance.json
      dhpy build main.py:train --base-image python:3.11-slim --output oci-archive:train.tar
      dhpy build main.py:train --platform linux/amd64,linux/arm64 --tag registry:5000/team/train --push
    """
    if output and not FILES.fullmatch(output):
        raise UsageFault("usage/output", f"{output!r} names no place for an image.", "Write oci:FOLDER, oci-archive:FILE or docker-archive:FILE.")  # fmt: skip
    forms = {file: bill.form_of(file.name) for file in bills}
    function, options, code = _read(given)
    options = dataclasses.replace(
        options, tag=tag, engine=engine, push=push, network=network, output=output,
        compression=compression, plain_http=plain_http,
    )  # fmt: skip

    if explain or forms or provenance is not None:
        _one_platform(given["platform"])
    if explain:
        _explain(function, options, code)
        return
    started = time.monotonic()
    log = (lambda line: None) if quiet else (lambda line: click.echo(f"  {line}", err=True))
    several = read_platforms(given["platform"]) if "," in given["platform"] else ()
    if several:
        result = build_index(function, options, several, code=code, log=log, say=_say)
    else:
        result = build(function, options, code=code, log=log, say=_say)
    if not result.existed:
        _say(f"Built in {time.monotonic() - started:.1f} s.")
    image, digest = result.image.reference, result.image.digest or result.image.id
    for file, form in forms.items():
        file.write_bytes(bill.FORMS[form](result.plan, image, digest))
        _say(f"{file} is written.")
    if provenance is not None:
        provenance.write_bytes(bill.provenance(result.plan, image, digest, engine=result.engine))
        _say(f"{provenance} is written.")
    if as_json:
        fields = {"image": result.image.reference, "id": result.image.id, "digest": result.image.digest}  # fmt: skip
        click.echo(json.dumps({**fields, "engine": result.engine, "existed": result.existed}))
    else:
        click.echo(result.image.reference)


def _one_platform(platform: str) -> None:
    if "," in platform:
        raise UsageFault("build/platform", f"{platform} are several platforms.", "Name one; only `dhpy build` takes several at once.")  # fmt: skip


def _say(line: str) -> None:
    click.echo(f"dhpy: {line}", err=True)


def _explain(function: FunctionSpec, options: Options, code: dict[str, Content]) -> None:
    from digitalhub_python_builder import explain
    from digitalhub_python_builder.engines import choose
    from digitalhub_python_builder.references import default_name, parse

    cache = cache_of(os.environ)
    chosen = choose(options.engine, (), os.environ, lambda line: None)
    name = parse(options.tag or default_name(function.project, function.name)).name
    with contextlib.closing(chosen):
        plan = prepare(function, options, code=code, environ=os.environ, cache=cache, engine=chosen)
        there = chosen.inspect(f"{name}:{plan.tag}") is not None
    if there:
        click.echo(f"{name}:{plan.tag} exists: nothing would be built.")
        return
    for line in explain.explain(plan, explain.load_last(cache, name)):
        click.echo(line)


def _read(given: dict[str, Any]) -> tuple[FunctionSpec, Options, dict[str, Content]]:
    file, handler = split_target(given["target"])
    named = {"code_src": file.name, "handler": handler}
    check_handler_exists(file.read_bytes(), named, given["python_version"])
    parse_requirements(
        given["requirements"]
    )  # requirements alone: options have options of their own
    function = FunctionSpec(
        name=file.stem if handler in ("handler", "main") else handler.rpartition(".")[2],
        source=SourceSpec(source=file.name, handler=handler),
        python_version=given["python_version"],
        base_image=given["base_image"] or None,
        requirements=given["requirements"],
    )
    wanted = requirement_files.Wanted()
    if not given["requirements"] and not given["requirements_file"] and requirement_files.script_metadata(file.read_text("utf-8", "replace")):  # fmt: skip
        _say(f"{file.name} names its requirements itself (# /// script).")
        given = {**given, "requirements_file": (file,)}
    for path in given["requirements_file"]:
        wanted += requirement_files.read(path, given["extras"], given["groups"], os.environ)
    options = Options(
        flavour=given["flavour"],
        instructions=given["instructions"],
        envs=pairs(given["envs"]),
        labels=pairs(given["labels"]),
        wanted=wanted,
        secrets=_secrets(given["secrets"]),
        index_url=given["index_url"],
        ca_bundle=given["ca_bundle"].read_bytes() if given["ca_bundle"] else b"",
        upgrade=given["upgrade"],
        allow_sdist=given["allow_sdist"],
    )
    if given["platform"]:
        options = dataclasses.replace(options, platform=read_platforms(given["platform"])[0])
    return function, options, code_of(function.source, file.parent, _say)


def _secrets(items: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for item in items:
        name, equals, path = item.partition("=")
        if equals and not Path(path).is_file():
            raise UsageFault("build/secret", f"The build secret {name!r} has no file {path!r}.", "Check the path.")  # fmt: skip
        if not equals and name not in os.environ:
            raise UsageFault("build/secret", f"The build secret {name!r} is not an environment variable.", f"Set it, or write {name}=FILE.")  # fmt: skip
        found[name] = Path(path).read_text("utf-8") if equals else os.environ[name]
    return found
