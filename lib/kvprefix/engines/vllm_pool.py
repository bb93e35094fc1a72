"""The compiled core of vLLM's prefix cache for full attention: what happens to its blocks.

Runs of one stretch form a list, the oldest first; a lookup takes the oldest that holds a block. `vllm_runs` has the
runs, `vllm` the rules and the interface, `vllm_one_by_one` and `vllm_steps` the requests.
"""

import numpy as np

from kvprefix.engines.vllm_runs import (
    add_hold,
    add_run,
    borrowed,
    discard,
    drop_hold,
    link,
    list_newer,
    split,
    strike,
    unlink,
)

_FAR = np.int32(2**31 - 1)


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
def look_up(pool, nodes, ends, most):
    """Return how many of a path's leading blocks are cached, `most` at most, and how many of these are free."""
    hit, idle, k = 0, 0, 0
    while hit < most:
        while ends[k] <= hit:
            k += 1
        run, stop = _find_oldest(pool, nodes[k], hit)
        if not run:
            break
        stop = min(stop, most)
        idle += stop - hit if pool.runs[run].held == 0 else 0
        hit = stop
    return hit, idle


@borrowed
def hold_hits(pool, nodes, ends, hit):
    """Hold the oldest of each of a path's leading blocks; return the holds."""
    depth, k, hold = 0, 0, np.int32(0)
    while depth < hit:
        while ends[k] <= depth:
            k += 1
        run, stop = _find_oldest(pool, nodes[k], depth)
        stop = min(stop, hit)
        if pool.runs[run].stop > stop:
            split(pool, run, stop)
        if pool.runs[run].first < depth:
            run = split(pool, run, depth)
        one = pool.runs[run]
        if one.held == 0:
            unlink(pool, run)
            pool.state[0].free -= stop - depth
        one.held += 1
        hold, depth = add_hold(pool, run, stop, hold), stop
    return hold


@borrowed
def take_new(pool, n):
    """Take n blocks from the head of the free queue; they lose what they hold."""
    state = pool.state[0]
    state.free -= n
    while n > 0:
        run = pool.runs[0].after
        one = pool.runs[run]
        some = min(n, one.stop - one.first)
        n -= some
        if one.stretch >= 0:
            state.evictions += some
        if some < one.stop - one.first:
            one.stop -= some
            continue
        unlink(pool, run)
        if one.stretch >= 0:
            strike(pool, run)
        discard(pool, run)


@borrowed
def store(pool, nodes, ends, start, stop, hold, merge):
    """Make the blocks of a path from `start` to `stop` visible, each as the newest of its content; return the holds.

    With `merge`, those whose content is cached already hold nothing.
    """
    k = 0
    while start < stop:
        while ends[k] <= start:
            k += 1
        until, stretch = min(ends[k], stop), nodes[k]
        if merge:
            cached, bound = _find_oldest(pool, stretch, start)
            until, stretch = min(until, bound), np.int32(-1) if cached else stretch
        run = add_run(pool, stretch, start, until, 1)
        if stretch >= 0:
            list_newer(pool, run, pool.stretches[stretch].newest)
        hold, start = add_hold(pool, run, until, hold), until
    return hold


@borrowed
def store_next(pool, stretch, depth, hold):
    """Make a block visible that follows those of the holds, as the newest of its content; return the holds."""
    run = pool.holds[hold].run
    one = pool.runs[run]
    follows = hold and one.stretch == stretch and one.stop == depth
    if follows and one.held == 1 and pool.stretches[stretch].newest == run:
        one.stop += 1
        pool.holds[hold].stop += 1
        return hold
    run = add_run(pool, stretch, depth, depth + 1, 1)
    list_newer(pool, run, pool.stretches[stretch].newest)
    return add_hold(pool, run, depth + 1, hold)


@borrowed
def release(pool, hold, n_open):
    """Let go of what a request holds, the last block first: `n_open` that are not full, then those of the holds."""
    if n_open:
        pool.state[0].free += n_open
        _free_open(pool, add_run(pool, -1, 0, n_open, 0))
    while hold:
        first = pool.holds[hold].run
        stop, run = pool.holds[hold].stop, 0
        while run != first:  # the deepest of the runs that were split off it
            run = first
            while pool.runs[run].stop < stop:
                run = pool.runs[run].deeper
            stop = pool.runs[run].first
            _release_run(pool, run)
        hold = drop_hold(pool, hold)


@borrowed
def _release_run(pool, run):
    """Let go of a run; if no request holds it, it joins the free queue."""
    one = pool.runs[run]
    one.held -= 1
    if one.held == 0:
        pool.state[0].free += one.stop - one.first
        if one.stretch >= 0:
            link(pool, run, pool.runs[0].before)
        else:
            _free_open(pool, run)


@borrowed
def _free_open(pool, run):
    """Put blocks that hold no full one at the free queue's head or, legacy, at its tail."""
    runs = pool.runs
    head = runs[0].after
    if pool.legacy_free:
        link(pool, run, runs[0].before)
    elif head and runs[head].stretch < 0:
        runs[head].stop += runs[run].stop - runs[run].first
        discard(pool, run)
    else:
        link(pool, run, 0)
