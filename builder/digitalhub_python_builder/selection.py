"""Which files of a function's folder go into its image: no histories, no caches, nothing secret.

`.gitignore` (nested ones too), `.dockerignore` and `.dhignore` are honoured, in this order: a later one may take
back (`!pattern`) what an earlier one leaves out. What looks like a secret is left out with a warning, unless
`.dhignore` takes it back by a pattern that names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.sources.local import (
    IGNORE_FILE,
    IGNORED,
    Rule,
    compile_rules,
    is_environment,
)

Log = Callable[[str], None]

_GIT, _DOCKER = ".gitignore", ".dockerignore"
_SECRET_FOLDERS = frozenset({".ssh", ".aws", ".gnupg", ".azure", ".kube", ".docker", ".gcloud"})
_SECRET_NAMES = re.compile(
    r"\.env(?:\.(?!example$|sample$|template$|dist$).*)?|.*\.env|\.?envrc|\.npmrc|\.pypirc|\.?_?netrc"
    r"|\.git-credentials|\.dockercfg|\.pgpass|\.my\.cnf|\.s3cfg|\.boto|\.htpasswd|\.vault[-_]token"
    r"|id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?|.*\.(?:p12|pfx|jks|keystore|kdbx|ppk)|pip\.conf"
    r"|application_default_credentials\.json|kubeconfig|terraform\.tfstate(?:\.backup)?|secrets\.toml",
    re.I,
)
_SECRET_CONTENT = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d"
    rb"|\"private_key\"\s*:\s*\"-----BEGIN|^\s*aws_secret_access_key\s*=\s*\S",
    re.I | re.M,
)
_HEAD = 16 << 10
"""Bytes of a file that are searched for a key; a key's file begins with it."""
_CODE = (".py", ".pyi", ".pyc", ".so", ".ipynb")
"""What is never left out for its content: it is the function."""


class _Git:
    """Rules in git's syntax; most paths fit none, so that is asked first and at once."""

    def __init__(self, lines: list[str]) -> None:
        self._rules: list[Rule] = compile_rules(lines)
        self._any = re.compile("|".join(f"(?:{rule[0].pattern})" for rule in self._rules) or "(?!)", re.S)  # fmt: skip

    def last(self, path: str, is_folder: bool, state: bool = False) -> bool:
        """What the last rule that fits says; `state` where none does."""
        if self._any.fullmatch(path):
            for pattern, back, only_folders in reversed(self._rules):
                if (is_folder or not only_folders) and pattern.fullmatch(path):
                    return not back
        return state


@dataclass
class _Rules:
    git: list[tuple[str, _Git]]
    """(folder, its rules), outermost first; the folder ends with `/` but for the top's, which is empty."""
    docker: list[tuple[re.Pattern[str], bool]]
    own: _Git

    def left_out(self, path: str, is_folder: bool, state: bool) -> bool:
        """Whether the rules leave a path out; `state` is what they say of its folder."""
        for folder, rules in self.git:
            if path.startswith(folder):
                state = rules.last(path[len(folder) :], is_folder, state)
        for pattern, back in self.docker:
            if pattern.fullmatch(path):
                state = not back
        return self.own.last(path, is_folder, state)

    def may_come_back(self, folder: str) -> bool:
        """Whether a rule may take back what lies below a folder that is left out; git's cannot."""
        return any(back for _, back in self.docker) and not self.own.last(folder, True, False)


def selected(folder: Path, log: Log = lambda line: None) -> Iterator[tuple[str, Path]]:
    """(relative path, path) of each file of a folder that belongs in an image, sorted within each folder.

    Args:
        log: is told what was left out for being secret, or by a `.gitignore` or `.dockerignore`.

    Raises:
        SourceFault: a link leads out of the folder.
    """
    own = _lines(folder / IGNORE_FILE)
    rules = _Rules(
        [("", _Git([*IGNORED, IGNORE_FILE, _GIT, _DOCKER]))],
        [_docker_rule(line) for line in _lines(folder / _DOCKER) if _is_pattern(line)],
        _Git(own),
    )
    back = _Git([line[1:] for line in own if line.startswith("!")])
    inside = os.path.realpath(folder)
    secret: list[str] = []
    dropped: list[str] = []
    for name, entry in _walk(str(folder), "", rules, dropped):
        if entry.is_symlink() and not os.path.realpath(entry).startswith(inside + os.sep):
            raise SourceFault(
                "source/unsafe-link",
                f"The link {entry.path} leads out of {folder}.",
                f"Replace it by what it leads to, or name it in a {IGNORE_FILE} file.",
            )
        if not entry.is_file():
            continue
        if _is_secret(name, entry.path) and not back.last(name, False):
            secret.append(name)
        else:
            yield name, Path(entry.path)
    if dropped:
        log(f"Left out by an ignore file: {_some(dropped)}.")
    if secret:
        log(
            f"warning: left out, for it looks like a secret: {_some(secret)}. "
            f"Give it to runs as a secret of the project; a line !name in {IGNORE_FILE} puts it in."
        )


def _walk(
    folder: str, below: str, rules: _Rules, dropped: list[str], parent_out: bool = False
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    git = _lines(Path(folder, _GIT))
    if git:
        rules.git.append((below, _Git(git)))
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = below + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        environment = is_folder and is_environment(Path(entry.path))
        out = rules.left_out(name, is_folder, parent_out or environment)
        if is_folder and (not out or rules.may_come_back(name)):
            yield from _walk(entry.path, f"{name}/", rules, dropped, out)
        elif not is_folder and not out:
            yield name, entry
        elif not environment and not rules.git[0][1].last(name, is_folder):
            dropped.append(f"{name}/" if is_folder else name)
    if git:
        rules.git.pop()


def _docker_rule(line: str) -> tuple[re.Pattern[str], bool]:
    """Docker's rules begin at the top, and what fits a folder fits all below it."""
    text = line.strip()
    back = text.startswith("!")
    clean = os.path.normpath(text[back:].strip().lstrip("/") or ".")
    ((pattern, _, _),) = compile_rules([f"/{clean}"]) or [(re.compile(".*"), False, False)]
    return re.compile(f"(?:{pattern.pattern})(?:/.*)?", re.S), back


def _is_pattern(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _is_secret(name: str, path: str) -> bool:
    *folders, file = name.split("/")
    if not _SECRET_FOLDERS.isdisjoint(folders) or _SECRET_NAMES.fullmatch(file):
        return True
    if file.endswith(_CODE):
        return False
    with open(path, "rb") as opened:  # noqa: PTH123 - for each of many thousand files
        return bool(_SECRET_CONTENT.search(opened.read(_HEAD)))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8-sig", "replace").splitlines()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return []


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
