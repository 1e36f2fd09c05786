"""How far a run is: `context.progress(done, total, text)`, told to the platform now and then, and shown.

The handler is never held up by it: a thread of its own tells the newest value, and what comes meanwhile
is left out. The last one is part of the run's report.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Callable

logger = logging.getLogger(__name__)

_TEXT = 200
"""Characters of the text that are kept."""
_BAR = 20
_SPARSELY = 10.0
"""Seconds between two lines where there is no terminal."""
_CLOSING = 15.0
"""Seconds that the end of a run waits for a value that is being told; longer than a request may take."""


class Progress:
    """Tells a platform what a handler says of its progress, the newest value only.

    Args:
        tell: delivers one value; the seconds until it takes the next. It may raise.
        hide: takes the secrets out of a value.
    """

    def __init__(
        self,
        tell: Callable[[Mapping[str, Any]], float],
        hide: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        self._tell, self._hide = tell, hide
        self._process = os.getpid()
        self._thread: threading.Thread | None = None
        self._new, self._over = threading.Event(), threading.Event()
        self._said: dict[str, Any] | None = None

    @property
    def latest(self) -> dict[str, Any] | None:
        """What was said last: `done`, `total`, `text`, as far as given; None where nothing was."""
        return None if self._said is None else self._hide(self._said)

    def say(self, done: Any = None, total: Any = None, text: Any = "") -> None:
        """Note a value; it is reported as soon as the platform takes one. Never raises, never waits."""
        # A process that the handler forked has no such thread, and perhaps a lock that nobody opens.
        if self._over.is_set() or os.getpid() != self._process:
            return
        try:
            self._said = value_of(done, total, text)
            self._new.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="progress", daemon=True)
                self._thread.start()
        except Exception as exc:  # noqa: BLE001 - a number that cannot be shown must not cost the run
            logger.warning("this progress is not told: %s: %s", type(exc).__name__, exc)

    def close(self) -> None:
        """Tell no more; returns when nothing is on its way, so that it cannot meet the run's report."""
        self._over.set()
        self._new.set()
        if self._thread is not None and os.getpid() == self._process:
            self._thread.join(_CLOSING)

    def _work(self) -> None:
        while self._new.wait() and not self._over.is_set():
            self._new.clear()
            pause = 5.0
            try:
                pause = self._tell(self.latest or {})
            except Exception as exc:  # noqa: BLE001 - the next value may get through, and the report has the last
                logger.debug("the progress was not told: %s", exc)
            self._over.wait(pause)


def value_of(done: Any, total: Any, text: Any) -> dict[str, Any]:
    """What is stored of a progress.

    Raises:
        TypeError, ValueError: `done` or `total` is not a finite number.
    """
    value: dict[str, Any] = {}
    for name, given in (("done", done), ("total", total)):
        if given is not None:
            number = float(given)
            if not math.isfinite(number):
                raise ValueError(f"{name} is {number}")
            value[name] = int(number) if number.is_integer() else number
    shown = " ".join(str(text).split())
    return {**value, "text": shown[:_TEXT]} if shown else value


def line_of(progress: Any) -> str:
    """`██████░░░░ 30 of 50, 60 %, epoch 3`, of what a run's status has; empty where that is nothing."""
    if not isinstance(progress, Mapping):
        return ""
    done, total = (_number(progress.get(name)) for name in ("done", "total"))
    text = progress.get("text")
    parts = []
    if done is not None and total:
        part = min(max(done / total, 0.0), 1.0)
        bar = "█" * int(_BAR * part)
        parts.append(f"{bar:░<{_BAR}} {done:,} of {total:,}, {int(100 * part)} %")
    elif done is not None:
        parts.append(f"{done:,}")
    # It may come from anybody, and a terminal obeys some characters.
    plain = "".join(c for c in str(text)[:_TEXT] if c.isprintable()) if text else ""
    return ", ".join([*parts, *([plain] if plain else [])])


class Line:
    """A line on standard error that is written over on a terminal; elsewhere a new one now and then.

    Args:
        write: what writes a line where there is no terminal; None: standard error.
        every: seconds between two lines there.
    """

    def __init__(
        self, write: Callable[[str], object] | None = None, every: float = _SPARSELY
    ) -> None:
        self._write, self._every = write, every
        self._said, self._at = "", time.monotonic()
        self._width = 0

    def show(self, text: str) -> None:
        """Show `text` in place of what was shown before."""
        if not text or text == self._said:
            return
        if _is_live():
            import shutil  # for those who have a terminal

            # A line that wraps could not be written over.
            fits = text[: max(10, shutil.get_terminal_size().columns - 1)]
            sys.stderr.write(f"\r{fits:<{self._width}}")
            sys.stderr.flush()
            self._width = len(fits)
        elif time.monotonic() - self._at >= self._every:
            self._at = time.monotonic()
            self._write(text) if self._write else sys.stderr.write(f"{text}\n")
        self._said = text

    def end(self) -> None:
        """Leave the line as it is; what is written next begins below it."""
        if self._width:
            self._width = 0
            sys.stderr.write("\n")
            sys.stderr.flush()


def _is_live() -> bool:
    """Whether a line can be written over: on a terminal, and in a notebook's cell."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _number(value: Any) -> float | None:
    is_one = isinstance(value, (int, float)) and math.isfinite(value)
    return value if is_one else None
