"""The table of the benchmarks: rows, pairs of measurements, and what is said of them. It measures nothing itself."""

import statistics
from collections.abc import Callable
from typing import NamedTuple


class NotHereError(Exception):
    """Why a row cannot be measured on this machine."""


class Job(NamedTuple):
    """Two ways to do a job.

    Attributes
    ----------
    ours, theirs : str
        What runs, for the reader.
    take_pair : callable
        ``take_pair(k)`` measures both for the k-th time and returns a `Pair`.
    """

    ours: str
    theirs: str
    take_pair: Callable


class Pair(NamedTuple):
    """What both took, in the row's quantity, and what there is to say of it."""

    ours: float
    theirs: float
    note: str = ""


class Row(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    name : str
        As ``--only`` takes it.
    job, against : str
        What is done, and by whom else; "" if the measure itself is the ratio.
    quantity : str
        CPU s, wall s or MB.
    prepare : callable
        ``prepare(bench)`` returns a `Job`, or raises NotHereError.
    must, aim : float, optional
        Of the ratio.
    is_share : bool
        Whether the ratio is ours over theirs, at most `must`; else theirs over ours, at least `must`.
    pairs : int, optional
        How many, where it is not for the caller to say.
    is_asked_for : bool
        Whether it is measured only if it is named.
    """

    name: str
    job: str
    against: str
    quantity: str
    prepare: Callable
    must: float | None = None
    aim: float | None = None
    is_share: bool = False
    pairs: int | None = None
    is_asked_for: bool = False


class Measured(NamedTuple):
    """A row with its job and pairs, or with the reason why there are none."""

    row: Row
    job: Job | None
    pairs: list
    reason: str = ""


HEAD = """\
| row | job | against | quantity | ours | theirs | ratio | lowest to highest | must | aim |
|:--|:--|:--|:--|--:|--:|--:|--:|--:|--:|"""


def write_row(measured):
    """Return a line of the table: medians of both and of the pairs' ratios, and how far these are apart."""
    row, pairs = measured.row, measured.pairs
    begin = f"| {row.name} | {row.job} | {row.against} | {row.quantity} |"
    most = "at most " if row.is_share else ""
    limits = " | ".join("" if limit is None else f"{most}{limit:,g}" for limit in (row.must, row.aim))
    if not pairs:
        return f"{begin} | | | not measured | {limits} |"
    ratios = [pair.ours / pair.theirs if row.is_share else pair.theirs / pair.ours for pair in pairs]
    ours, theirs = (statistics.median(values) for values in list(zip(*pairs, strict=True))[:2])
    spread = f"{show(min(ratios))} to {show(max(ratios))} ({len(ratios)})"
    theirs = show(theirs) if row.against else ""
    return f"{begin} {show(ours)} | {theirs} | **{show(statistics.median(ratios))}** | {spread} | {limits} |"


def describe_row(measured):
    """Return the commands and notes of a row as an item of a list."""
    if not measured.job:
        return f"- {measured.row.name}: not measured: {measured.reason}"
    notes = [note for note in dict.fromkeys(pair.note for pair in measured.pairs[-1:]) if note]
    commands = {"ours": measured.job.ours, "theirs": measured.job.theirs}
    said = [*(f"{who} `{command}`" for who, command in commands.items() if command), *notes]
    return f"- {measured.row.name}: {'; '.join(said)}."


def show(value):
    """Return a number with three digits.

    >>> show(0.37219), show(13.05), show(11304.2)
    ('0.372', '13.1', '11,304')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"
