"""One image for several platforms: each is built by itself, and an index names them all."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from digitalhub_python_builder.build import Options, Result, build
from digitalhub_python_builder.caches import cache_of
from digitalhub_python_builder.engines import Log, choose
from digitalhub_python_builder.plan import PLATFORMS, Content
from digitalhub_python_builder.references import default_name, parse
from digitalhub_runtime_python.errors import EnvironmentFault, UsageFault
from digitalhub_runtime_python.spec import FunctionSpec


def read_platforms(text: str) -> tuple[str, ...]:
    """The platforms of a list with commas, each once, in its order.

    Raises:
        UsageFault: one is not known, or the list is empty.
    """
    found = tuple(dict.fromkeys(one.strip() for one in text.split(",")))
    for one in found:
        if one not in PLATFORMS:
            raise UsageFault("build/platform", f"The platform {one!r} is not known.", f"Use one of {', '.join(PLATFORMS)}, or several with commas between them.")  # fmt: skip
    return found


def build_index(
    function: FunctionSpec, options: Options, platforms: Sequence[str], *,
    code: Mapping[str, Content] | None = None, cache: Path | None = None,
    environ: Mapping[str, str] | None = None, log: Log = lambda line: None, say: Log | None = None,
) -> Result:  # fmt: skip
    """Build a function's image for several platforms; arguments and errors are those of `build`.

    Returns:
        The index, by its digest, beside the plan of the first platform's image.
    """
    if options.engine not in ("", "native"):
        raise EnvironmentFault("build/ability", f"{options.engine} makes images of one platform.", "native makes those of several.")  # fmt: skip
    if not options.push and not options.output:
        raise UsageFault("build/platform", "An image of several platforms is nothing that an engine of this machine keeps.", "Push it (--push), or write it to a file (--output oci:FOLDER).")  # fmt: skip
    if options.output.startswith("docker-archive:"):
        raise UsageFault("usage/output", "A docker-archive holds an image of one platform.", "Write oci:FOLDER or oci-archive:FILE.")  # fmt: skip
    # Here, since it imports what no other engine needs.
    from digitalhub_python_builder.engines.native import NativeEngine

    environ = dict(os.environ if environ is None else environ)
    cache = cache or cache_of(environ)
    environ["DHPY_CACHE"] = str(cache)
    say = say or log
    wanted = parse(options.tag or default_name(function.project, function.name))
    engine = cast("NativeEngine", choose("native", (), environ, say))
    with contextlib.closing(engine):
        parts: dict[str, Result] = {}
        for platform in platforms:
            say(f"For {platform}:")
            one = dataclasses.replace(options, platform=platform, tag=wanted.name, push=False, output="", is_part=True)  # fmt: skip
            parts[platform] = build(function, one, code=code, cache=cache, environ=environ, log=log, say=say, engine=engine)  # fmt: skip
        tags = json.dumps([part.plan.tag for part in parts.values()])
        target = wanted.with_tag(hashlib.sha256(tags.encode()).hexdigest()[:16])
        names = [str(target), *([str(wanted)] if wanted.tag else [])]
        references = {platform: part.image.reference for platform, part in parts.items()}
        image, existed = engine.join(references, names, log, push=options.push, output=options.output, plain_http=options.plain_http)  # fmt: skip
    if existed:
        say(f"{target} exists: nothing has changed, nothing is pushed.")
    first = parts[platforms[0]]
    return Result(image, first.plan, first.dockerfile, engine.name, existed)
