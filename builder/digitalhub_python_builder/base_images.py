"""The project's base images without a clone and without a daemon: put on any image of Python.

They hold what `Dockerfile.base` puts in, but for an init process, which no package index has: Python is process 1 in
them, and a label says so. In a clone `make images` builds the ones with an init process, by Docker.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import digitalhub_runtime_python
from digitalhub_python_builder import bases, context
from digitalhub_python_builder.engines import Image, Log, Request
from digitalhub_python_builder.engines.native import NativeEngine
from digitalhub_python_builder.plan import Content, Plan
from digitalhub_runtime_python.errors import UsageFault

_NUCLIO = (
    "core.sh",
    "processor",
    "uv/uv",
    "requirements/nuclio.txt",
    "requirements/common.txt",
    "whl/README.txt",
)
"""Files of images/nuclio that lie below /opt/nuclio."""
_ENVS = {"DHPY_HOST": "0.0.0.0", "BASH_ENV": "/opt/nuclio/core.sh"}  # noqa: S104 - a container's own network


@dataclass(frozen=True)
class Addition:
    """What makes another image of the same kind: more packages, and something else that it runs."""

    reference: str
    lock: str
    """Instead of the base image's; it has all of that one's."""
    runtime: Mapping[str, Content]
    """Files of our packages: `package/module.py` -> content."""
    files: Mapping[str, Content]
    """Other files, by their paths without the first slash."""
    entrypoint: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


def build(
    python: str,
    flavour: str,
    environ: Mapping[str, str],
    *,
    base: str = "",
    platform: str = "",
    push: bool = False,
    plain_http: bool = False,
    output: str = "",
    addition: Addition | None = None,
    log: Log = lambda line: None,
) -> Image:
    """Make one base image; it is then found by every build on this machine.

    Args:
        python: `"3.11"`.
        flavour: `slim` or `full`.
        environ: `DHPY_IMAGES` names the registry that it belongs to; settings of uv.
        base: an image of that Python; default the one of images/matrix.json.
        push: push it there.
        output: where else to write it, as `dhpy build --output`.
        addition: makes it this image instead.

    Raises:
        UsageFault: there is none of that Python or flavour, or no registry to push to.
        EnvironmentFault: the base image or a wheel is not found, or the registry refuses.
    """
    platform = platform or bases.host_platform()
    reference = addition.reference if addition else bases.reference(python, flavour, environ)
    if push and not addition and "DHPY_IMAGES" not in environ:
        raise UsageFault("usage/registry", "There is no registry to push base images to.", "Set DHPY_IMAGES to one: registry.example:5000/team.")  # fmt: skip
    lock = bases.lock_of(python, flavour)
    if not lock:
        known = ", ".join(bases.matrix()["pythons"])
        raise UsageFault("usage/python-version", f"There is no base image of Python {python}.", f"Choose one of {known}.")  # fmt: skip
    with contextlib.closing(NativeEngine(environ)) as engine:
        below = engine.pull(base or bases.matrix()["base"].format(python=python), log, platform=platform)  # fmt: skip
        plan = Plan(
            below.reference, python, has_runtime=False, base_id=below.id, platform=platform,
            labels=labels(python, flavour, below.reference), envs=_ENVS, requirements=lock,
            runtime=context.package_files(Path(digitalhub_runtime_python.__file__).parent),
            files={**_nuclio_files(), **_metadata(python)},
        )  # fmt: skip
        if addition:
            plan = dataclasses.replace(
                plan, labels={**plan.labels, **addition.labels}, envs={}, requirements=addition.lock,
                runtime=addition.runtime, files=addition.files, entrypoint=addition.entrypoint,
            )  # fmt: skip
        request = Request(Path(), reference, platform=platform, plain_http=plain_http, plan=plan, push=push, output=output, settings=environ)  # fmt: skip
        image = engine.build(request, log)
        if push:
            engine.push(reference, log, plain_http=plain_http)
    return image


def labels(python: str, flavour: str, base: str) -> dict[str, str]:
    """Those of a base image; `io.digitalhub.init` tells that it has no init process."""
    return {
        "org.opencontainers.image.title": bases.matrix()["name"],
        "org.opencontainers.image.version": digitalhub_runtime_python.__version__,
        "org.opencontainers.image.base.name": base,
        "io.digitalhub.runtime": "python",
        "io.digitalhub.python": python,
        "io.digitalhub.flavour": flavour,
        bases.INIT: "none",
    }


def _nuclio_files() -> dict[str, Content]:
    """Where DigitalHub Core and Nuclio look: our stand-in for the processor, and the wrapper for the real one."""
    package = Path(digitalhub_runtime_python.__file__).parent
    found: dict[str, Content] = {f"opt/nuclio/{name}": bases.folder() / "nuclio" / name for name in _NUCLIO}  # fmt: skip
    found["opt/nuclio/_nuclio_wrapper.py"] = package / "nuclio" / "wrapper.py"
    return found


def _metadata(python: str) -> dict[str, Content]:
    """What pip knows the runtime by: Core asks for it by name, and must not get another one."""
    version = digitalhub_runtime_python.__version__
    info = f"opt/dhpy/digitalhub_runtime_python-{version}.dist-info"
    text = f"Metadata-Version: 2.1\nName: digitalhub-runtime-python\nVersion: {version}\n"
    return {f"{info}/METADATA": text.encode(), f"{info}/INSTALLER": b"pip\n"}
