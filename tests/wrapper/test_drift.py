"""An image that is not what was locked says so at its start."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from digitalhub_runtime_python import drift

LOCK = """\
numpy==2.0.2 \\
    --hash=sha256:aa
scikit-learn==1.5.2 --hash=sha256:bb
torch==2.5.0+cpu --hash=sha256:cc
lost==1
other @ https://host.invalid/other.whl
"""


def test_what_differs_from_the_lock_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    for name in ("numpy-2.1.0", "scikit_learn-1.5.2", "torch-2.5.0+cpu"):
        (tmp_path / f"{name}.dist-info").mkdir()
    path = (str(tmp_path / "absent"), str(tmp_path))
    assert drift.differences(LOCK, path) == [
        "numpy 2.1.0 (locked: 2.0.2)",
        "lost is not installed (locked: 1)",
    ]
    (tmp_path / "lock.txt").write_text(LOCK)
    with caplog.at_level(logging.WARNING):
        drift.warn(tmp_path / "lock.txt", path)
    assert "numpy 2.1.0 (locked: 2.0.2)" in caplog.text


def test_where_nothing_was_locked_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    drift.warn(tmp_path / "absent", (str(tmp_path),))
    (tmp_path / "lock.txt").write_text("numpy==2.0.2\n")
    (tmp_path / "numpy-2.0.2.dist-info").mkdir()
    drift.warn(tmp_path / "lock.txt", (str(tmp_path),))
    assert not caplog.text
