"""What a cache would have to hold: distinct blocks within a window of time, and how reuse spreads over blocks."""

import numpy as np
from numba import njit


def count_working_set(accesses, window_s, times_s):
    """Count the distinct blocks accessed within a window of time (Denning's working set, 1968).

    Parameters
    ----------
    accesses : PrefixTrace
    window_s : float
        Seconds.
    times_s : (n,) array_like
        Ends of the windows, ascending: each spans (time - window_s, time].

    Returns
    -------
    (n,) ndarray of int64

    Examples
    --------
    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> accesses = make_prefix_trace(make_trace_of([[1], [2], [1], [3]], arrival_s=[0, 1, 2, 3]), 1)
    >>> count_working_set(accesses, 2, [0, 1, 2, 3])
    array([1, 2, 2, 2])
    """
    times_s = np.asarray(times_s, float)
    return _count_within(accesses.ids, accesses.offsets, accesses.arrival_s, float(window_s), times_s,
                         accesses.n_distinct)  # fmt: skip


@njit(cache=True, nogil=True)
def _count_within(ids, offsets, arrival_s, window_s, times_s, n_distinct):
    """Each access holds its block from its time until the next access or until the window has passed it."""
    change = np.zeros(len(times_s) + 1, np.int64)
    last = np.full(n_distinct, -np.inf)
    for i in range(len(offsets) - 1):
        now = np.searchsorted(times_s, arrival_s[i])
        for k in range(offsets[i], offsets[i + 1]):
            if last[ids[k]] > -np.inf:
                end = min(arrival_s[i], last[ids[k]] + window_s)
                change[np.searchsorted(times_s, end)] -= 1
            change[now] += 1
            last[ids[k]] = arrival_s[i]
    for block in range(n_distinct):
        change[np.searchsorted(times_s, last[block] + window_s)] -= 1
    return np.cumsum(change)[:-1]


def rank_reuse(access_counts):
    """Return which share of all reuses the hottest blocks hold.

    Parameters
    ----------
    access_counts : (n_distinct,) ndarray of int64
        Accesses of each block, the first included.

    Returns
    -------
    share_of_blocks, share_of_reuse : (n_distinct + 1,) ndarrays of float64
        The most accessed share of the blocks, and the share of the reuses (accesses after the first) that it holds;
        from (0, 0). Shares of reuse are 0 if nothing is reused.
    """
    reuses = np.sort(access_counts - 1)[::-1]
    held = np.concatenate(([0.0], np.cumsum(reuses)))
    return np.arange(len(held)) / max(len(reuses), 1), held / max(held[-1], 1.0)
