"""What the notebooks of several reports found for caches of limited size: LRU, policies and engines at equal memory.

All is read from the numbers of the reports' own figures. Capacities are in tokens, since block sizes may differ.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from kvprefix.report.comparison.differences import Beside
from kvprefix.report.comparison.parameters import differs_in_seed_only
from kvprefix.report.comparison.read import Report
from kvprefix.stats.intervals import judge_difference, move_interval
from kvprefix.stats.paired import combine_intervals
from kvprefix.studies.cache import round_size, spread_capacities

POINTS = 5  # capacities of a table
NEAR = 0.05  # capacities that differ by at most this share can be compared


@dataclass(frozen=True)
class Study:
    """A notebook's study that at least two reports have.

    Attributes
    ----------
    reports : list of Report
        Those that have it; the first is the one that others are compared with.
    frames : list of pandas.DataFrame
        Their rows: `seed`, `tokens` (the capacity), `token` (the hit rate), `low`, `high`, `name` (the policy or the
        engine).
    """

    reports: list[Report]
    frames: list[pd.DataFrame]


def add_named(study, reports, notebook, slug, name):
    """Return a Study with what a further figure has, at its capacities, and the study has not by that name.

    Parameters
    ----------
    study : Study or None
    reports, notebook, slug, name
        As of `read_study`.
    """
    more = read_study(reports, notebook, slug, name=name)
    if study is None or more is None:
        return study
    further = dict(zip((one.label for one in more.reports), more.frames, strict=True))
    frames = []
    for one, frame in zip(study.reports, study.frames, strict=True):
        new = further.get(one.label, frame)
        frames.append(pd.concat([frame, new[~new["name"].isin(frame["name"])]], ignore_index=True))
    return Study(study.reports, frames)


def read_study(reports, notebook, slug, *, capacity="capacity_blocks", name=None, what=None):
    """Return a Study of the reports that have the figure; None if fewer than two have.

    Parameters
    ----------
    reports : list of Report
    notebook, slug : str
        Of the figure whose numbers are read.
    capacity : str
        The column of capacities, in blocks.
    name : str, optional
        The column of what is compared at each capacity.
    what : str, optional
        The rows that are read, by the column `what`, of a figure that shows several things.
    """
    columns = ["seed", "token", "low", "high", capacity, *([name] if name else []), *(["what"] if what else [])]
    found = [(one, one.read_figure(notebook, slug, columns)) for one in reports]
    found = [(one, frame) for one, frame in found if frame is not None and len(frame)]
    if what:
        found = [(one, frame[frame["what"] == what]) for one, frame in found]
    if len(found) < 2:
        return None
    frames = [
        frame.assign(tokens=frame[capacity] * one.block_size, name=frame[name] if name else "LRU")
        for one, frame in found
    ]  # fmt: skip
    return Study([one for one, _ in found], frames)


def choose_memories(study):
    """Return up to POINTS capacities in tokens, round numbers in the range of all reports, none if they share none."""
    least = max(frame["tokens"].min() for frame in study.frames)
    most = min(frame["tokens"].max() for frame in study.frames)
    if least >= most:
        return [int(least)] if least == most else []
    spread = spread_capacities(int(most), POINTS + 2, int(least))[1:-1]
    return sorted({size for one in spread if least <= (size := round_size(int(one))) <= most})


def list_comparable(study, names, most=3):
    """Return up to `most` capacities of the first report, in tokens, that the others have too, give or take NEAR.

    Those at which most of the names can be compared are preferred.
    """
    memories = np.unique(study.frames[0]["tokens"])
    counts = np.array([sum(_is_there(study, name, memory) for name in names) for memory in memories])
    if not counts.any():
        return []
    best = memories[counts == counts.max()]
    return [int(one) for one in best[np.unique(np.linspace(0, len(best) - 1, most).round().astype(int))]]


def list_common_names(study):
    """Return the policies or engines that all reports have, in the order of the first."""
    names = [pd.unique(frame["name"]) for frame in study.frames]
    return [name for name in names[0] if all(name in some for some in names)]


def compare_at(study, memories, same, labels=None):
    """Compare the rates at capacities in tokens.

    LRU's curve has so many capacities that a rate between two of them is read off a line, linear in the logarithm of
    the capacity. Of what is compared by name, a report's nearest capacity counts, which is not farther than NEAR.

    Parameters
    ----------
    study : Study
    memories : sequence of int
        Within the range of all reports.
    same : set of str
        Labels of the reports that have the conversations of the first and no others: see `_judge_seeds`.
    labels : callable, optional
        Names a policy or an engine for readers.

    Returns
    -------
    list of Beside
        With the keys `memory (tokens)` and, if names are given labels, `what`.
    """
    found, first = [], study.reports[0]
    all_labels = [one.label for one in study.reports]
    for memory in memories:
        for name in list_common_names(study):
            if labels and not _is_there(study, name, memory):
                continue
            read = _read_nearest if labels else _read_line
            rates = [_rate_seeds(frame[frame["name"] == name], memory, read) for frame in study.frames]
            against = {
                one.label: _judge_seeds(rates[0], rate, one.label in same, differs_in_seed_only(first, one))
                for one, rate in zip(study.reports[1:], rates[1:], strict=True)
            }
            ranges = [[float(one["rates"].min()), float(one["rates"].max())] for one in rates]
            found.append(Beside(
                {"memory (tokens)": memory} | ({"what": labels(name)} if labels else {}),
                dict(zip(all_labels, (one["mean"] for one in rates), strict=True)), against, True,
                {"name": name, "ranges": dict(zip(all_labels, ranges, strict=True))},
            ))  # fmt: skip
    return found


def _is_there(study, name, memory):
    """Say whether each report has a capacity near `memory` for a name."""
    for frame in study.frames:
        tokens = frame["tokens"].to_numpy()[(frame["name"] == name).to_numpy()]
        if not len(tokens) or np.abs(tokens - memory).min() > NEAR * memory:
            return False
    return True


def _read_line(rows, memory):
    at = np.log(rows["tokens"])
    return [float(np.interp(np.log(memory), at, rows[name])) for name in ("token", "low", "high")]


def _read_nearest(rows, memory):
    row = rows.iloc[int(np.abs(rows["tokens"].to_numpy() - memory).argmin())]
    return [float(row[name]) for name in ("token", "low", "high")]


def _rate_seeds(frame, memory, read):
    """Return the rate of each seed at a capacity, their mean, and the first seed's 95 % interval moved to the mean."""
    found = [read(rows.sort_values("tokens"), memory) for _, rows in frame.groupby("seed", sort=False)]
    rates = np.array([rate for rate, _, _ in found])
    mean = float(np.clip(rates.mean(), rates.min(), rates.max()))
    measured = next(([low, high, rate] for rate, low, high in found if not np.isnan(low)), None)
    ends = None if measured is None else [float(end) for end in move_interval(*measured, mean)]
    return {"rates": rates, "mean": mean, "ends": ends}


def _judge_seeds(first, other, same, undecided):
    """Return an entry of `Beside.against`.

    Both reports have draws of the arrival times. With the `same` conversations, the interval is that of the mean
    difference over the draws (Student's t), and the verdict is of these conversations. Otherwise it is made of both
    reports' own intervals over conversations, as if they were independent. Either way all draws must agree.
    """
    n = min(len(first["rates"]), len(other["rates"]))
    differences, difference = other["rates"][:n] - first["rates"][:n], other["mean"] - first["mean"]
    low = high = None
    if same and n > 1:
        half = float(stdtrit(n - 1, 0.975) * differences.std(ddof=1) / np.sqrt(n))
        low, high = difference - half, difference + half
    elif not same and first["ends"] and other["ends"]:
        low, high = combine_intervals(first["ends"], other["ends"], (first["mean"], other["mean"]))
    verdict = "equal" if not differences.any() and not difference else "not separated"
    if low is not None and not undecided:
        verdict = judge_difference(differences, low, high)
    return {"difference": difference, "low": low, "high": high, "verdict": verdict,
            "interval": "over arrival times" if same else "of both intervals"}  # fmt: skip
