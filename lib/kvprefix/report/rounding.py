"""How numbers are shown: rounded, with a true minus and their units; a dash for None."""

import re

from kvprefix.files.words import count


def percent(share):
    """Return a share as percent with one decimal, a dash for None.

    >>> percent(0.4059), percent(None)
    ('40.6 %', '–')
    """
    return number(share if share is None else 100 * share, "z.1f", " %")


def fine_percent(share):
    """Return a share as percent with two decimals, a dash for None.

    >>> fine_percent(0.00234)
    '0.23 %'
    """
    return number(share if share is None else 100 * share, ".2f", " %")


def seconds(value):
    """Return a time in the unit that reads best, a dash for None.

    >>> seconds(0.83), seconds(113), seconds(5400), seconds(0.00042)
    ('0.83 s', '113 s', '90 min', '0.42 ms')
    """
    if value is None:
        return "–"
    if 0 < value < 0.001:
        return f"{1000 * value:.2g} ms"
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def number(value, form=",", unit=""):
    """Return a number in a format, with its unit; a dash for None.

    >>> number(1234), number(-12.345, ".1f"), number(-0.01, "+.1f"), number(None)
    ('1,234', '−12.3', '0.0', '–')
    """
    return "–" if value is None else show_sign(f"{value:{form}}{unit}")


def dollars(value):
    """Return a price with two decimals, a dash for None.

    >>> dollars(1234.5), dollars(None)
    ('$1,234.50', '–')
    """
    return "–" if value is None else f"${value:,.2f}"


def show_sign(text):
    """Return a formatted number with a true minus; a zero has no sign.

    >>> show_sign("-0.48"), show_sign("-0.0 %"), show_sign("+0.00"), show_sign("-0.01")
    ('−0.48', '0.0 %', '0.00', '−0.01')
    """
    return re.sub(r"^[-+](?=[0.,]+(?![0-9.,]))", "", text).replace("-", "−", text.startswith("-"))


def points(value):
    """Return a difference in points, with its sign; 0.00 has none.

    >>> points(1.234), points(-0.48), points(-0.001)
    ('+1.23', '−0.48', '0.00')
    """
    return number(value, "+.2f")


def counted(value, noun, plural=None):
    """Return a number, rounded to a whole one, with its noun.

    >>> counted(1, "block"), counted(2000.4, "request")
    ('1 block', '2,000 requests')
    """
    return count(round(value), noun, plural)


def spread(values):
    """Return the mean and the range of shares: of `{"mean": ..., "least": ..., "most": ...}`.

    >>> spread({"mean": 0.2, "least": 0.1, "most": 0.3}), spread({"mean": 0.2, "least": 0.2, "most": 0.2})
    ('20.0 % (10.0 %–30.0 %)', '20.0 %')
    """
    mean, low, high = (percent(values[name]) for name in ("mean", "least", "most"))
    return mean if low == high else f"{mean} ({low}–{high})"
