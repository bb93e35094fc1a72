"""The compiled core of vLLM's prefix cache for requests that run one after the other: a pool of runs of blocks.

A run is blocks of one stretch (`blocks.stretches`) that follow each other in their prompts and in the free queue, the
deepest first, or blocks that hold no full block of tokens. Nothing tells the blocks of a run apart, so a replay takes as
many steps as there are runs. `vllm` has the rules and the interface, `vllm_pool` the same pool block by block.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.stretches import Paths, describe_stretches
from kvprefix.engines.vllm_pool import borrowed

_RUN = np.dtype([(name, np.int32) for name in (
    "stretch",  # -1: no full blocks
    "first", "stop",  # depths of its blocks, [first, stop)
    "after", "before",  # its neighbours in the free queue; `after` also links the runs that are not in use
    "newer", "older",  # its neighbours among the runs of the stretch in the order in which they were stored, 0: none
)])  # fmt: skip
_ENDS = np.dtype([("oldest", np.int32), ("newest", np.int32)])  # the runs of a stretch, 0: none
_STATE = np.dtype([(name, np.int64) for name in (
    "unused", "n_unused",  # the first of the linked runs that are not in use, and how many they are
    "n_ever",  # runs that were ever in use, run 0 among them; those behind are not linked
)])  # fmt: skip
_FAR = np.int32(2**31 - 1)


class Runs(NamedTuple):
    """The pool.

    Attributes
    ----------
    runs : ndarray of _RUN
        Run 0 is the free queue's head and tail.
    stretches : (n_stretches,) ndarray of _ENDS
    state : (1,) ndarray of _STATE
    """

    runs: np.ndarray
    stretches: np.ndarray
    state: np.ndarray


class RunWork(NamedTuple):
    """The requests of a replay.

    Attributes
    ----------
    paths : Paths
    prompts, computed : (n,) ndarray of int64
        Tokens: the prompt's, and with the generated ones when it is over.
    block_size : int
        Tokens.
    n_blocks : int
        Of the pool, the null block not counted.
    """

    paths: Paths
    prompts: np.ndarray
    computed: np.ndarray
    block_size: int
    n_blocks: int


def replay_one_by_one(work, merge, legacy_free):
    """Replay requests, each of which finishes before the next starts.

    Parameters
    ----------
    work : RunWork
    merge : bool
        Keep no second block of equal content.
    legacy_free : bool
        Of `VLLMRules`.

    Returns
    -------
    hits : (n,) ndarray of int64
        The hit blocks of each request, -1 if it never fits.
    evictions, cached_hashes, blocks_with_hash : int
        How many blocks lost what they held; how many contents are cached at the end, and by how many blocks.
    """
    state, ends = np.zeros(1, _STATE), np.zeros(work.paths.n_nodes, _ENDS)
    hits, evictions, runs = _replay(work, merge, legacy_free, ends, state)
    return hits, evictions, *_count_cached(runs, ends, *describe_stretches(work.paths)[1:])


@njit(cache=True, nogil=True)
def _replay(work, merge, legacy_free, stretches, state):
    """Return the hits, the evictions, and the runs at the end."""
    paths, size, evictions = work.paths, work.block_size, 0
    most = (work.computed.max() // size if len(work.computed) else 0) + 2
    hits, table = np.full(len(work.prompts), -1), np.empty(most, np.int32)
    pool = Runs(np.zeros(4 * most, _RUN), stretches, state)
    state[0].n_ever = 1
    _append(pool, _add_run(pool, -1, 0, work.n_blocks), True)
    for i in range(len(work.prompts)):
        prompt, computed = work.prompts[i], work.computed[i]
        if -(-prompt // size) > work.n_blocks:
            continue
        full, held = computed // size, -(-computed // size)
        if len(pool.runs) - state[0].n_ever + state[0].n_unused < 4 * most:
            pool = Runs(_grow(pool.runs), stretches, state)
        nodes = paths.nodes[paths.offsets[i] : paths.offsets[i + 1]]
        ends = paths.ends[paths.offsets[i] : paths.offsets[i + 1]]
        hit, n = _take_hits(pool, nodes, ends, (prompt - 1) // size, table)
        evictions += _take_new(pool, held - hit)
        n = _store(pool, nodes, ends, hit, full, merge, table, n)
        if held > full:
            table[n] = _add_run(pool, -1, 0, held - full)
            n += 1
        _release(pool, table[:n], legacy_free)
        hits[i] = hit
    return hits, evictions, pool.runs


@njit(cache=True, nogil=True)
def _grow(runs):
    """Return an array with room for twice as many runs."""
    larger = np.zeros(2 * len(runs), _RUN)
    larger[: len(runs)] = runs
    return larger


@borrowed
def _add_run(pool, stretch, first, stop):
    """Return a run that is in no list yet."""
    state = pool.state[0]
    if state.n_unused:
        run = np.int32(state.unused)
        state.unused = pool.runs[run].after
        state.n_unused -= 1
    else:
        run = np.int32(state.n_ever)
        state.n_ever += 1
    one = pool.runs[run]
    one.stretch, one.first, one.stop, one.newer, one.older = stretch, first, stop, 0, 0
    return run


@borrowed
def _discard(pool, run):
    """Keep a run that is in no list any more for later use."""
    state = pool.state[0]
    pool.runs[run].after, state.unused = state.unused, run
    state.n_unused += 1


@borrowed
def _drop(pool, run):
    """Take a run out of the free queue and out of its stretch."""
    one = pool.runs[run]
    _unlink(pool, run)
    if one.stretch >= 0:
        ends = pool.stretches[one.stretch]
        if one.older:
            pool.runs[one.older].newer = one.newer
        else:
            ends.oldest = one.newer
        if one.newer:
            pool.runs[one.newer].older = one.older
        else:
            ends.newest = one.older
    _discard(pool, run)


@borrowed
def _unlink(pool, run):
    """Take a run out of the free queue."""
    one = pool.runs[run]
    pool.runs[one.before].after, pool.runs[one.after].before = one.after, one.before


@borrowed
def _append(pool, run, at_tail):
    """Put a run at the free queue's tail, which is before run 0, or at its head, after run 0."""
    runs = pool.runs
    left = runs[0].before if at_tail else np.int32(0)
    right = runs[left].after
    runs[left].after, runs[run].before, runs[run].after, runs[right].before = run, left, right, run


@borrowed
def _find_oldest(pool, stretch, depth):
    """Return the oldest run that holds a block, 0 if none does, and the depth up to which that is so, at least."""
    run, bound = pool.stretches[stretch].oldest, _FAR
    while run:
        one = pool.runs[run]
        if one.first <= depth < one.stop:
            return run, min(bound, one.stop)
        if one.first > depth:
            bound = min(bound, one.first)
        run = one.newer
    return run, bound


@borrowed
def _take_hits(pool, nodes, ends, most, table):
    """Take the oldest blocks of the leading contents out of the free queue; return how many, and in how many runs."""
    hit, n, k = 0, 0, 0
    while hit < most:
        while ends[k] <= hit:
            k += 1
        run, stop = _find_oldest(pool, nodes[k], hit)
        if not run:
            break
        stop = min(stop, most)
        one = pool.runs[run]
        if one.stop > stop:
            _split(pool, run, stop)
        if one.first < hit:
            run = _split(pool, run, hit)
        _unlink(pool, run)
        table[n] = run
        hit, n = stop, n + 1
    return hit, n


@borrowed
def _split(pool, run, depth):
    """Return a new run with the blocks of a run from a depth on: before it in the queue, next to it in its stretch."""
    one = pool.runs[run]
    deeper = _add_run(pool, one.stretch, depth, one.stop)
    one.stop = depth
    other = pool.runs[deeper]
    other.before, other.after = one.before, run
    pool.runs[one.before].after = deeper
    one.before = deeper
    other.older, other.newer = run, one.newer
    if one.newer:
        pool.runs[one.newer].older = deeper
    else:
        pool.stretches[one.stretch].newest = deeper
    one.newer = deeper
    return deeper


@borrowed
def _take_new(pool, n):
    """Take n blocks from the head of the free queue; return how many lost what they held."""
    evicted = 0
    while n > 0:
        run = pool.runs[0].after
        one = pool.runs[run]
        some = min(n, one.stop - one.first)
        if one.stretch >= 0:
            evicted += some
        n -= some
        if some == one.stop - one.first:
            _drop(pool, run)
        else:
            one.stop -= some
    return evicted


@borrowed
def _store(pool, nodes, ends, start, stop, merge, table, n):
    """Store full blocks, each as the newest of its content; with `merge`, those that are cached hold nothing."""
    k = 0
    while start < stop:
        while ends[k] <= start:
            k += 1
        until, stretch = min(ends[k], stop), nodes[k]
        if merge:
            cached, bound = _find_oldest(pool, stretch, start)
            until, stretch = min(until, bound), np.int32(-1) if cached else stretch
        run = _add_run(pool, stretch, start, until)
        if stretch >= 0:
            one = pool.stretches[stretch]
            pool.runs[run].older = one.newest
            if one.newest:
                pool.runs[one.newest].newer = run
            else:
                one.oldest = run
            one.newest = run
        table[n] = run
        start, n = until, n + 1
    return n


@borrowed
def _release(pool, table, legacy_free):
    """Let go of a request's blocks, the last one first: full ones join the tail, others the head or, legacy, the tail."""
    runs = pool.runs
    for k in range(len(table) - 1, -1, -1):
        run, head = table[k], runs[0].after
        if runs[run].stretch >= 0 or legacy_free:
            _append(pool, run, True)
        elif head and runs[head].stretch < 0:
            runs[head].stop += runs[run].stop - runs[run].first
            _discard(pool, run)
        else:
            _append(pool, run, False)


@njit(cache=True, nogil=True)
def _count_cached(runs, ends, start, end):
    """Return how many contents are cached, and how many blocks hold one."""
    firsts = np.cumsum(end - start) - end  # of the block at depth 0, were it in the stretch
    cached, blocks = np.zeros((end - start).sum(), np.bool_), 0
    for k in range(len(ends)):
        run = ends[k].oldest
        while run:
            one = runs[run]
            blocks += one.stop - one.first
            cached[firsts[k] + one.first : firsts[k] + one.stop] = True
            run = one.newer
    return cached.sum(), blocks
