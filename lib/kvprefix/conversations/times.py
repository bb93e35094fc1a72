"""Read a time as a log writes it: ISO 8601, RFC 2822, or a number of seconds, ms, us or ns, also as text.

A time without a zone is UTC. A number is of seconds below 1e11, of ms below 1e14, of us below 1e17, of ns above, so
that epoch times of any unit are told apart. Eight digits that are a date are that date.
"""

import contextlib
import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LATEST_S = 4_102_444_800  # the year 2100: no time of a log or a trace lies beyond
EXPECTED = "expected a number of seconds (or ms, us, ns) or an ISO 8601 time, from 1970 to 2100"
_UNITS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3))  # from this number on: units per second
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", re.ASCII)
_RFC_2822 = re.compile(r"[A-Z][a-z]{2}, \d", re.ASCII)


def read_time(value):
    """Return a time in seconds since 1970, UTC (or since a log's own start).

    Parameters
    ----------
    value : str, int, float, datetime or dict
        A dict is MongoDB's ``{"$date": time}``.

    Raises
    ------
    ValueError
        It is no time from 1970 to 2100; EXPECTED says what would be right.

    >>> read_time("1714567890123"), read_time("2024-05-01T12:51:30.123Z"), read_time("2024-05-01 12:51:30.123")
    (1714567890.123, 1714567890.123, 1714567890.123)
    """
    if isinstance(value, dict) and "$date" in value:
        value = value["$date"]
        value = value.get("$numberLong") if isinstance(value, dict) else value
    time = number = None
    if isinstance(value, datetime):
        time = _seconds(value)
    elif isinstance(value, str) and value[4:5] == "-" and value[10:11] in ("T", " "):  # most often
        time = _read_text(value)
    elif isinstance(value, str):
        is_number = len(value) < 40 and _NUMBER.fullmatch(value)
        number = (int(value) if value.isdecimal() else float(value)) if is_number else None
        if number is None or (len(value) == 8 and value.isdecimal()):
            time = _read_text(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    if time is None and number is not None and abs(number) < 1e20:
        time = _divide(number, next((units for least, units in _UNITS if abs(number) >= least), 1))
    if time is None or not abs(time) <= LATEST_S:
        raise ValueError(EXPECTED)
    return time


def _divide(number, units):
    """Return a number of units in seconds; nanoseconds have more digits than a float."""
    if isinstance(number, int) and abs(number) >= 2**53:
        whole, rest = divmod(number, units)
        return whole + rest / units
    return number / units


def _read_text(text):
    """Return the seconds of a date in text; None if it is none, infinity if it lies before 1970."""
    with contextlib.suppress(ValueError, OverflowError, IndexError, TypeError):
        if _RFC_2822.match(text):
            return _seconds(parsedate_to_datetime(text))
        for zone in (" UTC", " GMT"):
            text = text.removesuffix(zone)
        return _seconds(datetime.fromisoformat(text))
    return None


def _seconds(time):
    seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    return seconds if seconds >= 0 else math.inf
