"""Runs as containers of the Docker Engine, from base images or from built ones.

A container has the name of its run and attempt, so an attempt never runs twice, and a control plane
that is started again finds it. Code, parameters and results go over the platform's API as in any
other place: nothing is built for an edit of the code.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import docker
import docker.errors
import docker.types

from digitalhub_python_builder import bases
from digitalhub_python_builder.build import Options, build
from digitalhub_python_builder.engines.docker import DockerEngine as DockerBuilder
from digitalhub_python_control.running import logs
from digitalhub_python_control.running.container_logs import copy
from digitalhub_python_control.running.engines import (
    Exit,
    Hidden,
    Progress,
    Tell,
    how_it_ended,
    process,
    quantities,
    reached,
)
from digitalhub_python_control.running.engines.keeper import Log
from digitalhub_python_control.running.plain_files import read_text
from digitalhub_python_control.running.services import is_service
from digitalhub_runtime_python.errors import EnvironmentFault, PlatformFault
from digitalhub_runtime_python.spec import FunctionSpec, RunSpec, interpreter_version

if TYPE_CHECKING:
    from digitalhub_python_control.settings import ControlSettings
    from digitalhub_python_control.store.store import RunRecord

logger = logging.getLogger(__name__)

MEANINGLESS = {
    key: process.MEANINGLESS[key]
    for key in ("node_selector", "affinity", "tolerations", "priority_class", "profile")
}
MEANINGLESS["runtime_class"] = "the engine's own runtime is used"
_INSIDE = "/run/dhpy"
"""Where the attempt's folder is in a container: a service says there that it is up."""

_READ_ONLY = {"read_only": True, "tmpfs": {"/shared": "mode=1777"}}
"""How Docker is told that a container may write to `/shared` and nowhere else."""


class DockerEngine:
    """Jobs and services in containers.

    Args:
        settings: `home`, `cache`, `max_jobs`, `max_run_log` and the `docker_` ones are used.
    """

    actions = frozenset({"job", "serve"})

    def __init__(self, settings: ControlSettings) -> None:
        self.max_jobs = settings.max_jobs
        self._home = settings.home
        self._cache = settings.cache
        self._environ = settings.environ
        self._network = settings.docker_network
        self._user = settings.docker_user
        self._read_only = settings.docker_root == "read-only"
        self._connection: Any = None
        self._followed: dict[str, _Follower] = {}
        self._tell: Tell = lambda project, run_id: None
        self._hidden: Hidden = lambda run: []
        self._max_log = settings.max_run_log

    def watch(self, tell: Tell, hidden: Hidden) -> None:
        self._tell = tell
        self._hidden = hidden

    def close(self) -> None:
        pass

    def prepare(self, run: RunRecord) -> dict[str, Any]:
        self._folder(run).mkdir(parents=True, exist_ok=True, mode=0o700)
        spec = RunSpec.from_entity(run.entity)
        quantities.limits(spec.extra.get("resources"))
        mounts = quantities.mounts(spec.extra.get("volumes"), run.project)
        image = self._image(run, spec)
        return {
            "image": image,
            "mounts": [
                self._opened(m, f"{self._name(run)}-{i}", run, image) for i, m in enumerate(mounts)
            ],
        }

    def _image(self, run: RunRecord, spec: RunSpec) -> str:
        def log(line: str) -> None:
            self.log(run, line)

        python = interpreter_version(spec.python_version)
        if spec.image is None and (spec.requirements or spec.base_image):
            # Built once for all functions with these requirements: the code is not in it, nor a name.
            function = FunctionSpec(
                "environment", spec.source, spec.python_version,
                base_image=spec.base_image, requirements=spec.requirements,
            )  # fmt: skip
            return build(function, Options(engine="docker", variables={}), environ=self._environ, cache=self._cache, log=log).image.reference  # fmt: skip
        image = spec.image or bases.reference(python, "full", self._environ)
        with contextlib.closing(DockerBuilder(self._environ)) as images:
            found = images.pull(image, log)
        if not found.labels.keys() & {bases.LABEL, "io.digitalhub.function"}:
            raise EnvironmentFault(
                "environment/image",
                f"The image {image} has no runtime in it, so it cannot run the function.",
                f"Give the function base_image={image!r} in place of image, and run its build.",
            )
        return found.reference

    def start(
        self, run: RunRecord, env: Mapping[str, str], prepared: Mapping[str, Any]
    ) -> dict[str, Any]:
        if run.attempt == 0:
            for line in ignored_parameters(run.entity["spec"]):
                self.log(run, line)
        attempt = self._attempt(run)
        # The container's user is another one, and may be any.
        (attempt / "inside").mkdir(parents=True, exist_ok=True)
        (attempt / "inside").chmod(0o1777)
        name = self._name(run)
        try:
            self._client.containers.create(**self._options(run, env, prepared))
        except docker.errors.APIError as exc:
            if exc.status_code != 409:
                raise _engine_fault(exc) from exc
        try:
            self._client.containers.get(name).start()
        except docker.errors.APIError as exc:
            with contextlib.suppress(docker.errors.APIError):
                self._client.containers.get(name).remove(force=True)
            raise _engine_fault(exc) from exc
        (attempt / "started").touch()
        self._follow(run)
        return {"container": name, "attempt": run.attempt}

    def poll(self, run: RunRecord) -> Progress:
        attempt = self._attempt(run)
        end = _read_exit(attempt)
        if end is not None:
            return Progress("ended", end)
        if self._name(run) not in self._followed:
            try:
                state = self._client.containers.get(self._name(run)).status
            except docker.errors.NotFound:
                if not (attempt / "started").exists():
                    return Progress("absent")
                return Progress("ended", _write_exit(attempt, 137, "lost: its container is gone"))
            if state == "created":
                return Progress("absent")
            self._follow(run)
        announced = "service" in run.entity["status"] or not is_service(run.entity)
        return Progress("alive", service=None if announced else _read_ready(attempt))

    def stop(self, run: RunRecord, *, force: bool) -> None:
        with contextlib.suppress(docker.errors.APIError):  # gone, or not running any more
            self._client.containers.get(self._name(run)).kill("SIGKILL" if force else "SIGTERM")

    def settle(self, run: RunRecord) -> None:
        pass  # all that counts is on disk, and small

    def remove(self, run: RunRecord) -> None:
        for container in self._containers(f"io.digitalhub.run={run.id}"):
            with contextlib.suppress(docker.errors.APIError):
                container.remove(force=True, v=True)
        for volume in self._client.volumes.list(filters={"label": f"io.digitalhub.run={run.id}"}):
            with contextlib.suppress(docker.errors.APIError):
                volume.remove()
        logs.remove_run_folder(logs.home_of(run, self._home), run.project, run.id)

    def log(self, run: RunRecord, line: str) -> None:
        logs.add_line(logs.home_of(run, self._home), run.project, run.id, line)

    def sweep(self, handles: Iterable[Mapping[str, Any]]) -> None:
        pass  # what a container leaves goes with its run

    def unfinished(self) -> Collection[tuple[str, str]]:
        found = set()
        with contextlib.suppress(PlatformFault, docker.errors.DockerException):
            for container in self._containers(f"io.digitalhub.home={self._home}", running=True):
                labels = container.labels
                found.add((labels["io.digitalhub.project"], labels["io.digitalhub.run"]))
        return found

    def _options(
        self, run: RunRecord, env: Mapping[str, str], prepared: Mapping[str, Any]
    ) -> dict[str, Any]:
        spec = RunSpec.from_entity(run.entity)
        limits = quantities.limits(spec.extra.get("resources"))
        gpus = limits.pop("gpus", 0)
        if gpus:
            limits["device_requests"] = [docker.types.DeviceRequest(count=gpus, capabilities=[["gpu"]])]  # fmt: skip
        inside = docker.types.Mount(_INSIDE, str(self._attempt(run) / "inside"), type="bind")
        return {
            "image": str(prepared["image"]),
            "name": self._name(run),
            "command": [spec.action],
            "environment": {
                "DHPY_TERMINATION_LOG": f"{_INSIDE}/termination",
                **env,
                **self._service_environment(run),
            },
            "labels": {
                "io.digitalhub.run": run.id,
                "io.digitalhub.project": run.project,
                "io.digitalhub.home": str(self._home),
            },
            # The control plane listens on this machine's loopback, which no other network reaches.
            "network_mode": self._network,
            "mounts": [inside, *map(_mount, prepared["mounts"])],
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "healthcheck": {"test": ["NONE"]},
            "detach": True,
            **({"user": self._user} if self._user else {}),
            **(_READ_ONLY if self._read_only else {}),
            **limits,
        }

    def _opened(
        self, mount: Mapping[str, Any], name: str, run: RunRecord, image: str
    ) -> Mapping[str, Any]:
        """The mount with its volume, which is made if need be, and which any user may write to."""
        if mount["type"] == "tmpfs":
            return mount
        if not mount["source"]:  # of this run alone
            self._client.volumes.create(name, labels={"io.digitalhub.run": run.id})
            mount = {**mount, "source": name}
        # A new volume belongs to root, and functions run as somebody else.
        try:
            self._client.containers.run(
                image, ["1777", mount["target"]], entrypoint="chmod", user="0",
                mounts=[_mount(mount)], remove=True, network_mode="none",
            )  # fmt: skip
        except docker.errors.DockerException as exc:
            raise _engine_fault(exc) from exc
        return mount

    def _service_environment(self, run: RunRecord) -> dict[str, str]:
        if not is_service(run.entity):
            return {}
        return {
            "DHPY_HOST": "127.0.0.1" if self._network == "host" else "0.0.0.0",  # noqa: S104 - a container's own
            "DHPY_PORT": "0",
            "DHPY_MANAGEMENT_PORT": "0",
            "DHPY_WORKERS": str(run.entity["spec"].get("replicas") or 1),
            "DHPY_READY_FILE": f"{_INSIDE}/ready",
        }

    def _follow(self, run: RunRecord) -> None:
        name = self._name(run)
        if name not in self._followed:
            log = Log(str(self._folder(run) / "log"), self._max_log)
            follower = _Follower(self._client, name, log, self._hidden(run), self._attempt(run))
            self._followed[name] = follower
            follower.start(lambda: self._unfollow(run))

    def _unfollow(self, run: RunRecord) -> None:
        # Also where it failed, as when the engine was restarted: the next poll follows again.
        self._followed.pop(self._name(run), None)
        self._tell(run.project, run.id)

    def _containers(self, label: str, *, running: bool = False) -> list[Any]:
        return list(self._client.containers.list(all=not running, filters={"label": label}))

    @property
    def _client(self) -> Any:
        if self._connection is None:
            try:
                self._connection = docker.from_env(environment=self._environ)
                self._connection.ping()
            except docker.errors.DockerException as exc:
                self._connection = None
                raise PlatformFault(
                    "platform/docker",
                    f"No Docker Engine answers at {self._environ.get('DOCKER_HOST') or 'its usual socket'}.",
                    "Start it, set DOCKER_HOST, or choose DHPY_ENGINE=process.",
                ) from exc
        return self._connection

    def _name(self, run: RunRecord) -> str:
        return f"dhpy-{run.id}-{run.attempt}"

    def _folder(self, run: RunRecord) -> Path:
        return logs.run_folder(logs.home_of(run, self._home), run.project, run.id)

    def _attempt(self, run: RunRecord) -> Path:
        return self._folder(run) / f"attempt-{run.attempt}"


class _Follower:
    """Copies a container's output into the run's log, and writes down how it ended."""

    def __init__(
        self, client: Any, name: str, log: Log, hidden: Sequence[bytes], attempt: Path
    ) -> None:
        self._container = client.containers.get(name)
        self._log = log
        self._hidden = hidden
        self._attempt = attempt

    def start(self, then: Callable[[], None]) -> None:
        """Follow in a thread of its own, and call `then` at the end."""

        def work() -> None:
            try:
                self._work()
            finally:
                then()

        name = f"follow {self._container.name}"
        threading.Thread(target=work, name=name, daemon=True).start()

    def _work(self) -> None:
        try:
            self._copy()
            status = int(self._container.wait()["StatusCode"])
            self._container.reload()
            state = self._container.attrs["State"]
            message = how_it_ended(status)
            if state.get("OOMKilled"):
                limit = self._container.attrs["HostConfig"].get("Memory", 0)
                message = (
                    f"out of memory: the container has {limit / 2**20:.0f} MiB (resources.mem)"
                )
            _write_exit(self._attempt, status, message)
            with contextlib.suppress(docker.errors.APIError):
                self._container.remove(v=True)
        except docker.errors.NotFound:
            _write_exit(self._attempt, 137, "lost: its container was removed")
        except (docker.errors.DockerException, OSError):
            logger.exception("container %s cannot be followed", self._container.name)

    def _copy(self) -> None:
        """After a restart from the last line on that was copied."""
        pieces = self._container.logs(stream=True, follow=True, timestamps=True)
        try:
            copy(pieces, self._log, self._hidden, self._attempt / "position")
        finally:
            self._log.end()


def _mount(mount: Mapping[str, Any]) -> Any:
    if mount["type"] == "tmpfs":
        return docker.types.Mount(
            mount["target"], None, type="tmpfs", tmpfs_size=mount["size"], tmpfs_mode=0o1777
        )
    return docker.types.Mount(mount["target"], mount["source"], type="volume")


def ignored_parameters(spec: Mapping[str, Any]) -> list[str]:
    """One line for each parameter of a run that has no meaning for a container of this machine."""
    lines = [f"{name} is ignored: {why}." for name, why in MEANINGLESS.items() if spec.get(name)]
    if (spec.get("resources") or {}).get("disk"):
        lines.append("resources.disk is ignored: containers share the engine's disk.")
    return lines


def _engine_fault(exc: docker.errors.DockerException) -> PlatformFault:
    text = " ".join(str(getattr(exc, "explanation", "") or exc).split())
    return PlatformFault(
        "platform/docker",
        f"The Docker Engine refuses the container: {text}.",
        "Check the run's image, resources and volumes.",
    )


def _write_exit(attempt: Path, status: int, message: str) -> Exit:
    end = Exit(status, message)
    temporary = attempt / ".exit"
    with contextlib.suppress(FileNotFoundError):  # the run was removed meanwhile
        temporary.write_text(json.dumps([status, message]), "utf-8")
        temporary.replace(attempt / "exit")
    return end


def _read_exit(attempt: Path) -> Exit | None:
    try:
        status, message = json.loads(read_text(attempt / "exit") or "")
        last_word = read_text(attempt / "inside" / "termination")
        return Exit(int(status), str(message), reached(int(status), last_word))
    except (ValueError, TypeError):
        return None


def _read_ready(attempt: Path) -> dict[str, Any] | None:
    return process.ready_from(read_text(attempt / "inside" / "ready"))
