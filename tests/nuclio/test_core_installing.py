"""Requirements as DigitalHub Core has them installed: its pip at a pod's start, its uv in builds and layers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from digitalhub_runtime_python.nuclio import installed, installing
from nuclio.core import ROOT, Core, start

OPT = ROOT / "images" / "nuclio"


def package(folder: Path, name: str, version: str, *metadata: str) -> None:
    """An installed package without code."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    head = [f"Name: {name}", f"Version: {version}", *metadata]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(head) + "\n\nExtra text\n")


def wheel(folder: Path, name: str) -> None:
    """A wheel of one module."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", "here = True\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")  # fmt: skip
        archive.writestr(f"{info}/RECORD", "")


FULL = (
    "Provides-Extra: full",
    "Provides-Extra: dev",
    "Requires-Dist: requests",
    "Requires-Dist: pandas<3; extra == 'full'",
    'Requires-Dist: polars (>=1.2,!=1.3) ; extra == "full"',
    "Requires-Dist: pytest; extra == 'dev'",
)


@pytest.mark.parametrize(
    "line, there, lacking",
    [
        ("digitalhub[full]", {"pandas": "2.3.1", "polars": "1.4"}, None),
        ("DigitalHub[FULL]==0.15.11", {"pandas": "2.3.1", "polars": "1.4"}, None),
        ("digitalhub[full]", {"pandas": "2.3.1"}, "polars is not installed"),
        ("digitalhub[full]", {"pandas": "3.0", "polars": "1.2"}, "pandas 3.0 is installed"),
        ("digitalhub[full]", {"pandas": "2.3.1", "polars": "1.3.0"}, "polars 1.3.0 is installed"),
        ("digitalhub[full]", {"pandas": "2.3.1rc1", "polars": "1.2"}, "pandas 2.3.1rc1"),
        ("digitalhub[full,dev]", {"pandas": "2.3.1", "polars": "1.2"}, "pytest is not installed"),
        ("digitalhub[mystery]", {}, ""),
        ("digitalhub[full]==0.14", {"pandas": "2", "polars": "1.2"}, "digitalhub 0.15.11"),
        ("digitalhub", {}, None),
        ("absent[full]", {}, "absent is not installed"),
    ],
)
def test_an_extra_is_met_when_all_that_it_needs_is_there(
    tmp_path: Path, line: str, there: dict[str, str], lacking: str | None
) -> None:
    package(tmp_path, "digitalhub", "0.15.11", *FULL)
    for name, version in there.items():
        package(tmp_path, name, version)
    unmet = installed.unmet([line], [str(tmp_path)])
    if lacking is None:
        assert unmet == []
    else:
        assert len(unmet) == 1 and unmet[0].startswith(line) and lacking in unmet[0]


def test_an_extra_with_a_condition_is_pips_to_judge(tmp_path: Path) -> None:
    package(tmp_path, "a", "1", "Provides-Extra: x", "Requires-Dist: b; python_version < '3.8' and extra == 'x'")  # fmt: skip
    assert installed.unmet(["a[x]"], [str(tmp_path)]) == ["a[x]"]


@pytest.mark.parametrize(
    "said, told",
    [
        (["ERROR: No matching distribution found for x"], "No matching distribution found for x"),
        (["  Downloading", "ERROR: a", "ERROR: b", "ERROR: a"], "a; b"),
        (
            [
                "WARNING: Retrying (…) after connection broken by 'NewConnectionError(…)'",
                "ERROR: a",
            ],
            "a; the package index cannot be reached",
        ),
        (["/usr/bin/python3: No module named pip", ""], "/usr/bin/python3: No module named pip"),
        ([], "it gave no reason"),
    ],
)
def test_pips_reason_is_in_its_last_errors(said: list[str], told: str) -> None:
    assert installing.reason(said) == told


@pytest.fixture
def home() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shared"
        path.mkdir()
        Path(folder).chmod(0o755)
        path.chmod(0o777)
        yield path


def test_a_requirement_that_cannot_be_installed_is_told_and_exits_with_15(home: Path) -> None:
    with Core("def f(): return 1\n") as core:
        core.files(home, requirements="msgspec\nno-such-thing-at-all[extra]\n")
        note = home / "termination"
        note.touch()
        note.chmod(0o666)
        # An environment refuses --user, which is how Core asks; a pod's Python is in none.
        process = start(core, home, PIP_NO_INDEX="1", PIP_USER="0", DHPY_TERMINATION_LOG=str(note))
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 15, output
        error = core.status["error"]
        assert (error["code"], error["exit_status"]) == ("environment/pip", 15)
        assert "no-such-thing-at-all is not installed" in error["message"]
        assert "pip cannot install" in note.read_text()
        # At once, before pip has begun.
        said = "Not installed, pip is asked for: no-such-thing-at-all[extra]"
        assert output.index(said) < output.index("[environment/pip]")
        assert "Init failed" not in output


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/opt/nuclio of our layer, with the runtime's own packages linked."""
    place = tmp_path_factory.mktemp("layer") / "nuclio"
    place.mkdir()
    for name in ("uv", "requirements", "whl"):
        shutil.copytree(OPT / name, place / name)
    site = place / "site-packages"
    site.mkdir()
    (site / "digitalhub_runtime_python").symlink_to(ROOT / "wrapper/digitalhub_runtime_python")
    package(site, "digitalhub_runtime_python", "9.9")
    return place


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a Python with pip and nothing else, as of a base image of someone's own."""
    place = tmp_path_factory.mktemp("bare") / "env"
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", str(place)], check=True)
    return place / "bin"


def run(bare: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": f"{bare}:/usr/bin:/bin", "HOME": str(bare.parent), **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_commands_of_cores_dockerfile_install_what_is_missing_and_leave_the_runtime(
    layer: Path, bare: Path, tmp_path: Path
) -> None:
    uv = str(layer / "uv/uv")
    wheels = tmp_path / "wheels"
    wheel(wheels, "theirs")
    for name in ("nuclio", "common"):  # row 7
        done = run(bare, uv, "pip", "install", "--system", "--no-index", "--find-links",
                   str(layer / "whl"), "-r", str(layer / f"requirements/{name}.txt"))  # fmt: skip
        assert done.returncode == 0, done.stderr
    file = tmp_path / "requirements.txt"
    file.write_text("theirs\ndigitalhub-runtime-python\n")
    env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    row_11 = (uv, "pip", "install", "--system", "-r", str(file))
    done = run(bare, *row_11, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    code = "import theirs, digitalhub_runtime_python as d, importlib.metadata as m; print(m.version('digitalhub-runtime-python'))"
    assert run(bare, "python3", "-c", code).stdout.strip() == "9.9"
    again = run(bare, *row_11, PIP_NO_INDEX="1")
    assert (again.returncode, again.stdout.count("already satisfied")) == (0, 2), again.stdout
    file.write_text("absent-thing\n")
    failed = run(bare, *row_11, **env)
    assert failed.returncode == 15
    assert "absent-thing is not installed" in failed.stdout
    assert "[environment/pip]" in failed.stderr


def test_the_commands_of_cores_entrypoint_in_a_layer_install_into_an_environment(
    layer: Path, bare: Path, tmp_path: Path
) -> None:
    uv, venv = str(layer / "uv/uv"), tmp_path / ".venv"
    wheels = tmp_path / "wheels"
    wheel(wheels, "theirs")
    for _ in range(2):
        made = run(bare, uv, "venv", str(venv), "--system-site-packages", "--allow-existing")
        assert made.returncode == 0, made.stderr
    env = {"VIRTUAL_ENV": str(venv), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    done = run(bare, uv, "pip", "install", "--cache-dir", str(tmp_path / ".uv_cache"), "theirs", **env)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = run(bare, str(venv / "bin/python"), "-c", "import theirs, digitalhub_runtime_python")
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    "uvs, pips",
    [
        (["--system", "-r", "f"], ["--break-system-packages", "--root-user-action=ignore", "--no-cache-dir", "-r", "f"]),
        (["--index=https://a/simple", "-U", "x"], ["--extra-index-url", "https://a/simple", "-U", "x"]),
        (["--default-index", "u", "--link-mode", "copy", "x"], ["--index-url", "u", "x"]),
        (["--prerelease=allow", "--no-progress", "x[y]==1"], ["--pre", "--progress-bar=off", "x[y]==1"]),
        (["-p", "3.11", "--python=3.11", "-c", "c.txt", "x"], ["-c", "c.txt", "x"]),
    ],
)  # fmt: skip
def test_uvs_options_become_pips(uvs: list[str], pips: list[str]) -> None:
    assert list(installing._for_pip(uvs)) == pips


def test_what_our_uv_does_not_do_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert installing.uv(["run", "x"]) == 2
    assert "uv pip install" in capsys.readouterr().err
    assert installing.uv(["--version"]) == 0
    assert os.access(OPT / "uv/uv", os.X_OK)
