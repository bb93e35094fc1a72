"""What a cache would have to hold: distinct blocks within a window of time, and how reuse spreads over blocks."""

import numpy as np

from kvprefix.cache.characteristic import list_gaps


def count_working_set(accesses, window_s, times_s):
    """Count the distinct blocks accessed within a window of time (Denning's working set, 1968).

    Parameters
    ----------
    accesses : PrefixTrace or StretchTrace
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
    arrival_s, blocks, runs = accesses.arrival_s, accesses.blocks, list_gaps(accesses)
    left = blocks - np.bincount(runs.last, runs.lengths, len(blocks))  # blocks whose last access is each request's

    def count_until(moments_s, counts):
        at = np.searchsorted(times_s, moments_s)
        return np.cumsum(np.bincount(at, counts, len(times_s) + 1))[: len(times_s)]

    # Each access holds its block from its time until the next access or until the window has passed it.
    until_s = np.minimum(arrival_s[runs.request], arrival_s[runs.last] + window_s)
    held = count_until(arrival_s, blocks) - count_until(until_s, runs.lengths) - count_until(arrival_s + window_s, left)
    return held.astype(np.int64)


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
