"""Functions executed in the caller's process; the names say what users of the system before met."""

from __future__ import annotations

import pytest

from sdk.conftest import Script, user_code


def test_a_trivial_local_script_takes_at_most_eight_requests(script: Script) -> None:
    seen = script(
        """
        import digitalhub as dh
        dh.get_or_create_project(PROJECT)
        del sent[:]
        project = dh.get_or_create_project(PROJECT)
        function = project.new_function("f", "python", code="def g(): return 1", handler="g",
                                        python_version=VERSION)
        run = function.run("job", local_execution=True)
        first = list(sent)
        del sent[:]
        function.run("job", local_execution=True)
        again = list(sent)
        show(first=first, again=again, state=project.get_run(run.id).status.state, result=run.result("output_0"))
        """
    )
    assert len(seen.first) <= 8, seen.first
    assert [line.split()[0] for line in seen.again] == ["POST", "PUT"], seen.again
    assert (seen.state, seen.result) == ("COMPLETED", 1)


def test_a_local_run_raises_the_users_own_exception_and_keeps_what_happened(script: Script) -> None:
    seen = script(
        user_code(
            """
            class Mine(Exception): pass
            import builtins
            builtins.Mine = Mine
            function = new(code_src="work.py")
            try:
                function.run("job", local_execution=True, parameters={"n": 3})
            except Mine as exc:
                show(raised=str(exc), chained=repr(exc.__cause__))
            run, = function.list_runs()
            show(state=run.status.state, message=run.status.message, error=run.status.error, running=running())
            """
        ),
        files={"work.py": "def f(n):\n    raise Mine(f'no {n}')\n"},
    )
    assert seen.raised == "no 3"
    assert seen.chained == "None"
    assert seen.state == "ERROR"
    assert seen.message.endswith("Mine: no 3 (work.py, line 2)")
    assert seen.error["file"] == "work.py" and seen.error["line"] == 2
    assert seen.error["message"] == "no 3" and seen.error["type"].endswith("Mine")
    assert "raise Mine" in seen.error["traceback"]
    assert "digitalhub_runtime_python" not in seen.error["traceback"]
    assert seen.running is False


def test_four_parallel_local_runs_give_each_its_own_result_and_its_own_products(
    script: Script,
) -> None:
    seen = script(
        user_code(
            """
            from concurrent.futures import ThreadPoolExecutor
            def work(n):
                code = f'''
            import time
            STATE = []
            def f(project, run, n):
                STATE.append(n)
                time.sleep(0.2)
                with open(f"/tmp/{{run.id}}.txt", "w") as file:
                    file.write("x")
                artifact = project.log_artifact(name=f"a{{n}}", kind="artifact", source=file.name)
                import os; os.remove(file.name)
                time.sleep(0.2)
                return STATE, artifact.metadata.relationships[0]["dest"].rpartition(":")[2] == run.id
            '''
                import textwrap
                run = new(textwrap.dedent(code), name=f"f{n}").run("job", local_execution=True, parameters={"n": n})
                return run.results()
            work(9)
            with ThreadPoolExecutor(4) as pool:
                results = list(pool.map(work, range(4)))
            show(results=results, running=running())
            """
        )
    )
    assert [r["output_0"] for r in seen.results] == [[0], [1], [2], [3]]
    assert all(r["output_1"] for r in seen.results), "each product belongs to its own run"
    assert seen.running is False


def test_one_function_run_in_four_threads_gets_one_task(script: Script) -> None:
    seen = script(
        user_code(
            """
            from concurrent.futures import ThreadPoolExecutor
            function = new("def f(n): return n")
            with ThreadPoolExecutor(4) as pool:
                runs = list(pool.map(
                    lambda n: function.run("job", local_execution=True, parameters={"n": n}), range(4)))
            show(results=[r.result("output_0") for r in runs],
                 tasks=len(function._get_task_from_backend("python+job")))
            """
        )
    )
    assert seen.results == [0, 1, 2, 3]
    assert seen.tasks == 1


def test_two_sources_of_equal_length_within_a_second_do_not_run_as_one(script: Script) -> None:
    seen = script(
        user_code(
            """
            show(results=[local(f"def f(): return {n}", name="same").result("output_0") for n in range(1, 6)])
            """
        )
    )
    assert seen.results == [1, 2, 3, 4, 5]


def test_a_function_under_another_decorator_is_an_ordinary_one(script: Script) -> None:
    code = """
import functools
def twice(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return 2 * function(*args, **kwargs)
    return wrapper
@twice
def f(n):
    return n
"""
    seen = script(
        user_code(f"show(result=local({code!r}, run=dict(parameters={{'n': 4}})).results())")
    )
    assert seen.result == {"output_0": 8}


@pytest.mark.parametrize("handler", ["main:f", "main.py:f", "f"])
def test_every_form_of_a_handler_works_with_embeddeduser_code(script: Script, handler: str) -> None:
    seen = script(
        user_code(
            f"show(result=local(handler={handler!r}, code_src='main.py').result('output_0'))"
        ),
        files={"main.py": "def f(): return 'here'"},
    )
    assert seen.result == "here"


@pytest.mark.parametrize("handler", ["f", "main:f", "pkg.deep:g", "pkg/deep.py:g"])
def test_a_folder_is_uploaded_and_its_modules_import_each_other(
    script: Script, handler: str
) -> None:
    seen = script(
        user_code(
            f"""
            function = new(handler={handler!r}, code_src="code")
            show(result=function.run(local_execution=True).result("output_0"), source=function.spec.source,
                 again=function.run(local_execution=True).result("output_0"))
            """
        ),
        files={
            "code/main.py": "import helper\ndef f(): return helper.NAME",
            "code/helper.py": "NAME = 'helped'",
            "code/pkg/__init__.py": "",
            "code/pkg/deep.py": "from pkg import other\ndef g(): return other.NAME",
            "code/pkg/other.py": "NAME = 'helped'",
        },
    )
    assert seen.result == seen.again == "helped"
    assert seen.source["source"].startswith("zip+s3://")
    assert "base64" not in seen.source


def test_a_zip_is_uploaded_and_keeps_its_handler(script: Script) -> None:
    seen = script(
        user_code(
            """
            import zipfile
            with zipfile.ZipFile("bundle.zip", "w") as archive:
                archive.writestr("main.py", "def f(): return 'zipped'")
            function = new(code_src="bundle.zip")
            show(result=function.run(local_execution=True).result("output_0"), source=function.spec.source)
            """
        )
    )
    assert seen.result == "zipped"
    assert seen.source["handler"] == "f"
    assert seen.source["source"].startswith("zip+s3://") and seen.source["source"].endswith(
        "/bundle.zip"
    )


def test_a_tar_is_uploaded_too(script: Script) -> None:
    seen = script(
        user_code(
            """
            import pathlib, tarfile
            pathlib.Path("main.py").write_text("def f(): return 'from a tar'")
            with tarfile.open("bundle.tar.gz", "w:gz") as archive:
                archive.add("main.py")
            function = new(code_src="bundle.tar.gz")
            show(result=function.run(local_execution=True).result("output_0"), source=function.spec.source)
            """
        )
    )
    assert seen.result == "from a tar"
    assert seen.source["source"].endswith("/bundle.tar.gz")


def test_an_instance_of_the_functions_own_class_is_stored_and_comes_back(script: Script) -> None:
    code = "class Model:\n    weight = 3\ndef f():\n    return Model()\n"
    seen = script(
        user_code(
            f"""
            run = local({code!r})
            artifact = run.output("output_0")
            import pickle
            with open(artifact.as_file(), "rb") as file:
                value = pickle.load(file)
            show(weight=value.weight, left=_os.listdir("."), produced=artifact.metadata.relationships)
            """
        )
    )
    assert seen.weight == 3
    assert seen.left == [], "nothing is left in the caller's folder"
    assert seen.produced[0]["type"] == "produced_by"


@pytest.mark.parametrize("action", ["serve", "build"])
def test_local_execution_of_serve_and_build_is_refused_before_anything_exists(
    script: Script, action: str
) -> None:
    seen = script(
        user_code(
            f"""
            function = new("def f(): pass")
            del sent[:]
            try:
                function.run({action!r}, local_execution=True)
            except Exception as exc:
                show(said=str(exc), sent=sent)
            """
        )
    )
    assert "cannot be executed locally" in seen.said
    assert seen.sent == []


def test_a_key_of_nothing_ends_the_run_in_error_and_leaves_no_run_behind(script: Script) -> None:
    seen = script(
        user_code(
            """
            function = new("def f(di): return 1")
            try:
                function.run(local_execution=True, inputs={"di": f"store://{PROJECT}/dataitem/table/x:123"})
            except Exception as exc:
                show(said=str(exc))
            run, = function.list_runs()
            show(state=run.status.state, message=run.status.message, running=running())
            """
        )
    )
    assert "/dataitem/table/x:123" in seen.said
    assert seen.state == "ERROR"
    assert "/dataitem/table/x:123" in seen.message
    assert seen.running is False


def test_envs_secrets_and_the_init_function_count_in_a_local_run(script: Script) -> None:
    code = """
import os
def init(context, start, step=10):
    context.total = start + step
def f(context):
    return context.total, os.environ["A"], os.environ["PASSPHRASE"]
"""
    seen = script(
        user_code(
            f"""
            project.new_secret(name="PASSPHRASE", secret_value="open sesame")
            run = local({code!r}, init_function="init", run=dict(
                envs=[dict(name="A", value="b")], secrets=["PASSPHRASE"], init_parameters=dict(start=1)))
            show(results=run.results(), after=[_os.environ.get("A"), _os.environ.get("PASSPHRASE")])
            """
        )
    )
    assert seen.results == {"output_0": 11, "output_1": "b", "output_2": "open sesame"}
    assert seen.after == [None, None]


def test_a_local_run_says_where_this_process_is_not_what_the_function_asks_for(
    script: Script,
) -> None:
    seen = script(
        user_code(
            """
            other = "PYTHON3_9" if VERSION != "PYTHON3_9" else "PYTHON3_11"
            run = local("def f(): return 1", python_version=other, requirements=["no-such-thing>2", "requests"])
            show(state=run.status.state, requirements=run.spec.requirements)
            """
        )
    )
    assert seen.state == "COMPLETED"
    assert "asks for Python 3." in seen.stderr
    assert "no-such-thing>2 (not installed)" in seen.stderr
    assert seen.requirements == ["no-such-thing>2", "requests"], (
        "not pinned to what is installed here"
    )


def test_plain_values_are_results_and_none_of_them_needs_a_file(script: Script) -> None:
    code = """
from decimal import Decimal
import numpy as np
from digitalhub_runtime_python import handler
@handler(outputs=["none", "dict", "list", "int64", "decimal", "nan"])
def f():
    return None, {"a": [1]}, [1, "x"], np.int64(5), Decimal("1.5"), float("nan")
"""
    seen = script(
        user_code(
            f"""
            run = local({code!r})
            read = project.get_run(run.id)
            show(results=read.results(), outputs=read.outputs(), nan=str(read.result("nan")))
            """
        )
    )
    assert seen.outputs == {}
    assert seen.nan == "nan"
    assert {k: v for k, v in seen.results.items() if k != "nan"} == {
        "none": None,
        "dict": {"a": [1]},
        "list": [1, "x"],
        "int64": 5,
        "decimal": seen.results["decimal"],
    }
    assert float(seen.results["decimal"]) == 1.5


def test_async_and_generator_handlers_are_run_to_their_end(script: Script) -> None:
    seen = script(
        user_code(
            """
            show(
                awaited=local("async def f(): return 1").result("output_0"),
                listed=local("def f():\\n    yield 1\\n    yield 2").result("output_0"),
            )
            """
        )
    )
    assert seen.awaited == 1
    assert seen.listed == [1, 2]


def test_a_declared_kind_takes_a_frame(script: Script) -> None:
    code = """
import pandas as pd
from digitalhub_runtime_python import handler
@handler(outputs=[{"name": "t", "kind": "table"}])
def f():
    return pd.DataFrame({"a": [1, 2]})
"""
    seen = script(
        user_code(
            f"""
            run = local({code!r})
            table = project.get_dataitem("t")
            show(kind=table.kind, schema=table.spec.schema, preview=bool(table.status.preview),
                 state=table.status.state, values=run.output("t").as_df()["a"].tolist(), left=_os.listdir("."))
            """
        )
    )
    assert seen.kind == "table" and seen.state == "READY" and seen.preview
    assert seen.schema["fields"][0]["name"] == "a"
    assert seen.values["values"] == [1, 2]
    assert seen.left == []


def test_an_entity_that_is_returned_is_one_output(script: Script) -> None:
    code = """
import pandas as pd
def f(project):
    return project.log_dataitem(name="mine", kind="table", data=pd.DataFrame({"a": [1]}))
"""
    seen = script(user_code(f"show(outputs=local({code!r}).outputs(as_key=True))"))
    assert list(seen.outputs) == ["output_0"]
    assert "/dataitem/table/mine:" in seen.outputs["output_0"]


def test_inputs_come_as_entities_frames_and_paths(script: Script) -> None:
    code = """
from pathlib import Path
import pandas as pd
def f(entity, frame: pd.DataFrame, path: Path, many):
    return entity.name, int(frame["a"].sum()), path.suffix, [m.name for m in many]
"""
    seen = script(
        user_code(
            f"""
            import pandas as pd
            di = project.log_dataitem(name="t", kind="table", data=pd.DataFrame({{"a": [1, 2]}}))
            run = local({code!r}, run=dict(inputs=dict(entity=di, frame=di.key, path=di.key, many=[di.key])))
            show(results=list(run.results().values()), inputs=run.inputs()["entity"].name,
                 consumes=[r for r in run.metadata.relationships if r["type"] == "consumes"])
            """
        )
    )
    assert seen.results == ["t", 3, ".parquet", ["t"]]
    assert seen.inputs == "t"
    assert seen.consumes


def test_an_interrupt_ends_the_run_and_reaches_the_caller(script: Script) -> None:
    seen = script(
        user_code(
            """
            function = new("def f(): raise KeyboardInterrupt")
            try:
                function.run(local_execution=True)
            except KeyboardInterrupt:
                show(interrupted=True)
            run, = function.list_runs()
            show(state=run.status.state, message=run.status.message, running=running())
            """
        )
    )
    assert seen.interrupted and seen.state == "ERROR" and not seen.running
    assert "KeyboardInterrupt" in seen.message


def test_a_report_that_cannot_be_delivered_is_kept_on_disk(
    script: Script, tmp_path: object
) -> None:
    code = """
import requests
def gone(self, request, **kwargs):
    raise requests.ConnectionError("the network is down")
def f():
    requests.Session.send = gone
    return 42
"""
    seen = script(
        user_code(
            f"""
            try:
                local({code!r})
            except Exception as exc:
                show(said=str(exc), code=exc.code, kept=_json.load(open(str(exc).split("It is kept in ")[1].split(". ")[0])))
            """
        ),
        DHPY_REPORT_TIMEOUT="0.6",
        DHPY_WORKSPACE=str(tmp_path),
    )
    assert seen.code == "platform/report"
    assert seen.kept["status"]["results"] == {"output_0": 42}
    assert seen.kept["status"]["state"] == "COMPLETED"


def test_the_sdks_own_way_to_execute_a_run_works_too(script: Script) -> None:
    seen = script(
        user_code(
            """
            function = new("def f(n): return n")
            from digitalhub_runtime_python.sdk.compat import task_name
            task = function._get_or_create_task(task_name("python", "job"))
            run = task.run("python+job:run", save=False, local_execution=True, parameters={"n": 7})
            run.save()
            run.build()
            run.run()
            show(state=project.get_run(run.id).status.state, result=run.result("output_0"))
            """
        )
    )
    assert (seen.state, seen.result) == ("COMPLETED", 7)


def test_a_platform_that_insists_on_every_state_gets_every_state(script: Script) -> None:
    seen = script(
        user_code(
            """
            send = _requests.Session.send
            states = []
            def insist(self, request, **kwargs):
                # DigitalHub Core starts every run as CREATED, whatever is sent.
                if request.method == "POST" and request.url.endswith("/runs"):
                    request.prepare_body(request.body.replace('"RUNNING"', '"CREATED"'), None)
                if request.method == "PUT":
                    states.append(_json.loads(request.body)["status"]["state"])
                return send(self, request, **kwargs)
            _requests.Session.send = insist
            show(result=local("def f(): return 1").result("output_0"), states=states)
            """
        )
    )
    assert seen.result == 1
    assert seen.states == ["BUILT", "READY", "RUNNING", "COMPLETED"]


def test_what_a_function_logs_by_itself_is_its_product(script: Script) -> None:
    code = """
def f(project, run):
    from pathlib import Path
    Path("note.txt").write_text("x")
    project.log_artifact(name="note", kind="artifact", source="note.txt")
    return 1
"""
    seen = script(
        user_code(
            f"""
            from digitalhub_runtime_python.sdk.compat import SDK_14
            run = local({code!r})
            note = project.get_artifact("note")
            after = project.log_artifact(name="after", kind="artifact", source="note.txt")
            show(outputs=list(run.outputs(as_key=True)), sdk_14=SDK_14, key=f"{{run.key}}:{{run.id}}",
                 relations=note.metadata.relationships, after=after.metadata.relationships)
            """
        )
    )
    assert seen.relations == [{"type": "produced_by", "dest": seen.key}]
    assert not seen.after, "the run is over"
    assert seen.outputs == ([] if seen.sdk_14 else ["note"])


def test_what_fails_before_the_function_is_reached_does_not_leave_the_run_running(
    script: Script,
) -> None:
    seen = script(
        user_code(
            """
            function = new("def f(): return 1")
            try:
                function.run(local_execution=True)
            except Exception as exc:
                show(said=str(exc))
            run, = function.list_runs()
            show(state=run.status.state, message=run.status.message)
            """
        ),
        DHPY_DEADLINE="soon",
    )
    assert seen.state == "ERROR"
    assert "DHPY_DEADLINE" in seen.said and "DHPY_DEADLINE" in seen.message


def test_positional_arguments_mean_what_they_mean_in_the_installed_sdk(script: Script) -> None:
    seen = script(
        user_code(
            """
            from digitalhub_runtime_python.sdk.compat import SDK_14
            function = new("def f(): return 1")
            run = function.run("job", True, uuid="given-id", labels=["a"])
            show(sdk_14=SDK_14, local=run.spec.local_execution, state=run.status.state, id=run.id,
                 labels=run.metadata.labels)
            """
        )
    )
    assert seen.local is seen.sdk_14, "local_execution in 0.14, wait in 0.15"
    assert seen.state == "COMPLETED"
    assert (seen.id, seen.labels) == ("given-id", ["a"])
