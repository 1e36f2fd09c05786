"""Says what a file is that is not Python, from how it begins."""

from __future__ import annotations

from pathlib import Path

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.nesting import read_json

_HEAD = 512
_ARCHIVE = "Write zip+ before its address."
_RAW = "Give the raw file's address, or git+https:// for a repository."
_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive", _ARCHIVE),
    (b"PK\x05\x06", "an empty zip archive", _ARCHIVE),
    (b"\x1f\x8b", "packed by gzip", _ARCHIVE),
    (b"BZh", "packed by bzip2", _ARCHIVE),
    (b"\xfd7zXZ\x00", "packed by xz", _ARCHIVE),
    (b"7z\xbc\xaf", "a 7z archive", "Make a zip of it."),
    (b"\x7fELF", "a program", ""),
    (b"%PDF", "a PDF", ""),
    (b"\x89PNG", "a picture", ""),
    (b"\xff\xd8\xff", "a picture", ""),
    (b"GIF8", "a picture", ""),
    (b"PAR1", "a Parquet table", ""),
    (b"SQLite format 3", "a database", ""),
    (b"version https://git-lfs", "a pointer to a file in Git LFS", "Run `git lfs pull` in its repository, or fetch the repository where git-lfs is installed."),
    (b"<!doctype", "a web page", _RAW),
    (b"<html", "a web page", _RAW),
    (b"<?xml", "XML", _RAW),
)  # fmt: skip
_TEXTS = (b"\xff\xfe", b"\xfe\xff")
"""How UTF-16 begins, whose NULs are text; Python refuses it by itself."""


def refuse_foreign(file: Path, shown: str) -> None:
    """Refuse a file that surely is not Python.

    Args:
        shown: the source, for the message.

    Raises:
        SourceFault: source/not-python, naming what it is.
    """
    what, hint = _foreign(file)
    if what:
        raise SourceFault(
            "source/not-python", f"{shown} is {what}, not Python.", hint or "Name a .py file."
        )


def _foreign(file: Path) -> tuple[str, str]:
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    start = head.lstrip().lower() if head[:1] in b"< \t\r\n" else head
    for magic, what, hint in _STARTS:
        if start.startswith(magic):
            return what, hint
    if head[257:262] == b"ustar":
        return "a tar archive", _ARCHIVE
    if b"\0" in head and not head.startswith(_TEXTS):
        return "binary data", ""
    if head.lstrip()[:1] == b"{":
        try:
            found = read_json(file.read_bytes())
        except ValueError:
            return "", ""
        if isinstance(found, dict) and "cells" in found and "nbformat" in found:
            return (
                "a Jupyter notebook",
                "Pass the notebook's own path as code_src, or export it as .py.",
            )
        return "JSON", _RAW
    return "", ""
