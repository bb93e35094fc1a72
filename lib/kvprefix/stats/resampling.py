"""How certain the rates of one mode are: what they would be with resampled conversations.

Each rate is a ratio of sums over requests, so it can be computed for any choice of conversations. The counts of one
replay are resampled (see `intervals`); a block belongs to the request that accessed it first. Rates are named by their
path in the statistics, as in ``sharing_fraction.mean``.
"""

from functools import reduce
from operator import getitem
from typing import NamedTuple

import numpy as np
import pandas as pd
from numba import njit

from kvprefix.stats.intervals import DRAWS, interval, resample_groups
from kvprefix.tasks.runner import open_tasks

TASKS = 8  # the draws are split among them
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
    fraction = accountings[""].sharing_fraction
    order = np.argsort(fraction, kind="stable")
    fraction, group = fraction[order], group[order]
    shares = [draws // TASKS + (k < draws % TASKS) for k in range(TASKS)]
    some = [(sums, fraction, group, share, [seed, k]) for k, share in enumerate(shares)]
    with open_tasks() as tasks:
        drawn, cdf, median = map(np.concatenate, zip(*tasks.map(_resample, some, "resampling"), strict=True))
    rates = make_rates(pd.DataFrame(drawn, columns=list(columns)), accountings, median)
    return Resampled(rates, cdf, n, accountings)


def _resample(task):
    """Return some draws: the sums of what is counted, the distribution of the sharing fraction and its median."""
    sums, fraction, group, draws, seed = task
    stops = np.searchsorted(fraction, FRACTIONS, "right")
    drawn, cdf, median = np.zeros((draws, sums.shape[1])), np.zeros((draws, len(FRACTIONS))), np.zeros(draws)
    for k, counts in enumerate(resample_groups(len(sums), draws, seed)):
        drawn[k] = counts @ sums
        place = _rank(counts.astype(np.int64), group, stops, cdf[k])
        median[k] = fraction[place]
    return drawn, cdf, median


@njit(cache=True, nogil=True)
def _rank(counts, group, stops, shares):
    """Fill in the share of the drawn requests before each of the stops; return the place of their median.

    `group` are the requests' conversations, sorted by what is ranked.
    """
    reached, total, place = np.empty(len(stops), np.int64), 0, 0
    for k in range(len(stops)):
        while place < stops[k]:
            total += counts[group[place]]
            place += 1
        reached[k] = total
    for k in range(place, len(group)):
        total += counts[group[k]]
    shares[:] = reached / total
    place, before = 0, counts[group[0]]
    while 2 * before < total:
        place += 1
        before += counts[group[place]]
    return place


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
