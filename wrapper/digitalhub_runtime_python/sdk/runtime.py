"""Executes a run in the caller's process: the same walk as everywhere, with the SDK as its hub."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from digitalhub.runtimes._base import Runtime
from digitalhub.runtimes.builder import RuntimeBuilder

from digitalhub_runtime_python import error_report, lifecycle
from digitalhub_runtime_python.ending import Ending, Walk, conclude
from digitalhub_runtime_python.errors import PlatformFault
from digitalhub_runtime_python.hub import delivery
from digitalhub_runtime_python.sdk import compat, kinds, requirements
from digitalhub_runtime_python.sdk.current import current_run
from digitalhub_runtime_python.sdk.hub import SdkHub
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.spec import PYTHON_VERSIONS, RunSpec

logger = compat.get_logger(__name__)


class RuntimePython(Runtime):
    """What the SDK calls to build and to execute a run by itself; `Function.run` goes to `execute`."""

    def build(
        self, executable: dict[str, Any], task: dict[str, Any], run: dict[str, Any]
    ) -> dict[str, Any]:
        """The run's spec, merged as the platform merges it: the function's part wins, then the run's."""
        return merge_spec(executable.get("spec", {}), task.get("spec", {}), run.get("spec", {}))

    def run(self, run: dict[str, Any]) -> dict[str, Any]:
        """Execute a run; the status that it ends with.

        Raises:
            BaseException: what the user's code raised, as it is.
        """
        from digitalhub.factory.entity import entity_factory

        ending = execute(entity_factory.build_entity_from_dict(run))
        if ending.error is not None:
            raise ending.error
        return {**ending.status, "state": "COMPLETED"}


class RuntimePythonBuilder(RuntimeBuilder):
    RUNTIME_CLASS = RuntimePython


def merge_spec(
    function: Mapping[str, Any], task: Mapping[str, Any], run: Mapping[str, Any]
) -> dict[str, Any]:
    """A run's whole spec, in the order in which DigitalHub Core merges it."""
    own = {k: v for k, v in function.items() if k in kinds.FUNCTION}
    merged = {**task, **run, **own}
    return {
        **merged,
        **{k: merged.get(k) or {} for k in ("inputs", "parameters", "init_parameters")},
    }


def execute(run: Any) -> Ending:
    """Walk a run of the SDK in this thread; the ending has its status and what was raised. Never raises."""
    try:
        ending = _walk(run)
    except BaseException as exc:  # noqa: BLE001 - before the walk began; a run must not stay RUNNING for it
        ending = conclude(exc, Walk(Settings.to_end_with(os.environ), quiet=True))
    error = ending.status.get("error")
    if error:
        ending.status["message"] = error_report.summary(error)
    return ending


def _walk(run: Any) -> Ending:
    spec = RunSpec.from_entity(run.to_dict())
    _warn_of_differences(spec)
    with current_run(run), _environment({**spec.envs, **_secrets(spec)}):
        settings = Settings.from_env({**os.environ, **_platform_environment(spec)})
        # A module name of its own: runs of one process must not share a module.
        ending = lifecycle.run_job(
            SdkHub(run), settings, module_name=f"function_{spec.id}", quiet=True
        )
    _add_logged(run, ending)
    return ending


def _add_logged(run: Any, ending: Ending) -> None:
    """SDK 0.15 counts what a function logs by itself among its outputs; what it also returned, once."""
    outputs = ending.status.get("outputs") or {}
    logged = {
        n: key for n, key in run.__dict__.get("_logged", {}).items() if key not in outputs.values()
    }
    if logged:
        ending.status["outputs"] = {**logged, **outputs}


def deliver(run: Any, ending: Ending) -> None:
    """Save how a run ended; while the platform cannot be reached, try again, then keep it on disk.

    Raises:
        PlatformFault: it could not be delivered. Where the run itself failed it is only logged, for
            the user's own exception is about to be raised.
    """
    try:
        delivery.deliver(lambda: _save(run), run.id, run.to_json, Settings.to_end_with(os.environ))
    except PlatformFault as fault:
        if ending.error is None:
            raise
        logger.error("%s", fault)  # noqa: TRY400 - the traceback of a refused request helps nobody


def _save(run: Any) -> None:
    try:
        compat.update(run)
    except Exception as exc:
        unreachable = isinstance(exc, OSError)  # what requests raises without an answer
        code = "platform/unreachable" if unreachable else "platform/refused"
        raise PlatformFault(code, f"{error_report.text_of(exc)}.", retry=unreachable) from exc


_ENVIRON = threading.Lock()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for as long as this lasts.

    They belong to the whole process: runs in parallel threads that set one variable to different
    values see each other's.
    """
    with _ENVIRON:
        before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
    try:
        yield
    finally:
        with _ENVIRON:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _secrets(spec: RunSpec) -> dict[str, str]:
    """The values of the run's secrets; asks the platform only where the run names some."""
    if not spec.secrets:
        return {}
    found = compat.read_secrets(spec.project, spec.secrets)
    missing = [name for name in spec.secrets if name not in found]
    if missing:
        logger.warning("the project has no secret %s", ", ".join(missing))
    return {name: found[name] for name in spec.secrets if name in found}


def _platform_environment(spec: RunSpec) -> dict[str, str]:
    """The SDK's configuration (its file counts, too), where the code's source needs a store."""
    source = spec.source
    if source.base64 or source.code or "s3://" not in (source.source or ""):
        return {}
    from digitalhub.context.api import get_context

    values = get_context(spec.project).client.get_credentials_and_config()
    return {str(name): str(value) for name, value in values.items() if value}


def _warn_of_differences(spec: RunSpec) -> None:
    """Say where this process is not what the function asks for."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    wanted = PYTHON_VERSIONS.get(spec.python_version, here)
    if wanted != here:
        logger.warning(
            "the function asks for Python %s; a local run has this one, %s", wanted, here
        )
    problems = requirements.unmet(spec.requirements)
    if problems:
        logger.warning(
            "a local run installs nothing, and these are not met: %s", "; ".join(problems)
        )
