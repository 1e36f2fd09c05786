"""Logging of a process that we own: set up once, by a command, never by an import."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

OWN = "digitalhub_runtime_python"
LIBRARIES = (
    "asyncio",
    "boto3",
    "botocore",
    "filelock",
    "fsspec",
    "httpcore",
    "httpx",
    "s3transfer",
    "urllib3",
)
"""What we use ourselves and its users seldom mean when they log."""


def configure(level: str = "INFO", form: str = "text", stream: TextIO | None = None) -> None:
    """Send the runtime's own records to `stream` (default: standard error) as text or as JSON lines.

    The root logger stays as Python makes it: a handler on it would turn the user's own
    `logging.basicConfig()` into nothing.

    Raises:
        ValueError: `level` is not a level of logging.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONLines() if form == "json" else _Text("%(message)s"))
    own = logging.getLogger(OWN)
    own.setLevel(level)
    own.handlers[:] = [handler]
    own.propagate = False  # else a root logger that the user sets up would print each line again
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(
            logging.WARNING
        )  # the user's DEBUG is for the user's own; it may undo this


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{clock} {record.levelname.lower():<7} {super().format(record)}"


class JSONLines(logging.Formatter):
    """One JSON object for each record; a record's `fields` are members of it."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
