"""What a run needs before its objects can be made: its image, its profile, the volumes that must be there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from digitalhub_python_builder import bases
from digitalhub_python_builder.build import Options, build
from digitalhub_python_builder.requirements import normalise
from digitalhub_python_control.running.kubernetes import names, parameters, profiles
from digitalhub_python_control.running.kubernetes.client import Api, Refused
from digitalhub_python_control.running.kubernetes.manifests import Unit
from digitalhub_python_control.running.kubernetes.settings import KubernetesSettings
from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.spec import FunctionSpec, RunSpec, interpreter_version

if TYPE_CHECKING:
    from digitalhub_python_control.store.store import RunRecord

_PUBLIC = frozenset(
    {"DH_NAME", "DHCORE_ENDPOINT", "DHCORE_DEFAULT_FILES_STORE", "AWS_ENDPOINT_URL", "AWS_REGION",
     "PROJECT_NAME", "RUN_ID", "no_proxy", "NO_PROXY"}
)  # fmt: skip
"""Variables that stand in the pod's own spec; whatever else the platform sets is in the Secret."""
_ADDRESSES = ("DHCORE_ENDPOINT", "AWS_ENDPOINT_URL")
_CORES_LABEL = "dhcore/project"
"""DigitalHub Core's own mark of a claim that a project may share."""

BUILDING = ("python3", "--check-hash-based-pycs", "never", "-m", "digitalhub_python_control.running.building")  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """Finds out what one run needs; may take minutes where an image has to be built."""

    api: Api
    settings: KubernetesSettings
    cache: Path
    environ: Mapping[str, str]
    log: Callable[[str], None]

    def of(self, run: RunRecord) -> dict[str, Any]:
        """What `unit_of` takes.

        Raises:
            Fault: a parameter, profile or volume does not fit, or the image cannot be built.
        """
        spec = RunSpec.from_entity(run.entity)
        asked = read(run, self.settings)
        python = interpreter_version(spec.python_version)
        image, requirements = self._image(spec, python)
        return {"image": image, "requirements": requirements, "claims": self._claims(run, asked)}

    def _image(self, spec: RunSpec, python: str) -> tuple[str, list[str]]:
        if spec.action == "build":
            if not self.settings.registry and not spec.image:
                raise UsageFault("usage/registry", "A pod that builds an image has nowhere to push it.", "Set DHPY_REGISTRY, or give the function an image's name with its registry.")  # fmt: skip
            return self.settings.build_image, []
        if spec.image:
            return spec.image, []
        if not spec.requirements and not spec.base_image:
            return bases.reference(python, "full", self.environ), []
        if self.settings.registry:
            # Built once for all functions with these requirements: the code is not in it, nor a name.
            function = FunctionSpec(
                "environment", spec.source, spec.python_version,
                base_image=spec.base_image, requirements=spec.requirements,
            )  # fmt: skip
            tag = f"{self.settings.registry}/environment"
            options = Options(tag=tag, push=True, engine=self.environ.get("DHPY_BUILD_ENGINE", ""))
            return build(
                function, options, environ=self.environ, cache=self.cache, log=self.log
            ).image.reference, []
        if spec.base_image:
            raise UsageFault(
                "usage/parameter",
                "base_image needs a registry: the runtime has to be put on it, and nodes pull it from there.",
                "Set DHPY_REGISTRY, or give the function an image that has the runtime.",
            )
        wanted = list(normalise(spec.requirements))
        self.log(
            "There is no registry (DHPY_REGISTRY): each pod installs the requirements when it starts."
        )
        return bases.reference(python, "full", self.environ), wanted

    def _claims(self, run: RunRecord, asked: parameters.Asked) -> dict[str, str]:
        """Volume -> the claim that it is, where a run names one; each must be its project's."""
        found: dict[str, str] = {}
        for volume in asked.volumes:
            named = str(volume.spec.get("claimName") or "")
            if volume.kind == "shared_volume":
                named = named or volume.name
            if volume.kind in ("shared_volume", "persistent_volume_claim") and named:
                found[volume.name] = self._own(run, "PersistentVolumeClaim", named, volume.name)
            elif volume.kind == "config_map":
                self._own(run, "ConfigMap", str(volume.spec.get("name") or volume.name))
            elif volume.kind == "secret":
                wanted = volume.spec.get("secretName") or volume.spec.get("name") or volume.name
                self._own(run, "Secret", str(wanted))
        return found

    def _own(self, run: RunRecord, kind: str, *wanted: str) -> str:
        """The name of an object that is there and that this project may use.

        Args:
            wanted: its name; for a claim also that of a volume of the project.
        """
        tried = [wanted[0]]
        if kind == "PersistentVolumeClaim":
            tried.append(names.claim_name(run.project, wanted[-1]))
        for name in tried:
            try:
                there = self.api.get(self.api.path(kind, name))
            except Refused as exc:
                if exc.status == 404:
                    continue
                raise
            marks = {**(there["metadata"].get("annotations") or {}), **(there["metadata"].get("labels") or {})}  # fmt: skip
            allowed = {names.label(run.project), run.project}
            if {marks.get(names.PROJECT), marks.get(_CORES_LABEL)} & allowed:
                return name
            raise UsageFault(
                "usage/volume",
                f"The {kind} {name!r} is not one of project {run.project!r}.",
                f"Label it {names.PROJECT}={names.label(run.project)}, as whoever administers the cluster.",
            )
        raise UsageFault(
            "usage/volume",
            f"There is no {kind} {wanted[0]!r} in namespace {self.api.namespace!r}.",
            "Create it first, or correct its name in the run's volumes.",
        )


def read(run: RunRecord, settings: KubernetesSettings) -> parameters.Asked:
    """The run's parameters, with its profile's defaults.

    Raises:
        UsageFault: usage/parameter, usage/profile.
    """
    profile = _profile(run, settings)
    return parameters.read(run.entity["spec"], profile.defaults)


def unit_of(run: RunRecord, prepared: Mapping[str, Any], settings: KubernetesSettings) -> Unit:
    """What is run, of an attempt that has been prepared; still without its environment."""
    spec = RunSpec.from_entity(run.entity)
    return Unit(
        project=run.project,
        run_id=run.id,
        function=spec.function_name,
        action=spec.action,
        image=str(prepared["image"]),
        asked=read(run, settings),
        profile=_profile(run, settings),
        attempt=run.attempt,
        requirements=tuple(prepared.get("requirements") or ()),
        claims=dict(prepared.get("claims") or {}),
        command=BUILDING if spec.action == "build" else (),
    )


def building(environ: Mapping[str, str]) -> dict[str, str]:
    """What a pod that builds knows of where images go; instructions need an engine that it has not, and are refused."""
    names = ("DHPY_REGISTRY", "DHPY_IMAGES", "UV_DEFAULT_INDEX", "UV_INDEX")
    given = {name: environ[name] for name in names if environ.get(name)}
    return {**given, "DHPY_BUILD_ENGINE": "native"}


def environment(
    env: Mapping[str, str], entity: Mapping[str, Any], url: str, callback: str
) -> tuple[dict[str, str], dict[str, str]]:
    """The variables of a pod: those that anybody may read, and those that are secret.

    Args:
        url: where the control plane is for processes of its own machine.
        callback: where it is for pods.
    """
    users = set(RunSpec.from_entity(entity).envs) - set(RunSpec.from_entity(entity).secrets)
    literal: dict[str, str] = {}
    secret: dict[str, str] = {}
    for name, value in env.items():
        if name in _ADDRESSES and value.startswith(url):
            value = callback + value[len(url) :]
        (literal if name in users or name in _PUBLIC else secret)[name] = value
    return literal, secret


def _profile(run: RunRecord, settings: KubernetesSettings) -> profiles.Profile:
    given = run.entity["spec"].get("profile")
    return profiles.chosen(profiles.load(settings.profiles), str(given or ""))
