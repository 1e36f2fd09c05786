"""How much CPU a container may use, read as the kernel writes it; the binding itself is seen in containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from digitalhub_runtime_python import cpus

V1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


def written(root: Path, **files: str) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"cpu.max": "10000 100000\n"}, 0.1),
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "what\n"}, None),
        ({V1[0]: "50000\n", V1[1]: "100000\n"}, 0.5),
        ({V1[0]: "-1\n", V1[1]: "100000\n"}, None),
        ({V1[0]: "50000\n"}, None),
        ({}, None),
    ],
)
def test_the_limit_is_what_either_kind_of_control_group_says(
    tmp_path: Path, files: dict[str, str], found: float | None
) -> None:
    assert cpus.quota(written(tmp_path, **files)) == found


def bound(root: Path) -> tuple[bool, int]:
    """What is done, and the number of CPUs after it, in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writer, f"{int(cpus.stay_on_one(root))} {len(os.sched_getaffinity(0))}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        done, count = pipe.read().split()
    return done == "1", int(count)


def test_a_process_with_one_cpu_or_less_stays_on_one(tmp_path: Path) -> None:
    assert bound(written(tmp_path, **{"cpu.max": "100000 100000\n"})) == (True, 1)


@pytest.mark.parametrize("limit", ["110000 100000\n", "max 100000\n"])
def test_a_process_with_more_keeps_all_of_them(tmp_path: Path, limit: str) -> None:
    every = len(os.sched_getaffinity(0))
    assert bound(written(tmp_path, **{"cpu.max": limit})) == (False, every)
