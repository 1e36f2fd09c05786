"""A function's code out of a cell, a module or a notebook: what it needs comes along, what cannot is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from digitalhub_runtime_python.errors import Fault
from sdk.conftest import Script, user_code

pytest.importorskip("digitalhub")

from digitalhub_runtime_python.sdk import cells

MODULE = '''
from __future__ import annotations
import math, xml.dom, xml.etree.ElementTree
import os.path as osp
from collections import OrderedDict as Ordered, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from digitalhub_runtime_python import handler
if TYPE_CHECKING:
    from decimal import Decimal
LIMIT = 10
NAMES = ["a", "b"]
UNUSED = object()
DATA = object()

@dataclass
class Row:
    """A row."""
    name: str
    tags: list = field(default_factory=list)

class Wide(Row):
    def size(self):
        return helper(len(self.name))

def helper(n):
    return math.floor(n) + LIMIT if n < 5 else again(n - 5)

def again(n):
    return helper(n)

@handler(outputs=["size"])
def good(n: int = LIMIT, d: Decimal = None, w: "Wide" = None) -> Ordered:
    local = [name for name in NAMES]
    text = xml.etree.ElementTree.tostring(xml.etree.ElementTree.Element("DATA"))
    return Wide("abc").size() + n + len(local) + len(text)

async def stream(n: int):
    for i in range(n):
        yield osp.join("a", str(i))

def bad():
    return DATA, undefined_name, nested

def outer():
    x = 1
    def nested():
        return x
    return nested

nested = outer()
'''


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """A module of the user's own, imported."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "own_helpers.py").write_text("def far():\n    return 1\n")
    text = f"{MODULE}\nimport own_helpers\nfrom own_helpers import far\ndef away():\n    return own_helpers.far() + far()\n"
    (folder / "users_own_module.py").write_text(text)
    sys.path.insert(0, str(folder))
    try:
        import users_own_module

        yield users_own_module
    finally:
        sys.path.remove(str(folder))
        for name in ("users_own_module", "own_helpers"):
            sys.modules.pop(name, None)


def executed(text: str, call: str, folder: Path) -> str:
    """What a call gives in a Python that has nothing but the text."""
    (folder / "alone.py").write_text(text)
    code = f"from alone import *\nprint({call})"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + text
    return done.stdout.strip()


def test_a_function_runs_alone_with_what_it_needs_and_nothing_else(user, tmp_path):
    text, name = cells.text_of(user.good)
    assert name == "good"
    for part in (
        "import math",
        "import xml.etree.ElementTree",
        "LIMIT = 10",
        "class Row",
        "Decimal",
    ):
        assert part in text
    for part in ("UNUSED", "DATA =", "deque", "osp"):
        assert part not in text
    assert executed(text, "good(1)", tmp_path) == str(user.good(1))


def test_functions_that_call_each_other_and_async_ones_come_along(user, tmp_path):
    text, _ = cells.text_of(user.helper)
    assert executed(text, "helper(12)", tmp_path) == str(user.helper(12))
    text, _ = cells.text_of(user.stream)
    assert "import os.path as osp" in text
    assert "async_generator" in executed(text, "stream(1)", tmp_path)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("bad", ["DATA, which is a object", "undefined_name, which is not defined", "nested"]),
        ("away", ["own_helpers, which comes from", "far, which comes from"]),
        ("nested", ["defined inside another function", "uses its x"]),
    ],
)
def test_what_cannot_be_taken_along_is_named_all_at_once(user, name, named):
    with pytest.raises(Fault) as raised:
        cells.text_of(getattr(user, name))
    assert raised.value.code == "source/func"
    assert [part for part in named if part not in raised.value.message] == []


@pytest.mark.parametrize("value", [lambda n: n, len, 5, object(), "text", str.upper])
def test_what_is_no_function_of_a_file_is_refused(value):
    with pytest.raises(Fault) as raised:
        cells.text_of(value)
    assert raised.value.code == "source/func"


def notebook(path: Path, *codes: str, **changes) -> Path:
    listed = [{"cell_type": "code", "source": code.splitlines(keepends=True)} for code in codes]
    text = {"cell_type": "markdown", "source": ["# %not code"]}
    path.write_text(json.dumps({"cells": [text, *listed], "nbformat": 4, **changes}))
    return path


def test_a_notebooks_code_cells_are_its_text(tmp_path):
    path = notebook(
        tmp_path / "a.ipynb", "import math", "", 'T = """\n%s\n"""', "def f(n):\n    return n\n"
    )
    text = cells.notebook_text(path)
    assert text == 'import math\n\nT = """\n%s\n"""\n\ndef f(n):\n    return n\n'


@pytest.mark.parametrize(
    ("code", "line"),
    [("x = 1\n%matplotlib inline", 2), ("!pip install x", 1), ("%%bash\nls", 1), ("x = !ls", 1), ("f?", 1)],
)  # fmt: skip
def test_a_magic_is_refused_by_cell_and_line(tmp_path, code, line):
    with pytest.raises(Fault) as raised:
        cells.notebook_text(notebook(tmp_path / "a.ipynb", "x = 1", code))
    assert f"code cell 2, line {line} " in raised.value.message


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"cells": 5}', '{"cells": [{}]}'])
def test_what_is_no_notebook_is_refused(tmp_path, content):
    (tmp_path / "a.ipynb").write_text(content)
    with pytest.raises(Fault) as raised:
        cells.notebook_text(tmp_path / "a.ipynb")
    assert raised.value.code == "source/notebook"


def test_a_function_of_a_cell_and_a_notebook_run_on_the_platform(script: Script) -> None:
    seen = script(
        user_code(
            """
            import json, linecache
            from pathlib import Path
            from digitalhub_runtime_python.errors import Fault
            # As IPython does it: the cell's text is known by a name that is not a file's.
            cell = "import math\\nBASE = 4\\ndef clean(n: int) -> float:\\n    return math.sqrt(n) + BASE\\n"
            linecache.cache["<cell 1>"] = (len(cell), None, cell.splitlines(True), "<cell 1>")
            exec(compile(cell, "<cell 1>", "exec"), globals())
            first = project.new_function(name="a", kind="python", func=clean)
            second = project.new_function(name="b", kind="python", code_src=clean)
            book = {"cells": [{"cell_type": "code", "source": cell}]}
            Path("book.ipynb").write_text(json.dumps(book))
            third = project.new_function(name="c", kind="python", code_src="book.ipynb", handler="clean", python_version=VERSION.replace("PYTHON", "").replace("_", "."))
            runs = [f.run("job", parameters={"n": 9}, wait=True) for f in (first, second, third)]
            try:
                project.new_function(name="d", kind="python", func=clean, handler="other")
            except Fault as exc:
                show(refused=exc.code)
            show(results=[r.results() for r in runs], source=third.spec.source["source"], short=repr(runs[0]), html=runs[0]._repr_html_(), function=repr(first))
            """
        )
    )
    assert seen.results == [{"output_0": 7.0}] * 3
    assert seen.source == "book.py" and seen.refused == "usage/code"
    assert "COMPLETED" in seen.short and len(seen.short) < 120 and seen.function.startswith("<")
    assert "<table" in seen.html and "output_0" in seen.html
