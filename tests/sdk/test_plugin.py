"""What the SDK sees when it loads the plug-in."""

from __future__ import annotations

from sdk.conftest import Script

KINDS = [
    "python",
    "python+job",
    "python+serve",
    "python+build",
    "python+job:run",
    "python+serve:run",
    "python+build:run",
]


def test_the_sdk_finds_the_plug_in_and_every_builder_can_be_made_twice(script: Script) -> None:
    seen = script(
        """
        from digitalhub.factory.utils import list_runtimes
        import digitalhub_runtime_python as plugin
        for _ in range(2):
            entities = [(kind, builder()) for kind, builder in plugin.entity_builders]
            runtimes = [(kind, builder()) for kind, builder in plugin.runtime_builders]
        show(
            found="digitalhub_runtime_python" in list_runtimes(),
            entities=[kind for kind, _ in entities],
            own=[builder.get_kind() for _, builder in entities],
            runtimes=[kind for kind, _ in runtimes],
            actions=entities[0][1].get_action_from_task_kind("python+serve"),
            kinds=sorted(entities[0][1].get_all_kinds()),
        )
        """
    )
    assert seen.found
    assert seen.entities == seen.own == KINDS
    assert seen.runtimes == [k for k in KINDS if k.endswith(":run")]
    assert seen.actions == "serve"
    assert seen.kinds == sorted(KINDS)


def test_the_plug_in_loads_nothing_heavy_beside_the_sdk(script: Script) -> None:
    seen = script(
        """
        import digitalhub
        before = {name.partition(".")[0] for name in _sys.modules}
        import digitalhub_runtime_python.sdk
        show(more=sorted({name.partition(".")[0] for name in _sys.modules} - before))
        """
    )
    heavy = {
        "pip",
        "pandas",
        "pyarrow",
        "polars",
        "numpy",
        "mlflow",
        "boto3",
        "nuclio_sdk",
        "obstore",
    }
    assert not heavy & set(seen.more)
    assert "packaging" not in seen.more, "a run's environment does not have it"


def test_the_handler_decorator_does_not_load_the_sdk(script: Script) -> None:
    seen = script(
        """
        from digitalhub_runtime_python import handler
        show(loaded=[m for m in ("digitalhub", "pydantic", "numpy", "pandas") if m in _sys.modules])
        """
    )
    assert seen.loaded == []


def test_a_plug_in_that_cannot_be_imported_says_why_every_time(script: Script) -> None:
    seen = script(
        """
        import digitalhub as dh
        dh.get_or_create_project(PROJECT)
        _sys.modules["digitalhub_runtime_python.sdk.kinds"] = None
        said = []
        for _ in range(2):
            try:
                dh.new_function(project=PROJECT, name="f", kind="python", code="def f(): pass",
                                handler="f", python_version=VERSION)
            except Exception as exc:
                chain = []
                while exc is not None:
                    chain.append(str(exc))
                    exc = exc.__cause__ or exc.__context__
                said.append(" <- ".join(chain))
        show(said=said)
        """
    )
    for chain in seen.said:
        assert "digitalhub_runtime_python.sdk.kinds" in chain


def test_the_class_is_where_the_documentation_names_it(script: Script) -> None:
    seen = script(
        """
        from digitalhub_runtime_python.entities.run.python_run.entity import RunPythonRun
        import digitalhub as dh
        project = dh.get_or_create_project(PROJECT)
        function = project.new_function("f", "python", code="def f(): return 1", handler="f",
                                        python_version=VERSION)
        run = function.run("job", local_execution=True)
        documented = ["output", "outputs", "result", "results", "invoke"]
        show(same=type(run) is RunPythonRun, missing=[n for n in documented if not getattr(RunPythonRun, n).__doc__])
        """
    )
    assert seen.same
    assert seen.missing == []


def test_functions_tasks_and_runs_are_listed_exported_and_imported(script: Script) -> None:
    seen = script(
        """
        import digitalhub as dh
        project = dh.get_or_create_project(PROJECT)
        function = project.new_function("f", "python", code="def f(): return 1", handler="f",
                                        python_version=VERSION, labels=["a"], description="d")
        function.run("job", local_execution=True)
        path = function.export()
        project.delete_function(function.key)
        imported = dh.import_function(path, reset_id=True)
        run = imported.run("job", local_execution=True)
        show(
            functions=[f.kind for f in project.list_functions()],
            runs=[r.kind for r in imported.list_runs()],
            tasks=len(imported._get_task_from_backend("python+job")),
            labels=imported.metadata.labels,
            result=run.result("output_0"),
            attributes=len(run._obj_attr),
        )
        """
    )
    assert seen.functions == ["python"]
    assert seen.runs == ["python+job:run"]
    assert seen.tasks == 1
    assert seen.labels == ["a"]
    assert seen.result == 1
    assert seen.attributes == 10, "the SDK's own classes grow one list with every entity"
