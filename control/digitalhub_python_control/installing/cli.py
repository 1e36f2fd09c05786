"""`dhpy control-plane`: its image, and what installs it in a cluster."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from digitalhub_python_builder.plan import PLATFORMS


@click.group("control-plane", short_help="Install the control plane in a cluster.")
def control_plane() -> None:
    """Make the control plane's image, and print what runs it in a cluster."""


@control_plane.command("image")
@click.option("--python", metavar="VERSION", default=f"3.{sys.version_info[1]}", show_default=True, help="Its own; functions may have another.")  # fmt: skip
@click.option("--base-image", "base", default="", help="What it is put on. Default: Python's own image.")  # fmt: skip
@click.option("--platform", type=click.Choice(PLATFORMS), help="Default: this machine's.")
@click.option("--tag", default="", help="Its name. Default: of this version, in DHPY_IMAGES.")
@click.option("--push", is_flag=True, help="Push it to the registry in its name.")
@click.option("--plain-http", is_flag=True, help="That registry speaks HTTP.")
@click.option("--output", default="", metavar="KIND:PATH", help="Write it there as well: oci:FOLDER, oci-archive:FILE or docker-archive:FILE.")  # fmt: skip
def image_(platform: str | None, **given: Any) -> None:
    """Make the control plane's image; no Docker is needed.

    \b
    Example:
      DHPY_IMAGES=registry.example:5000/team dhpy control-plane image --push
    """
    from digitalhub_python_control.installing import image

    made = image.build(os.environ, platform=platform or "", log=lambda line: click.echo(f"dhpy: {line}", err=True), **given)  # fmt: skip
    click.echo(made.reference)


@control_plane.command("manifests")
@click.option("--image", default="", help="Default: what `dhpy control-plane image` makes, in DHPY_IMAGES.")  # fmt: skip
@click.option("--name", default="dhpy", show_default=True, help="Of all its objects.")
@click.option("--namespace", default="default", show_default=True, help="Runs are pods of it as well.")  # fmt: skip
@click.option("--secret", default="", help="With DHPY_TOKEN, and maybe DHPY_DATABASE_URL. Default: NAME.")  # fmt: skip
@click.option("--storage", default="10Gi", show_default=True, help="Of its volume.")
@click.option("--storage-class", default="", help="Default: the cluster's.")
@click.option("--cpu", default="250m", show_default=True, help="That it asks for.")
@click.option("--memory", default="512Mi", show_default=True, help="Asked for, and its limit.")
@click.option("--pull-secret", default="", help="Of its own image's registry.")
@click.option("--allow-from", multiple=True, metavar="NAMESPACE", help="Whose pods may ask it too; may be given again.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="DHPY_…=VALUE", help="A setting that is not secret; may be given again.")  # fmt: skip
def manifests_(image: str, settings: tuple[str, ...], **given: Any) -> None:
    """Print what runs the control plane in a cluster. Nothing is installed.

    The Secret is yours to make: what is in it belongs in no file.

    \b
    Examples:
      kubectl create secret generic dhpy --from-literal=DHPY_TOKEN=$(openssl rand -hex 32)
      dhpy control-plane manifests | kubectl apply -f -
    """
    import yaml

    from digitalhub_python_control.installing import image as images
    from digitalhub_python_control.installing import manifests
    from digitalhub_runtime_python.local import pairs

    ours = {"DHPY_IMAGES": os.environ["DHPY_IMAGES"]} if os.environ.get("DHPY_IMAGES") else {}
    wanted = {**ours, **{name: str(value) for name, value in pairs(settings).items()}}
    installation = manifests.Installation(image or images.reference(os.environ), settings=wanted, **given)  # fmt: skip
    click.echo(yaml.safe_dump_all(manifests.objects(installation), sort_keys=False), nl=False)


@control_plane.command("chart")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--image", default="", help="Where no value says. Default: what `dhpy control-plane image` makes, in DHPY_IMAGES.")  # fmt: skip
def chart_(folder: Path, image: str) -> None:
    """Write the same objects as a Helm chart into a new FOLDER; values.yaml there names its values.

    \b
    Example:
      dhpy control-plane chart chart && helm install dhpy chart --set settings.DHPY_REGISTRY=registry.example/functions
    """
    from digitalhub_python_control.installing import chart
    from digitalhub_python_control.installing import image as images

    chart.write(folder, image or images.reference(os.environ))
    click.echo(str(folder))
