"""Fixtures of the API's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Plane, Process, server_process, serving, settings_in


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    """The API with an empty store, and one project, `proj`."""
    with serving(settings_in(tmp_path / "home")) as plane:
        plane.project()
        yield plane


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server process that the tests of this session share; each uses projects of its own."""
    with server_process(tmp_path_factory.mktemp("plane") / "home") as server:
        yield server
