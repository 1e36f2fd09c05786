"""The walk in one process: runs that share it do not share anything else, and leave it as it was."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from walking import failure, results, run_entity, walk

from digitalhub_runtime_python import isolation
from digitalhub_runtime_python.ending import exit_status
from digitalhub_runtime_python.errors import ArgumentFault, PlatformFault, Terminated
from digitalhub_runtime_python.hub.offline import OfflineHub
from digitalhub_runtime_python.lifecycle import run_job
from digitalhub_runtime_python.settings import Settings
from digitalhub_runtime_python.sources import Fetched
from digitalhub_runtime_python.spec import RunSpec


def folder_of(root: Path, **files: str) -> Path:
    """A folder with these Python files; `_in_` in a name is a slash."""
    for name, text in files.items():
        place = root.joinpath(*reversed(name.split("_in_"))).with_suffix(".py")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


def source(folder: Path) -> dict[str, Any]:
    return {"source": {"source": str(folder)}}


def test_runs_one_after_the_other_share_no_module(tmp_path: Path) -> None:
    main = "import helper\ncalls = []\ndef f():\n    calls.append(1)\n    return [helper.NAME, len(calls)]"
    for name in ("first", "second"):
        code = folder_of(tmp_path / name, main=main, helper=f"NAME = {name!r}")
        assert results(walk(tmp_path, **source(code))) == {"output_0": [name, 1]}
    assert "helper" not in sys.modules
    assert "main" not in sys.modules


def test_runs_at_the_same_time_share_no_module(tmp_path: Path) -> None:
    main = """
import helper, threading, time
state = []
def f(n):
    state.append(n)
    time.sleep(0.1)
    return [helper.N, state, n]
"""

    def one(n: int) -> Any:
        code = folder_of(tmp_path / f"code{n}", main=main, helper=f"N = {n}")
        outcome = walk_parallel(
            tmp_path / f"w{n}", f"function_{n}", parameters={"n": n}, **source(code)
        )
        return results(outcome)["output_0"]

    path = list(sys.path)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(8))) == [[n, [n], n] for n in range(8)]
    assert sys.path == path
    assert not [n for n in sys.modules if n.startswith("function_") or n == "helper"]


def walk_parallel(folder: Path, module_name: str, **spec: Any) -> Any:
    return walk(folder, handler="main:f", module_name=module_name, **spec)


@pytest.mark.parametrize("package", [True, False], ids=["package", "folder"])
def test_packages_of_one_name_in_runs_at_the_same_time_are_not_shared(
    tmp_path: Path, package: bool
) -> None:
    barrier = threading.Barrier(2, timeout=30)

    def one(n: int) -> Any:
        files = {
            "main_in_pkg": "from pkg.other import N\nfrom . import other\ndef f(): return [N, other.N]",
            "other_in_pkg": f"N = {n}",
        }
        if package:
            files["__init___in_pkg"] = ""
        code = folder_of(tmp_path / f"code{n}", **files)
        barrier.wait()
        outcome = walk(tmp_path / f"w{n}", handler="pkg.main:f", **source(code))
        return results(outcome)["output_0"]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, range(2))) == [[0, 0], [1, 1]]
    assert not [n for n in sys.modules if n.partition(".")[0] == "pkg"]


def test_a_module_that_the_caller_has_imported_neither_hides_the_codes_own_nor_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = types.ModuleType("utils")
    mine.__file__ = str(folder_of(tmp_path / "caller", utils="NAME = 'callers'") / "utils.py")
    monkeypatch.setitem(sys.modules, "utils", mine)
    code = folder_of(
        tmp_path / "code", main="import utils\ndef f(): return utils.NAME", utils="NAME = 'own'"
    )
    assert results(walk(tmp_path, **source(code))) == {"output_0": "own"}
    assert sys.modules["utils"] is mine


def test_a_file_in_a_folder_finds_its_neighbours_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = types.ModuleType("beside")
    mine.__file__ = str(folder_of(tmp_path / "caller", beside="N = 'callers'") / "beside.py")
    monkeypatch.setitem(sys.modules, "beside", mine)
    code = folder_of(
        tmp_path / "code",
        job_in_src="import beside, top\ndef f(): return [beside.N, top.N]",
        beside_in_src="N = 'neighbour'",
        beside="N = 'at the top'",
        top="N = 'top'",
    )
    before = list(sys.path)
    outcome = walk(tmp_path, handler="src/job.py:f", **source(code))
    assert results(outcome) == {"output_0": ["neighbour", "top"]}
    assert sys.modules["beside"] is mine
    assert sys.path == before


def test_files_named_like_the_standard_library_take_nothing_from_the_caller(tmp_path: Path) -> None:
    code = folder_of(
        tmp_path / "code",
        main="def f(): return 1",
        logging="",
        json="",
        os="",
        threading="",
        site="",
        sys="",
    )
    before = {name: sys.modules[name] for name in ("logging", "json", "os", "threading", "sys")}
    assert results(walk(tmp_path, **source(code))) == {"output_0": 1}
    assert {name: sys.modules[name] for name in before} == before


def test_the_callers_main_module_is_left_alone(tmp_path: Path) -> None:
    before = sys.modules["__main__"]
    code = folder_of(tmp_path / "code", main="def f(): return 1", __main__="raise SystemExit(5)")
    assert results(walk(tmp_path, **source(code))) == {"output_0": 1}
    assert sys.modules["__main__"] is before


def test_sources_of_one_length_within_one_second_are_each_run(tmp_path: Path) -> None:
    for n in range(5):
        assert results(walk(tmp_path, f"def f(): return {n}")) == {"output_0": n}
        code = folder_of(
            tmp_path / "code", main="import helper\ndef f(): return helper.N", helper=f"N = {n}"
        )
        assert results(walk(tmp_path, **source(code))) == {"output_0": n}


def test_bytecode_that_lies_beside_the_code_is_not_run(tmp_path: Path) -> None:
    import py_compile

    code = folder_of(
        tmp_path / "code", main="import helper\ndef f(): return helper.N", helper="N = 1"
    )
    py_compile.compile(str(code / "helper.py"))
    times = (code / "helper.py").stat()
    (code / "helper.py").write_text("N = 2")
    os.utime(code / "helper.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert results(walk(tmp_path, **source(code))) == {"output_0": 2}


def test_classes_of_the_users_file_can_be_pickled_while_it_runs(tmp_path: Path) -> None:
    code = """
    import pickle

    class A:
        pass

    def f():
        return type(pickle.loads(pickle.dumps(A()))) is A
    """
    assert results(walk(tmp_path, code)) == {"output_0": True}
    assert results(walk(tmp_path, code, module_name="function_1")) == {"output_0": True}


def test_a_run_in_place_forgets_only_its_own_modules(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "project", main="import helper\ndef f(): return helper.N", helper="N = 1"
    )
    installed = folder_of(folder / "venv/lib/site-packages", installed="N = 2")
    sys.path.append(str(installed))
    try:
        import installed as module  # type: ignore[import-not-found]

        before = list(sys.path)
        hub = OfflineHub(RunSpec.from_entity(run_entity(handler="f")), tmp_path / "out")
        fetched = Fetched(folder, Path("main.py"), None)
        settings = Settings.from_env({"DHPY_WORKSPACE": str(tmp_path / "w")})
        outcome = run_job(hub, settings, code=fetched)
        assert results(outcome) == {"output_0": 1}
        assert sys.modules["installed"] is module
        assert "helper" not in sys.modules
        assert sys.path == before
    finally:
        sys.path.remove(str(installed))
        sys.modules.pop("installed", None)


def test_a_lazy_module_is_not_loaded_by_looking_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lazy(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("it would have been loaded")

    monkeypatch.setitem(sys.modules, "lazy_one", Lazy("lazy_one"))
    monkeypatch.setitem(sys.modules, "odd_one", 5)  # type: ignore[arg-type]
    code = "class A: pass\ndef f(): return A()"
    assert walk(tmp_path, code).exit_status == 0


def test_missing_names_are_found_before_inputs_are_fetched_and_init_runs(tmp_path: Path) -> None:
    code = """
    def init(context):
        raise AssertionError("never")

    def f(data, n):
        return n
    """
    spec = {"inputs": {"data": "/no/such/file"}, "source": {"init_function": "init"}}
    error = failure(walk(tmp_path, code, **spec))
    assert error["code"] == "arguments/mismatch"
    assert "'n' is missing" in error["message"]


def test_inputs_may_be_lists_and_dicts_of_keys(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    code = """
    from pathlib import Path
    from typing import Dict, List

    def f(parts: List[Path], named: Dict[str, Path], other):
        return [[p.read_text() for p in parts], {k: p.read_text() for k, p in named.items()}, other.name]
    """
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    inputs = {"parts": [a, b], "named": {"x": a}, "other": b}
    assert results(walk(tmp_path, code, inputs=inputs)) == {
        "output_0": [["a", "b"], {"x": "a"}, "b"]
    }


def test_an_input_that_cannot_be_read_names_its_argument(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("no parquet")
    code = "import pandas as pd\ndef f(rows: pd.DataFrame): return 1"
    error = failure(walk(tmp_path, code, inputs={"rows": str(tmp_path / "t.parquet")}))
    assert error["code"] == "arguments/input"
    assert error["message"].startswith("'rows': the input")
    assert "cannot be loaded as frame" in error["message"]


def test_an_input_that_the_function_does_not_take_is_unknown(tmp_path: Path) -> None:
    error = failure(walk(tmp_path, "def f(): return 1", inputs={"data": "x"}))
    assert "'data' is unknown" in error["message"]


def test_init_and_handler_see_one_context(tmp_path: Path) -> None:
    code = """
    seen = []

    def init(context):
        seen.append(context)

    def f(context, event):
        return [seen[0] is context, event.id, context.worker_id]
    """
    outcome = walk(tmp_path, code, source={"init_function": "init"})
    assert results(outcome) == {"output_0": [True, "run1", 0]}


def test_a_workspace_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    hub = OfflineHub(RunSpec.from_entity(run_entity("def f(): pass")), tmp_path)
    outcome = run_job(hub, Settings.from_env({"DHPY_WORKSPACE": str(tmp_path / "file" / "x")}))
    assert outcome.exit_status == 2
    assert hub.status["error"]["code"] == "usage/workspace"
    assert str(tmp_path / "file" / "x") in hub.status["error"]["message"]


def test_a_workspace_of_a_run_is_its_owners_alone(tmp_path: Path) -> None:
    code = "import os\ndef f(): return oct(os.stat(os.path.dirname(os.path.dirname(__file__))).st_mode)"
    assert results(walk(tmp_path, code)) == {"output_0": "0o40700"}


def test_the_revision_of_the_code_is_in_the_status(tmp_path: Path) -> None:
    outcome = walk(tmp_path, "def f(): pass")
    assert outcome.status["source"]["revision"].startswith("sha256:")


def test_a_coroutine_is_awaited_also_where_a_loop_runs_already(tmp_path: Path) -> None:
    import asyncio

    code = """
    import asyncio, contextvars

    async def f():
        await asyncio.sleep(0)
        return 1
    """

    async def notebook() -> Any:
        return walk(tmp_path, code)

    assert results(asyncio.run(notebook())) == {"output_0": 1}

    async def failing() -> Any:
        return walk(tmp_path, "async def f(): raise ValueError('x')")

    error = failure(asyncio.run(failing()))
    assert (error["type"], error["file"], error["line"]) == ("ValueError", "main.py", 1)


def test_async_code_sees_the_callers_context_variables(tmp_path: Path) -> None:
    import asyncio
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable_of_the_test")
    variable.set("set")
    code = """
    import contextvars

    async def f():
        found = {v.name: value for v, value in contextvars.copy_context().items()}
        return found.get("variable_of_the_test")
    """

    async def notebook() -> Any:
        return walk(tmp_path, code)

    assert results(walk(tmp_path, code)) == {"output_0": "set"}
    assert results(asyncio.run(notebook())) == {"output_0": "set"}


@pytest.mark.parametrize(
    "exc, status",
    [
        (ValueError(), 1),
        (SystemExit(3), 1),
        (ArgumentFault("arguments/mismatch", ""), 12),
        (PlatformFault("platform/none", ""), 14),
        (KeyboardInterrupt(), 130),
        (Terminated(15), 143),
        (Terminated(2), 130),
    ],
)
def test_every_exception_has_its_exit_status(exc: BaseException, status: int) -> None:
    assert exit_status(exc) == status


def test_an_exception_that_raises_when_it_is_looked_at_ends_the_run_like_any_other(
    tmp_path: Path,
) -> None:
    code = """
    class Rude(Exception):
        def __getattribute__(self, name):
            raise RuntimeError

    def f():
        raise Rude
    """
    error = failure(walk(tmp_path, code))
    assert error["type"] == "main.Rude"
    assert error["exit_status"] == 1


def test_faults_survive_being_sent_to_another_process() -> None:
    fault = ArgumentFault("arguments/input", "message", "hint")
    copy = pickle.loads(pickle.dumps(fault))
    assert (type(copy), copy.code, str(copy)) == (ArgumentFault, "arguments/input", "message hint")


def test_what_is_imported_late_is_still_the_runs_own(tmp_path: Path) -> None:
    main = "def f():\n    import late\n    return [late.N, late.__file__.endswith('late.py')]"
    code = folder_of(tmp_path / "code", main=main, late="N = 1")
    assert results(walk(tmp_path, **source(code))) == {"output_0": [1, True]}
    assert "late" not in sys.modules


def test_an_import_that_fails_leaves_no_half_module(tmp_path: Path) -> None:
    assert failure(walk(tmp_path, "x = 1\nraise ValueError"))["exit_status"] == 11
    assert "main" not in sys.modules


def test_the_users_modules_are_known_only_while_they_are_imported(tmp_path: Path) -> None:
    code = """
    from digitalhub_runtime_python import isolation

    def f():
        return [m.__name__ for m in isolation.own_modules()]
    """
    assert results(walk(tmp_path, code)) == {"output_0": ["main"]}
    assert isolation.own_modules() == []
