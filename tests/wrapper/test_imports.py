"""What is imported, and when: in a pod of 0.1 CPU each millisecond of it is ten of someone's waiting."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from moody import moody_platform
from walking import PATIENCE, job_environ, run_entity, run_process

LOADED = "import sys\n\ndef f({}):\n    return sorted(sys.modules)\n"

# What a run that asks for nothing must not import; measured with `python -X importtime`.
NOT_FOR_NOTHING = {
    "argparse", "asyncio", "concurrent.futures", "ctypes", "datetime", "decimal", "difflib", "email",
    "http", "importlib.metadata", "mimetypes", "multiprocessing", "platform", "queue", "random",
    "selectors", "socket", "ssl", "subprocess", "tempfile", "uuid", "xml", "zipfile",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    """The modules of a fresh interpreter that has run this code."""
    script = f"{code}\nimport sys; print('@', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return set(done.stdout.rpartition("@")[2].split())


def third_party(modules: set[str]) -> set[str]:
    """The top-level packages that are neither the standard library's nor the runtime's."""
    standard = modules_after("")
    names = {name.partition(".")[0] for name in modules - standard}
    known = getattr(sys, "stdlib_module_names", None)  # from 3.10 on
    if known is None:
        known = {n for n in names if "site-packages" not in _file(n)}
    return {n for n in names if n not in known and not n.startswith("_")} - {
        "digitalhub_runtime_python",
        "main",
    }


def _file(name: str) -> str:
    import importlib.util

    spec = importlib.util.find_spec(name)
    return str(spec.origin if spec else "")


def loaded_by_job(folder: Path, signature: str = "", **spec: Any) -> set[str]:
    done = run_process(folder, run_entity(LOADED.format(signature), **spec))
    assert done.exit_status == 0, done.stderr
    return set(done.status["results"]["output_0"])


def test_the_decorator_costs_the_standard_library_alone() -> None:
    assert third_party(modules_after("from digitalhub_runtime_python import handler")) == set()


def test_the_decorator_works_where_nothing_else_is_installed() -> None:
    forbidden = [
        "digitalhub", "pydantic", "pandas", "numpy", "nuclio_sdk", "msgspec", "urllib3", "requests",
        "click", "boto3", "obstore", "cloudpickle", "yaml",
    ]  # fmt: skip
    code = f"import sys\nsys.modules.update(dict.fromkeys({forbidden!r}))\n"
    code += "from digitalhub_runtime_python import handler\n"
    code += "@handler(outputs=['a'])\ndef f(): return 1\nassert f() == 1"
    modules_after(code)


def test_a_run_that_asks_for_nothing_imports_nothing(tmp_path: Path) -> None:
    modules = loaded_by_job(tmp_path)
    assert third_party(modules) == set()
    assert modules & NOT_FOR_NOTHING == set()


@pytest.mark.parametrize(
    "signature, spec, packages",
    [
        ("n: int = 1", {}, set()),
        ("n: int", {"parameters": {"n": 1}}, set()),
        ("n: float", {"parameters": {"n": 1}}, {"msgspec"}),
        ("context", {}, {"nuclio_sdk"}),
        ("event", {}, {"nuclio_sdk"}),
    ],
)
def test_a_run_imports_what_its_signature_asks_for(
    tmp_path: Path, signature: str, spec: dict[str, Any], packages: set[str]
) -> None:
    found = third_party(loaded_by_job(tmp_path, signature, **spec))
    # nuclio_sdk brings what it needs; it is the only one with dependencies of its own.
    assert packages <= found
    if "nuclio_sdk" not in packages:
        assert found - {"typing_extensions"} == packages  # msgspec takes it where it is installed
    assert found & {"digitalhub", "pandas", "pydantic"} == set()


def test_a_run_on_the_platform_imports_an_http_client_and_nothing_more(tmp_path: Path) -> None:
    with moody_platform(run_entity(LOADED.format(""))) as platform:
        done = subprocess.run(
            [sys.executable, "-m", "digitalhub_runtime_python", "job"],
            env={**job_environ(tmp_path), **platform.environ(tmp_path / "work")},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        modules = set(platform.run["status"]["results"]["output_0"])
    # urllib3 takes these two where they are installed.
    assert third_party(modules) - {"brotli", "zstandard", "backports"} == {"urllib3"}
    assert modules & {"asyncio", "multiprocessing", "uuid", "subprocess"} == set()


def test_the_reserved_names_of_the_package_are_loaded_when_they_are_asked_for() -> None:
    code = "import digitalhub_runtime_python as d; d.Context; d.Event; d.Response; dir(d)"
    assert "digitalhub" not in modules_after(code)
    code = "import digitalhub_runtime_python as d\ntry: d.nothing\nexcept AttributeError: pass"
    assert third_party(modules_after(code)) == set()


def test_the_modules_that_are_not_imported_for_nothing_exist() -> None:
    names = modules_after("import " + ", ".join(sorted(NOT_FOR_NOTHING)))
    assert names >= NOT_FOR_NOTHING
