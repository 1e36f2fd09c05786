"""Fixtures of the API's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import postgresql
from serving import Plane, Process, server_process, serving, settings_in
from sqlalchemy import create_engine

from digitalhub_python_control.store.database import metadata


def pytest_configure(config: pytest.Config) -> None:
    # boto3 says so on Python 3.9, where it still works.
    config.addinivalue_line("filterwarnings", "ignore:Boto3 will no longer support Python")


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


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """An empty PostgreSQL database."""
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind that is supported."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    url: str = request.getfixturevalue("postgres_url")
    yield url
    engine = create_engine(url)
    metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def each_plane(database_url: str, tmp_path: Path) -> Iterator[Plane]:
    """The API on each kind of database, with one project, `proj`."""
    with serving(settings_in(tmp_path / "home", database_url=database_url)) as plane:
        plane.project()
        yield plane
