"""How an error is described: never by raising, never with our own frames, never with a secret."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from walking import failure, walk

from digitalhub_runtime_python import error_report
from digitalhub_runtime_python.errors import PlatformFault, Terminated


class BrokenStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class NoText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class Recursive(Exception):
    def __str__(self) -> str:
        return str(self)


class BrokenAttributes(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError


class BrokenNotes(Exception):
    __notes__ = 5


class Meta(type):
    @property
    def __module__(cls) -> Any:  # type: ignore[override]
        return None


class OddModule(Exception):
    __module__ = None  # type: ignore[assignment]


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


def looping() -> BaseException:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return raised(first)


def long_chain() -> BaseException:
    exc: BaseException = ValueError("0")
    for n in range(3000):
        exc, exc.__context__ = ValueError(str(n)), exc
    return raised(exc)


WEIRD = [
    BrokenStr(), NoText(), Recursive(), BrokenAttributes(), BrokenNotes(), OddModule("x"),
    KeyError(), KeyError(KeyError()), ValueError("\ud800", b"\xff"), OSError(2, "no", "file"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), SyntaxError(), SyntaxError("x"),
    SyntaxError("x", ("f.py", None, None, None)), SyntaxError("x", ("f.py", 10**9, -5, "code")),
    SyntaxError("x", (5, "y", "z", 1)), SystemExit(), SystemExit(object()), StopIteration(1),
    KeyboardInterrupt(), GeneratorExit(), Terminated(15), RecursionError(), MemoryError(),
    AttributeError("x", name="y", obj=object()) if sys.version_info >= (3, 10) else AttributeError(),
    NameError("name 'x' is not defined"), ImportError("x", name="y", path="z"),
    PlatformFault("platform/none", "message", "hint"), Exception("x" * 100_000),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(WEIRD)))  # pytest itself stumbles over some of them
def test_no_exception_is_too_weird_to_be_described(number: int) -> None:
    error = error_report.describe(raised(WEIRD[number]), Path("/nowhere"))
    json.dumps(error)
    assert error["type"]
    assert isinstance(error["message"], str)
    assert len(error_report.summary(error)) < 1000


@pytest.mark.parametrize("make", [looping, long_chain])
def test_no_chain_of_exceptions_is_too_long_to_be_described(make: Any) -> None:
    error = error_report.describe(make())
    assert error["type"] == "ValueError"
    assert len(error["traceback"]) <= error_report.TRACEBACK_LIMIT + 1


@given(st.lists(st.text() | st.integers() | st.binary() | st.none(), max_size=3))
def test_whatever_an_exception_is_made_with_it_is_described(values: list[Any]) -> None:
    for cls in (ValueError, KeyError, OSError, ImportError):
        error = error_report.describe(raised(cls(*values)))
        json.dumps(error)
        assert error["type"].endswith(("Error", "ValueError"))


def test_the_description_is_what_a_user_looks_for(tmp_path: Path) -> None:
    code = """
    def check(n):
        assert n > 0, "n must be positive"

    def f():
        return check(-1)
    """
    error = failure(walk(tmp_path, code))
    assert error == {
        "type": "AssertionError",
        "message": "n must be positive",
        "file": "main.py",
        "line": 3,
        "traceback": error["traceback"],
        "exit_status": 1,
    }
    assert error_report.summary(error) == "AssertionError: n must be positive (main.py, line 3)"
    lines = error["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line for line in lines if line.startswith("  File")] == [
        '  File "main.py", line 6, in f',
        '  File "main.py", line 3, in check',
    ]


def test_frames_of_libraries_are_kept_and_the_line_is_the_users(tmp_path: Path) -> None:
    error = failure(walk(tmp_path, "import json\ndef f():\n    return json.loads('{')"))
    assert (error["file"], error["line"]) == ("main.py", 3)
    assert "decoder.py" in error["traceback"]


def test_a_callback_from_a_library_keeps_the_way_to_it(tmp_path: Path) -> None:
    code = """
    import functools

    def add(a, b):
        raise ValueError("no sum")

    def f():
        return functools.reduce(add, [1, 2])
    """
    error = failure(walk(tmp_path, code))
    assert "in f\n" in error["traceback"]
    assert "in add\n" in error["traceback"]


def test_what_a_hub_raises_in_the_users_code_is_our_fault_with_its_own_text(tmp_path: Path) -> None:
    error = failure(walk(tmp_path, "def f(context):\n    return context.project"))
    assert error["code"] == "platform/none"
    assert "traceback" not in error


def test_a_fault_of_ours_in_the_machinery_shows_our_frames(tmp_path: Path) -> None:
    exc = raised(ValueError("a bug"))
    error = error_report.describe(exc, tmp_path)
    assert "test_error_report.py" in error["traceback"]


def test_code_that_does_not_compile_has_its_place_from_the_compiler(tmp_path: Path) -> None:
    error = failure(walk(tmp_path, "x = 1\ndef f(:\n    pass"))
    assert (error["type"], error["file"], error["line"]) == ("SyntaxError", "main.py", 2)
    assert error_report.summary(error).startswith("SyntaxError: ")
    assert error_report.summary(error).endswith("(main.py, line 2)")
    assert "def f(:" in error["traceback"]
    assert str(tmp_path) not in error["traceback"]


@pytest.mark.parametrize(
    "error, expected",
    [
        ({"type": "ValueError", "message": "x"}, "ValueError: x"),
        ({"type": "ValueError", "message": ""}, "ValueError"),
        (
            {"type": "ValueError", "message": "a\nb", "file": "m.py", "line": 1},
            "ValueError: a (m.py, line 1)",
        ),
        ({"type": "ArgumentFault", "code": "arguments/mismatch", "message": "No."}, "No."),
        ({}, ""),
    ],
)
def test_a_summary_is_one_line(error: dict[str, Any], expected: str) -> None:
    assert error_report.summary(error) == expected


def test_every_secret_is_replaced_the_longest_first() -> None:
    error = {"message": "abcdefgh abcdef", "line": 3, "traceback": "x abcdef", "file": "short"}
    redacted = error_report.redact(error, {"abcdef", "abcdefgh", "short", ""})
    assert redacted == {"message": "••• •••", "line": 3, "traceback": "x •••", "file": "short"}


def test_a_secret_of_few_characters_is_not_looked_for() -> None:
    # It would be found in every other word: such a secret keeps nothing out.
    assert error_report.redact({"message": "a test"}, {"a", "test"}) == {"message": "a test"}


@pytest.mark.parametrize(
    "path, root, below",
    [
        ("/r/main.py", "/r", True),
        ("/r", "/r", True),
        ("/rr/main.py", "/r", False),
        ("/r/.venv/lib/python3.9/site-packages/x.py", "/r", False),
        ("/usr/lib/python3/dist-packages/x.py", "/usr", False),
        ("main.py", "/r", False),
    ],
)
def test_an_environment_in_the_users_folder_is_not_the_users_code(
    path: str, root: str, below: bool
) -> None:
    assert error_report.is_below(path, Path(root)) is below
    assert error_report.is_below(path, None) is False
