"""What no log, status or message of a run may show."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from digitalhub_python_control.clientenv import client_environment
from digitalhub_python_control.store.tokens import credentials_of
from digitalhub_runtime_python.redaction import forms, hide, secret_values
from digitalhub_runtime_python.spec import RunSpec

if TYPE_CHECKING:
    from digitalhub_python_control.settings import ControlSettings
    from digitalhub_python_control.store.store import RunRecord, Store

logger = logging.getLogger(__name__)


def forms_of(environment: Mapping[str, str], names: Iterable[str]) -> list[bytes]:
    """What a run with that environment must not print, in every form; `names` are those of its secrets."""
    return forms(secret_values(environment, names))


def forms_of_run(run: RunRecord, store: Store, settings: ControlSettings) -> list[bytes]:
    """The same of a run that may have been started by an earlier control plane.

    Raises:
        Fault: the store does not answer, or its secrets cannot be read.
    """
    spec = RunSpec.from_entity(run.entity)
    secrets = store.secret_values(run.project, spec.secrets)
    client = client_environment(settings.url, settings, os.environ, credentials_of(run, store))
    return forms_of({**client, **secrets, **spec.envs}, spec.secrets)


def without_secrets(text: str, run: RunRecord, store: Store, settings: ControlSettings) -> str:
    """A message of ours about a run, in which a tool's, a place's or the run's own words may stand."""
    try:
        hidden = forms_of_run(run, store, settings)
    except Exception as exc:  # noqa: BLE001 - then the run has none, and what it fails of is this
        logger.warning("run %s/%s: its secrets cannot be read: %s", run.project, run.id, exc)
        hidden = []
    return hide(hide(text, hidden), forms_of(os.environ, ()))
