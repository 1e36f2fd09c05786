"""A log as a terminal would show it, as HTML: colours, and lines that a progress bar rewrote. Pure."""

from __future__ import annotations

import re
from html import unescape as html_unescape
from typing import NamedTuple

from markupsafe import Markup, escape

_ESCAPE = re.compile(r"\x1b\[([0-9;:?]*)([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]?")
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")
_TAG = re.compile("<[^>]*>")  # of ours: what was written is escaped
_WIDEST = 20_000
"""Characters of a line that are laid out; of a longer one the rest is left as it is."""


class _Style(NamedTuple):
    colour: int = -1
    bold: bool = False

    @property
    def classes(self) -> str:
        names = [f"c{self.colour}"] if self.colour >= 0 else []
        return " ".join(names + (["bold"] if self.bold else []))


def html(log: str) -> Markup:
    """The log as HTML; everything in it but colours is text."""
    style, lines = _Style(), []
    for line in log.replace("\r\n", "\n").split("\n"):
        text, style = _line(line, style)
        lines.append(text)
    return Markup("\n").join(lines)


def plain(line: str) -> str:
    """One line as it is read on a terminal, without its colours."""
    return html_unescape(_TAG.sub("", _line(line, _Style())[0]))


def marked(line: str, wanted: str) -> Markup:
    """One line as text, with `wanted` marked wherever it is, in capitals or not."""
    parts = re.split(f"({re.escape(wanted)})", plain(line), flags=re.IGNORECASE) if wanted else [plain(line)]  # fmt: skip
    told = (Markup("<mark>{}</mark>").format(part) if at % 2 else escape(part) for at, part in enumerate(parts))  # fmt: skip
    return Markup("").join(told)


def _line(line: str, style: _Style) -> tuple[Markup, _Style]:
    if not ("\x1b" in line or "\r" in line or "\b" in line or _CONTROL.search(line)):
        return _span(line, style), style
    cells: list[tuple[str, _Style]] = []
    at = done = 0
    for found in _ESCAPE.finditer(line):
        at = _write(cells, at, line[done : found.start()], style)
        done = found.end()
        if found.group(2) == "m":
            style = _styled(style, found.group(1))
        elif found.group(2) == "K":
            _erase(cells, at, found.group(1))
    _write(cells, at, line[done:], style)
    return _joined(cells), style


def _write(cells: list[tuple[str, _Style]], at: int, text: str, style: _Style) -> int:
    """Put text at a place of the line, over what is there; where the next one goes."""
    for character in text:
        if character == "\r":
            at = 0
        elif character == "\b":
            at = max(0, at - 1)
        elif not _CONTROL.match(character) and at < _WIDEST:
            cells[at : at + 1] = [(character, style)]
            at += 1
    return at


def _erase(cells: list[tuple[str, _Style]], at: int, how: str) -> None:
    if how in ("", "0"):
        del cells[at:]
    elif how == "2":
        cells[:] = [(" ", _Style())] * at


def _styled(style: _Style, codes: str) -> _Style:
    numbers = [int(code) if code.isdigit() else 0 for code in re.split("[;:]", codes)]
    while numbers:
        code = numbers.pop(0)
        if code == 0:
            style = _Style()
        elif code in (1, 22):
            style = style._replace(bold=code == 1)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style = style._replace(colour=code - 30 if code < 90 else code - 82)
        elif code == 39:
            style = style._replace(colour=-1)
        elif code in (38, 48):
            kind = numbers.pop(0) if numbers else 0
            values = [numbers.pop(0) for _ in range({5: 1, 2: 3}.get(kind, 0)) if numbers]
            if code == 38 and kind == 5 and values and values[0] < 16:
                style = style._replace(colour=values[0])
    return style


def _joined(cells: list[tuple[str, _Style]]) -> Markup:
    parts: list[Markup] = []
    start = 0
    for at in range(1, len(cells) + 1):
        if at == len(cells) or cells[at][1] != cells[start][1]:
            parts.append(_span("".join(c for c, _ in cells[start:at]), cells[start][1]))
            start = at
    return Markup("").join(parts)


def _span(text: str, style: _Style) -> Markup:
    if not style.classes or not text:
        return escape(text)
    return Markup('<span class="{}">{}</span>').format(style.classes, text)
