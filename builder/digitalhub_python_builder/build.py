"""Function → plan → Dockerfile → context → engine → image: the walk of a build, read this first."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import digitalhub_runtime_python
from digitalhub_python_builder import bases, context, explain, wheels
from digitalhub_python_builder.caches import cache_of
from digitalhub_python_builder.dockerfile import render
from digitalhub_python_builder.engines import BuildEngine, Image, Log, Request, choose
from digitalhub_python_builder.locks import lock
from digitalhub_python_builder.logins import settings_of
from digitalhub_python_builder.native.packages import compiler_for
from digitalhub_python_builder.plan import PIP_CONFIG_SECRET, Content, Plan, make_plan
from digitalhub_python_builder.references import Reference, default_name, parse
from digitalhub_python_builder.requirement_lines import read_lines
from digitalhub_python_builder.requirements import VARIABLE, Wanted, check_python, redact
from digitalhub_runtime_python.errors import EnvironmentFault
from digitalhub_runtime_python.spec import FunctionSpec, interpreter_version


@dataclass(frozen=True)
class Options:
    """How an image is to be built, beside what the function's spec says."""

    flavour: str = "full"
    """Of the base image, where the function names none: `slim` or `full`."""
    instructions: tuple[str, ...] = ()
    envs: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    wanted: Wanted = field(default_factory=Wanted)
    """Requirements from files, added to those of the spec."""
    tag: str = ""
    """Name of the image; without a tag of its own it gets the plan's hash alone."""
    engine: str = ""
    push: bool = False
    platform: str = field(default_factory=bases.host_platform)
    network: str = ""
    """The network of RUN instructions; default `DHPY_BUILD_NETWORK`."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Id -> value of build secrets."""
    index_url: str = field(default="", repr=False)
    """pip's index in the image; default `UV_DEFAULT_INDEX`."""
    ca_bundle: bytes = field(default=b"", repr=False)
    upgrade: bool = False
    """Ask the index again instead of taking the lock that is kept."""
    plain_http: bool = False
    allow_sdist: bool = False
    """Build here what has no wheel."""
    variables: Mapping[str, str] | None = field(default=None, repr=False)
    """What `${VAR}` in URLs of requirements may be, besides `envs`; None for all of `environ`."""
    output: str = ""
    """Write it there as well: `oci:FOLDER`, `oci-archive:FILE`, `docker-archive:FILE`."""
    compression: str = "gzip"
    """Of the layers that the native engine makes: `gzip`, which everything reads, or `zstd`."""
    is_part: bool = False
    """Of an image for several platforms: it goes nowhere by itself."""


@dataclass(frozen=True)
class Result:
    """A build that ended well."""

    image: Image
    plan: Plan
    dockerfile: str
    engine: str
    existed: bool
    """The image was there already; nothing was built."""


def build(
    function: FunctionSpec,
    options: Options,
    *,
    code: Mapping[str, Content] | None = None,
    cache: Path | None = None,
    environ: Mapping[str, str] | None = None,
    log: Log = lambda line: None,
    say: Log | None = None,
    engine: BuildEngine | None = None,
) -> Result:
    """Build a function's image, or find that it exists.

    Args:
        function: what the image is of.
        code: its files, as `context.code_of` makes them.
        cache: locks and the last plans are kept here; default `cache_of(environ)`.
        environ: settings of uv, engines and registries; default `os.environ`.
        log: takes each line of the engine's output.
        say: takes our own lines: what was chosen, what is rebuilt; default `log`.
        engine: one that is open, and stays so; default the one that is asked for or found.

    Raises:
        UsageFault: the spec or an option cannot be; nothing was built.
        EnvironmentFault: no engine, no base image, no wheel, a failed build, a registry's refusal.
    """
    environ = dict(os.environ if environ is None else environ)
    cache = cache or cache_of(environ)
    environ["DHPY_CACHE"] = str(cache)
    say = say or log
    # What is wrong with the values alone is said before anything is looked for.
    plan = prepare(function, options, code=code, environ=environ, cache=None)
    with contextlib.ExitStack() as opened:
        if engine is None:
            engine = choose(options.engine, _needs(plan), environ, say)
            opened.callback(engine.close)
        plan = prepare(
            function, options, code=code, environ=environ, cache=cache, engine=engine, log=say
        )
        wanted = parse(options.tag or default_name(function.project, function.name))
        target = wanted.with_tag(plan.tag)
        existing = _existing(engine, str(target), options, environ)
        if existing is not None:
            say(f"{target} exists: nothing has changed, nothing is built.")
            image = existing
        elif options.output and engine.name != "native":
            raise EnvironmentFault(
                "build/ability", f"{engine.name} cannot write an image to a file.", "native can."
            )
        else:
            for line in explain.explain(plan, explain.load_last(cache, wanted.name)):
                say(line)
            asked = read_lines(function.requirements) + options.wanted
            image = _build(engine, plan, target, wanted, asked, options, environ, log)
        if wanted.tag:
            engine.tag(str(target), str(wanted))
        if options.push and existing is None:
            image = _push(engine, image, wanted, options, log)
    if existing is None:
        explain.keep(cache, wanted.name, plan)
    return Result(image, plan, render(plan), engine.name, existed=existing is not None)


def prepare(
    function: FunctionSpec,
    options: Options,
    *,
    code: Mapping[str, Content] | None = None,
    environ: Mapping[str, str],
    cache: Path | None,
    engine: BuildEngine | None = None,
    log: Log = lambda line: None,
) -> Plan:
    """The plan; without an engine, from what the base image's name tells.

    Args:
        cache: None leaves the requirements unlocked: for checking values only.
    """
    python = interpreter_version(function.python_version)
    base = function.base_image or bases.reference(python, options.flavour, environ)
    plan = make_plan(
        function,
        base,
        platform=options.platform,
        instructions=options.instructions,
        envs=options.envs,
        labels=options.labels,
        ca_bundle=options.ca_bundle,
        secrets=tuple(options.secrets),
        code=code,
        requirements="",
    )
    context.check_size(dict(plan.code))
    image = engine.pull(base, log, platform=options.platform) if engine is not None else Image(base, "")  # fmt: skip
    ours = bases.has_runtime(base, image.labels)
    if engine is not None:
        _check_base(engine, image, python, ours, bool(plan.instructions))
    wanted = read_lines(function.requirements) + options.wanted
    check_python(wanted, python)
    locked = ""
    if cache is not None and (wanted.lines or not ours):
        for note in wanted.notes:
            log(note)
        flavour = bases.flavour_of(base, image.labels) if ours else options.flavour
        with _settings(environ, options) as settings:
            locked = lock(
                wanted, python, options.platform, flavour=flavour, preferred=bases.lock_of(python, flavour),
                cache=cache, upgrade=options.upgrade, allow_sdist=options.allow_sdist,
                environ=settings, variables=_variables(options, environ), log=log,
            )  # fmt: skip
    places = _places(wanted, options, environ) if wanted.lines or locked else Places()
    native = engine is not None and engine.name == "native"
    runtime = Path(digitalhub_runtime_python.__file__).parent
    if image.reference != base:
        # A file's place is not a part of what is made of it.
        named = {**plan.labels, "org.opencontainers.image.base.name": image.reference}
        plan = dataclasses.replace(plan, base_image=image.reference, labels=named)
    return dataclasses.replace(
        plan,
        has_runtime=ours,
        has_init=image.labels.get(bases.INIT) != "none",
        base_id=image.id,
        requirements=locked,
        index_url="" if places.secret else places.index,
        extra_index_urls=() if places.secret else places.extra,
        find_links=() if places.secret else places.links,
        index_secret=places.secret,
        wheels=wheels.needed(locked, cache) if cache is not None else {},
        runtime={} if ours else context.package_files(runtime),
        bytecode="none" if native and not compiler_for(python, environ) else "",
    )


def _needs(plan: Plan) -> set[str]:
    mounts = any(text.startswith("--mount") for text in plan.instructions)
    return {"secrets"} if mounts or plan.index_secret else set()


def _check_base(engine: BuildEngine, image: Image, python: str, ours: bool, prepared: bool) -> None:
    has = image.labels.get("io.digitalhub.python") if ours else ""
    # Instructions may install an interpreter; the Dockerfile checks what they have left.
    if not has and not prepared:
        has = engine.probe(image.reference)
    if has in (python, "unknown") or (prepared and not has):
        return
    what = f"has Python {has}" if has else "has no python3"
    raise EnvironmentFault(
        "build/base-image-python",
        f"The base image {image.reference} {what}; the function wants {python}.",
        "Choose a base image with that Python, or change the function's python_version.",
    )


@contextlib.contextmanager
def _settings(environ: Mapping[str, str], options: Options) -> Iterator[Mapping[str, str]]:
    """uv's settings: it asks the index that pip will, and trusts the certificates that pip will."""
    settings = dict(environ)
    if options.index_url:
        settings["UV_DEFAULT_INDEX"] = options.index_url
    with tempfile.NamedTemporaryFile(suffix=".pem") as bundle:
        if options.ca_bundle:
            bundle.write(options.ca_bundle)
            bundle.flush()
            settings["SSL_CERT_FILE"] = bundle.name
        yield settings


def _variables(options: Options, environ: Mapping[str, str]) -> Mapping[str, str]:
    """What `${VAR}` in a URL may be: for whoever runs the command all of theirs, for a run what was given to it."""
    return environ if options.variables is None else {**options.envs, **options.variables}


@dataclass(frozen=True)
class Places:
    """Where pip looks in the image."""

    index: str = field(default="", repr=False)
    extra: tuple[str, ...] = field(default=(), repr=False)
    links: tuple[str, ...] = field(default=(), repr=False)
    secret: bool = False
    """One of them has a password, so that they come as a build secret."""

    def pip_conf(self) -> str:
        # pip takes what follows the sign as it is: of several, one a line.
        rows = [("index-url", (self.index,)), ("extra-index-url", self.extra), ("find-links", self.links)]  # fmt: skip
        lines = [f"{name} = " + "\n    ".join(urls) for name, urls in rows if any(urls)]
        return "[global]\n" + "\n".join(lines) + "\n"


def _places(wanted: Wanted, options: Options, environ: Mapping[str, str]) -> Places:
    with _settings(environ, options) as settings:
        found = settings_of(wanted, settings, _variables(options, environ))
    index = options.index_url or found.get("UV_DEFAULT_INDEX", "")
    extra = tuple(found.get("UV_INDEX", "").split())
    links = tuple(one for one in found.get("UV_FIND_LINKS", "").split(",") if one.startswith("http"))  # fmt: skip
    secret = any(redact(url) != url for url in (index, *extra, *links))
    return Places(index, extra, links, secret)


def _existing(
    engine: BuildEngine, target: str, options: Options, environ: Mapping[str, str]
) -> Image | None:
    if options.output:
        return None
    found = engine.inspect(target)
    if not options.push or (found is None and engine.name != "native"):
        return found
    # Here, since its HTTP client takes long to import and most builds push nothing.
    from digitalhub_python_builder import registry

    digest = registry.digest_of(target, environ, plain_http=options.plain_http)
    # What was built without a daemon is the same wherever it was built.
    found = found or Image(target, digest)
    return dataclasses.replace(found, digest=digest) if digest else None


def _build(
    engine: BuildEngine,
    plan: Plan,
    target: Reference,
    wanted: Reference,
    asked: Wanted,
    options: Options,
    environ: Mapping[str, str],
    log: Log,
) -> Image:
    used = VARIABLE.findall(" ".join([*asked.lines, *(value for _, value in asked.options)]))
    values = [*options.secrets.values(), *(_variables(options, environ).get(name, "") for name in used)]  # fmt: skip
    hidden = [value for value in values if len(value) > 3]

    def mask(line: str) -> str:
        for value in hidden:
            line = line.replace(value, "***")
        return redact(line)

    def masked(line: str) -> None:
        log(mask(line))

    with tempfile.TemporaryDirectory(prefix="dhpy-build-") as place:
        folder = Path(place, "context")
        folder.mkdir()
        context.write_folder(plan, folder)
        places = _places(asked, options, environ)
        request = Request(
            context=folder,
            reference=str(target),
            also=str(wanted) if wanted.tag else "",
            platform=plan.platform,
            network=options.network or environ.get("DHPY_BUILD_NETWORK", ""),
            secrets=_secret_files(Path(place), plan, options.secrets, places),
            plain_http=options.plain_http,
            plan=plan,
            compression=options.compression,
            push=options.push,
            output=options.output,
            is_part=options.is_part,
        )
        settings: dict[str, str] = {}
        with _settings(environ, options) as found:
            if engine.name == "native":
                settings = settings_of(asked, found, _variables(options, environ))
                links = [
                    settings.get("UV_FIND_LINKS", ""),
                    str(folder / "wheels") if plan.wheels else "",
                ]
                settings["UV_FIND_LINKS"] = ",".join(filter(None, links))
            try:
                return engine.build(dataclasses.replace(request, settings=settings), masked)
            except EnvironmentFault as fault:
                # A fault ends with the engine's last words.
                raise EnvironmentFault(fault.code, mask(fault.message), fault.hint) from None


def _secret_files(
    place: Path, plan: Plan, secrets: Mapping[str, str], places: Places
) -> dict[str, Path]:
    values = {name: secrets[name] for name in plan.secrets}
    if plan.index_secret:
        values[PIP_CONFIG_SECRET] = places.pip_conf()
    folder = place / "secrets"
    folder.mkdir(mode=0o700)
    files = {}
    for number, (name, value) in enumerate(sorted(values.items())):
        files[name] = folder / str(number)
        files[name].touch(mode=0o600)
        files[name].write_text(value, "utf-8")
    return files


def _push(
    engine: BuildEngine, image: Image, wanted: Reference, options: Options, log: Log
) -> Image:
    digest = engine.push(image.reference, log, plain_http=options.plain_http)
    if wanted.tag:
        engine.push(str(wanted), log, plain_http=options.plain_http)
    return dataclasses.replace(image, digest=digest)
