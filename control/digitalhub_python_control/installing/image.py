"""The control plane's image, made without a daemon: what the full base image has, its own packages, and theirs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement

import digitalhub_python_builder
import digitalhub_python_control
import digitalhub_runtime_python
from digitalhub_python_builder import base_images, bases, context
from digitalhub_python_builder.caches import cache_of
from digitalhub_python_builder.engines import Image, Log
from digitalhub_python_builder.environments import DISTRIBUTION
from digitalhub_python_builder.locks import lock
from digitalhub_python_builder.plan import Content
from digitalhub_python_builder.requirements import Wanted
from digitalhub_runtime_python.errors import UsageFault

NAME = "digitalhub-runtime-python-control"
ENTRYPOINT = ("python3", "--check-hash-based-pycs", "never", "-m", "digitalhub_python_control")
_EXTRAS = ("kubernetes", "postgres")
_PACKAGES = (digitalhub_runtime_python, digitalhub_python_builder, digitalhub_python_control)


def reference(environ: Mapping[str, str]) -> str:
    """Its name; `DHPY_IMAGES` names the registry that it is in."""
    prefix = environ.get("DHPY_IMAGES", "").strip().rstrip("/")
    version = digitalhub_runtime_python.__version__.replace("+", "-")
    return f"{prefix}/{NAME}:{version}" if prefix else f"{NAME}:{version}"


def build(
    environ: Mapping[str, str], *, python: str, base: str = "", platform: str = "", tag: str = "",
    push: bool = False, plain_http: bool = False, output: str = "", log: Log = lambda line: None,
) -> Image:  # fmt: skip
    """Make it; it is then in the cache, in what runs containers here, and where `push` and `output` say.

    Args:
        python: `"3.11"`; functions may be of another one.
        base: an image of that Python; default the one of images/matrix.json.
        tag: its name; default `reference`.

    Raises:
        UsageFault: there is no such Python, or no registry to push to.
        EnvironmentFault: the base or a wheel is not found, or the registry refuses.
    """
    if push and not tag and "DHPY_IMAGES" not in environ:
        raise UsageFault("usage/registry", "There is no registry to push the image to.", "Set DHPY_IMAGES to one: registry.example:5000/team; or give --tag.")  # fmt: skip
    platform = platform or bases.host_platform()
    addition = base_images.Addition(
        tag or reference(environ),
        lock(
            Wanted(requirements()), python, platform, flavour="full", preferred=bases.lock_of(python, "full"),
            cache=cache_of(environ), environ=environ, log=log,
        ),
        runtime=packages(),
        files=_metadata(),
        entrypoint=ENTRYPOINT,
        labels={"org.opencontainers.image.title": NAME, "io.digitalhub.runtime": "control-plane"},
    )  # fmt: skip
    return base_images.build(
        python, "full", environ, base=base, platform=platform, push=push, plain_http=plain_http,
        output=output, addition=addition, log=log,
    )  # fmt: skip


def requirements() -> tuple[str, ...]:
    """Everything that our distribution needs, with the engine for clusters and PostgreSQL's driver."""
    found = []
    for declared in map(Requirement, importlib.metadata.requires(DISTRIBUTION) or ()):
        if "extra" in str(declared.marker):
            if not any(declared.marker.evaluate({"extra": name}) for name in _EXTRAS if declared.marker):  # fmt: skip
                continue
            declared.marker = None
        found.append(str(declared))
    return tuple(found)


def packages() -> dict[str, Content]:
    """Our three packages, with the data that lies beside them in a clone and inside them in a wheel."""
    found: dict[str, Content] = {}
    for package in _PACKAGES:
        found.update(context.package_files(Path(str(package.__file__)).parent))
    data = bases.folder()
    for path in (data / "matrix.json", *data.glob("locks/*"), *data.glob("nuclio/**/*")):
        if path.is_file() and path.suffix != ".pyc":
            found[f"digitalhub_python_builder/images/{path.relative_to(data).as_posix()}"] = path
    return found


def _metadata() -> dict[str, Content]:
    """What our distribution is known by, whole: locks of images that it builds are made from its requirements."""
    text = importlib.metadata.distribution(DISTRIBUTION).read_text("METADATA") or ""
    info = f"opt/dhpy/digitalhub_runtime_python-{digitalhub_runtime_python.__version__}.dist-info"
    return {f"{info}/METADATA": text.encode(), f"{info}/INSTALLER": b"pip\n"}
