"""Intervals for hit rates: a bootstrap that resamples conversations.

The requests of a conversation depend on each other (a later turn repeats the earlier ones), so resampling requests
would give intervals that are too narrow. The hits of one replay are resampled: no draw is replayed again.
"""

import itertools
from functools import lru_cache

import numpy as np
from numba import njit

DRAWS = 1000
AT_ONCE = 32  # draws for which the sums are read once; sums of whole numbers are exact in any order
KEPT_GROUPS = 2**15  # the most groups whose draws are kept for the next rates; they take two bytes each


def bootstrap_rates(hit_tokens, prompt_tokens, groups, *, draws=DRAWS, seed=0):
    """Draw token hit rates of resampled conversations.

    Parameters
    ----------
    hit_tokens : (n_requests, k) ndarray
        Cached tokens of each request in each of k cases; the cases are resampled together, so their differences are
        paired.
    prompt_tokens : (n_requests,) ndarray
    groups : (n_requests,) ndarray
        The conversation of each request. Conversations are resampled, with replacement.
    draws : int
    seed : int

    Returns
    -------
    (draws, k) ndarray of float64
        Sum of hit tokens over sum of prompt tokens of each draw. Efron and Tibshirani (1993), cluster form.
    """
    _, group = np.unique(groups, return_inverse=True)
    n = int(group.max(initial=-1)) + 1
    columns = [np.bincount(group, hit_tokens[:, k], n) for k in range(hit_tokens.shape[1])]
    sums = np.column_stack([np.bincount(group, prompt_tokens, n), *columns])
    counts = _keep_counts(n, draws, seed) if n <= KEPT_GROUPS else resample_groups(n, draws, seed)
    counts, drawn = iter(counts), [np.zeros((0 if n else draws, sums.shape[1]))]
    while some := list(itertools.islice(counts, AT_ONCE)):
        drawn.append(_sum_drawn(np.stack(some, axis=1).astype(float), sums).T)
    drawn = np.concatenate(drawn)
    return drawn[:, 1:] / np.maximum(drawn[:, :1], 1)


@njit(cache=True, nogil=True)
def _sum_drawn(counts, sums):
    """Return the sums of some draws, (k, draws), of counts, (n, draws), and sums, (n, k).

    A product of matrices would do, but on few busy cores its threads spend most of the time waiting for each other.
    """
    drawn = np.zeros((sums.shape[1], counts.shape[1]))
    for group in range(len(sums)):
        for column in range(sums.shape[1]):
            value = sums[group, column]
            if value:
                for k in range(counts.shape[1]):
                    drawn[column, k] += value * counts[group, k]
    return drawn


@lru_cache(maxsize=1)
def _keep_counts(n, draws, seed):
    """Return what `resample_groups` yields, for the next one who asks: (draws, n) uint16."""
    return np.array([counts.astype(np.uint16) for counts in resample_groups(n, draws, seed)], np.uint16)


def resample_groups(n, draws=DRAWS, seed=0):
    """Yield per draw how often each of n groups is drawn, n times with replacement: (n,) float64; nothing if n is 0."""
    rng = np.random.default_rng(seed)
    for _ in range(draws if n else 0):
        yield np.bincount(rng.integers(n, size=n), minlength=n).astype(float)


def interval(draws, level=0.95):
    """Return the (low, high) percentiles of draws, along their first axis.

    >>> interval(np.arange(101), 0.5)
    (25.0, 75.0)
    """
    low, high = np.percentile(draws, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return (float(low), float(high)) if np.ndim(low) == 0 else (low, high)


def spread_over(frame, by, column):
    """Return the mean and the range over seeds of a measure: `mean`, `min` and `max`, a row per value of `by`.

    The mean is clipped to the range, which rounding may leave.

    >>> import pandas as pd
    >>> spread_over(pd.DataFrame({"pool": 8, "token": [0.1, 0.1, 0.1]}), "pool", "token").loc[8].tolist()
    [0.1, 0.1, 0.1]
    """
    spread = frame.groupby(by)[column].agg(["mean", "min", "max"])
    return spread.assign(mean=spread["mean"].clip(spread["min"], spread["max"]))


def pair_differences(frame, by, base, over="capacity_blocks"):
    """Return a frame and its `points`: each token hit rate less the base's of the same seed and place, in points.

    Parameters
    ----------
    frame : pandas.DataFrame
        With `seed`, `token` and the columns `by` and `over`; one row for each of them together.
    by : str
        The column that holds the base's name.
    base : str
    over : str
        The column of the places.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"seed": 0, "capacity_blocks": 8, "policy": ["lru", "lfu"], "token": [0.25, 0.5]})
    >>> pair_differences(frame, "policy", "lru")["points"].tolist()
    [0.0, 25.0]
    """
    placed = frame.set_index(["seed", over])
    of_base = placed[placed[by] == base]["token"].reindex(placed.index)
    return frame.assign(points=100 * (placed["token"].to_numpy() - of_base.to_numpy()))


def move_interval(low, high, first, mean, least=0.0):
    """Return the ends of an interval that was found with the first seed, moved to the mean over seeds.

    The ends stay between `least` (-1 for a difference of two rates) and 1, where rates can be.

    >>> [float(end) for end in (*move_interval(0.25, 0.75, 0.5, 0.625), *move_interval(0.0, 0.75, 0.5, 0.25))]
    [0.375, 0.875, 0.0, 0.5]
    """
    return _limit(low + (mean - first), least), _limit(high + (mean - first), least)


def _limit(end, least):
    return np.minimum(np.maximum(end, least), 1.0) + 0.0  # + 0.0: a zero without a sign


def judge_difference(differences, low, high):
    """Judge a difference: it is one if all seeds agree on its sign and the interval excludes zero.

    Parameters
    ----------
    differences : (seeds,) array_like
        Paired differences, one per seed.
    low, high : float
        95 % interval of the difference over resampled conversations.

    Returns
    -------
    {"higher", "lower", "equal", "not separated"}

    Examples
    --------
    >>> judge_difference([0.1, 0.2], 0.05, 0.2), judge_difference([0.1, 0.2], -0.05, 0.2)
    ('higher', 'not separated')
    """
    differences = np.asarray(differences)
    if (differences > 0).all() and low > 0:
        return "higher"
    if (differences < 0).all() and high < 0:
        return "lower"
    return "not separated" if (differences != 0).any() else "equal"
