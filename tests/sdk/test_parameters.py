"""What a user may pass, and what is said of everything else. Nothing is sent for bad input."""

from __future__ import annotations

import base64
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from digitalhub_runtime_python.errors import EnvironmentFault, Fault, UsageFault
from digitalhub_runtime_python.sdk import checks, kinds, requirements, source
from sdk.conftest import Script

TASK: dict[str, Any] = {
    "node_selector": [{"key": "disk", "value": "ssd"}],
    "volumes": [
        {
            "volume_type": "persistent_volume_claim",
            "name": "v",
            "mount_path": "/data",
            "spec": {"size": "1Gi"},
        }
    ],
    "resources": {"cpu": "500m", "mem": "1Gi", "gpu": 1, "disk": "10Gi"},
    "affinity": {
        "node_affinity": {
            "preferred_during_scheduling_ignored_during_execution": [
                {
                    "weight": 1,
                    "preference": {"match_expressions": [{"key": "a", "operator": "Exists"}]},
                }
            ]
        }
    },
    "tolerations": [{"key": "a", "operator": "Exists", "toleration_seconds": 5}],
    "envs": [{"name": "A", "value": "1"}],
    "secrets": ["s"],
    "profile": "template",
    "runtime_class": "nvidia",
    "priority_class": "high",
}
ACTION: dict[str, dict[str, Any]] = {
    "job": {"backoff_limit": 3},
    "serve": {"replicas": 2, "service_type": "NodePort", "service_name": "name"},
    "build": {"instructions": ["apt-get install -y git"]},
}
RUN: dict[str, Any] = {
    "inputs": {"di": "store://p/dataitem/table/d:1"},
    "parameters": {"n": 1, "none": None},
    "init_parameters": {"m": [1.5, "x"]},
}


@pytest.mark.parametrize("action", ACTION)
def test_every_parameter_of_an_action_is_kept_as_it_was_given(action: str) -> None:
    given = {**TASK, **ACTION[action], **RUN}
    assert {**checks.check_run(action, given), "local_execution": False} == {
        **given,
        "local_execution": False,
    }
    assert set(given) | {"local_execution"} == set(kinds.run_parameters(action))


def test_the_platform_gets_every_parameter_and_gives_it_back(script: Script) -> None:
    seen = script(
        f"""
        import digitalhub as dh
        project = dh.get_or_create_project(PROJECT)
        function = project.new_function("f", "python", code="def f(**_): return 1", handler="f",
                                        python_version=VERSION)
        task, action = {TASK!r}, {ACTION!r}
        run = { {**RUN, "inputs": {}}!r}
        local = function.run("job", local_execution=True, **{{**task, "secrets": []}}, **action["job"], **run)
        show(job=project.get_run(local.id).spec.to_dict())
        for name in ("serve", "build"):
            started = function.run(name, **task, **action[name], **run)
            show(**{{name: project.get_run(started.id).spec.to_dict()}})
        """
    )
    for action, spec in seen.values.items():
        expected = {**TASK, **ACTION[action], **RUN, "inputs": {}}
        if action == "job":
            expected["secrets"] = []
        assert {k: spec.get(k) for k in expected} == expected


@pytest.mark.parametrize(
    ("action", "given", "said"),
    [
        ("job", {"recources": {}}, "'recources' (did you mean 'resources'?)"),
        ("job", {"replicas": 2}, "'replicas', which belongs to the action 'serve'"),
        ("serve", {"backoff_limit": 2}, "'backoff_limit', which belongs to the action 'job'"),
        ("job", {"image": "x"}, "'image', which belongs to new_function()"),
        ("job", {"handler": "x"}, "'handler', which belongs to new_function()"),
        ("job", {"xyz": 1, "abc": 2}, "'xyz'; 'abc'"),
        ("job", {"resources": {"memory": "1Gi"}}, "resources.memory is not known"),
        ("job", {"resources": {"cpu": "a lot"}}, "resources.cpu"),
        ("job", {"envs": {"A": "1"}}, "envs: input should be a valid list"),
        ("job", {"envs": [{"name": "A"}]}, "envs.0.value is missing"),
        ("job", {"envs": [{"name": "A", "value": 1}]}, "envs.0.value"),
        ("job", {"secrets": "s"}, "secrets"),
        ("job", {"node_selector": {"a": "b"}}, "node_selector"),
        ("job", {"tolerations": [{"kay": "b"}]}, "tolerations.0.kay is not known"),
        ("job", {"affinity": {"node": {}}}, "affinity.node is not known"),
        (
            "job",
            {"volumes": [{"name": "v", "mount_path": "/x", "volume_type": "usb"}]},
            "volume_type",
        ),
        ("job", {"backoff_limit": -1}, "backoff_limit"),
        ("serve", {"replicas": 0}, "replicas"),
        ("serve", {"service_type": "Ingress"}, "service_type"),
        ("build", {"instructions": "apt-get"}, "instructions"),
        ("job", {"parameters": [1]}, "parameters"),
        (
            "job",
            {"parameters": {"x": object()}},
            "parameters['x'] is not a JSON value, but a object",
        ),
        (
            "job",
            {"init_parameters": {"x": [{"y": {1}}]}},
            "init_parameters['x'] is not a JSON value",
        ),
        (
            "job",
            {"inputs": {"di": "table"}},
            "The input 'di' is 'table', which is not an entity key",
        ),
        ("job", {"inputs": {"di": 3}}, "The input 'di' is a int"),
        ("serve", {"local_execution": True}, "'serve' cannot be executed locally"),
        ("build", {"local_execution": True}, "'build' cannot be executed locally"),
    ],
)
def test_a_bad_parameter_of_a_run_is_named(action: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(Fault) as caught:
        checks.check_run(action, given)
    assert said in caught.value.message
    assert caught.value.hint


def test_no_message_shows_the_value_of_an_environment_variable() -> None:
    with pytest.raises(UsageFault) as caught:
        checks.check_run("job", {"envs": [{"name": "TOKEN", "value": ["hunter2"]}]})
    assert "hunter2" not in str(caught.value)


def test_an_entity_among_the_inputs_stands_for_its_key() -> None:
    class Entity:
        key = "store://p/dataitem/table/d:1"

    values = checks.check_run("job", {"inputs": {"one": Entity(), "many": [Entity(), Entity.key]}})
    assert values["inputs"] == {"one": Entity.key, "many": [Entity.key, Entity.key]}


def test_an_unknown_action_lists_those_that_exist() -> None:
    with pytest.raises(UsageFault, match=r"no action 'jobs'.*job, serve, build"):
        checks.check_action("jobs")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"python_version": "PYTHON3_8"}, "PYTHON3_9, PYTHON3_10, PYTHON3_11"),
        ({"python_version": None}, "PYTHON3_9"),
        ({"handler": None}, "The handler is missing"),
        ({"handler": "my function"}, "names no function"),
        ({"init_function": "1x"}, "The init_function '1x' names no function"),
        ({"handler": "g"}, "main.py has no function 'g'. It defines f."),
        ({"handler": "ff"}, "Did you mean 'f'?"),
        ({"init_function": "setup"}, "no function 'setup'"),
        ({"code": "def f(:\n"}, "main.py is not valid Python"),
        ({"code": None}, "The function has no code"),
        ({"base64": "QUJD"}, "Both code and base64"),
        ({"code": None, "base64": "%%%"}, "base64 does not hold text"),
        ({"code": None, "code_src": "mian.py"}, "There is no code at mian.py"),
        ({"code": None, "code_src": "ftp://host/x.py"}, "scheme 'ftp'"),
        ({"requirements": ["pandas >> 2"]}, "'pandas >> 2' is not a requirement"),
        ({"requirements": [1]}, "The requirement 1 is a int"),
        ({"requirements": "nothing.txt"}, "no requirements file nothing.txt"),
        ({"name": "a b"}, "'a b' cannot be the name"),
        ({"name": "a/b"}, "'a/b' cannot be the name"),
        ({"requirement": ["x"]}, "'requirement' (did you mean 'requirements'?)"),
        ({"parameters": {}}, "'parameters', which belongs to function.run()"),
        ({"image": 3}, "image"),
    ],
)
def test_a_bad_parameter_of_a_function_is_named(
    given: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    from digitalhub_runtime_python import entity_builders

    builder = dict(entity_builders)["python"]()
    parameters = {
        "name": "f",
        "code": "def f(): pass",
        "handler": "f",
        "python_version": "PYTHON3_9",
        **given,
    }
    with pytest.raises(Fault) as caught:
        builder.build(kind="python", project="p", **parameters)
    assert said in str(caught.value)


def test_bad_input_sends_nothing_to_the_platform(script: Script) -> None:
    seen = script(
        """
        import digitalhub as dh
        project = dh.get_or_create_project(PROJECT)
        good = dict(name="f", kind="python", code="def f(): pass", handler="f", python_version=VERSION)
        function = dh.new_function(project=PROJECT, **good)
        del sent[:]
        said = []
        def refused(call, **kwargs):
            try:
                call(**kwargs)
            except Exception as exc:
                said.append(type(exc).__name__)
        for bad in (dict(python_version="PYTHON2_7"), dict(handler="g"), dict(code="def"),
                    dict(name="a b"), dict(requirements=["=="]), dict(code=None, code_src="x.py")):
            refused(dh.new_function, project=PROJECT, **{**good, **bad})
        for bad in (dict(action="serve", local_execution=True), dict(action="build", local_execution=True),
                    dict(action="jobs"), dict(resorces={}), dict(inputs={"x": "no key"}),
                    dict(parameters={"x": object()})):
            refused(function.run, **bad)
        show(said=said, sent=sent, runs=len(function.list_runs()))
        """
    )
    assert len(seen.said) == 12
    changes = [s for s in seen.sent if "/runs?" not in s and s != "GET /.well-known/configuration"]
    assert not changes, "only the platform's version and its runs are asked for"
    assert seen.runs == 0


def test_what_a_newer_platform_stores_can_be_read_and_is_kept(script: Script) -> None:
    seen = script(
        """
        import digitalhub as dh
        project = dh.get_or_create_project(PROJECT)
        function = dh.new_function(project=PROJECT, name="f", kind="python", code="def f(): pass",
                                   handler="f", python_version=VERSION)
        from digitalhub.factory.entity import entity_factory
        stored = function.to_dict()
        stored["spec"].update(python_version="PYTHON3_99", gpu_class={"a": 1})
        stored["spec"]["source"]["checksum"] = "x"
        read = entity_factory.build_entity_from_dict(stored).to_dict()["spec"]
        show(function=read)
        run = function.run(local_execution=True).to_dict()
        run["spec"].update(replicas="many", fancy=1)
        show(run=entity_factory.build_entity_from_dict(run).to_dict()["spec"])
        """
    )
    assert seen.function["python_version"] == "PYTHON3_99"
    assert seen.function["gpu_class"] == {"a": 1}
    assert seen.function["source"]["checksum"] == "x"
    assert (seen.run["replicas"], seen.run["fancy"]) == ("many", 1)


# --- code and requirements -----------------------------------------------------------------------


def test_a_file_is_embedded_with_its_name_and_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("src").mkdir()
    Path("src/code.py").write_bytes("def f():\r\n    return 'é'\r\n".encode())
    code = source.read_code({"code_src": "src/code.py", "handler": "f", "lang": "python"})
    assert code.source == {
        "handler": "f",
        "lang": "python",
        "source": "src/code.py",
        "base64": base64.b64encode(Path("src/code.py").read_bytes()).decode(),
    }
    assert (
        source.read_code({"code_src": tmp_path / "src/code.py", "handler": "f"}).source["source"]
        == "code.py"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "git+https://host/org/repo#main",
        "https://host/code.py",
        "zip+https://host/code.zip",
        "s3://bucket/code.py",
        "zip+s3://bucket/code.zip",
    ],
)
def test_a_uri_stays_what_it_is(uri: str) -> None:
    assert source.read_code({"code_src": uri, "handler": "main:f"}).source["source"] == uri


def test_a_password_in_a_uri_is_warned_of_and_not_shown(script: Script) -> None:
    seen = script(
        """
        from digitalhub_runtime_python.sdk import source
        code = source.read_code({"code_src": "git+https://me:hunter2@host/org/repo", "handler": "main:f"})
        show(source=code.source["source"])
        """
    )
    assert seen.source == "git+https://me:hunter2@host/org/repo"
    assert "holds a password" in seen.stderr and "hunter2" not in seen.stderr


def test_a_near_file_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("main.py").write_text("def f(): pass")
    with pytest.raises(Fault, match=r"There is no code at mian.py. Did you mean 'main.py'"):
        source.read_code({"code_src": "mian.py", "handler": "f"})


@pytest.mark.parametrize(
    "name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz", "X.TAR.GZ"]
)
def test_an_archive_is_taken_by_its_name_and_checked_by_its_content(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    kind = name.lower().rpartition(".")[2]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("main.py", "def f(): ...\n")
    else:
        (tmp_path / "main.py").write_text("def f(): ...\n")
        with tarfile.open(path, f"w:{ {'tar': '', 'tgz': 'gz'}.get(kind, kind) }") as tar:
            tar.add(tmp_path / "main.py", "main.py")
    assert source.read_code({"code_src": str(path), "handler": "main:f"}).upload == path
    for spoiled in (b"neither", b"", path.read_bytes()[:20]):
        path.write_bytes(spoiled)
        with pytest.raises(Fault, match=re.escape(name)) as caught:
            source.read_code({"code_src": str(path), "handler": "main:f"})
        assert caught.value.code == "source/bad-archive"


def test_what_is_neither_python_nor_an_archive_nor_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("{}")
    with pytest.raises(
        Fault, match=r"neither a \.py file, an \.ipynb, an archive \(\.zip, .*\) nor a folder"
    ):
        source.read_code({"code_src": str(tmp_path / "x.txt"), "handler": "f"})


@pytest.mark.parametrize(
    "code",
    [
        "from other import *",
        "globals()['f'] = lambda: 1",
        "exec('def f(): pass')",
        "def __getattr__(name): return lambda: 1",
        "if True:\n    def f(): pass",
        "try:\n    from a import f\nexcept ImportError:\n    f = None",
        "f = lambda: 1",
        "import a.b as f",
        "class f:\n    def __call__(self): pass",
        "for f in [1]: pass",
    ],
)
def test_a_handler_that_may_exist_is_not_refused(code: str) -> None:
    assert source.read_code({"code": code, "handler": "f"}).source["base64"]


def test_a_placeholder_is_taken_with_a_warning(script: Script) -> None:
    seen = script(
        """
        from digitalhub_runtime_python.sdk import source
        show(source=source.read_code({"code": "placeholder", "handler": "placeholder"}).source)
        """
    )
    assert seen.source["handler"] == "placeholder"
    assert "the word 'placeholder' alone" in seen.stderr


def test_code_for_a_newer_python_than_this_one_is_not_judged() -> None:
    code = "def f(:\n"
    assert source.read_code({"code": code, "handler": "f"}, "PYTHON3_14").source["base64"]


def test_the_same_folder_gives_the_same_archive_without_what_is_ignored(tmp_path: Path) -> None:
    import zipfile

    folder = tmp_path / "code"
    for name in (
        "main.py",
        "pkg/__init__.py",
        "__pycache__/main.pyc",
        ".git/config",
        "data/big.csv",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".dhignore").write_text("data/\n")
    first = source.pack(folder, tmp_path / "a.zip").read_bytes()
    (folder / "main.py").touch()
    assert source.pack(folder, tmp_path / "b.zip").read_bytes() == first
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == ["main.py", "pkg/__init__.py"]


def test_requirements_are_read_from_files_and_never_pinned(tmp_path: Path) -> None:
    text = tmp_path / "requirements.txt"
    text.write_text("# comment\npandas\nnumpy>=1,<3  # why\n\ngit+https://host/x.git@v1#egg=x\n")
    assert requirements.read_requirements(text) == [
        "pandas",
        "numpy>=1,<3",
        "git+https://host/x.git@v1#egg=x",
    ]
    assert requirements.read_requirements(["pandas", "digitalhub"]) == ["pandas", "digitalhub"]
    text.write_text("-r other.txt\n")
    with pytest.raises(EnvironmentFault, match=r"'--requirement other.txt' cannot be used"):
        requirements.read_requirements(str(text))


def test_a_file_means_what_it_says_when_it_is_stored_with_the_function(tmp_path: Path) -> None:
    (tmp_path / "limits.txt").write_text("idna<3.8\n")
    (tmp_path / "more.txt").write_text("six==1.16.0 --hash=sha256:" + "a" * 64 + "\n")
    text = tmp_path / "requirements.txt"
    text.write_bytes("-r more.txt\n-c limits.txt\nidna\n--extra-index-url https://host/simple\n".encode("utf-16"))  # fmt: skip
    lines = requirements.read_requirements(text)
    assert lines == [
        "--extra-index-url https://host/simple",
        "six==1.16.0 --hash=sha256:" + "a" * 64,
        "idna",
        "-c idna<3.8",
    ]
    assert requirements.read_requirements(lines) == lines
    assert requirements.unmet(["-c idna<3", "no-such-thing --hash=sha256:00"]) == ["no-such-thing --hash=sha256:00 (not installed)"]  # fmt: skip
    with pytest.raises(EnvironmentFault) as caught:
        requirements.read_requirements(["mylib @ git+https://me:hidden@host/mylib.git"])
    assert caught.value.code == "environment/credential"
    assert "hidden" not in str(caught.value) + str(caught.value.hint)


def test_requirements_are_read_from_a_pyproject(tmp_path: Path) -> None:
    pytest.importorskip("tomllib" if __import__("sys").version_info >= (3, 11) else "tomli")
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\ndependencies = ["pandas>2", "numpy"]\n')
    assert requirements.read_requirements(str(file)) == ["pandas>2", "numpy"]


def test_requirements_that_this_process_does_not_meet_are_named() -> None:
    problems = requirements.unmet(
        ["pytest>1", "pytest<1", "no-such-thing", "x; python_version < '3'"]
    )
    assert [p.split(" (")[0] for p in problems] == ["pytest<1", "no-such-thing"]
