"""One measure of several reports side by side, and what each differs in from the first."""

from dataclasses import dataclass, field

import pandas as pd

from kvprefix.report.rounding import points
from kvprefix.report.tables import Narrow

DECIDED = ("higher", "lower")


@dataclass(frozen=True)
class Beside:
    """A measure of several reports.

    Attributes
    ----------
    keys : dict
        What is measured and where: heading to value.
    values : dict
        Label of a report to its value; None if it has none.
    against : dict
        Label of each report but the first to its `difference` from the first, the difference's 95 % interval (`low`,
        `high`), its `verdict` (of `stats.intervals.judge_difference`), all None if one has no value, and what the
        interval is made of (`interval`).
    share : bool
        Whether it is a share, whose differences are shown in points.
    more : dict
        What else readers of the JSON need: the path of a rate.
    """

    keys: dict
    values: dict
    against: dict
    share: bool = True
    more: dict = field(default_factory=dict)

    def as_dict(self):
        """Return all of it for JSON."""
        return {**self.keys, **self.more, "values": self.values, "against": self.against}


def no_difference(interval):
    """Return the entry of `Beside.against` of a report that has no value, or whose first has none."""
    return {"difference": None, "low": None, "high": None, "verdict": None, "interval": interval}


def count_verdicts(measures, label):
    """Return how often each verdict is of a report, by verdict."""
    verdicts = [one.against[label]["verdict"] for one in measures if label in one.against]
    return {name: verdicts.count(name) for name in (*DECIDED, "not separated", "equal")}


def tabulate(measures):
    """Return measures as a wide table: a row each, a column per report, then the differences from the first.

    Two reports have the interval beside it; of more, it is in `comparison.json`.
    """
    rows = []
    for one in measures:
        row = {**one.keys, **one.values}
        for label, found in one.against.items():
            difference, low, high = (_times(found[name], one.share) for name in ("difference", "low", "high"))
            verdict = found["verdict"] or "–"
            if len(one.against) == 1:
                row |= {"difference": difference, "95 % low": low, "95 % high": high, "verdict": verdict}
            else:
                row |= {f"{label}: difference": difference, f"{label}: verdict": verdict}
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def narrow_table(measures, form):
    """Return measures as a table for a column of a paper; `form` shows a value.

    Two reports stand side by side. More stand below each other, so that any number fits.
    """
    rows = []
    for one in measures:
        if len(one.values) == 2:
            (found,) = one.against.values()
            row = {**one.keys, **one.values}
            row |= {"difference": show_difference(found, one.share)} if len(one.keys) == 1 else {}
            rows.append({**row, "verdict": found["verdict"] or "–"})
            continue
        for label, value in one.values.items():
            verdict = one.against[label]["verdict"] if label in one.against else None
            rows.append({**one.keys, "report": label, "value": value, "verdict": verdict or "–"})
    notes = ["Differences and verdicts are against the first report."]
    if any(one.share for one in measures) and len(measures[0].keys) == 1 and len(measures[0].values) == 2:
        notes = ["Difference: in points, with its 95 % interval."]
    labels = [label for one in measures for label in one.values]
    return Narrow(pd.DataFrame(rows, dtype=object), dict.fromkeys([*labels, "value"], form), tuple(notes))


def show_difference(found, share):
    """Return a difference with its interval in a few characters.

    >>> show_difference({"difference": 0.0123, "low": 0.0101, "high": 0.0145}, True)
    '+1.23 (+1.01, +1.45)'
    """
    if found["difference"] is None:
        return "–"
    difference, low, high = (points(_times(found[name], share)) for name in ("difference", "low", "high"))
    return f"{difference} ({low}, {high})"


def format_columns(measures, form):
    """Return the formats of the columns of `tabulate`."""
    labels = [label for one in measures for label in one.values]
    others = [f"{label}: difference" for one in measures for label in one.against]
    signed = dict.fromkeys(["difference", "95 % low", "95 % high", *others], points)
    return signed | dict.fromkeys(labels, form)


def _times(value, share):
    """Return a difference as it is shown: of shares in points."""
    return 100 * value if share and value is not None else value
