"""Every form of requirements becomes one list, locked for the target and not for this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from digitalhub_python_builder import requirement_files
from digitalhub_python_builder.interpreters import find_uv
from digitalhub_python_builder.locks import lock
from digitalhub_python_builder.requirement_files import Wanted
from digitalhub_runtime_python.errors import EnvironmentFault

PROJECT = """\
[project]
name = "demo"
version = "1"
requires-python = ">=3.9"
dependencies = ["six==1.16.0"]
[project.optional-dependencies]
fast = ["idna==3.7"]
all = ["demo[fast]", "certifi==2024.7.4"]
[dependency-groups]
test = ["toolz==0.12.1"]
dev = [{ include-group = "test" }, "click==8.1.7"]
"""


def _write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, "utf-8")
    return folder / name


def test_a_requirements_txt_is_read_with_what_it_includes(tmp_path: Path) -> None:
    _write(tmp_path, "more.txt", "idna>=3  # a comment\n")
    _write(tmp_path, "limits.txt", "six<2\n")
    file = _write(
        tmp_path,
        "requirements.txt",
        "six==1.16.0 \\\n    --hash=sha256:aa\n\n-r more.txt\n-c limits.txt\n",
    )
    assert requirement_files.read(file) == Wanted(
        ("six==1.16.0", "idna>=3"), ("six<2",), (("six", frozenset({"sha256:aa"})),)
    )


@pytest.mark.parametrize(
    "line",
    ["--index-url evil.invalid", "-e .", "--extra-index-url x", "./folder", "--trusted-host x"],
)
def test_a_requirements_txt_with_options_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(EnvironmentFault):
        requirement_files.read(_write(tmp_path, "requirements.txt", f"six\n{line}\n"))


def test_a_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="includes"):
        requirement_files.read(_write(tmp_path, "requirements.txt", "-r requirements.txt\n"))


def test_a_pyproject_gives_its_dependencies_extras_and_groups(tmp_path: Path) -> None:
    file = _write(tmp_path, "pyproject.toml", PROJECT)
    assert requirement_files.read(file).lines == ("six==1.16.0",)
    assert requirement_files.read(file, ["all"]).lines == (
        "six==1.16.0",
        "idna==3.7",
        "certifi==2024.7.4",
    )
    assert requirement_files.read(file, (), ["dev"]).lines == (
        "six==1.16.0",
        "toolz==0.12.1",
        "click==8.1.7",
    )
    with pytest.raises(EnvironmentFault, match="no extra 'slow'") as caught:
        requirement_files.read(file, ["slow"])
    assert "all, fast" in caught.value.hint
    with pytest.raises(EnvironmentFault, match="no group 'x'"):
        requirement_files.read(file, (), ["x"])


def test_a_uv_lock_is_taken_as_it_is(tmp_path: Path) -> None:
    file = _write(tmp_path, "pyproject.toml", PROJECT)
    subprocess.run([find_uv(), "lock", "--quiet"], cwd=tmp_path, check=True)
    wanted = requirement_files.read(file.with_name("uv.lock"), ["fast"], ["test"])
    assert {line.partition(" ")[0].partition(";")[0] for line in wanted.lines} == {
        "six==1.16.0",
        "idna==3.7",
        "toolz==0.12.1",
    }
    assert dict(wanted.hashes)["six"]
    with pytest.raises(EnvironmentFault, match=r"uv\.lock cannot be used"):
        requirement_files.read(file.with_name("uv.lock"), ["slow"])


def test_a_pylock_is_taken_as_it_is(tmp_path: Path) -> None:
    _write(tmp_path, "pyproject.toml", PROJECT)
    command = [find_uv(), "export", "--quiet", "--format", "pylock.toml", "--no-emit-project"]
    subprocess.run([*command, "-o", "pylock.toml"], cwd=tmp_path, check=True)
    wanted = requirement_files.read(tmp_path / "pylock.toml")
    assert "six==1.16.0" in wanted.lines
    locked = lock(wanted, "3.10", "linux/amd64", flavour="slim")
    assert "six==1.16.0" in locked


PYLOCK = """\
lock-version = "1.0"
created-by = "hand"
requires-python = ">=3.9"
extras = ["fast"]
dependency-groups = ["test", "dev"]
default-groups = ["dev"]
[[packages]]
name = "a"
vcs = { type = "git", url = "https://host.invalid/a.git", commit-id = "%s" }
[[packages]]
name = "numpy"
version = "2.0.2"
marker = "python_version < '3.10'"
wheels = [{ url = "https://host.invalid/numpy-2.0.2-py3-none-any.whl", hashes = { sha256 = "aa" } }]
[[packages]]
name = "numpy"
version = "2.2.6"
marker = "python_version >= '3.10'"
wheels = [{ url = "https://host.invalid/numpy-2.2.6-py3-none-any.whl", hashes = { sha256 = "bb" } }]
[[packages]]
name = "b"
version = "1"
marker = "'fast' in extras or 'test' in dependency_groups"
sdist = { url = "https://host.invalid/b-1.tar.gz", hashes = { sha256 = "cc" } }
[[packages]]
name = "own"
directory = { path = "." }
""" % ("c" * 40)


def test_a_pylock_with_a_repository_a_fork_extras_and_the_project_itself(tmp_path: Path) -> None:
    file = _write(tmp_path, "pylock.toml", PYLOCK)
    wanted = requirement_files.read(file)
    assert wanted.lines[0] == f"a @ git+https://host.invalid/a.git@{'c' * 40}"
    assert wanted.pythons == (("pylock.toml", ">=3.9"),)
    assert wanted.allowed["numpy"] == {"sha256:aa", "sha256:bb"}

    def included(*, extras: tuple[str, ...] = (), groups: tuple[str, ...] = ()) -> bool:
        line = next(x for x in requirement_files.read(file, extras, groups).lines if x.startswith("b"))  # fmt: skip
        marker = Requirement(line).marker
        return marker is not None and marker.evaluate()

    assert not included() and included(extras=("fast",)) and included(groups=("test",))
    with pytest.raises(EnvironmentFault, match="no extra 'slow'"):
        requirement_files.read(file, ["slow"])


def test_what_is_no_form_of_requirements_is_refused(tmp_path: Path) -> None:
    for name, text in [("Pipfile.lock", "{}"), ("pyproject.toml", "["), ("poetry.lock", "")]:
        with pytest.raises(EnvironmentFault) as caught:
            requirement_files.read(_write(tmp_path, name, text))
        assert caught.value.code == "environment/requirements-file"
    with pytest.raises(EnvironmentFault, match="no file"):
        requirement_files.read(tmp_path / "absent.txt")


def test_a_lock_is_for_the_target_python_and_has_hashes() -> None:
    # numpy 2.0.2 is the last one for 3.9, whichever Python runs this.
    old = lock(Wanted(("numpy",)), "3.9", "linux/amd64", flavour="slim")
    new = lock(Wanted(("numpy",)), "3.12", "linux/arm64", flavour="slim")
    assert "numpy==2.0.2 \\\n    --hash=sha256:" in old
    assert "numpy==2.0.2" not in new
    assert "msgspec==" in old, "the runtime's own dependencies are part of it"


def test_the_base_images_versions_are_kept_where_they_fit() -> None:
    preferred = "urllib3==2.2.0\nmsgspec==0.20.0\n"
    kept = lock(Wanted(("six",)), "3.11", "linux/amd64", flavour="slim", preferred=preferred)
    assert "urllib3==2.2.0 " in kept
    moved = lock(
        Wanted(("urllib3>=2.3,<2.4",)), "3.11", "linux/amd64", flavour="slim", preferred=preferred
    )
    assert "urllib3==2.3.0 " in moved


def test_a_requirement_without_a_wheel_for_the_target_is_refused_by_name() -> None:
    with pytest.raises(EnvironmentFault, match=r"scikit-learn.*1\.2\.0") as caught:
        lock(Wanted(("scikit-learn==1.2.0",)), "3.12", "linux/amd64")
    assert caught.value.code == "environment/lock"


def test_requirements_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(EnvironmentFault, match="six"):
        lock(Wanted(("six==1.16.0", "six==1.15.0")), "3.11", "linux/amd64", flavour="slim")


def test_a_hash_that_the_users_lock_does_not_allow_is_refused() -> None:
    wanted = Wanted(("six==1.16.0",), (), (("six", frozenset({"sha256:" + "0" * 64})),))
    with pytest.raises(EnvironmentFault, match=r"six==1\.16\.0") as caught:
        lock(wanted, "3.11", "linux/amd64", flavour="slim")
    assert caught.value.code == "environment/hash"


def test_a_kept_lock_is_the_answer_until_it_is_upgraded(tmp_path: Path) -> None:
    first = lock(Wanted(("six",)), "3.11", "linux/amd64", flavour="slim", cache=tmp_path)
    (file,) = (tmp_path / "locks").iterdir()
    file.write_text("six==1.0 --hash=sha256:00\n")
    kept = lock(Wanted(("six",)), "3.11", "linux/amd64", flavour="slim", cache=tmp_path)
    assert kept == "six==1.0 --hash=sha256:00\n"
    again = lock(
        Wanted(("six",)), "3.11", "linux/amd64", flavour="slim", cache=tmp_path, upgrade=True
    )
    assert again == first
