"""How certain the rates of one mode are: what they would be with resampled conversations.

Each rate is a ratio of sums over requests, so it can be computed for any choice of conversations. The counts of one
replay are resampled (see `intervals`); a block belongs to the request that accessed it first. Rates are named by their
path in the statistics, as in ``sharing_fraction.mean``.
"""

from functools import reduce
from itertools import islice
from operator import getitem
from typing import NamedTuple

import numpy as np
import pandas as pd
from numba import njit

from kvprefix.stats.intervals import DRAWS, interval, resample_groups
from kvprefix.tasks.runner import open_tasks

TASKS = 8  # the draws are split among them
AT_ONCE = 8  # draws
FEW = 2**25  # conversations in all draws together that are drawn in a second, in this thread
UNIT = 2**26  # sharing fractions are summed in whole 1/UNIT, so that no sum depends on its order
FRACTIONS = np.linspace(0, 1, 101)  # at which the band of the sharing fraction's distribution is computed


class Resampled(NamedTuple):
    """The rates of a mode in draws of its conversations; draw k has the same conversations in both modes.

    Attributes
    ----------
    rates : pandas.DataFrame
        A row per draw, a column per rate. NaN if a draw has no such rate.
    cdf : (draws, len(FRACTIONS)) ndarray of float64
        Share of the requests whose sharing fraction is at most each of FRACTIONS.
    conversations : int
    accountings : dict of str to metrics.Accounting, optional
        What was resampled.
    """

    rates: pd.DataFrame
    cdf: np.ndarray
    conversations: int
    accountings: dict | None = None

    def intervals(self):
        """Return the 95 % interval of each rate: a dict of its name to [low, high], None if a draw lacks it."""
        found = {name: interval(self.rates[name]) for name in self.rates}
        return {name: None if np.isnan(one).any() else list(one) for name, one in found.items()}


def read_rate(stats, name):
    """Return a rate of a mode's statistics by its name.

    >>> read_rate({"sharing_fraction": {"mean": 0.4}}, "sharing_fraction.mean")
    0.4
    """
    return reduce(getitem, name.split("."), stats)


def resample_mode(trace, sharing, accountings, *, draws=DRAWS, seed=0):
    """Draw the rates of one mode.

    Parameters
    ----------
    trace : Trace
    sharing : Sharing
    accountings : dict of str to metrics.Accounting
    draws : int
    seed : int

    Returns
    -------
    Resampled
    """
    _, group = np.unique(trace.requests["conversation_index"], return_inverse=True)
    n = int(group.max(initial=-1)) + 1
    new, runs = sharing.prompt_blocks - sharing.request_gaps, sharing.block_runs
    columns = {
        "requests": np.ones(len(group)),
        "blocks": sharing.prompt_blocks,
        "reused": sharing.request_gaps,
        "new": new,
        "new_reused": np.bincount(runs.first, runs.lengths * (runs.accesses > 1), len(group)),
    }
    for name, one in accountings.items():
        columns |= {
            f"{name}prompt": one.prompt_tokens,
            f"{name}cached": one.cached_tokens,
            f"{name}fraction": np.rint(UNIT * one.sharing_fraction),
        }
    sums = np.column_stack([np.bincount(group, column, n) for column in columns.values()])
    shares = [draws // TASKS + (k < draws % TASKS) for k in range(TASKS)]
    ranked = _rank(accountings[""].sharing_fraction, group, n)
    some = [(sums, ranked, share, [seed, k]) for k, share in enumerate(shares)]
    with open_tasks("here" if n * draws <= FEW else None) as tasks:
        drawn, cdf, median = map(np.concatenate, zip(*tasks.map(_resample, some, "resampling"), strict=True))
    rates = make_rates(pd.DataFrame(drawn, columns=list(columns)), accountings, median)
    return Resampled(rates, cdf, n, accountings)


class _Ranked(NamedTuple):
    """The requests of a trace by their sharing fraction.

    Attributes
    ----------
    values : (n_requests,) ndarray of float64
        Ascending.
    groups : (n_requests,) ndarray of int64
        Their conversations.
    stops : (len(FRACTIONS),) ndarray of int64
        How many are at most each of FRACTIONS.
    bins : (n_requests,) ndarray of uint8
        Conversation after conversation, the first of FRACTIONS that is not below each request's.
    firsts : (n_conversations + 1,) ndarray of int64
        Where each conversation begins in `bins`.
    """

    values: np.ndarray
    groups: np.ndarray
    stops: np.ndarray
    bins: np.ndarray
    firsts: np.ndarray


def _rank(fraction, group, n):
    order, by_group = np.argsort(fraction, kind="stable"), np.argsort(group, kind="stable")
    values, bins = fraction[order], np.searchsorted(FRACTIONS, fraction[by_group]).astype(np.uint8)
    stops = np.searchsorted(values, FRACTIONS, "right")
    return _Ranked(values, group[order], stops, bins, np.searchsorted(group[by_group], np.arange(n + 1)))


def _resample(task):
    """Return some draws: the sums of what is counted, the distribution of the sharing fraction and its median."""
    sums, ranked, draws, seed = task
    drawn, cdf, median = np.zeros((draws, sums.shape[1])), np.zeros((draws, len(FRACTIONS))), np.zeros(draws)
    every = iter(resample_groups(len(sums), draws, seed))
    start = 0
    while some := [counts.astype(np.int32) for counts in islice(every, AT_ONCE)]:
        stop = start + len(some)
        drawn[start:stop], cdf[start:stop], median[start:stop] = _draw(np.array(some), sums, *ranked)
        start = stop
    return drawn, cdf, median


@njit(cache=True, nogil=True)
def _draw(counts, sums, values, groups, stops, bins, firsts):
    """Go through the conversations once for some draws; the largest array, `sums`, is then read once for all of them.

    The median is the value at which the requests so far, by value, are half of those drawn.
    """
    drawn = np.zeros((len(counts), sums.shape[1]))  # whole numbers, which are exact in any order
    reached, median = np.zeros((len(counts), len(stops)), np.int64), np.empty(len(counts))
    for group in range(len(sums)):
        for k in range(len(counts)):
            times = np.int64(counts[k, group])
            if times:
                factor = float(times)
                for column in range(sums.shape[1]):
                    drawn[k, column] += factor * sums[group, column]
                for request in range(firsts[group], firsts[group + 1]):
                    reached[k, bins[request]] += times
    for k in range(len(counts)):
        for bin in range(1, len(stops)):
            reached[k, bin] += reached[k, bin - 1]
        bin = np.searchsorted(2 * reached[k], reached[k, -1])
        place, before = (stops[bin - 1], reached[k, bin - 1]) if bin else (0, 0)
        while values[place] != values[stops[bin] - 1]:  # the last value of the bin needs no count
            before += counts[k, groups[place]]
            if 2 * before >= reached[k, -1]:
                break
            place += 1
        median[k] = values[place]
    return drawn, reached / reached[:, -1:], median


def make_rates(sums, accountings, median):
    """Return the rates of draws from their sums: a frame with a row per draw, NaN where a draw has no such rate."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = {"sharing_fraction.median": median}
        for name in accountings:
            rates[f"{name}sharing_fraction.mean"] = sums[f"{name}fraction"] / UNIT / sums["requests"]
            rates[f"{name}token_hit_rate"] = sums[f"{name}cached"] / sums[f"{name}prompt"]
        rates["block_reuse_rate"] = sums["reused"] / sums["blocks"]
        rates["blocks_reused_fraction"] = sums["new_reused"] / sums["new"]
        rates["block_hit_count.mean"] = sums["blocks"] / sums["new"]
    return pd.DataFrame(rates).replace([np.inf, -np.inf], np.nan)
