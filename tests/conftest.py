"""What all tests share: a control plane in a process of its own, and a log that each test leaves as it was."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings
from servers import control_plane as planes


def pytest_configure() -> None:
    # A shell's `&` and nohup have us ignore these; what tests start inherits that, and keeps to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # How long an example takes says nothing on a machine that is busy.
    settings.register_profile("patient", settings.default, deadline=None)
    settings.load_profile("patient")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[planes.ControlPlane]:
    """`python -m digitalhub_python_control` on a free port, with an empty store."""
    with planes.running(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Commands set the runtime's logger up for a whole process; a test gives it back."""
    own = logging.getLogger("digitalhub_runtime_python")
    before = own.handlers[:], own.level, own.propagate
    yield
    own.handlers[:], own.level, own.propagate = before
