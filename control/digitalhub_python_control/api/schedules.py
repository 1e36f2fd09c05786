"""Quartz's cron expressions, as DigitalHub Core takes them, and when they fire next. Times are UTC."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from croniter import CroniterBadDateError, CroniterError, croniter

from digitalhub_runtime_python.errors import UsageFault

_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_LAST_YEAR = 2099
"""As in Quartz."""
_YEARS = re.compile(r"(\d{4}|\*)(?:-(\d{4}))?(?:/([1-9]\d?))?")
_WEEKDAY = re.compile(r"(?P<day>[1-7]|[A-Z]{3})(?P<rest>L|#[1-5])?")


def next_time(schedule: str, after: int) -> int | None:
    """The first instant after `after` at which a schedule fires, in microseconds; None: never again.

    Raises:
        UsageFault: usage/schedule
    """
    fields, years = _translated(schedule)
    moment = datetime.fromtimestamp(after / 1_000_000, timezone.utc)
    for year in years:
        if year < moment.year:
            continue
        # croniter's own field for years goes wrong.
        begin = max(moment, datetime(year, 1, 1, tzinfo=timezone.utc) - timedelta(seconds=1))
        try:
            found = croniter(fields, begin, second_at_beginning=True).get_next(datetime)
        except CroniterBadDateError:
            return None
        except (CroniterError, ValueError, KeyError, IndexError, AttributeError) as exc:
            raise _refused(schedule, str(exc)) from exc
        if found.year in years:
            return int(found.timestamp()) * 1_000_000
    return None


def _translated(schedule: str) -> tuple[str, range | list[int]]:
    """The same in croniter's fields, and the years: Sunday is 0, not 1; `?` is `*`; the last Friday is `L5`, not `6L`.

    Raises:
        UsageFault: usage/schedule
    """
    fields = schedule.upper().split()
    if len(fields) not in (6, 7):
        raise _refused(schedule, f"it has {len(fields)} fields, not 6 or 7")
    if len(fields) == 6:
        fields.append("*")
    seconds, minutes, hours, day, month, weekday, year = fields
    if "?" in (seconds, minutes, hours, month, year) or (day, weekday) == ("?", "?"):
        raise _refused(schedule, "'?' stands for a day of the month or of the week, not for both")
    if day not in "?*" and weekday not in "?*":
        raise _refused(schedule, "one of day of month and day of week must be '?'")
    if any(letter in part for letter in "HR@" for part in (seconds, minutes, hours, day, year)):
        raise _refused(schedule, "Quartz has no such field")
    weekday = ",".join(_weekday(part, schedule) for part in weekday.split(","))
    day = "*" if day == "?" else day
    return " ".join((seconds, minutes, hours, day, month, weekday)), _years(year, schedule)


def _years(field: str, schedule: str) -> range | list[int]:
    every = range(1970, _LAST_YEAR + 1)
    if field == "*":
        return every
    chosen: set[int] = set()
    for part in field.split(","):
        found = _YEARS.fullmatch(part)
        if found is None:
            raise _refused(schedule, f"{part!r} is not a year, a range or a step of years")
        first, last, step = found.groups()
        first = 1970 if first == "*" else int(first)
        until = int(last) if last else _LAST_YEAR if step else first
        chosen.update(year for year in range(first, until + 1, int(step or 1)) if year in every)
    return sorted(chosen)


def _weekday(part: str, schedule: str) -> str:
    if part in ("*", "?"):
        return "*"
    if part == "L":
        return "6"  # Saturday, the week's last day
    days, slash, step = part.partition("/")
    ends = days.split("-")
    translated = []
    for end in ends:
        found = _WEEKDAY.fullmatch(end)
        if found is None or (found["rest"] and (slash or len(ends) > 1)):
            if end == "*" and slash:
                translated.append("*")
                continue
            raise _refused(schedule, f"{part!r} is not a day of the week")
        name = found["day"]
        if not name.isdecimal() and name not in _DAYS:
            raise _refused(schedule, f"{name!r} is not a day of the week")
        number = int(name) - 1 if name.isdecimal() else _DAYS.index(name)
        rest = found["rest"] or ""
        translated.append(f"L{number}" if rest == "L" else f"{number}{rest}")
    return "-".join(translated) + slash + step


def _refused(schedule: str, reason: str) -> UsageFault:
    return UsageFault(
        "usage/schedule",
        f"{schedule[:80]!r} is not a schedule: {reason}.",
        "Write a Quartz cron expression, seconds first: '0 30 6 * * ?' is every day at 6:30 UTC.",
    )
