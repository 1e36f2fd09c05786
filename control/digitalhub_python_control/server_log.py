"""The server's own log: text or JSON lines, on standard error or in a file that is kept small."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from pathlib import Path

from digitalhub_python_control.settings import ControlSettings
from digitalhub_runtime_python.log import JSONLines

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_KEPT = 2
"""Earlier files that are kept beside the one that is written: server.log.1 and .2."""


def configure(settings: ControlSettings) -> None:
    """Set up the process's logging, as the settings say.

    A server in the background, whose standard error is `server.log`, begins a new file when that is full.
    """
    file = settings.home / "server.log"
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if _is(sys.stderr.fileno(), file):
        handler = logging.handlers.RotatingFileHandler(
            file, maxBytes=settings.max_server_log, backupCount=_KEPT, encoding="utf-8"
        )
    handler.setFormatter(JSONLines() if settings.log_format == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=settings.log_level, handlers=[handler])


def _is(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except OSError:
        return False
