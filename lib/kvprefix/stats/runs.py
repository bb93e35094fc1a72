"""Compute with numbers that stand many times in a row, without a copy of each: as if all were written out.

Every result equals, to the last bit, what numpy computes of ``np.repeat(values, lengths)``: the same numbers are added
in the same order.
"""

import numpy as np
from numba import njit

PIECE = 2**16  # numbers that are written out at one time


def add_runs(values, lengths):
    """Return ``np.repeat(values, lengths).sum()``, bit for bit.

    Parameters
    ----------
    values : (n,) ndarray of float64
    lengths : (n,) ndarray of int

    Notes
    -----
    numpy adds pairwise: it halves an array, at a multiple of 8, until 128 numbers are left (Higham, 1993). Here the
    first halvings are made by hand.
    """
    ends = np.cumsum(lengths, dtype=np.int64)

    def add(start, n):
        if n <= PIECE:
            first, last = np.searchsorted(ends, (start, start + n - 1), "right")
            stops = np.minimum(ends[first : last + 1], start + n)
            return np.repeat(values[first : last + 1], np.diff(stops, prepend=start)).sum()
        half = n // 2 - n // 2 % 8
        return add(start, half) + add(start + half, n - half)

    return add(0, int(ends[-1])) if len(ends) and ends[-1] else 0.0


def find_percentiles(values, lengths, percents):
    """Return ``np.percentile(np.repeat(values, lengths), percents)`` of values in ascending order, bit for bit."""
    ends = np.cumsum(lengths, dtype=np.int64)
    place = (ends[-1] - 1) * (np.asarray(percents) / 100)
    before = np.floor(place).astype(np.int64)
    low, high = (values[np.searchsorted(ends, np.minimum(k, ends[-1] - 1), "right")] for k in (before, before + 1))
    share = place - before
    return np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))


@njit(cache=True, nogil=True)
def cumulate_runs(values, lengths):
    """Return ``np.cumsum(np.repeat(values, lengths))`` at the end of each run, (n,) float64, bit for bit."""
    reached, total = np.empty(len(values)), 0.0
    for i in range(len(values)):
        for _ in range(lengths[i]):
            total += values[i]
        reached[i] = total
    return reached
