"""The characteristic time of a cache: how long a block survives in it without being accessed, and what follows from it.

Che's approximation says that an LRU cache evicts every block that was not accessed for a fixed time T. So a block hits
if its gap is at most T, and T is the time within which as many distinct blocks are accessed as the cache holds (Che,
Tung and Wang, 2002; Fricker, Robert and Roberts, 2012). How many that are follows from the gaps (Denning and Schwartz,
1972), or from the access rates alone if accesses are independent of each other, as Che assumed.

It holds if the traffic is stationary over much more than T. So it is compared with the simulation in a window: the time
while conversations start, without its first 30 %.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numba import njit

from kvprefix.cache.curve import measure_distances

WINDOW_FROM = 0.3  # of the time in which conversations start
MOST_OF_WINDOW = 0.5  # `holds` is False if the characteristic time is a larger share of the window
POINTS = 80  # times at which the working set is measured


@dataclass(frozen=True)
class Gaps:
    """When each block access happens, and how long before it the same block was accessed.

    Attributes
    ----------
    at_s, before_s : (total,) ndarrays of float64
        Seconds, in the order of `PrefixTrace.ids`; infinite if there is no such access.
    """

    at_s: np.ndarray
    before_s: np.ndarray


def measure_gaps(accesses):
    """Measure the gaps of every block access. See `Gaps`.

    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> measure_gaps(make_prefix_trace(make_trace_of([[1], [2], [1]], [0.0, 1.0, 5.0]), 1)).before_s
    array([inf, inf,  5.])
    """
    return Gaps(*_measure(accesses.ids, accesses.offsets, accesses.arrival_s, accesses.n_distinct))


@njit(cache=True, nogil=True)
def _measure(ids, offsets, arrival_s, n_distinct):
    last = np.full(n_distinct, -1)
    at, before = np.empty(len(ids)), np.full(len(ids), np.inf)
    for i in range(len(arrival_s)):
        for k in range(offsets[i], offsets[i + 1]):
            at[k], earlier = arrival_s[i], last[ids[k]]
            if earlier >= 0:
                before[k] = at[k] - at[earlier]
            last[ids[k]] = k
    return at, before


def find_window(accesses):
    """Return (start, end) in seconds of the time while conversations start, without its first WINDOW_FROM."""
    _, first = np.unique(accesses.conversation, return_index=True)
    starts = accesses.arrival_s[first]
    return starts.min() + WINDOW_FROM * (starts.max() - starts.min()), starts.max()


def compare_characteristic(accesses, capacities):
    """Compare LRU's hit rate with what Che's approximation says, at several capacities.

    Parameters
    ----------
    accesses : PrefixTrace
    capacities : sequence of int
        Blocks.

    Returns
    -------
    pandas.DataFrame
        `capacity_blocks`; `time_s`, the characteristic time (NaN if the window accesses fewer distinct blocks);
        `simulated`, LRU's block hit rate in the window; `approximated`, from the gaps; `independent`, from the access
        rates alone; `window_s`; `holds`, whether `time_s` is at most MOST_OF_WINDOW of it.
    """
    gaps, distances, (start, end) = measure_gaps(accesses), measure_distances(accesses), find_window(accesses)
    inside = (gaps.at_s >= start) & (gaps.at_s <= end)
    capacities = np.asarray(capacities)
    frame = pd.DataFrame({"capacity_blocks": capacities, "time_s": np.nan, "simulated": np.nan})
    if end > start and inside.any():
        frame["time_s"] = find_times(accesses, capacities)
        inner, before = distances[inside], np.sort(gaps.before_s[inside])
        frame["simulated"] = [np.mean((inner > 0) & (inner <= capacity)) for capacity in capacities]
        kept = np.searchsorted(before, frame["time_s"].fillna(np.finfo(float).max), "right")
        frame["approximated"] = kept / len(before)
    else:
        frame["approximated"] = np.nan
    frame["independent"] = _approximate_independent(accesses, capacities)
    return frame.assign(window_s=end - start, holds=frame["time_s"] <= MOST_OF_WINDOW * (end - start))


def find_times(accesses, capacities):
    """Find the characteristic time of several capacities.

    Parameters
    ----------
    accesses : PrefixTrace
    capacities : sequence of int
        Blocks.

    Returns
    -------
    (k,) ndarray of float64
        Seconds; NaN if the window accesses fewer distinct blocks, or if there is no window.
    """
    (start, end), capacities = find_window(accesses), np.asarray(capacities)
    if not end > start:
        return np.full(len(capacities), np.nan)
    times_s = np.geomspace((end - start) * 1e-5, max(end, end - start), POINTS)
    sizes = measure_working_set(accesses, start, end, times_s)
    return np.interp(capacities, sizes, times_s, right=np.nan)


def measure_working_set(accesses, start, end, times_s):
    """Measure the mean number of distinct blocks accessed within the last T seconds, over the moments of a window.

    Parameters
    ----------
    accesses : PrefixTrace
    start, end : float
        Seconds.
    times_s : (k,) array_like
        The times T.

    Returns
    -------
    (k,) ndarray of float64
        A block counts from an access until its next one, but no longer than T (Denning and Schwartz, 1972).
    """
    arrays = accesses.ids, accesses.offsets, accesses.arrival_s, accesses.n_distinct
    return _measure_working_set(*arrays, start, end, np.asarray(times_s, float))


@njit(cache=True, nogil=True)
def _measure_working_set(ids, offsets, arrival_s, n_distinct, start, end, times_s):
    """Add up stays by stretch: blocks of a request that the same request accessed last stay equally long."""
    sizes, last = np.zeros(len(times_s)), np.full(n_distinct, -1, np.int32)
    left = np.zeros(len(arrival_s), np.int64)  # blocks whose last access is each request's
    for i in range(len(arrival_s)):
        k, stop = offsets[i], offsets[i + 1]
        left[i] = stop - k
        while k < stop:
            request, first = last[ids[k]], k
            while k < stop and last[ids[k]] == request:
                last[ids[k]] = i
                k += 1
            if request >= 0:
                left[request] -= k - first
                _add_stays(sizes, k - first, arrival_s[request], arrival_s[i], start, end, times_s)
    for i in range(len(arrival_s)):
        _add_stays(sizes, left[i], arrival_s[i], np.inf, start, end, times_s)
    return sizes / (end - start)


@njit(cache=True, nogil=True)
def _add_stays(sizes, blocks, at, until, start, end, times_s):
    if not blocks or at >= end or until <= start:
        return
    begin = max(at, start)
    for j in range(len(times_s)):
        stay = min(min(until, at + times_s[j]), end) - begin
        if stay > 0:
            sizes[j] += blocks * stay


def _approximate_independent(accesses, capacities):
    """Return Che's hit rates from access counts alone: C = sum of 1 - exp(-rate T), solved for T by bisection."""
    counts = np.bincount(accesses.ids, minlength=accesses.n_distinct)
    kinds, many = np.unique(counts, return_counts=True)
    rates = []
    for capacity in capacities:
        low, high = 0.0, 1.0
        while capacity < len(counts) and (many * -np.expm1(-kinds * high)).sum() < capacity:
            high *= 2
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if (many * -np.expm1(-kinds * middle)).sum() < capacity else (low, middle)
        hit = (many * kinds * -np.expm1(-kinds * high)).sum() / max(counts.sum(), 1)
        rates.append(hit if capacity < len(counts) else 1.0)
    return rates
