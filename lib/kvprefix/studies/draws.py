"""How many draws of the clock a study makes: as many as its printed intervals need.

A printed rate has a 95 % interval over resampled conversations, from the first draw. FIRST_DRAWS draws are always made.
STEP more follow, up to the study's most, until for each rate the 95 % interval of the mean over draws is no wider than
the printed one. The same holds for each printed difference, unless its sign lies beyond both intervals
together. Half-widths below TOLERANCE, half of the last printed digit, are never too wide.
"""

import numpy as np
from scipy.stats import t

SEEDS = 10  # the most draws of the clock
FIRST_DRAWS = 4
STEP = 2
TOLERANCE = 0.0005  # 0.05 points


def list_rounds(workload, most=SEEDS):
    """Return the seeds of each round of draws, the workload's own first.

    Examples
    --------
    >>> from types import SimpleNamespace as Some
    >>> list_rounds(Some(parameters=Some(seed=7)), 9)
    [[7, 8, 9, 10], [11, 12], [13, 14], [15]]
    """
    seeds = range(workload.parameters.seed, workload.parameters.seed + most)
    starts = [0, *range(min(FIRST_DRAWS, most), most, STEP), most]
    return [list(seeds[start:stop]) for start, stop in zip(starts, starts[1:], strict=False)]


def is_settled(table, keys, low="low", high="high", base=None):
    """Say whether the draws of a study's table are enough for its rates, or for its differences.

    Parameters
    ----------
    table : pandas.DataFrame
        `seed`, `token` (a rate), `keys`, and the ends `low` and `high` of the printed interval; rows without are passed
        over.
    keys : list of str
        The columns that tell the rows of a seed apart.
    low, high : str
        Columns.
    base : callable, optional
        ``base(rows)`` returns, for the rows of one seed, the rates that theirs are compared with.
    """
    printed = table[table[low].notna()].set_index(keys)
    values = table if base is None else table.assign(
        token=table["token"] - np.concatenate([base(rows) for _, rows in table.groupby("seed", sort=False)])
    )  # fmt: skip
    wide = values.pivot_table(index=keys, columns="seed", values="token", sort=False).reindex(printed.index)
    mean, drawn = _interval_of_mean(wide.to_numpy())
    resampled = (printed[high] - printed[low]).to_numpy() / 2
    settled = (drawn <= resampled) | (drawn <= TOLERANCE) | ~np.isfinite(drawn)
    if base is not None:
        settled |= np.abs(mean) > drawn + resampled
    return bool(settled.all())


def _interval_of_mean(values):
    """Return the mean of each row, (n,), and the half-width of its 95 % interval, by Student's t."""
    n = values.shape[1]
    if n < 2:
        return values.mean(axis=1), np.full(len(values), np.inf)
    return values.mean(axis=1), values.std(axis=1, ddof=1) * t.ppf(0.975, n - 1) / np.sqrt(n)


def is_known(table, keys, value, share=0.05):
    """Say whether the 95 % interval of each mean over draws is within a share of it: for sizes without an interval."""
    mean, drawn = _interval_of_mean(table.pivot_table(index=keys, columns="seed", values=value, sort=False).to_numpy())
    return bool((drawn <= share * np.abs(mean)).all())
