"""What keeps runs from being pods of the cluster: asked of the cluster itself, the last of it by a pod."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote

from digitalhub_python_builder import bases
from digitalhub_python_builder.registry import digest_of
from digitalhub_python_control.running.kubernetes import (
    causes,
    manifests,
    names,
    parameters,
    profiles,
    rights,
)
from digitalhub_python_control.running.kubernetes.client import Api, Refused
from digitalhub_python_control.running.kubernetes.settings import KubernetesSettings
from digitalhub_runtime_python.errors import Fault, PlatformFault

if TYPE_CHECKING:
    from digitalhub_python_control.settings import ControlSettings

GUIDE = "`dhpy help kubernetes`"
PYTHON = "3.11"
"""Of the image that the probe starts."""
PATIENCE = 120
"""Seconds for the probe: its image may have to be pulled, a node to be added."""
STALLED = 30
"""Seconds for what may come by itself, as a registry that does not answer; a run waits longer."""

# Without a proxy, as runs reach the control plane; the last line is what is told of a failure.
_PROBE = """
import sys, urllib.request
try:
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1] + "/health", timeout=10).read()
except Exception as exc:
    sys.exit(str(exc))
"""


class Finding(NamedTuple):
    what: str
    level: Literal["ok", "warn", "fail"]
    text: str
    advice: str = ""


def examine(
    environ: Mapping[str, str], control: ControlSettings, up: str | None
) -> Iterator[Finding]:
    """Every check, in the order in which things go wrong; it ends where the next could not be made.

    Args:
        up: address of the control plane, where it is up: then a pod tries to reach it.
    """
    if up is not None:
        environ = {"DHPY_CALLBACK_URL": up, **environ}
    try:
        settings = KubernetesSettings.from_env(environ, control)
        profiles.load(settings.profiles)
        api = Api(settings.context, settings.namespace)
        version = api.get("/version").get("gitVersion")
    except Fault as fault:
        yield Finding("cluster", "fail", fault.message, fault.hint)
        return
    except Refused as exc:
        yield Finding("cluster", "fail", f"{exc}.", "Renew the kubeconfig's credentials.")
        return
    yield Finding("cluster", "ok", f"Kubernetes {version} at {api.host}, namespace {api.namespace}")
    found = _rights(api)
    yield found
    yield _registry(settings.registry, environ)
    try:
        settings.check_callback()
    except Fault as fault:
        yield Finding("callback", "fail", fault.message, fault.hint)
        return
    if found.level == "ok":
        yield from _probe(api, settings, environ, up is not None)


def _rights(api: Api) -> Finding:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    missing = []
    try:
        for right, review in rights.reviews(api.namespace):
            if not (api.create(path, review).get("status") or {}).get("allowed"):
                missing.append(right)
    except Fault as fault:
        return Finding("rights", "fail", fault.message, fault.hint)
    except Refused as exc:
        return Finding("rights", "fail", f"{exc}.", "Renew the kubeconfig's credentials.")
    if missing:
        text = f"not allowed in namespace {api.namespace}: {', '.join(missing)}."
        return Finding("rights", "fail", text, f"Bind the Role of {GUIDE} to this account.")
    return Finding("rights", "ok", f"all {len(rights.reviews(api.namespace))} that runs need")


def _registry(registry: str, environ: Mapping[str, str]) -> Finding:
    if not registry:
        return Finding(
            "registry", "warn", "none; each pod installs its function's requirements as it starts.",
            "Set DHPY_REGISTRY to one that nodes pull from.",
        )  # fmt: skip
    try:
        # That nothing was pushed there yet is an answer, too.
        digest_of(f"{registry}/environment:latest", environ)
    except Fault as fault:
        return Finding("registry", "fail", fault.message, fault.hint)
    return Finding("registry", "ok", registry)


def _probe(
    api: Api, settings: KubernetesSettings, environ: Mapping[str, str], up: bool
) -> Iterator[Finding]:
    """A Job as every other: whether its image is pulled, and the control plane is reached from inside."""
    unit = manifests.Unit(
        project="doctor",
        run_id=uuid.uuid4().hex,
        function="doctor",
        action="job",
        image=bases.reference(PYTHON, "full", environ),
        asked=parameters.read({}),
        profile=profiles.chosen(profiles.load(settings.profiles), ""),
        command=("python3", "-c", _PROBE, settings.callback),
    )
    # An instance of its own: to the control plane it is nobody's run.
    own = replace(settings, instance="dhpy-doctor", deadline=PATIENCE + 60, ttl=60)
    made = manifests.job(unit, own)
    try:
        if not up:
            api.create(api.path("Job"), made, dryRun="All")
            text = f"not tried from a pod: the control plane is down ({settings.callback})."
            yield Finding("callback", "warn", text, "dhpy up, then this again.")
            return
        api.create(api.path("Job"), made)
        try:
            yield from _watched(api, unit, settings.callback)
        finally:
            with suppress(PlatformFault, Refused):
                api.delete(api.path("Job", unit.name))
    except Fault as fault:
        yield Finding("probe", "fail", fault.message, fault.hint)
    except Refused as exc:
        yield Finding("probe", "fail", f"The cluster refuses a job: {exc}.", f"See {GUIDE}.")


def _watched(api: Api, unit: manifests.Unit, callback: str) -> Iterator[Finding]:
    """What comes of the probe."""
    selector = f"{names.RUN}={names.label(unit.run_id)}"
    start = time.monotonic()
    trouble: causes.Trouble | None = None
    pod = None
    while time.monotonic() < start + PATIENCE:
        age = time.monotonic() - start
        pod = next(iter(api.get(api.path("Pod"), labelSelector=selector).get("items") or ()), None)
        if pod is not None and causes.phase(pod) in ("Succeeded", "Failed"):
            break
        about = pod["metadata"]["name"] if pod else unit.name
        query = f"type=Warning,involvedObject.name={quote(about)}"
        warnings = api.get(api.path("Event"), fieldSelector=query).get("items") or ()
        now = causes.waiting(pod, warnings, age, STALLED) if pod else causes.refused(warnings, ())
        trouble = now or trouble  # between two tries of a pull the pod says nothing
        if now is not None and now.final:
            break
        time.sleep(0.3)
    if pod is None or not causes.runs(pod):
        text = trouble.message if trouble else f"its pod has not started within {PATIENCE} s"
        yield Finding("probe", "fail", f"A run's pod does not start: {text}.", f"See {GUIDE}.")
        return
    yield Finding("probe", "ok", f"a pod of {unit.image} starts")
    if causes.phase(pod) == "Succeeded":
        yield Finding("callback", "ok", f"pods reach the control plane at {callback}")
        return
    said = api.text(f"{api.path('Pod', pod['metadata']['name'])}/log", tailLines=1)
    reason = " ".join(said.decode("utf-8", "replace").split()) or "no answer"
    yield Finding(
        "callback", "fail", f"Pods do not reach the control plane at {callback}: {reason}.",
        "Set DHPY_HOST and DHPY_CALLBACK_URL to an address that nodes reach, and open its port.",
    )  # fmt: skip
