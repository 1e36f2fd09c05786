"""What a container prints, copied into its run's log: bounded, without secrets, each line once.

Docker and Kubernetes both hand it out with the moment of each piece before it. The moment of the last
line that was copied is noted, so that a control plane that is started again goes on behind it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from digitalhub_python_control.running.engines.keeper import Log
from digitalhub_runtime_python.redaction import Hiding

_MOMENT = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(Z|[+-]\d\d:\d\d)")
_WIDTH = 40
"""Bytes of a note: as long as any moment, so that a shorter one leaves nothing of the last."""


def copy(
    pieces: Iterable[bytes], log: Log, hidden: Sequence[bytes], position: Path, prefix: bytes = b""
) -> None:  # fmt: skip
    """Append what is newer than the noted position, until there is no more.

    Args:
        pieces: `MOMENT TEXT`, or the TEXT alone that goes on with a long line; a line's last piece ends
            with its line break. Moments are RFC 3339 in UTC with nine digits, so that text compares as time does.
        log: takes them; several may write to it in turn.
        hidden: what it may not show, as `redaction.forms` makes it.
        position: the file of the noted moment.
        prefix: before each line.

    Raises:
        OSError: the position cannot be noted.
    """
    last = moment = noted(position).encode()
    hiding = Hiding(hidden)
    at_start = newer = True
    with _opened(position) as note:
        for piece in pieces:
            said, _, text = piece.partition(b" ")
            if _MOMENT.fullmatch(said):
                moment = said
                newer = moment > last
            else:
                text = piece
            if not newer:
                continue
            if at_start:
                text = prefix + text
            log.add(hiding.add(text))
            at_start = text.endswith(b"\n")
            if at_start:
                os.pwrite(note, moment.ljust(_WIDTH), 0)
        log.add(hiding.rest() + (b"" if at_start else b"\n"))


def noted(position: Path) -> str:
    """The moment of the last line that was copied; empty where none was."""
    return position.read_text("ascii").strip() if position.exists() else ""


@contextlib.contextmanager
def _opened(position: Path) -> Iterator[int]:
    # One that stays open: a note is written for each line.
    number = os.open(position, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        yield number
    finally:
        os.close(number)
