"""ISO 8601 as text, the same on every Python: 3.9 reads less of it than 3.11 does, and msgspec only RFC 3339."""

from __future__ import annotations

import datetime
import re
from typing import Any

_DATE = r"(?P<y>\d{4})(?:-?(?P<m>\d\d)-?(?P<d>\d\d)|-?W(?P<week>\d\d)(?:-?(?P<day>\d))?|-?(?P<of_year>\d{3}))"
_TIME = r"(?P<h>\d\d)(?::?(?P<min>\d\d)(?::?(?P<s>\d\d)(?:[.,](?P<f>\d+))?)?)?"
_ZONE = r"(?P<zone>Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?"
_DATE_TEXT = re.compile(_DATE, re.IGNORECASE | re.ASCII)
_TIME_TEXT = re.compile(f"T?{_TIME} ?{_ZONE}", re.IGNORECASE | re.ASCII)
_MOMENT_TEXT = re.compile(f"{_DATE}(?:[T ]{_TIME} ?{_ZONE})?", re.IGNORECASE | re.ASCII)
_SPAN_TEXT = re.compile(
    r"(?P<sign>[+-]?)P(?=.)(?:(?P<weeks>N)W)?(?:(?P<days>N)D)?"
    r"(?:T(?=.)(?:(?P<hours>N)H)?(?:(?P<minutes>N)M)?(?:(?P<seconds>N)S)?)?".replace(
        "N", r"\d+(?:[.,]\d+)?"
    ),
    re.IGNORECASE | re.ASCII,
)


def date_from(text: str) -> datetime.date:
    """A date: `2026-01-31`, `20260131`, `2026-W05-6`, `2026-031`.

    Raises:
        ValueError: it is not one; so do the others here.
    """
    return _date(_matched(_DATE_TEXT, text, "a date such as 2026-01-31"))


def time_from(text: str) -> datetime.time:
    """A time of day: `10:00`, `10:00:30.5Z`, `T1000`."""
    return _time(_matched(_TIME_TEXT, text, "a time such as 10:00"))


def moment_from(text: str) -> datetime.datetime:
    """A date with its time, or alone for its midnight; without a zone where the text names none."""
    found = _matched(_MOMENT_TEXT, text, "a moment such as 2026-01-31T10:00")
    if found["h"] is None:
        return datetime.datetime.combine(_date(found), datetime.time())
    if found["h"] == "24" and not int((found["min"] or "0") + (found["s"] or "0")):
        found["h"] = "00"  # the end of the day is the next one's beginning
        return datetime.datetime.combine(_date(found), _time(found)) + datetime.timedelta(1)
    return datetime.datetime.combine(_date(found), _time(found))


def span_from(text: str) -> datetime.timedelta:
    """A duration: `PT1H30M`, `P2D`, `P1W`; years and months have no length of their own."""
    found = _matched(_SPAN_TEXT, text, "a duration such as PT1H30M")
    sign = -1 if found.pop("sign") == "-" else 1
    parts = {unit: float(n.replace(",", ".")) for unit, n in found.items() if n}
    try:
        return sign * datetime.timedelta(**parts)
    except OverflowError as exc:
        raise ValueError(str(exc)) from exc


def _matched(pattern: re.Pattern[str], text: str, what: str) -> dict[str, Any]:
    match = pattern.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"it is not {what} (ISO 8601)")
    return match.groupdict()


def _date(found: dict[str, Any]) -> datetime.date:
    year = int(found["y"])
    if found["week"]:
        return datetime.date.fromisocalendar(year, int(found["week"]), int(found["day"] or 1))
    if found["of_year"]:
        day = datetime.date(year, 1, 1) + datetime.timedelta(int(found["of_year"]) - 1)
        if day.year != year:
            raise ValueError(f"day {found['of_year']} is not in {year}")
        return day
    return datetime.date(year, int(found["m"]), int(found["d"]))


def _time(found: dict[str, Any]) -> datetime.time:
    # More than microseconds, as Go writes them, is cut off, as datetime.fromisoformat does.
    hour, minute, second = (int(found[part] or 0) for part in ("h", "min", "s"))
    fraction = int((found["f"] or "")[:6].ljust(6, "0"))
    return datetime.time(hour, minute, second, fraction, tzinfo=_zone(found))


def _zone(found: dict[str, Any]) -> datetime.timezone | None:
    text = found["zone"]
    if not text:
        return None
    if text in "Zz":
        return datetime.timezone.utc
    digits = text[1:].replace(":", "").ljust(6, "0")
    offset = datetime.timedelta(
        hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:])
    )
    if not offset:
        return datetime.timezone.utc
    return datetime.timezone(-offset if text[0] == "-" else offset)
