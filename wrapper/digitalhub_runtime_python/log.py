"""Logging of a process that we own: set up once, by a command, never by an import."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO


def configure(level: str = "INFO", form: str = "text", stream: TextIO | None = None) -> None:
    """Send every logger's records to `stream` (default: standard error) as text or as JSON lines.

    Raises:
        ValueError: `level` is no level of logging.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JSONLines() if form == "json" else _Text("%(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("digitalhub_runtime_python").setLevel(level)
    logging.captureWarnings(True)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{clock} {record.levelname.lower():<7} {super().format(record)}"


class _JSONLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
