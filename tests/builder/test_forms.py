"""Requirement files as projects have them: each is locked for the target, or refused with the reason and what to do.

Forms, not copies: tiny packages stand for large ones. What a file asks for and its lock lacks is a fault.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitalhub_python_builder import requirement_files, wheels
from digitalhub_python_builder.locks import lock
from digitalhub_runtime_python.errors import EnvironmentFault

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] not in ((3, 9), (3, 11)), reason="locks are the same from any host: the oldest and one more"
)  # fmt: skip
SIX_WHEEL = "https://files.pythonhosted.org/packages/b7/ce/149a00dd41f10bc29e5921b496af8b574d8413afcd5e30dfa0ed46c2cc5e/six-1.17.0-py2.py3-none-any.whl"
SIX_HASHES = """\
six==1.16.0 \\
    --hash=sha256:1e61c37477a1626458e36f7b1d82aa5c9b094fa4802892072e49de9c60c4c926 \\
    --hash=sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254  # via x
"""
LIB = {
    "lib/pyproject.toml": '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'
    '[project]\nname = "my-lib"\nversion = "1.0+local.1"\ndescription = "x"\ndependencies = ["six"]\n',
    "lib/my_lib.py": "",
}
PROJECT = '[project]\nname = "p"\nversion = "0"\nrequires-python = ">=3.9"\n'
POETRY_LOCK = """\
[[package]]
name = "six"
version = "1.16.0"
python-versions = ">=2.7"
files = [
    {file = "a.whl", hash = "sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254"},
    {file = "a.tar.gz", hash = "sha256:1e61c37477a1626458e36f7b1d82aa5c9b094fa4802892072e49de9c60c4c926"},
]
[metadata]
lock-version = "2.0"
"""
PIPFILE_LOCK = """{"_meta": {"requires": {"python_version": "3.11"}, "sources": [{"name": "pypi", "url": "https://pypi.org/simple", "verify_ssl": true}]},
"default": {"six": {"version": "==1.16.0", "markers": "python_version >= '2.7'", "hashes": ["sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254"]}},
"develop": {"idna": {"version": "==3.7"}}}"""


@dataclass(frozen=True)
class Form:
    name: str
    """Of the file that is passed."""
    files: dict[str, str | bytes]
    has: tuple[str, ...] = ()
    """Beginnings of lines of the lock."""
    refused: str = ""
    """In the message or its hint, where it is refused."""
    code: str = "environment/requirements-file"
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    python: str = "3.11"
    lacks: tuple[str, ...] = ()
    allow_sdist: bool = False
    repository: bool = False
    environ: dict[str, str] = field(default_factory=dict)


def txt(content: str | bytes, **options: Any) -> Form:
    return Form("requirements.txt", {"requirements.txt": content}, **options)


FORMS: dict[str, Form] = {
    "pins with comments and blank lines": txt("# all\n\nsix==1.16.0  # why\n\n   \nidna>=3,<3.8 ; python_version > '3'\n", has=("six==1.16.0", "idna==3.7")),
    "empty": txt("# nothing yet\n", has=("msgspec==",)),
    "pip-compile with hashes": txt(SIX_HASHES, has=("six==1.16.0",)),
    "hash that no file has": txt("six==1.16.0 --hash=sha256:" + "0" * 64 + "\n", refused="hash", code="environment/hash"),
    "byte order mark": txt(b"\xef\xbb\xbfsix==1.16.0\r\nidna==3.7\r\n", has=("six==1.16.0", "idna==3.7")),
    "PowerShell's UTF-16": txt("six==1.16.0\r\n".encode("utf-16"), has=("six==1.16.0",)),
    "Latin-1 with a cookie": txt("# -*- coding: latin-1 -*-\n# für alle\nsix==1.16.0\n".encode("latin-1"), has=("six==1.16.0",)),
    "Latin-1 without one": txt("# für alle\nsix\n".encode("latin-1"), refused="coding: latin-1"),
    "continued lines": txt("idna>=3, \\\n  <3.8\nsi\\\nx==1.16.0\n", has=("idna==3.7", "six==1.16.0")),
    "nested -r and -c": Form("requirements.txt", {"requirements.txt": "-r base/a.txt\n--constraint=limits.txt\n", "base/a.txt": "-r b.txt\nsix\n", "base/b.txt": "idna\n", "limits.txt": "idna<3.8\nsix==1.16.0\nunused<1\n"}, has=("idna==3.7", "six==1.16.0"), lacks=("unused",)),
    "-r of what is not there": txt("-r dev.txt\n", refused="dev.txt"),
    "extra index": txt("--extra-index-url https://pypi.org/simple/\nsix==1.16.0\n", has=("six==1.16.0",)),
    "index of one's own": txt("-i https://pypi.org/simple\n--only-binary :all:\n--prefer-binary\nsix==1.16.0\n", has=("six==1.16.0",)),
    "index with a password": txt("--index-url https://me:hidden@host.invalid/simple\nsix\n", refused="${GIT_TOKEN}", code="environment/credential"),
    "trusted host": txt("--trusted-host host\nsix\n", refused="--ca-bundle"),
    "no-binary": txt("--no-binary six\nsix\n", refused="--allow-sdist"),
    "editable folder": Form("requirements.txt", {"requirements.txt": "-e ./lib\n", **LIB}, has=("my-lib==1.0+local.1", "six==")),
    "editable of itself": Form("requirements.txt", {"requirements.txt": "-e .\nidna==3.7\n", "pyproject.toml": LIB["lib/pyproject.toml"], "my_lib.py": ""}, has=("my-lib==1.0+local.1", "idna==3.7")),
    "folder that is not a project": Form("requirements.txt", {"requirements.txt": "./lib\n", "lib/x.py": ""}, refused="pyproject.toml"),
    "URL of a wheel": txt(f"{SIX_WHEEL}\n", has=("six @ https://",)),
    "git by egg": txt("git+file://HERE/repo#egg=my-lib\n", has=("my-lib==1.0+local.1",), repository=True),
    "git with a token": txt("my-lib @ git+https://ghp_0123@host.invalid/lib.git\n", refused="${GIT_TOKEN}", code="environment/credential"),
    "git with a variable that is not set": txt("my-lib @ git+https://${NO_SUCH_TOKEN}@host.invalid/lib.git\n", refused="NO_SUCH_TOKEN", code="environment/variable"),
    "git with an option": txt("my-lib @ git+ssh://-oProxyCommand=x/lib.git\n", refused="option", code="environment/requirement"),
    "source distribution alone": txt("docopt==0.6.2\n", refused="--allow-sdist", code="environment/lock"),
    "source distribution allowed": txt("docopt==0.6.2\n", has=("docopt==0.6.2",), allow_sdist=True),
    "conda's export by pip freeze": txt("six @ file:///croot/six_1644875935023/work\n", refused="/croot/six_1644875935023", code="environment/lock"),
    "contradiction": txt("six==1.16.0\nsix==1.15.0\n", refused="requirements.txt, line 2", code="environment/lock"),
    "NUL bytes": txt("six\n".encode("utf-16-le"), refused="UTF-16"),
    "pyproject with extras and groups": Form("pyproject.toml", {"pyproject.toml": PROJECT + 'dependencies = ["six==1.16.0"]\n[project.optional-dependencies]\nfast = ["idna==3.7"]\n[dependency-groups]\ntest = ["toolz==0.12.1"]\n'}, has=("six==1.16.0", "idna==3.7", "toolz==0.12.1"), extras=("fast",), groups=("test",)),
    "requires-python": Form("pyproject.toml", {"pyproject.toml": PROJECT.replace("3.9", "3.12") + 'dependencies = ["six"]\n'}, refused="requires Python >=3.12", code="environment/python"),
    "tool.uv.sources": Form("pyproject.toml", {"pyproject.toml": PROJECT + 'dependencies = ["my-lib"]\n[tool.uv.sources]\nmy-lib = { path = "lib" }\n', **LIB}, has=("my-lib==1.0+local.1",)),
    "tool.uv.sources in a workspace": Form("pyproject.toml", {"pyproject.toml": PROJECT + 'dependencies = ["my-lib"]\n[tool.uv.sources]\nmy-lib = { workspace = true }\n[tool.uv.workspace]\nmembers = ["li*"]\n', **LIB}, has=("my-lib==1.0+local.1",)),
    "tool.uv.sources of an index": Form("pyproject.toml", {"pyproject.toml": PROJECT + 'dependencies = ["six<1.17"]\n[tool.uv.sources]\nsix = { index = "own" }\n[[tool.uv.index]]\nname = "own"\nurl = "https://pypi.org/simple"\nexplicit = true\n'}, has=("six==1.16.0",)),
    "dynamic by setuptools": Form("pyproject.toml", {"pyproject.toml": '[project]\nname = "p"\ndynamic = ["version", "dependencies"]\n[tool.setuptools.dynamic]\ndependencies = { file = ["req.in"] }\n', "req.in": "six==1.16.0\n"}, has=("six==1.16.0",)),
    "dynamic by a build": Form("pyproject.toml", {"pyproject.toml": '[project]\nname = "p"\nversion = "0"\ndynamic = ["dependencies"]\n'}, refused="uv lock"),
    "pyproject of tools alone": Form("pyproject.toml", {"pyproject.toml": "[tool.ruff]\nline-length = 88\n"}, refused="no [project] table"),
    "Poetry without a lock": Form("pyproject.toml", {"pyproject.toml": '[tool.poetry]\nname = "p"\n[tool.poetry.dependencies]\npython = "^3.9"\nsix = "~1.16"\nidna = { version = "^3.6,<3.8", extras = [] }\n'}, has=("six==1.16.0", "idna==3.7")),
    "poetry.lock": Form("poetry.lock", {"pyproject.toml": '[tool.poetry]\nname = "p"\n[tool.poetry.dependencies]\npython = "^3.9"\nsix = "^1"\n', "poetry.lock": POETRY_LOCK}, has=("six==1.16.0",)),
    "Pipfile.lock": Form("Pipfile.lock", {"Pipfile.lock": PIPFILE_LOCK}, has=("six==1.16.0", "idna==3.7"), groups=("dev",)),
    "Pipfile": Form("Pipfile", {"Pipfile": '[packages]\nsix = "*"\n'}, refused="pipenv lock"),
    "pdm.lock": Form("pdm.lock", {"pdm.lock": ""}, refused="pdm export"),
    "setup.py": Form("setup.py", {"setup.py": "from setuptools import setup\nsetup()\n"}, refused="uv pip compile setup.py"),
    "conda": Form("environment.yml", {"environment.yml": "name: x\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n  - numpy\n  - pip\n  - pip:\n    - six==1.16.0\n"}, has=("six==1.16.0",), lacks=("numpy",)),
    "conda without a pip part": Form("environment.yml", {"environment.yml": "dependencies: [python=3.11, gdal]\n"}, refused="gdal"),
    "script": Form("main.py", {"main.py": '# /// script\n# requires-python = ">=3.9"\n# dependencies = [\n#   "six==1.16.0",\n#   "my-lib",\n# ]\n# [tool.uv.sources]\n# my-lib = { path = "lib" }\n# ///\nimport six\n', **LIB}, has=("six==1.16.0", "my-lib==1.0+local.1")),
    "script without a block": Form("main.py", {"main.py": "import six\n"}, refused="# /// script"),
    "pylock.toml": Form("pylock.toml", {"pylock.toml": 'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "six"\nversion = "1.16.0"\nwheels = [{ url = "https://host.invalid/six-1.16.0-py2.py3-none-any.whl", hashes = { sha256 = "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254" } }]\n'}, has=("six==1.16.0",)),
    "JSON": Form("requirements.json", {"requirements.json": "{}"}, refused="Use requirements.txt"),
}  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", list(FORMS))
def test_a_file_locks_or_is_refused_with_what_to_do(name: str, tmp_path: Path, cache: Path) -> None:
    form = FORMS[name]
    for path, content in form.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.replace("HERE", str(tmp_path)).encode()  # fmt: skip
        (tmp_path / path).write_bytes(data)
    if form.repository:
        _repository(tmp_path / "repo")

    def locked() -> str:
        wanted = requirement_files.read(tmp_path / form.name, form.extras, form.groups)
        return lock(
            wanted, form.python, "linux/amd64", flavour="slim", cache=cache, allow_sdist=form.allow_sdist
        )  # fmt: skip

    if form.refused:
        with pytest.raises(EnvironmentFault) as caught:
            locked()
        said = f"{caught.value.message} {caught.value.hint}"
        assert form.refused in said and caught.value.code == form.code
        assert "hidden" not in said and "ghp_0123" not in said
        return
    found = locked()
    for start in form.has:
        assert any(line.startswith(start) for line in found.splitlines()), found
    for start in form.lacks:
        assert not any(line.startswith(start) for line in found.splitlines()), found
    own = wheels.needed(found, cache)
    assert ("my_lib" in " ".join(own)) == any(one.startswith("my-lib") for one in form.has)


def _repository(folder: Path) -> None:
    for path, content in LIB.items():
        (folder / path[4:]).parent.mkdir(parents=True, exist_ok=True)
        (folder / path[4:]).write_text(content)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@host.invalid"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], cwd=folder, check=True, capture_output=True)


def test_a_forked_lock_resolves_for_each_target(tmp_path: Path, cache: Path) -> None:
    project = PROJECT + 'dependencies = ["iniconfig==2.0.0; python_version < \'3.10\'", "iniconfig==2.1.0; python_version >= \'3.10\'"]\n'  # fmt: skip
    (tmp_path / "pyproject.toml").write_text(project)
    from digitalhub_python_builder.interpreters import find_uv

    subprocess.run([find_uv(), "lock", "--quiet"], cwd=tmp_path, check=True)
    wanted = requirement_files.read(tmp_path / "uv.lock")
    for python, version in (("3.9", "2.0.0"), ("3.10", "2.1.0"), ("3.12", "2.1.0")):
        found = lock(wanted, python, "linux/amd64", flavour="slim", cache=cache)
        assert f"iniconfig=={version}" in found


def test_a_contradiction_with_the_image_names_the_image_and_the_way_out(cache: Path) -> None:
    wanted = requirement_files.read_lines(["pandas==1.5.3", "numpy<2"])
    with pytest.raises(EnvironmentFault) as caught:
        lock(wanted, "3.11", "linux/amd64", flavour="full", cache=cache)
    assert caught.value.message.startswith("The full image needs pandas")
    assert "--flavour slim" in (caught.value.hint or "")


def test_the_documents_own_example_is_warned_of_with_its_cure(cache: Path) -> None:
    lines: list[str] = []
    wanted = requirement_files.read_lines(["numpy", "pandas>1, <3", "scikit-learn==1.2.0"])
    lock(wanted, "3.11", "linux/amd64", flavour="slim", cache=cache, log=lines.append)
    (line,) = [line for line in lines if line.startswith("warning")]
    assert "scikit-learn 1.2.0 does not work with numpy 2" in line and "'numpy<2'" in line
    lines.clear()
    cured = requirement_files.read_lines(["numpy<2", "pandas>1, <3", "scikit-learn==1.2.0"])
    lock(cured, "3.11", "linux/amd64", flavour="slim", cache=cache, log=lines.append)
    assert not any(line.startswith("warning") for line in lines)


def test_a_build_is_the_same_wheel_from_anywhere_and_leaves_the_folder_alone(tmp_path: Path) -> None:  # fmt: skip
    digests = set()
    for place in ("one", "two"):
        for path, content in LIB.items():
            (tmp_path / place / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place / path).write_text(content)
        before = sorted(p.name for p in (tmp_path / place).rglob("*"))
        wanted = requirement_files.read_lines([f"my-lib @ {(tmp_path / place / 'lib').as_uri()}"])
        found = lock(wanted, "3.11", "linux/amd64", flavour="slim", cache=tmp_path / f"c{place}")
        digests |= {path.parent.name for path in wheels.needed(found, tmp_path / f"c{place}").values()}  # fmt: skip
        assert sorted(p.name for p in (tmp_path / place).rglob("*")) == before
        for folder in [tmp_path / f"c{place}", *(p for p in (tmp_path / f"c{place}").rglob("*") if p.is_dir())]:  # fmt: skip
            assert folder.stat().st_mode & 0o077 == 0, folder
    assert len(digests) == 1


_PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["six", "==1.0", " ; python_version > '3'", "--hash=sha256:aa", "-r ", "-c ", "-e ", "./", "a.whl", "[x]", " @ ",
         "git+https://", "https://u:p@", "host/x", "#egg=a", "\\\n", "\n", "\r", "${A}", "'", '"', "--index-url ", "-i", "\0", "é",
         "[project]\n", 'dependencies = ["', '"]\n', "[tool.uv.sources]\n", "a = { git = 1 }\n", "[tool.poetry.dependencies]\n",
         'six = "^1"\n', "[[package]]\n", 'name = "a"\n', "{", "}", '"default": {', "# /// script\n", "# ///\n", "- pip:\n", "dependencies:\n"]
    ),
)  # fmt: skip


@given(
    st.lists(_PIECES, max_size=14).map("".join),
    st.sampled_from(["requirements.txt", "pyproject.toml", "pylock.toml", "poetry.lock", "Pipfile.lock", "environment.yml", "main.py"]),
    st.sampled_from(["utf-8", "utf-16", "latin-1"]),
)  # fmt: skip
def test_any_file_is_read_or_refused(text: str, name: str, encoding: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(text.encode(encoding, "replace"))
        try:
            wanted = requirement_files.read(Path(folder, name))
            assert requirement_files.read_lines(requirement_files.to_lines(wanted)).lines == wanted.lines  # fmt: skip
        except EnvironmentFault as fault:
            assert fault.hint and "u:p@" not in str(fault)
