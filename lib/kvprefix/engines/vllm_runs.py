"""The blocks of vLLM as runs that share their fate, and the lists that they are in, for compiled code.

A run is blocks of one stretch (`blocks.stretches`) that follow each other in their prompts and in the free queue, the
deepest first, or some blocks that hold no full block of tokens. Nothing tells the blocks of a run apart until some of
them are taken, so a replay takes as many steps as there are runs. `vllm_pool` has what happens to them.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.stretches import describe_stretches

# Compiles what only borrows the arrays that it is given: no references to them are counted, which would cost time.
borrowed = njit(nogil=True, _nrt=False)

_RUN = np.dtype([(name, np.int32) for name in (
    "stretch",  # -1: no full blocks
    "first", "stop",  # depths of its blocks, [first, stop)
    "held",  # by how many requests
    "after", "before",  # its neighbours in the free queue; `after` also links the runs that are not in use
    "newer", "older",  # its neighbours among the runs of the stretch, 0: none
    "deeper",  # the run that was split off last: it begins where this one stops, or began so when it was split off
)])  # fmt: skip
_HOLD = np.dtype([(name, np.int32) for name in (
    "run", "stop",  # the run, and those that were split off it since, up to this depth
    "above",  # the request's hold before this one, 0: none; also links the holds that are not in use
)])  # fmt: skip
_ENDS = np.dtype([("oldest", np.int32), ("newest", np.int32)])  # the runs of a stretch, 0: none
_STATE = np.dtype([(name, np.int64) for name in (
    "free",  # blocks in the free queue
    "evictions",  # blocks that lost what they held
    "run", "hold", "n_unused_runs", "n_unused_holds",  # the first of those that are linked as not in use; their number
    "n_runs", "n_holds",  # that were ever in use, number 0 among them
)])  # fmt: skip


class Pool(NamedTuple):
    """The blocks of vLLM but its null block, as arrays for compiled code.

    Attributes
    ----------
    runs : ndarray of _RUN
        Run 0, without blocks, is the free queue's head and tail.
    holds : ndarray of _HOLD
        What requests hold: a list per request, the deepest first. Hold 0 is no hold.
    stretches : (n_stretches,) ndarray of _ENDS
    state : (1,) ndarray of _STATE
    legacy_free : bool
        Of `VLLMRules`.
    """

    runs: np.ndarray
    holds: np.ndarray
    stretches: np.ndarray
    state: np.ndarray
    legacy_free: bool


def make_pool(n_blocks, n_stretches, rules):
    """Return a pool of `n_blocks`, the null block not counted, that were never used."""
    pool = Pool(
        np.zeros(64, _RUN), np.zeros(64, _HOLD), np.zeros(n_stretches, _ENDS), np.zeros(1, _STATE), rules.legacy_free
    )
    pool.state["free"], pool.state["n_runs"], pool.state["n_holds"] = n_blocks, 2, 1
    pool.runs[1] = -1, 0, n_blocks, 0, 0, 0, 0, 0, 0
    pool.runs[0]["after"] = pool.runs[0]["before"] = 1
    return pool


def count_cached(pool, paths):
    """Return how many contents are cached, and how many blocks hold one."""
    _, start, end = describe_stretches(paths)
    cached, blocks = _count_cached(pool, start, end)
    return int(cached), int(blocks)


@njit(cache=True, nogil=True)
def _count_cached(pool, start, end):
    firsts = np.cumsum(end - start) - end  # of the block at depth 0, were it in the stretch
    cached, blocks = np.zeros((end - start).sum(), np.bool_), 0
    for k in range(len(start)):
        run = pool.stretches[k].oldest
        while run:
            one = pool.runs[run]
            blocks += one.stop - one.first
            cached[firsts[k] + one.first : firsts[k] + one.stop] = True
            run = one.newer
    return cached.sum(), blocks


@njit(cache=True, nogil=True)
def make_room(pool, most):
    """Return the pool with arrays that have room for a request of `most` blocks more."""
    runs, holds, state = pool.runs, pool.holds, pool.state[0]
    while len(runs) - state.n_runs + state.n_unused_runs < 4 * most + 4:  # each hit may split a run into three
        runs = np.concatenate((runs, np.zeros_like(runs)))
    while len(holds) - state.n_holds + state.n_unused_holds < 2 * most + 4:
        holds = np.concatenate((holds, np.zeros_like(holds)))
    return Pool(runs, holds, pool.stretches, pool.state, pool.legacy_free)


@borrowed
def add_run(pool, stretch, first, stop, held):
    """Return a run that is in no list yet."""
    state = pool.state[0]
    if state.n_unused_runs:
        run = np.int32(state.run)
        state.run = pool.runs[run].after
        state.n_unused_runs -= 1
    else:
        run = np.int32(state.n_runs)
        state.n_runs += 1
    one = pool.runs[run]
    one.stretch, one.first, one.stop, one.held, one.newer, one.older, one.deeper = stretch, first, stop, held, 0, 0, 0
    return run


@borrowed
def discard(pool, run):
    """Keep a run that is in no list any more for later use."""
    state = pool.state[0]
    pool.runs[run].after, state.run = state.run, run
    state.n_unused_runs += 1


@borrowed
def add_hold(pool, run, stop, above):
    """Return a new hold, the first of a request's list."""
    state = pool.state[0]
    if state.n_unused_holds:
        hold = np.int32(state.hold)
        state.hold = pool.holds[hold].above
        state.n_unused_holds -= 1
    else:
        hold = np.int32(state.n_holds)
        state.n_holds += 1
    one = pool.holds[hold]
    one.run, one.stop, one.above = run, stop, above
    return hold


@borrowed
def drop_hold(pool, hold):
    """Keep a hold for later use; return the one above it."""
    state, above = pool.state[0], pool.holds[hold].above
    pool.holds[hold].above, state.hold = state.hold, hold
    state.n_unused_holds += 1
    return above


@borrowed
def unlink(pool, run):
    """Take a run out of the free queue."""
    one = pool.runs[run]
    pool.runs[one.before].after, pool.runs[one.after].before = one.after, one.before


@borrowed
def link(pool, run, left):
    """Put a run into the free queue after another one."""
    right = pool.runs[left].after
    pool.runs[left].after, pool.runs[run].before, pool.runs[run].after, pool.runs[right].before = run, left, right, run


@borrowed
def list_newer(pool, run, older):
    """Put a run into the list of its stretch after an older one; the oldest of all comes after 0."""
    one, ends = pool.runs[run], pool.stretches[pool.runs[run].stretch]
    newer = pool.runs[older].newer if older else ends.oldest
    one.older, one.newer = older, newer
    if older:
        pool.runs[older].newer = run
    else:
        ends.oldest = run
    if newer:
        pool.runs[newer].older = run
    else:
        ends.newest = run


@borrowed
def strike(pool, run):
    """Take a run out of the list of its stretch."""
    one, ends = pool.runs[run], pool.stretches[pool.runs[run].stretch]
    if one.older:
        pool.runs[one.older].newer = one.newer
    else:
        ends.oldest = one.newer
    if one.newer:
        pool.runs[one.newer].older = one.older
    else:
        ends.newest = one.older


@borrowed
def split(pool, run, depth):
    """Return a new run with the blocks of a run from a depth on: before it in the queue, next to it in its stretch."""
    one = pool.runs[run]
    deeper = add_run(pool, one.stretch, depth, one.stop, one.held)
    pool.runs[deeper].deeper, one.deeper, one.stop = one.deeper, deeper, depth
    if one.held == 0:
        link(pool, deeper, one.before)
    list_newer(pool, deeper, run)
    return deeper
