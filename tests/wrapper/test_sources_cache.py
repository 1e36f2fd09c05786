"""The cache of fetched code is bounded: what was used longest ago goes, and nothing that is in use."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from servers.surroundings import clean_environ

from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import cache


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(
        Settings(environ=clean_environ(tmp_path)), cache=tmp_path / "cache", max_sources=1000
    )


def _keep(held: Path, name: str, size: int, used: float) -> Path:
    """A cached folder of so many bytes, used so many seconds ago."""
    made = held / "tmp" / name
    made.mkdir()
    (made / "main.py").write_bytes(b"x" * size)
    cache.keep_tree(held, made, name)
    moment = time.time() - used
    os.utime(held / "git" / name, (moment, moment))
    return held / "git" / name


def test_what_was_used_longest_ago_goes_until_the_rest_is_within_the_limit(
    settings: Settings,
) -> None:
    held = cache.usable(settings)
    assert held is not None
    made = [_keep(held, f"t{n}", 300, 10_000 - n * 1000) for n in range(5)]
    file = held / "sha256" / "abc"
    file.write_bytes(b"y" * 300)
    os.utime(file, (1, 1))
    would = cache.prune(held, 1100, remove=False)
    assert [path for path, _ in would] == [file, made[0], made[1]]
    assert all(path.exists() for path in made)
    assert cache.prune(held, 1100) == would
    assert [path.exists() for path in made] == [False, False, True, True, True]
    assert not list((held / "tmp").iterdir())
    assert cache.prune(held, 1100) == []


def test_what_is_used_is_new_again_and_what_is_in_use_stays(settings: Settings) -> None:
    held = cache.usable(settings)
    assert held is not None
    old, other = _keep(held, "old", 300, 9000), _keep(held, "other", 300, 8000)
    assert cache.tree(held, "old") is not None
    assert [path for path, _ in cache.prune(held, 0)] == [other]
    assert old.exists()


def test_a_cache_is_looked_at_once_an_hour_by_the_runs_themselves(settings: Settings) -> None:
    held = cache.usable(settings)
    assert held is not None
    made = _keep(held, "t", 5000, 9000)
    cache.usable(settings)
    assert made.exists()
    os.utime(held / "pruned", (1, 1))
    cache.usable(settings)
    assert not made.exists()


def test_what_killed_runs_left_and_notes_of_what_is_gone_are_swept(settings: Settings) -> None:
    held = cache.usable(settings)
    assert held is not None
    left, fresh = held / "tmp" / "left", held / "tmp" / "fresh"
    for folder in (left, fresh):
        folder.mkdir()
        (folder / "x").write_text("x")
    os.utime(left, (1, 1))
    cache.remember(held, "address", '"1"', "gone")
    cache.prune(held, 1000)
    assert [path.exists() for path in (left, fresh, held / "seen" / "address.json")] == [
        False,
        True,
        False,
    ]


def test_runs_that_prune_at_once_fail_in_nothing(settings: Settings) -> None:
    held = cache.usable(settings)
    assert held is not None
    for n in range(60):
        _keep(held, f"t{n}", 100, 9000 + n)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            cache.prune(held, 0)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert not list((held / "git").iterdir())


def test_the_limit_is_a_number_of_bytes() -> None:
    assert Settings.from_env({"DHPY_MAX_SOURCES": "123"}).max_sources == 123
    assert Settings.from_env({}).max_sources == 5 << 30
    with pytest.raises(UsageFault, match="DHPY_MAX_SOURCES"):
        Settings.from_env({"DHPY_MAX_SOURCES": "5 GB"})
