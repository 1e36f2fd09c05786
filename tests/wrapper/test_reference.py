"""The reference pages say what the code does: every code, setting and table of the walk is on its page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from digitalhub_runtime_python import arguments, errors, formats, outputs, tables
from digitalhub_runtime_python.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PACKAGES = [
    ROOT / "wrapper" / "digitalhub_runtime_python",
    ROOT / "builder" / "digitalhub_python_builder",
    ROOT / "control" / "digitalhub_python_control",
]
FAMILIES = {
    name: cls.exit_status
    for name, cls in vars(errors).items()
    if isinstance(cls, type) and issubclass(cls, errors.Fault)
}
CODE = re.compile(r"[a-z]+/[a-z0-9-]+")


def page(name: str) -> str:
    return (REFERENCE / name).read_text("utf-8")


def codes_in_source() -> dict[str, set[str]]:
    """Code -> the classes of fault that are made with it, as far as a call says it."""
    found: dict[str, set[str]] = {}
    for file in sorted(p for package in PACKAGES for p in package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and _is_code(node.value):
                found.setdefault(node.value, set())
            elif isinstance(node, ast.Call) and node.args:
                code = getattr(node.args[0], "value", None)
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if _is_code(code) and name in FAMILIES:
                    found.setdefault(str(code), set()).add(name)
    return found


def _is_code(value: object) -> bool:
    return (
        isinstance(value, str)
        and CODE.fullmatch(value) is not None
        and value.partition("/")[0] in KNOWN_FAMILIES
    )


KNOWN_FAMILIES = {
    "arguments", "build", "control", "deadline", "environment", "handler", "outputs", "platform",
    "serve", "source", "usage",
}  # fmt: skip


def rows(name: str) -> list[list[str]]:
    """The cells of every row of a page's tables, the headings left out."""
    lines = [line for line in page(name).splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]
    return [row for row in cells if not set("".join(row)) <= set("-: ")]


def documented() -> dict[str, str]:
    """Code -> exit status, from the page."""
    return {
        row[0].strip("`"): row[1] for row in rows("errors.md") if CODE.fullmatch(row[0].strip("`"))
    }


def test_every_code_in_use_has_a_row() -> None:
    missing = sorted(set(codes_in_source()) - set(documented()))
    assert not missing, f"docs/reference/errors.md lacks {missing}"


def test_every_row_is_of_a_code_in_use() -> None:
    text = "\n".join(p.read_text("utf-8") for package in PACKAGES for p in package.rglob("*.py"))
    stale = sorted(code for code in documented() if f'"{code}"' not in text)
    assert not stale, f"docs/reference/errors.md still has {stale}"


def test_the_rows_are_sorted_and_none_is_there_twice() -> None:
    codes = [r[0].strip("`") for r in rows("errors.md") if CODE.fullmatch(r[0].strip("`"))]
    assert codes == sorted(set(codes))


def test_every_rows_exit_status_is_its_familys() -> None:
    used = codes_in_source()
    wrong = {
        code: (exit_status, sorted(used[code]))
        for code, exit_status in documented().items()
        if (statuses := {str(FAMILIES[c]) for c in used.get(code, ()) if c in FAMILIES})
        and exit_status not in statuses
        and exit_status != "–"
    }
    assert not wrong


def test_every_exit_status_is_explained() -> None:
    told = page("errors.md")
    for status in {0, 1, 130, 143, *(s for s in FAMILIES.values() if s != 70)}:
        assert re.search(rf"^\| {status} \|", told, re.M), f"exit status {status} has no row"


def test_every_row_says_when_and_what_to_do() -> None:
    for row in [r for r in rows("errors.md") if CODE.fullmatch(r[0].strip("`"))]:
        assert len(row) >= 3, row
        assert row[0] and row[-1] and row[-2], row


def variables(name: str) -> set[str]:
    """The environment variables that a page's tables name in their first column."""
    return {v for row in rows(name) for v in re.findall(r"`([A-Z][A-Z0-9_*]+)`", row[0])}


def test_every_setting_that_is_read_has_a_row() -> None:
    source = (PACKAGES[0] / "settings.py").read_text("utf-8")
    read = set(re.findall(r"\"((?:DHPY|DHCORE|KUBERNETES|PROJECT|RUN|OAUTH2)_[A-Z_]+)\"", source))
    secret = {"DHCORE_ID_TOKEN", "DHCORE_PERSONAL_ACCESS_TOKEN"}  # only kept out of what is shown
    missing = sorted(read - secret - variables("settings.md") - variables("serving.md"))
    assert not missing, f"docs/reference/settings.md, or serving.md, lacks {missing}"


def test_no_row_of_the_settings_is_stale() -> None:
    text = "\n".join(p.read_text("utf-8") for package in PACKAGES for p in package.rglob("*.py"))
    stale = [n for n in variables("settings.md") if n.rstrip("*") not in text]
    assert not stale, f"docs/reference/settings.md still has {stale}"


def classes_of_settings() -> list[tuple[str, str, str]]:
    """(class, field, the text below it) of the runtime's and the control plane's settings."""
    found = []
    for package in (PACKAGES[0], PACKAGES[2]):
        for cls in ast.parse((package / "settings.py").read_text("utf-8")).body:
            if isinstance(cls, ast.ClassDef) and cls.name.endswith("Settings"):
                for node, follower in zip(cls.body, cls.body[1:]):
                    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                        told = getattr(getattr(follower, "value", None), "value", "")
                        found.append((cls.name, node.target.id, str(told or "")))
    return found


@pytest.mark.parametrize(
    ("cls", "field", "told"), classes_of_settings(), ids=lambda v: v if len(v) < 30 else ""
)
def test_every_field_of_the_settings_says_which_variable_it_is_and_the_page_has_it(
    cls: str, field: str, told: str
) -> None:
    if field in ("environ", "password", "token") and cls in ("Settings", "ControlSettings"):
        return  # read with another, or everything
    named = re.findall(
        r"`((?:DHPY|DHCORE|KUBERNETES|PROJECT|RUN|GIT)_[A-Z0-9_]+|[A-Z0-9]+_\*)`", told
    )
    assert named, f"{cls}.{field} does not name its variable"
    missing = set(named) - variables("settings.md") - variables("serving.md")
    assert not missing, f"no page has {sorted(missing)} of {cls}.{field}"


def test_the_defaults_on_the_page_are_the_codes() -> None:
    told = page("settings.md")
    assert f"| `DHPY_REPORT_TIMEOUT` | {Settings().report_timeout:g} s |" in told


def test_every_reserved_name_is_on_the_page_of_arguments() -> None:
    told = page("arguments.md")
    for name in arguments.RESERVED:
        assert f"`{name}`" in told


def test_every_format_and_kind_is_on_the_page_of_outputs() -> None:
    told = page("outputs.md")
    for name, (_, suffix, _) in formats._FORMATS.items():
        assert f"`{name.partition('.')[2]}`" in told, name
        assert not suffix or f"`{suffix}`" in told, suffix
    for kind in outputs.ENTITY_TYPES:
        assert f"`{kind}`" in told
    assert f"{outputs.RESULT_LIMIT // 1024} KiB" in told
    for cls in formats._json_types():
        assert f"`{cls.__name__}`" in told, cls
    for _, field_type in tables._FIELD_TYPES:
        assert f"`{field_type}`" in told
