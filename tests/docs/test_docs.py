"""The docs cannot drift: links, commands, options and targets that they name exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from digitalhub_runtime_python import __version__
from digitalhub_runtime_python.cli import COMMANDS, dhpy

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])
COMMAND = re.compile(r"(?:^|[`(\s])(dhpy [a-z][^`#\n|)]*)")


def _commands() -> list[tuple[str, str]]:
    return [
        (page.relative_to(ROOT).as_posix(), match.strip())
        for page in PAGES
        for match in COMMAND.findall(page.read_text("utf-8"))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    dead = [link for link in links if not (page.parent / link).exists()]
    assert not dead, f"{page.name} links to {dead}"


@pytest.mark.parametrize(("page", "line"), _commands())
def test_every_dhpy_command_in_the_docs_exists_with_its_options(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    name = words[0]
    assert name in COMMANDS, f"{page} names `dhpy {name}`"
    command = dhpy.get_command(click.Context(dhpy), name)
    assert command is not None
    while isinstance(command, click.Group) and len(words) > 1 and words[1] in command.commands:
        command, words = command.commands[words[1]], words[1:]
    options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"-h", "--help"}
    own = words[1 : words.index("--")] if "--" in words else words[1:]
    unknown = [w for w in own if w.startswith("-") and w.partition("=")[0] not in options]
    assert not unknown, f"{page}: `{line}` has {unknown}; `dhpy {name}` takes {sorted(options)}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_or_a_sentence(name: str) -> None:
    command = dhpy.get_command(click.Context(dhpy), name)
    assert command is not None and command.help, f"`dhpy {name} --help` says nothing"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"`dhpy {name} {parameter.opts[0]}` has no help"


def test_every_make_target_in_the_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        t
        for page in PAGES
        for line in re.findall(r"^\s*(make [a-z ]+)", page.read_text("utf-8"), re.M)
        for t in re.findall(r"[a-z]+", line.partition("  ")[0])[1:]
    }
    assert named <= targets, f"the docs name make {sorted(named - targets)}"


def test_the_changelog_begins_with_this_version() -> None:
    newest = re.search(r"^## ([^ \n]+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None and newest.group(1) == __version__
