"""Differences between the rates of two runs, and their intervals: conversations of both are resampled together.

A conversation that both runs have is drawn into both or neither, so what both share cancels (a paired comparison).
Conversations of one run alone are drawn on their own. Shared conversations, those of the first run alone and those of
the second alone are three strata, each drawn as often as it has members (Efron and Tibshirani, 1993, cluster form).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kvprefix.stats.intervals import DRAWS, resample_groups
from kvprefix.stats.resampling import UNIT, make_rates


@dataclass(frozen=True)
class Counted:
    """What each request of a run adds to its rates.

    Attributes
    ----------
    conversations : (n,) ndarray of object
        Names; the same name in two runs is the same conversation.
    columns : pandas.DataFrame
        `prompt`, `cached` (tokens), `blocks`, `new`, `new_reused` (blocks accessed, stored, and stored and accessed
        again); n rows. Under another accounting `prompt` and `cached` again, its name before theirs, as in
        ``with_generated_tokens.cached``.
    """

    conversations: np.ndarray
    columns: pd.DataFrame

    @property
    def accountings(self):
        """The names that stand before `cached`, as in the statistics."""
        return [name.removesuffix("cached") for name in self.columns if name.endswith("cached")]

    def fraction(self, accounting=""):
        """Return cached over prompt tokens of each request, (n,) float64; 0 for an empty prompt."""
        cached, prompt = self.columns[f"{accounting}cached"], self.columns[f"{accounting}prompt"]
        return (cached / np.maximum(prompt, 1)).to_numpy()

    def take(self, chosen):
        """Return some of the requests: `chosen` is a mask or the positions, in the order wanted."""
        return Counted(self.conversations[chosen], self.columns.iloc[np.arange(len(self.columns))[chosen]])

    def rates(self):
        """Return the rates of all requests by name; NaN for one that does not exist."""
        drawn = _Draws(self, np.zeros(len(self.columns), np.int64), 1)
        drawn.add(np.ones(1))
        median = np.median(self.fraction()) if len(self.columns) else np.nan
        return drawn.rates().iloc[0].to_dict() | {"sharing_fraction.median": float(median)}


def count_blocks(requests, accesses, first_access_s, block_size):
    """Return how many blocks each request stored, and how many of these were accessed again, (n,) int64 each.

    Parameters
    ----------
    requests : pandas.DataFrame
        In arrival order: `arrival_s`, `prompt_tokens`, `prompt_blocks`, `hit_blocks`.
    accesses, first_access_s : (n_distinct,) ndarray
        Of each block, in the order in which they were stored.
    block_size : int
        Tokens per block.

    Raises
    ------
    ValueError
        If blocks and requests are not of one run.

    Notes
    -----
    A request stores its blocks behind those that it hits. Only the last block of a prompt without a partial block may
    be cached and still no hit (a last token is always computed). Whether it was stored is known by the count of blocks
    first accessed at that time; of several such requests at one time the first ones are taken to have stored it.
    """
    blocks = requests["prompt_blocks"].to_numpy()
    new = blocks - requests["hit_blocks"].to_numpy()
    times, at = np.unique(requests["arrival_s"], return_inverse=True)
    stored = np.bincount(np.searchsorted(times, first_access_s), minlength=len(times))[: len(times)]
    too_many = np.bincount(at, new, len(times)).astype(np.int64) - stored  # of each time: cached, but no hits
    may_be_cached = np.flatnonzero((new == 1) & (blocks * block_size == requests["prompt_tokens"]))
    order = may_be_cached[np.argsort(at[may_be_cached], kind="stable")][::-1]  # the last ones of each time first
    new[order[_rank_within(at[order]) < too_many[at[order]]]] = 0
    if len(accesses) != new.sum() or (np.bincount(at, new, len(times)) != stored).any():
        raise ValueError(f"{len(accesses)} blocks are not the {new.sum()} that the requests stored")
    stored_by = np.repeat(np.arange(len(new)), new)
    return new, np.bincount(stored_by, accesses > 1, len(new)).astype(np.int64)


def _rank_within(groups):
    """Return the position of each element among those of its group; equal ones stand together.

    >>> _rank_within(np.array([7, 7, 3]))
    array([0, 1, 0])
    """
    starts = np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1]))) if len(groups) else np.zeros(0, int)
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))


def draw_both(first, second, *, draws=DRAWS, seed=0):
    """Draw the rates of two runs with resampled conversations, the same ones in both where both have them.

    Returns
    -------
    tuple of two pandas.DataFrame
        A row per draw, a column per rate (of `stats.resampling`, and `tokens_left.mean`: prompt tokens that are not
        cached, per request). NaN if a draw has no such rate.
    """
    codes, names = pd.factorize(np.concatenate([first.conversations, second.conversations]))
    codes = codes[: len(first.conversations)], codes[len(first.conversations) :]
    in_first, in_second = (np.bincount(some, minlength=len(names)) > 0 for some in codes)
    strata = [np.flatnonzero(mask) for mask in (in_first & in_second, in_first & ~in_second, ~in_first & in_second)]
    drawn = [_Draws(*pair, len(names)) for pair in zip((first, second), codes, strict=True)]
    strata = [(some, resample_groups(len(some), draws, [seed, k])) for k, some in enumerate(strata) if len(some)]
    counts = np.zeros(len(names))
    for _ in range(draws):
        for members, times in strata:
            counts[members] = next(times)
        for one in drawn:
            one.add(counts)
    return tuple(one.rates() for one in drawn)


class _Draws:
    """The sums of a run in draws of its groups; each draw is how often every group is drawn."""

    def __init__(self, counted, group, n):
        fraction, self.accountings = counted.fraction(), counted.accountings
        columns = counted.columns.assign(requests=1.0, reused=counted.columns["blocks"] - counted.columns["new"])
        for name in self.accountings:
            columns[f"{name}fraction"] = np.rint(UNIT * counted.fraction(name))
        self.names, self.drawn, self.medians = list(columns), [], []
        self.sums = np.column_stack([np.bincount(group, columns[name], n) for name in columns])
        order = np.argsort(fraction, kind="stable")
        self.fraction, self.group = fraction[order], group[order]

    def add(self, counts):
        self.drawn.append(counts @ self.sums)
        reached = np.cumsum(counts[self.group])
        is_drawn = len(reached) and reached[-1]
        self.medians.append(self.fraction[np.searchsorted(reached, reached[-1] / 2)] if is_drawn else np.nan)

    def rates(self):
        sums = pd.DataFrame(self.drawn, columns=self.names)
        left = (sums["prompt"] - sums["cached"]) / sums["requests"].where(sums["requests"] > 0)
        return make_rates(sums, self.accountings, np.array(self.medians)).assign(**{"tokens_left.mean": left})


def combine_intervals(first, second, values):
    """Return the interval of a difference of two rates from their own intervals, as if the two were independent.

    Parameters
    ----------
    first, second : (low, high)
        Of the first run and of the second.
    values : (float, float)
        The rates.

    Returns
    -------
    (low, high)
        Of the second rate less the first. The method of variance estimates recovery (Zou and Donner, 2008).

    Examples
    --------
    >>> low, high = combine_intervals((0.47, 0.53), (0.56, 0.64), (0.5, 0.6))
    >>> round(low, 3), round(high, 3)
    (0.05, 0.15)
    """
    difference = values[1] - values[0]
    low = difference - np.hypot(values[1] - second[0], first[1] - values[0])
    high = difference + np.hypot(second[1] - values[1], values[0] - first[0])
    return float(low), float(high)
