"""What kind of value changes: a time, a date, an id, a number, a name."""

import re
from collections import Counter

from kvprefix.files.masks import EMAIL, UUID

KINDS = {
    "time": "time stamp", "date": "date", "uuid": "id", "number": "number", "email": "e-mail address", "name": "name",
    "text": "text", "whitespace": "white space", "order of tools": "order of tools", "order of keys": "order of keys",
    "order of lines": "order of lines", "rewritten history": "history", "template": "text of the template",
}  # fmt: skip
MONTHS = (
    r"jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|januar|februar|m\u00e4rz|mai|juni|juli|okt|dez|janv|f\u00e9vr|mars"
    r"|avril|avr|juin|juil|ao\u00fbt|d\u00e9c|enero|febrero|marzo|abril|mayo|junio|julio|agosto|ene|abr|ago|dic"
    r"|septiembre|octubre|noviembre|diciembre|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre"
)
DAYS = (
    r"mon|tue|wed|thu|fri|sat|sun|montag|dienstag|mittwoch|donnerstag|freitag|samstag|sonnabend|sonntag|lundi|mardi"
    r"|mercredi|jeudi|vendredi|samedi|dimanche|lunes|martes|mi\u00e9rcoles|jueves|viernes|s\u00e1bado|domingo"
)
_TIME = re.compile(
    r"\b\d{1,2}[:.h]\d{2}(?:[:.]\d{2})?(?!\d|[./-]\d)\s*(?:[ap]\.?m\b)?|T\d{2}:?\d{2}|\b\d{1,2}\s*[ap]m\b", re.I
)
_EPOCH = re.compile(r"1[0-9]{9}(?:[.,]?\d{3,9})?")
_DATE = re.compile(
    r"\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\b|\b\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})\b|\d{4}\s*\u5e74|\d{1,2}\s*\u6708"
    rf"|\b(?:{MONTHS})[a-z]*\b\.?\s*,?\s*\d|\d(?:st|nd|rd|th)?\.?\s*(?:de\s+)?(?:{MONTHS})[a-z]*\b|^(?:{DAYS})[a-z]*\b",
    re.I,
)
_ID = re.compile(r"(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{6,}")
_NUMBER = re.compile(r"[#+-]?\d[\d.,_ /:-]*%?")
_ABOUT = 20  # characters beside a number that may be of the same date
_NAME = re.compile(r"@?[^\W\d_][\w'.\u2019-]*(?: [^\W\d_][\w'.\u2019-]*){0,3}")


def classify(values, label="", tail=""):
    """Return the kind of some values that stand at one place, that of most of them.

    Parameters
    ----------
    values : iterable of str
    label, tail : str
        What stands before and behind them: a number may be the day of a date.

    Examples
    --------
    >>> [classify([one]) for one in ("2026-01-05T08:00Z", "5. Mai 2026", "req-81f2a9", "1,204", "Ana", "the sky is")]
    ['time', 'date', 'uuid', 'number', 'name', 'text']
    >>> classify(["25", "26"], "Today is ", " November 2026.")
    'date'
    """
    counted = Counter(_classify(one.strip(" .,;:!?\"'()[]{}<>"), label, tail) for one in values if one.strip())
    return counted.most_common(1)[0][0] if counted else "text"


def _classify(value, label, tail):
    if re.search(EMAIL, value):
        return "email"
    if re.search(UUID, value):
        return "uuid"
    if len(value) <= 80:
        if _TIME.search(value) or _EPOCH.fullmatch(value):
            return "time"
        if _DATE.search(value):
            return "date"
    if _NUMBER.fullmatch(value):
        is_time = re.search(r"\b(time|clock|timestamp)\b", label, re.I) is not None
        return "time" if is_time else _classify_part(value, label[-_ABOUT:], tail[:_ABOUT])
    if _ID.fullmatch(value):
        return "uuid"
    return "name" if _NAME.fullmatch(value) and (value[:1].isupper() or " " not in value) else "text"


def _classify_part(value, label, tail):
    """Return the kind of what a number is part of."""
    start, stop = len(label), len(label) + len(value)
    for kind, pattern in (("time", _TIME), ("date", _DATE)):
        if any(one.start() < stop and start < one.end() for one in pattern.finditer(f"{label}{value}{tail}")):
            return kind
    return "number"
