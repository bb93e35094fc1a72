"""The characteristic time of a cache: how long a block survives in it without being accessed, and what follows from it.

Che's approximation says that an LRU cache evicts every block that was not accessed for a fixed time T. So a block hits
if its gap is at most T, and T is the time within which as many distinct blocks are accessed as the cache holds (Che,
Tung and Wang, 2002; Fricker, Robert and Roberts, 2012). How many that are follows from the gaps (Denning and Schwartz,
1972), or from the access rates alone if accesses are independent of each other, as Che assumed.

It holds if the traffic is stationary over much more than T. So it is compared with the simulation in a window: the time
while conversations start, without its first 30 %.

Blocks that a request accesses together, and that were last accessed together, have one gap: all is measured by runs of
such blocks.
"""

import numpy as np
import pandas as pd
from numba import njit

from kvprefix.blocks.runs import GapRuns
from kvprefix.blocks.stretches import describe_stretches, list_paths

WINDOW_FROM = 0.3  # of the time in which conversations start
MOST_OF_WINDOW = 0.5  # `holds` is False if the characteristic time is a larger share of the window
POINTS = 80  # times at which the working set is measured


def list_gaps(accesses):
    """List the gaps between the accesses of each block.

    Parameters
    ----------
    accesses : PrefixTrace or StretchTrace

    Returns
    -------
    GapRuns

    Examples
    --------
    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> list_gaps(make_prefix_trace(make_trace_of([[1], [2], [1]], [0.0, 1.0, 5.0]), 1)).last
    array([0])
    """
    return GapRuns(*_list_gaps(list_paths(accesses)))


@njit(cache=True, nogil=True)
def _list_gaps(paths):
    nodes, ends, offsets = paths.nodes, paths.ends, paths.offsets
    last = np.full(paths.n_nodes, -1, np.int32)
    lengths = np.empty(len(nodes), np.int32)
    request, before = np.empty(len(nodes), np.int64), np.empty(len(nodes), np.int64)
    count = 0
    for i in range(len(offsets) - 1):
        k, stop, start = offsets[i], offsets[i + 1], 0
        while k < stop:
            earlier, first = last[nodes[k]], start
            while k < stop and last[nodes[k]] == earlier:
                last[nodes[k]], start = i, ends[k]
                k += 1
            if earlier >= 0:
                lengths[count], request[count], before[count] = start - first, i, earlier
                count += 1
    return lengths[:count].copy(), request[:count].copy(), before[:count].copy()


def find_window(accesses):
    """Return (start, end) in seconds of the time while conversations start, without its first WINDOW_FROM."""
    _, first = np.unique(accesses.conversation, return_index=True)
    starts = accesses.arrival_s[first]
    return starts.min() + WINDOW_FROM * (starts.max() - starts.min()), starts.max()


def compare_characteristic(accesses, capacities, hits):
    """Compare LRU's hit rate with what Che's approximation says, at several capacities.

    Parameters
    ----------
    accesses : PrefixTrace or StretchTrace
    capacities : (k,) sequence of int
        Blocks.
    hits : (n_requests, k) ndarray of int64
        The blocks of each request that LRU hits at these capacities.

    Returns
    -------
    pandas.DataFrame
        `capacity_blocks`; `time_s`, the characteristic time (NaN if the window accesses fewer distinct blocks);
        `simulated`, LRU's block hit rate in the window; `approximated`, from the gaps; `independent`, from the access
        rates alone; `window_s`; `holds`, whether `time_s` is at most MOST_OF_WINDOW of it.
    """
    (start, end), capacities = find_window(accesses), np.asarray(capacities)
    frame = pd.DataFrame({"capacity_blocks": capacities, "time_s": np.nan, "simulated": np.nan, "approximated": np.nan})
    inside = (accesses.arrival_s >= start) & (accesses.arrival_s <= end)
    accessed = accesses.blocks[inside].sum()
    if end > start and accessed:
        runs = list_gaps(accesses)
        frame["time_s"] = _find_times(accesses, runs, start, end, capacities)
        frame["simulated"] = hits[inside].sum(axis=0) / accessed
        frame["approximated"] = _count_kept(accesses, runs, inside, frame["time_s"].to_numpy()) / accessed
    frame["independent"] = _approximate_independent(list_paths(accesses), capacities)
    return frame.assign(window_s=end - start, holds=frame["time_s"] <= MOST_OF_WINDOW * (end - start))


def find_times(accesses, capacities):
    """Find the characteristic time of several capacities.

    Parameters
    ----------
    accesses : PrefixTrace or StretchTrace
    capacities : sequence of int
        Blocks.

    Returns
    -------
    (k,) ndarray of float64
        Seconds; NaN if the window accesses fewer distinct blocks, or if there is no window.
    """
    start, end = find_window(accesses)
    return _find_times(accesses, list_gaps(accesses), start, end, np.asarray(capacities))


def _find_times(accesses, runs, start, end, capacities):
    if not end > start:
        return np.full(len(capacities), np.nan)
    times_s = np.geomspace((end - start) * 1e-5, max(end, end - start), POINTS)
    sizes = _measure_working_set(*runs, accesses.blocks, accesses.arrival_s, start, end, times_s)
    return np.interp(capacities, sizes, times_s, right=np.nan)


def measure_working_set(accesses, start, end, times_s):
    """Measure the mean number of distinct blocks accessed within the last T seconds, over the moments of a window.

    Parameters
    ----------
    accesses : PrefixTrace or StretchTrace
    start, end : float
        Seconds.
    times_s : (k,) array_like
        The times T, ascending.

    Returns
    -------
    (k,) ndarray of float64
        A block counts from an access until its next one, but no longer than T (Denning and Schwartz, 1972).
    """
    times_s = np.asarray(times_s, float)
    return _measure_working_set(*list_gaps(accesses), accesses.blocks, accesses.arrival_s, start, end, times_s)


@njit(cache=True, nogil=True)
def _measure_working_set(lengths, request, before, blocks, arrival_s, start, end, times_s):
    """Add up stays: of one until its next access or for ever, the part in the window grows with T between two times.

    So the sum is a straight line between two neighbouring T: `slope` and `level` hold where it changes.
    """
    slope, level = np.zeros(len(times_s) + 1), np.zeros(len(times_s) + 1)
    left = blocks.copy()  # blocks whose last access is each request's
    for k in range(len(lengths)):
        left[before[k]] -= lengths[k]
        _add_stay(slope, level, lengths[k], arrival_s[before[k]], arrival_s[request[k]], start, end, times_s)
    for i in range(len(blocks)):
        _add_stay(slope, level, left[i], arrival_s[i], np.inf, start, end, times_s)
    return (np.cumsum(level)[:-1] + np.cumsum(slope)[:-1] * times_s) / (end - start)


@njit(cache=True, nogil=True)
def _add_stay(slope, level, blocks, at, until, start, end, times_s):
    if not blocks or at >= end or until <= start:
        return
    shortest, longest = max(start - at, 0.0), min(until, end) - at
    first, last = np.searchsorted(times_s, shortest), np.searchsorted(times_s, longest)
    slope[first] += blocks
    slope[last] -= blocks
    level[first] -= blocks * shortest
    level[last] += blocks * longest


def _count_kept(accesses, runs, inside, times_s):
    """Return how many accesses inside the window have a gap of at most each time; any gap if it is NaN."""
    gap_s = accesses.arrival_s[runs.request] - accesses.arrival_s[runs.last]
    chosen = inside[runs.request]
    order = np.argsort(times_s)  # NaN last
    since = np.searchsorted(times_s[order], gap_s[chosen])
    kept = np.cumsum(np.bincount(since, runs.lengths[chosen], len(times_s)))
    return kept[np.argsort(order)]


def _approximate_independent(paths, capacities):
    """Return Che's hit rates from access counts alone: C = sum of 1 - exp(-rate T), solved for T by bisection."""
    counts, lengths = np.bincount(paths.nodes, minlength=paths.n_nodes), describe_stretches(paths).lengths
    kinds = np.flatnonzero(np.bincount(counts))
    many = np.bincount(counts, lengths)[kinds]
    total, distinct = (many * kinds).sum(), many.sum()

    def count_within(times):
        return (many * -np.expm1(-kinds * times[:, None])).sum(axis=1)

    low, high, fits = np.zeros(len(capacities)), np.ones(len(capacities)), capacities < distinct
    while (short := fits & (count_within(high) < capacities)).any():
        high[short] *= 2
    for _ in range(60):
        middle = (low + high) / 2
        short = count_within(middle) < capacities
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    hit = (many * kinds * -np.expm1(-kinds * high[:, None])).sum(axis=1) / max(total, 1)
    return np.where(fits, hit, 1.0)
