"""`dhpy manifests`."""

from __future__ import annotations

import json
from typing import Any

import click

from digitalhub_runtime_python.handlers import check_arguments, check_handler_exists
from digitalhub_runtime_python.local import pairs, python_option, split_target
from digitalhub_runtime_python.nuclio import manifests as nuclio
from digitalhub_runtime_python.spec import interpreter_version


@click.command("manifests", short_help="Print what deploys a function.")
@click.argument("target", metavar="FILE:HANDLER")
@click.option(
    "--target",
    "platform",
    type=click.Choice(["nuclio"]),
    default="nuclio",
    show_default=True,
    help="What it is deployed on.",
)
@click.option(
    "--form",
    type=click.Choice(["resource", "function"]),
    default="resource",
    show_default=True,
    help="A NuclioFunction for kubectl, or function.yaml for nuctl and the processor.",
)
@click.option(
    "--image",
    required=True,
    help="With Nuclio's processor and this runtime, e.g. what images/nuclio/Dockerfile makes.",
)
@click.option(
    "--inline",
    is_flag=True,
    help="Put the file's text into the manifest; default: the image has it, as `dhpy build` makes it.",
)
@click.option(
    "--plain", is_flag=True, help="HANDLER is a Nuclio handler, called with (context, event)."
)
@click.option("--name", help="Default: the handler's.")
@click.option("--namespace", default="nuclio", show_default=True, help="Kubernetes' namespace.")
@click.option("--project", default="default", show_default=True, help="Nuclio's project.")
@python_option("The image's Python:")
@click.option("--init-function", default="", help="Called once per worker, with the context.")
@click.option(
    "-p",
    "--parameter",
    "parameters",
    multiple=True,
    metavar="K=V",
    help="An argument that no request has to bring.",
)
@click.option(
    "--init-parameter",
    "init_parameters",
    multiple=True,
    metavar="K=V",
    help="A parameter of the init function.",
)
@click.option(
    "--workers", type=int, default=1, show_default=True, help="Processes in each replica."
)
@click.option("--replicas", default="1", show_default=True, metavar="N[:M]", help="Or from N to M.")
@click.option("--cpu", metavar="REQUEST[:LIMIT]", default="", help="E.g. 100m:1.")
@click.option("--memory", metavar="REQUEST[:LIMIT]", default="", help="E.g. 128Mi:512Mi.")
@click.option(
    "--env", "envs", multiple=True, metavar="K=V", help="No secrets: a manifest is read by many."
)
@click.option("--secret", default="", help="A Kubernetes Secret whose entries become variables.")
@click.option(
    "--event-timeout",
    default="",
    metavar="TIME",
    help="E.g. 30s: an event that takes longer gets 408.",
)
@click.option(
    "--body-limit", type=int, default=0, metavar="BYTES", help="Default: Nuclio's, 4 MiB."
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of YAML.")
def manifests(
    target: str,
    platform: str,
    form: str,
    as_json: bool,
    inline: bool,
    replicas: str,
    cpu: str,
    memory: str,
    name: str | None,
    **given: Any,
) -> None:
    """Print what deploys HANDLER of FILE on Nuclio. Nothing is deployed.

    \b
    Examples:
      dhpy manifests main.py:serve --image registry/f:1 --inline | kubectl apply -f -
      dhpy manifests main.py:serve --image registry/f:1 --form function > function.yaml
    """
    file, handler = split_target(target)
    python = given.pop("python_version")
    text = file.read_bytes()
    named = {"code_src": file.name, "handler": handler, "init_function": given["init_function"]}
    check_handler_exists(text, named, python)
    check_arguments(text, handler, pairs(given["parameters"]))
    if given["init_function"]:
        check_arguments(text, given["init_function"], pairs(given["init_parameters"]))
    low, _, high = replicas.partition(":")
    limits = {"cpu": cpu.partition(":"), "memory": memory.partition(":")}
    try:
        least, most = int(low), int(high or low)
    except ValueError:
        raise click.BadParameter(f"{replicas!r} is not N or N:M", param_hint="--replicas") from None
    deployment = nuclio.Deployment(
        **{
            **given,
            **{key: pairs(given[key]) for key in ("parameters", "init_parameters", "envs")},
            "name": name or handler.replace("_", "-").lower(),
            "file": file.name,
            "handler": f"{file.stem}:{handler}",
            "python": interpreter_version(python),
            "code": file.read_text("utf-8") if inline else "",
            "min_replicas": least,
            "max_replicas": most,
            "requests": {key: value[0] for key, value in limits.items() if value[0]},
            "limits": {key: value[2] for key, value in limits.items() if value[2]},
        }
    )
    made = nuclio.resource(deployment) if form == "resource" else nuclio.function_file(deployment)
    click.echo(json.dumps(made, indent=2) if as_json else _yaml(made), nl=as_json)


def _yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
