"""`python -m digitalhub_python_control.running.building`: a build run, as a process of its own.

It is told what to do as any other run is, streams the engine's output to its standard output, and
reports the Dockerfile, the image and its digest. The reconciler then gives the function its image.
"""

from __future__ import annotations

import base64
import dataclasses
import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

from digitalhub_python_builder.build import Options, Result, build
from digitalhub_python_builder.context import code_of
from digitalhub_python_builder.references import default_name, parse
from digitalhub_runtime_python import log
from digitalhub_runtime_python.ending import Walk, conclude
from digitalhub_runtime_python.errors import Terminated
from digitalhub_runtime_python.hub.opening import open_hub
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.spec import FunctionSpec, RunSpec


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Build the image of the function of run `$RUN_ID`; the exit status."""
    walk = Walk(Settings.to_end_with(environ))
    try:
        walk.settings = Settings.from_env(environ)
        log.configure(walk.settings.log_level, walk.settings.log_format)
        signal.signal(signal.SIGTERM, _end)
        hub = open_hub(walk.settings)
        walk.report = hub.report
        walk.run = hub.load_run()
        walk.status.update(status_of(build_run(walk.run, environ)))
    except BaseException as exc:  # noqa: BLE001 - reported, as any run's end is
        return conclude(exc, walk).exit_status
    return conclude(None, walk).exit_status


def build_run(run: RunSpec, environ: Mapping[str, str]) -> Result:
    """Build what a build run asks for: the function's requirements and the task's instructions.

    Raises:
        Fault: as `build`.
    """
    function = FunctionSpec(
        name=run.function_name,
        project=run.project,
        source=run.source,
        python_version=run.python_version,
        base_image=run.base_image,
        requirements=run.requirements,
    )
    name = image_name(run, environ)
    options = Options(
        instructions=run.extra.get("instructions") or (),
        envs=run.envs,
        tag=name,
        push=bool(parse(name).registry),
        engine=environ.get("DHPY_BUILD_ENGINE", ""),
        secrets={secret: environ[secret] for secret in run.secrets},
        # Of this process's own variables a function may see none: they are the platform's.
        variables={secret: environ[secret] for secret in run.secrets},
    )

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    return build(function, options, code=code_of(run.source), environ=environ, log=say)


def image_name(run: RunSpec, environ: Mapping[str, str]) -> str:
    """The repository of a function's image: that of its `image`, else one below `DHPY_REGISTRY`.

    The tag is always the plan's: a second build of a function, whose `image` is then the first one's,
    goes to the same repository.
    """
    if run.image:
        return dataclasses.replace(parse(run.image), tag="", digest="").name
    registry = environ.get("DHPY_REGISTRY", "").strip().rstrip("/")
    name = default_name(run.project, run.function_name)
    return f"{registry}/{name}" if registry else name


def status_of(result: Result) -> dict[str, Any]:
    """What is reported of a build, in Core's fields; the digest beside them."""
    image = result.image.reference
    return {
        "dockerfile": base64.b64encode(result.dockerfile.encode()).decode(),
        "build": {
            "image": image,
            "digest": result.image.digest or result.image.id,
            "lock": result.plan.requirements,
        },
        "outputs": {"image": image},
    }


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Terminated(number)


if __name__ == "__main__":
    sys.exit(main())
