"""A newcomer's way in a fresh environment, from a wheel alone: no clone is in sight."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from digitalhub_python_builder.interpreters import find_uv

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="on the main Python only")


@pytest.mark.timeout(600)
def test_from_a_wheel_to_a_sweep_and_a_service(tmp_path: Path) -> None:
    uv, python = find_uv(), tmp_path / "env" / "bin" / "python"
    dist, work = tmp_path / "dist", tmp_path / "work"
    subprocess.run([uv, "build", "-q", "--wheel", "--out-dir", dist, ROOT], check=True)
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, python.parents[1]], check=True)
    install = [uv, "pip", "install", "-q", "--python", python, *dist.glob("*.whl")]
    subprocess.run(install, check=True)
    work.mkdir()
    shutil.copy(ROOT / "examples" / "newcomer.py", work)

    kept = ("PATH", "LANG", "UV_CACHE_DIR", "SSL_CERT_FILE", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    cache = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    env.update(HOME=str(tmp_path), UV_CACHE_DIR=cache, DHPY_PORT="0")

    def dhpy(*words: str) -> str:
        done = subprocess.run(
            [python.parent / "dhpy", *words], cwd=work, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "# Errors" in dhpy("help", "errors")
    dhpy("up")
    try:
        said = dhpy("exec", "--", str(python), "newcomer.py")
        assert said.count("COMPLETED") == 20 and "best rate: 0.5" in said
        assert "answer: {'start': 3.0, 'end': 0.0}" in said
        assert dhpy("runs", "--function", "train").count("COMPLETED") == 20
        assert dhpy("runs", "--function", "predict", "--watch").count("STOPPED") >= 1
    finally:
        dhpy("down")
