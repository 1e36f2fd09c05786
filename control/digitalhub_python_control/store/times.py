"""Instants as Core writes them (`2026-11-20T12:47:38.447Z`) and as the store orders them."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import msgspec

from digitalhub_runtime_python.errors import UsageFault


def now() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def text(micros: int) -> str:
    """An instant in UTC with milliseconds."""
    return f"{_second(micros)}.{micros // 1000 % 1000:03d}Z"


def exact_text(micros: int) -> str:
    """An instant in UTC with microseconds, as in a run's transitions."""
    return f"{_second(micros)}.{micros % 1_000_000:06d}Z"


def _second(micros: int) -> str:
    moment = datetime.fromtimestamp(micros // 1_000_000, timezone.utc)
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


def parse(value: object, what: str) -> int:
    """Microseconds of an ISO 8601 instant; one without an offset is UTC.

    Raises:
        UsageFault: it is no such instant; the message names `what`.
    """
    try:
        moment = msgspec.convert(value, datetime)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        moment = moment.astimezone(timezone.utc)  # or it is a year that UTC does not have
    except (msgspec.ValidationError, OverflowError, UnicodeError):
        raise UsageFault(
            "usage/time",
            f"{what} is {str(value)[:60]!r}, which is not an instant.",
            "Write it like 2026-11-20T12:47:38.447Z.",
        ) from None
    delta = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds
