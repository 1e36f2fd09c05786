from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from digitalhub_python_builder import environments
from digitalhub_python_builder.environments import (
    FULL_PARTS,
    RUNTIME_PARTS,
    Asked,
    ensure_environment,
    ensure_runtime,
    environment_key,
    environment_requirements,
    prune,
)
from digitalhub_python_builder.interpreters import (
    find_interpreter,
    inherited_environment,
    list_interpreters,
    uv_environment,
)
from digitalhub_python_builder.requirement_lines import read_lines
from digitalhub_runtime_python.errors import EnvironmentFault

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
HERE = Path(__file__).parent
SHARED = Path(os.environ.get("DHPY_CACHE") or Path.home() / ".cache" / "digitalhub-python")
"""Environments that tests only use are made once and kept, as a user's are."""


def silent(line: str) -> None:
    """Takes no notice."""


def wheel(folder: Path, version: str = "1.0") -> str:
    """A requirement for a tiny package of our own."""
    path = folder / f"tiny_dhpy-{version}-py3-none-any.whl"
    info = f"tiny_dhpy-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_dhpy.py", f"VERSION = {version!r}\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-dhpy\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"tiny-dhpy @ file://{path}"


def in_environment(python: Path, runtime: Path, code: str) -> str:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(runtime), "HOME": os.environ["HOME"]}
    done = subprocess.run([str(python), "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_part_of_the_runtime_is_a_declared_dependency():
    lines = environment_requirements(OWN, [])
    for name in (*RUNTIME_PARTS, *FULL_PARTS):
        assert [line for line in lines if line.startswith(name)], name


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_an_environment_runs_the_runtime_on_each_python(version):
    if version not in list_interpreters(os.environ):
        pytest.skip(f"no Python {version} on this machine")
    python, runtime = ensure_environment(version, [], SHARED, silent), ensure_runtime(SHARED)
    code = (
        "import sys, digitalhub_runtime_python as r, digitalhub_runtime_python.lifecycle\n"
        "print('%d.%d' % sys.version_info[:2], r.__version__, r.__file__)"
    )
    shown, release, place = in_environment(python, runtime, code).split()
    assert (shown, release) == (version, environments.digitalhub_runtime_python.__version__)
    assert place.startswith(str(runtime))


def test_the_plug_in_is_found_by_the_sdk_of_an_environment():
    python, runtime = ensure_environment(OWN, [], SHARED, silent), ensure_runtime(SHARED)
    code = (
        "from digitalhub.factory.utils import list_runtimes\n"
        "from importlib.metadata import version\n"
        "print('digitalhub_runtime_python' in str(list_runtimes()), version('digitalhub'))"
    )
    expected = f"True {importlib.metadata.version('digitalhub')}"
    assert in_environment(python, runtime, code) == expected


def test_a_second_call_finds_the_environment_and_says_nothing():
    ensure_environment(OWN, [], SHARED, silent)
    lines: list[str] = []
    began = time.monotonic()
    ensure_environment(OWN, [], SHARED, lines.append)
    assert lines == []
    assert time.monotonic() - began < 1


def test_a_users_requirement_is_installed_and_progress_is_told(tmp_path):
    lines: list[str] = []
    python = ensure_environment(OWN, [wheel(tmp_path)], tmp_path / "cache", lines.append)
    assert in_environment(python, tmp_path, "import tiny_dhpy; print(tiny_dhpy.VERSION)") == "1.0"
    assert lines[0].startswith(f"Making an environment for Python {OWN}")
    assert lines[-1].startswith("The environment is ready after")
    marker = json.loads((python.parent.parent / ".complete").read_text())
    assert any("tiny-dhpy" in line for line in marker["requirements"])


def test_a_local_file_that_changed_makes_another_environment(tmp_path):
    requirement = wheel(tmp_path)
    first = environment_key(OWN, [requirement])
    os.utime(tmp_path / "tiny_dhpy-1.0-py3-none-any.whl", (1, 1))
    assert environment_key(OWN, [requirement]) != first


def test_the_order_and_spelling_of_requirements_do_not_matter():
    one = environment_requirements("3.10", ["numpy", "Scikit_Learn==1.2.0"])
    other = environment_requirements("3.10", ["scikit-learn ==1.2.0", "numpy"])
    assert environment_key("3.10", one) == environment_key("3.10", other)
    assert environment_key("3.10", one) != environment_key("3.11", one)


def test_a_users_pandas_takes_the_place_of_ours_and_the_runtimes_parts_stay():
    lines = environment_requirements("3.10", ["pandas==1.5.3", "urllib3<2"])
    assert [line for line in lines if line.startswith("pandas")] == ["pandas==1.5.3"]
    assert len([line for line in lines if line.startswith("urllib3")]) == 2


def test_the_sdk_is_that_of_the_control_plane_where_the_python_can_have_it():
    own = importlib.metadata.version("digitalhub")
    assert f"digitalhub=={own}" in environment_requirements(OWN, [])
    named = environment_requirements(OWN, ["digitalhub==0.14.13"])
    assert f"digitalhub=={own}" not in named or own == "0.14.13"
    if own.startswith("0.15"):
        assert f"digitalhub=={own}" not in environment_requirements("3.9", [])


def test_the_runtime_itself_is_no_requirement():
    lines: list[str] = []
    named = environment_requirements(OWN, ["digitalhub_runtime_python[x]==0.15.2"], lines.append)
    assert named == environment_requirements(OWN, [])
    assert "left out" in lines[0]


def test_a_requirement_that_does_not_exist_is_named_with_the_reason(tmp_path):
    with pytest.raises(EnvironmentFault) as caught:
        ensure_environment(OWN, ["no-such-package-dhpy"], tmp_path, silent)
    assert caught.value.code == "environment/install"
    assert "no-such-package-dhpy was not found" in caught.value.message
    assert "\n" not in str(caught.value)
    assert not [p for p in (tmp_path / "environments").iterdir() if p.is_dir()]


def test_requirements_that_exclude_each_other_are_both_named(tmp_path):
    with pytest.raises(EnvironmentFault) as caught:
        ensure_environment(OWN, ["pandas==2.2.3", "numpy<1.19"], tmp_path, silent)
    assert "pandas" in caught.value.message and "numpy" in caught.value.message


def test_an_index_that_cannot_be_reached_is_named(tmp_path):
    environ = {
        **os.environ,
        "UV_DEFAULT_INDEX": "http://me:s3cret@127.0.0.1:9/simple",
        "UV_HTTP_RETRIES": "0",
        "UV_CACHE_DIR": str(tmp_path / "uv"),
    }
    lines: list[str] = []
    with pytest.raises(EnvironmentFault) as caught:
        ensure_environment(OWN, [], tmp_path, lines.append, environ)
    assert "127.0.0.1:9" in caught.value.message
    assert "s3cret" not in "".join([*lines, str(caught.value)])


def test_an_interpreter_that_is_absent_is_reported_with_those_that_there_are(tmp_path):
    with pytest.raises(EnvironmentFault) as caught:
        find_interpreter("3.99", os.environ)
    assert caught.value.code == "environment/interpreter"
    assert f"{OWN}" in caught.value.message and "3.99" in caught.value.message


def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "cache").write_text("a file")
    for call in (
        lambda: ensure_environment(OWN, [], tmp_path / "cache", silent),
        lambda: ensure_runtime(tmp_path / "cache"),
    ):
        with pytest.raises(EnvironmentFault) as caught:
            call()
        assert caught.value.code == "environment/cache"
        assert str(tmp_path / "cache") in caught.value.message


ENSURE = """
import sys
from pathlib import Path
from digitalhub_python_builder.environments import ensure_environment, ensure_runtime
ensure_runtime(Path(sys.argv[2]))
say = lambda line: print(line, flush=True)
print("python", ensure_environment(sys.argv[1], sys.argv[3:], Path(sys.argv[2]), say), flush=True)
"""


def ensure_in_process(cache: Path, *requirements: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ENSURE, OWN, str(cache), *requirements],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_callers_at_the_same_time_make_one_environment(tmp_path):
    processes = [ensure_in_process(tmp_path) for _ in range(4)]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert len({output.splitlines()[-1] for output in outputs}) == 1
    assert sum("Making an environment" in output for output in outputs) == 1
    assert len([p for p in (tmp_path / "environments").iterdir() if p.is_dir()]) == 1
    assert len(list(tmp_path.glob("runtime-*"))) == 1


def test_an_environment_that_was_interrupted_is_made_again(tmp_path):
    process = ensure_in_process(tmp_path)
    assert process.stdout.readline().startswith("Making an environment")
    folders = []
    while not folders:
        folders = list((tmp_path / "environments").glob("*/lib/python*/site-packages/*"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list((tmp_path / "environments").glob("*/.complete"))
    python = ensure_environment(OWN, [], tmp_path, silent)
    assert in_environment(python, tmp_path, "import pandas; print('whole')") == "whole"


def test_an_environment_whose_interpreter_is_gone_is_made_again(tmp_path):
    python = ensure_environment(OWN, [], tmp_path, silent)
    python.unlink()
    assert ensure_environment(OWN, [], tmp_path, silent).exists()


def test_what_was_not_used_for_long_is_removed_and_what_is_in_use_stays(tmp_path):
    python = ensure_environment(OWN, [], SHARED, silent)
    old, used, fresh = (tmp_path / "environments" / f"python3.9-{name}" for name in ("a", "b", "c"))
    for folder in (old, used, fresh):
        (folder / "bin").mkdir(parents=True)
        (folder / ".complete").write_text("{}")
    for folder in (old, used):
        os.utime(folder / ".complete", (1, 1))
    runtime = ensure_runtime(tmp_path)
    assert prune(tmp_path, 30, [used / "bin" / "python"]) == [old]
    assert not old.exists() and used.exists() and fresh.exists() and runtime.exists()
    os.utime(runtime, (1, 1))
    assert prune(tmp_path, 30, [used / "bin" / "python"]) == [runtime]
    # Whoever shares the cache sees from its time that it is in use.
    assert prune(tmp_path, 30) == []
    assert python.exists()


def test_the_copy_of_the_runtime_holds_its_code_and_nothing_compiled(tmp_path):
    runtime = ensure_runtime(tmp_path)
    assert (runtime / "digitalhub_runtime_python" / "lifecycle.py").exists()
    assert not list(runtime.rglob("*.pyc"))
    assert ensure_runtime(tmp_path) == runtime


def test_only_what_is_listed_is_inherited():
    environ = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "LC_ALL": "C",
        "https_proxy": "http://proxy",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_OFFLINE": "1",
        "DHPY_PASSWORD": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "PYTHONPATH": "/x",
        "VIRTUAL_ENV": "/x",
        "GITHUB_TOKEN": "x",
    }
    assert sorted(inherited_environment(environ)) == sorted(list(environ)[:6])


def test_pyenvs_shims_give_way_to_the_interpreters_they_stand_for(tmp_path):
    for version in ("3.9.18", "3.10.13", "2.7.18"):
        (tmp_path / "versions" / version / "bin").mkdir(parents=True)
    environ = {"PYENV_ROOT": str(tmp_path), "PATH": f"/a:{tmp_path}/shims:/b"}
    expected = f"/a:{tmp_path}/versions/3.10.13/bin:{tmp_path}/versions/3.9.18/bin:/b"
    assert uv_environment(environ)["PATH"] == expected


def test_no_uv_is_reported_with_how_to_get_it(tmp_path):
    code = (
        "import sys, os\n"
        "sys.modules['uv'] = None\n"
        "from digitalhub_python_builder.interpreters import find_uv\n"
        "os.environ['PATH'] = ''\n"
        "try: find_uv()\n"
        "except Exception as exc: print(exc.code, exc)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("environment/uv") and "pip install uv" in done.stdout


def test_a_run_is_warned_of_packages_that_do_not_work_together(tmp_path: Path) -> None:
    users = read_lines([])
    asked = Asked(environment_requirements(OWN, users.lines), users, {})
    folder = tmp_path / "environments" / environment_key(OWN, asked.key_lines())
    for name in ("bin", f"lib/python{OWN}/site-packages/numpy-2.0.2.dist-info", f"lib/python{OWN}/site-packages/scikit_learn-1.2.0.dist-info"):  # fmt: skip
        (folder / name).mkdir(parents=True)
    for name in ("bin/python", ".complete"):
        (folder / name).touch()
    lines: list[str] = []
    ensure_environment(OWN, [], tmp_path, lines.append)
    assert len(lines) == 1 and "scikit-learn 1.2.0 does not work with numpy 2.0.2" in lines[0]


def test_a_constraint_and_a_hash_hold_in_an_environment_too(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        ensure_environment(OWN, ["idna==3.7 --hash=sha256:" + "0" * 64], tmp_path, silent)
    assert "idna" in caught.value.message and "ash" in caught.value.message
    with pytest.raises(EnvironmentFault, match="idna"):
        ensure_environment(OWN, ["idna>=3.7", "-c idna<3.7"], tmp_path, silent)
