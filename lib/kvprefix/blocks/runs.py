"""Tell what happens to all blocks from what each request reuses, as runs of blocks that share their fate.

Blocks that one request stores, one after the other, are accessed alike until another request takes only the first of
them. So there are at most two runs per request, however long prompts are, and few gaps that differ.
"""

from typing import NamedTuple

import numpy as np
from numba import njit


class BlockRuns(NamedTuple):
    """Blocks in the order in which they were first accessed, as (n_runs,) ndarrays of int64.

    Attributes
    ----------
    lengths : ndarray
        Blocks of each run.
    depth : ndarray
        0-based position, in its prompts, of the first block of each run.
    accesses : ndarray
        Of each block of the run, the first one included.
    first, last : ndarray
        The requests that accessed it first and last.
    """

    lengths: np.ndarray
    depth: np.ndarray
    accesses: np.ndarray
    first: np.ndarray
    last: np.ndarray


class TimedRuns(NamedTuple):
    """Some of these runs with their times: what a table of their blocks needs.

    Attributes
    ----------
    before : int
        Blocks before the first of these runs.
    lengths, depth, accesses : (n_runs,) ndarray of int64
        As in BlockRuns.
    first_access_s, last_access_s : (n_runs,) ndarray of float64
        Seconds.
    """

    before: int
    lengths: np.ndarray
    depth: np.ndarray
    accesses: np.ndarray
    first_access_s: np.ndarray
    last_access_s: np.ndarray

    def number_blocks(self):
        """Return the number and the depth of each block, (n_blocks,) int64 each."""
        starts = np.cumsum(self.lengths) - self.lengths
        numbers = np.arange(self.lengths.sum())
        return self.before + numbers, numbers - np.repeat(starts - self.depth, self.lengths)


class GapRuns(NamedTuple):
    """Reuses in the order of the later access, as (n_runs,) ndarrays.

    Attributes
    ----------
    lengths : ndarray of int32
        Blocks reused at one time that were last accessed at one time.
    request, last : ndarray of int64
        The request that reuses them, and the one that accessed them last before.
    """

    lengths: np.ndarray
    request: np.ndarray
    last: np.ndarray


def find_block_runs(reuse):
    """Return the BlockRuns of all blocks that the requests store."""
    order = np.lexsort((-reuse.reused, reuse.source))  # a request's followers, the one that reuses most of it first
    starts = np.searchsorted(reuse.source[order], np.arange(len(order) + 1))
    return BlockRuns(*_find_block_runs(reuse.blocks, reuse.reused, reuse.source, order, starts)[:, ::-1])


@njit(cache=True, nogil=True)
def _find_block_runs(blocks, reused, source, order, starts):
    """Go through the blocks from the last one to the first; return the fields of BlockRuns, last run first."""
    n = len(blocks)
    accesses, last = np.ones(n, np.int64), np.arange(n)  # of a request and all that follow it, directly or not
    for i in range(n - 1, -1, -1):
        if source[i] >= 0:
            accesses[source[i]] += accesses[i]
            last[source[i]] = max(last[source[i]], last[i])
    runs, count = np.empty((5, 2 * n), np.int64), 0
    for i in range(n - 1, -1, -1):
        stop, k, times, latest = blocks[i], starts[i], 1, i
        while stop > reused[i]:
            while k < starts[i + 1] and reused[order[k]] >= stop:
                times += accesses[order[k]]
                latest = max(latest, last[order[k]])
                k += 1
            start = reused[order[k]] if k < starts[i + 1] else reused[i]
            runs[0, count], runs[1, count], runs[2, count] = stop - start, start, times
            runs[3, count], runs[4, count] = i, latest
            count += 1
            stop = start
    return runs[:, :count].copy()


def find_gap_runs(reuse):
    """Return the GapRuns of all reuses."""
    return GapRuns(*_find_gap_runs(*reuse))


@njit(cache=True, nogil=True)
def _find_gap_runs(blocks, reused, source):
    """Keep, of what each request stored, linked runs of blocks with their last access, the first blocks on top."""
    n = len(blocks)
    top, below = np.full(n, -1, np.int64), np.arange(1, 2 * n + 1)  # at first all runs are free
    stops, accessed = np.empty(2 * n, np.int64), np.empty(2 * n, np.int64)
    free, path, count = 0, np.empty(16, np.int64), 0
    lengths, request, last = np.empty(2 * n, np.int32), np.empty(2 * n, np.int64), np.empty(2 * n, np.int64)
    for i in range(n):
        first, k, owner = count, 0, i
        while owner >= 0:  # this request, and those who stored what it reuses, the last one first
            if k == len(path):
                path = np.concatenate((path, np.empty_like(path)))
            path[k] = owner
            k, owner = k + 1, source[owner]
        while k:
            k -= 1
            owner, start = path[k], reused[path[k]]
            limit = reused[path[k - 1]] if k else blocks[i]
            if start == limit:  # it stores nothing
                continue
            while k and start < limit:
                run = top[owner]
                stop = min(stops[run], limit)
                if count == first or last[count - 1] != accessed[run]:
                    if count == len(lengths):
                        lengths = np.concatenate((lengths, np.empty_like(lengths)))
                        request = np.concatenate((request, np.empty_like(request)))
                        last = np.concatenate((last, np.empty_like(last)))
                    lengths[count], request[count], last[count] = 0, i, accessed[run]
                    count += 1
                lengths[count - 1] += stop - start
                start = stop
                if stops[run] == stop:
                    top[owner], below[run], free = below[run], free, run
            run, free = free, below[free]
            stops[run], accessed[run], below[run] = limit, i, top[owner]
            top[owner] = run
    return lengths[:count].copy(), request[:count].copy(), last[:count].copy()
