"""
Days and moments as people give them to the crashlog commands.

Crash logs are tagged by their UTC day, so days here are UTC days; moments without a zone are local time, as in the
original tool.

Source: reference ``http-tools-sdk.md`` sections B.3 and B.5.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from .exits import WrongValue

#: The most days of one range; each costs a question to storage.
LONGEST = 3660


def day(text: str, now: float) -> date:
    """
    A beginning of ``today`` or ``yesterday``, ``D``, ``D-M`` or ``D-M-Y``; what is missing is as today.

    :param now: seconds since the epoch.
    :raises WrongValue: it is none of these.
    """
    today = datetime.fromtimestamp(now, UTC).date()
    word = text.strip().lower()
    if word and "today".startswith(word):
        return today
    if word and "yesterday".startswith(word):
        return today - timedelta(days=1)
    try:
        given = [int(part) for part in word.split("-")]
        if len(given) > 3:
            raise ValueError("too many parts")
        number, month, year = (*given, *(today.month, today.year)[len(given) - 1 :])
        return date(year, month, number)
    except ValueError as problem:
        raise WrongValue(f"{text!r} is no day; give today, yesterday, D, D-M or D-M-Y") from problem


def between(first: date, last: date) -> list[date]:
    """
    All days of a range, both ends included.

    :raises WrongValue: the range is turned round or too long.
    """
    count = (last - first).days + 1
    if count < 1:
        raise WrongValue(f"the range ends ({last}) before it begins ({first})")
    if count > LONGEST:
        raise WrongValue(f"the range has {count} days; the most are {LONGEST}")
    return [first + timedelta(days=number) for number in range(count)]


def tag(of: date) -> str:
    """What crash logs of that day are found by."""
    return f"cocaine-{of:%Y-%m-%d}"


def microseconds(text: str) -> int:
    """
    A moment: microseconds since the epoch, or ``YYYY-MM-DDTHH:MM:SS``.

    :raises WrongValue: it is neither.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").astimezone()
    except (ValueError, OverflowError, OSError) as problem:
        raise WrongValue(f"{text!r} is no moment; give microseconds or YYYY-MM-DDTHH:MM:SS") from problem
    return int(moment.timestamp()) * 1_000_000


def written(moment: int) -> str:
    """Microseconds since the epoch as local time for people."""
    try:
        return datetime.fromtimestamp(moment / 1_000_000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "?"
