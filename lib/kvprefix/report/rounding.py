"""How numbers are shown: rounded, with their units; a dash for None."""

from kvprefix.files.words import count


def percent(share):
    """Return a share as percent with one decimal, a dash for None.

    >>> percent(0.4059), percent(None)
    ('40.6 %', '–')
    """
    return number(share if share is None else 100 * share, ".1f", " %")


def seconds(value):
    """Return a time in the unit that reads best, a dash for None.

    >>> seconds(0.83), seconds(113), seconds(5400)
    ('0.83 s', '113 s', '90 min')
    """
    if value is None:
        return "–"
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def number(value, form=",", unit=""):
    """Return a number in a format, with its unit; a dash for None.

    >>> number(1234), number(12.345, ".1f"), number(None)
    ('1,234', '12.3', '–')
    """
    return "–" if value is None else f"{value:{form}}{unit}"


def points(value):
    """Return a difference in points, with its sign; 0.00 has none.

    >>> points(1.234), points(-0.001)
    ('+1.23', '0.00')
    """
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


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
