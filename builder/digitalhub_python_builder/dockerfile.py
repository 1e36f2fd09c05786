"""A plan as the text of a Dockerfile. Pure; every engine reads the same text."""

from __future__ import annotations

import re
import shlex

from digitalhub_python_builder.instructions import rendered
from digitalhub_python_builder.plan import PIP_CONFIG_SECRET, Plan

UID = 8877
"""The user of our images, as in DigitalHub's own; any other works as well."""
HOME = "/opt/function"
"""Where the parts of a function's image lie. Not /shared: a platform mounts a volume over that."""
RUNTIME = "/opt/dhpy"
ENTRYPOINT = ("python3", "--check-hash-based-pycs", "never", "-m", "digitalhub_runtime_python")
COMMAND = ("job",)
HEALTH_TIMES = "--interval=30s --timeout=10s --start-period=60s"
HEALTH = ("python3", "-m", "digitalhub_runtime_python.health")
# PYTHONPATH is not used for this: platforms set it to something else.
_PATH_FILE = (
    "import pathlib, sysconfig; "
    f"pathlib.Path(sysconfig.get_path('purelib'), 'dhpy.pth').write_text('{RUNTIME}')"
)


def render(plan: Plan) -> str:
    """The Dockerfile of a plan; the same plan gives the same text.

    Labels stand below all that takes time, so that functions with equal requirements share it; the
    code comes last, so that its edit leaves every layer above it as it is.
    """
    parts = [
        ["# Made from the function's spec; `dhpy dockerfile` prints it."],
        [f"FROM {plan.base_image}"],
        [f"ENV {name}={_quoted(value)}" for name, value in sorted(plan.envs.items())],
        ["USER 0"] if _needs_root(plan) else [],
        [f"COPY ca-bundle.pem {HOME}/ca-bundle.pem"] if plan.ca_bundle else [],
        [rendered(text) for text in plan.instructions],
        _requirements(plan),
        [] if plan.has_runtime else _runtime(plan),
        _labels(plan),
        [f"USER {UID}"],
        ["WORKDIR /shared"],
        [] if plan.has_runtime else [f"HEALTHCHECK {HEALTH_TIMES} CMD {_json_list(HEALTH)}"],
        # An entry point takes the base image's command away.
        [f"ENTRYPOINT {_json_list(entrypoint(plan))}", f"CMD {_json_list(COMMAND)}"],
        # Last, and root's as every file (kaniko would give it to USER): an edit of it makes this
        # layer again and no other.
        [f"COPY --chown=0:0 code/ {HOME}/code/"] if plan.code else [],
    ]
    return "".join(f"{line}\n" for part in parts for line in part)


def render_instructions(plan: Plan) -> str:
    """The Dockerfile of the instructions alone, for an engine that is to run them and nothing else."""
    parts = [
        [f"FROM {plan.base_image}"],
        [f"ENV {name}={_quoted(value)}" for name, value in sorted(plan.envs.items())],
        ["USER 0"],
        [f"COPY ca-bundle.pem {HOME}/ca-bundle.pem"] if plan.ca_bundle else [],
        [rendered(text) for text in plan.instructions],
    ]
    return "".join(f"{line}\n" for part in parts for line in part)


def entrypoint(plan: Plan) -> tuple[str, ...]:
    """What a container runs; `job` or `serve` are its arguments."""
    if plan.entrypoint:
        return plan.entrypoint
    # Base images built by Docker have an init process; without one Python is process 1, which it copes with.
    init = plan.has_runtime and plan.has_init
    return ("/usr/bin/tini", "--", *ENTRYPOINT) if init else ENTRYPOINT


def _labels(plan: Plan) -> list[str]:
    pairs = [f"{name}={_quoted(value)}" for name, value in sorted(plan.image_labels.items())]
    return ["LABEL " + " \\\n      ".join(pairs)]


def _needs_root(plan: Plan) -> bool:
    return bool(plan.instructions or plan.requirements or plan.ca_bundle) or not plan.has_runtime


def _requirements(plan: Plan) -> list[str]:
    if not plan.requirements:
        return []
    target = f"{HOME}/requirements.txt"
    mount = ""
    # Hash-based bytecode: engines that set all times to one would make the usual kind stale.
    # The other one is for bases whose Python belongs to the distribution.
    variables = ["SOURCE_DATE_EPOCH=0", "PIP_BREAK_SYSTEM_PACKAGES=1"]
    if plan.ca_bundle:
        variables.append(f"PIP_CERT={HOME}/ca-bundle.pem")
    if plan.index_url:
        variables.append(f"PIP_INDEX_URL={shlex.quote(plan.index_url)}")
    if plan.extra_index_urls:
        variables.append(f"PIP_EXTRA_INDEX_URL={shlex.quote(' '.join(plan.extra_index_urls))}")
    if plan.find_links:
        variables.append(f"PIP_FIND_LINKS={shlex.quote(' '.join(plan.find_links))}")
    if plan.index_secret:
        mount = f"--mount=type=secret,id={PIP_CONFIG_SECRET} "
        variables.append(f"PIP_CONFIG_FILE=/run/secrets/{PIP_CONFIG_SECRET}")
    options = (
        "--no-cache-dir --no-deps --disable-pip-version-check --root-user-action=ignore --quiet"
    )
    if plan.wheels:
        options += f" --find-links {HOME}/wheels"
    hashed, direct = split_lock(plan.requirements)
    installs = [] if plan.has_runtime else [_version_check(plan)]
    if hashed:
        installs.append(f"python3 -m pip install {options} --require-hashes -r {target}")
    if direct:
        installs.append(f"python3 -m pip install {options} -r {HOME}/direct.txt")
    copies = [f"COPY requirements.txt {target}"] if hashed else []
    copies += [f"COPY wheels/ {HOME}/wheels/"] if plan.wheels else []
    copies += [f"COPY direct.txt {HOME}/direct.txt"] if direct else []
    command = f"export {' '.join(variables)} \\\n && " + " \\\n && ".join(installs)
    return [*copies, f"RUN {mount}{command}"]


def _version_check(plan: Plan) -> str:
    """What stops the build where python3 is another one than the function's."""
    wrong = f"This image needs Python {plan.python}; its base image has "
    right = f"v == '{plan.python}' or sys.exit({wrong!r} + v)"
    return f"python3 -c {_shell(f'import sys; v = chr(46).join(map(str, sys.version_info[:2])); {right}')}"


def _runtime(plan: Plan) -> list[str]:
    compiling = f"python3 -m compileall -q --invalidation-mode unchecked-hash {RUNTIME}"
    steps = [compiling, f"python3 -c {_shell(_PATH_FILE)}"]
    shared = "mkdir -p -m 1777 /shared && chmod 1777 /shared"
    return [
        f"COPY runtime/ {RUNTIME}/",
        "RUN " + " \\\n && ".join([*steps, shared]),
        "ENV HOME=/shared TMPDIR=/shared USER=nonroot PYTHONUNBUFFERED=1",
    ]


def split_lock(lock: str) -> tuple[str, str]:
    """(lines with hashes, lines with a repository, which has none) of a lock."""
    entries = re.split(r"\n(?=\S)", lock.strip()) if lock.strip() else []
    hashed = [entry for entry in entries if "--hash=" in entry]
    direct = [entry for entry in entries if "--hash=" not in entry]
    return _text(hashed), _text(direct)


def _text(entries: list[str]) -> str:
    return "".join(f"{entry}\n" for entry in entries)


def _quoted(value: str) -> str:
    """A value in double quotes, in which neither the Dockerfile nor a shell finds a variable."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def _shell(text: str) -> str:
    return shlex.quote(text)


def _json_list(words: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"
