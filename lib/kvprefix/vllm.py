"""The compiled core of vLLM's prefix cache for full attention: a pool of blocks, and requests that pass through it.

The pool is nine int32 arrays. Of each physical block: its neighbours in the free queue (block 0, the null block, is
the queue's head and tail), how many requests hold it, what it holds (an id of `blocks`, -1: no full block), and its
neighbours among the blocks of equal content. Of each id: its oldest and newest block (-1: not cached); a lookup takes
the oldest. Last, the number of free blocks. `engine` has the rules and the interface.
"""

import heapq

import numpy as np
from numba import njit

_FINISH, _GROW, _RETRY = 0, 1, 2  # the order of events in one step


@njit(cache=True, nogil=True)
def _make_pool(n_blocks, n_distinct):
    """Return a pool of `n_blocks`, the null block counted, that were never used: 1, 2, 3, ... in the free queue."""
    after = np.arange(1, n_blocks + 1).astype(np.int32)
    before = np.arange(-1, n_blocks - 1).astype(np.int32)
    after[-1], before[0] = 0, n_blocks - 1
    held, content = np.zeros(n_blocks, np.int32), np.full(n_blocks, -1, np.int32)
    newer, older = np.full(n_blocks, -1, np.int32), np.full(n_blocks, -1, np.int32)
    oldest, newest = np.full(n_distinct, -1, np.int32), np.full(n_distinct, -1, np.int32)
    n_free = np.full(1, n_blocks - 1, np.int32)
    return after, before, held, content, newer, older, oldest, newest, n_free


@njit(cache=True, nogil=True)
def _look_up(pool, ids, most):
    """Return how many of the leading ids are cached, `most` at most, and how many of these blocks are free."""
    held, oldest = pool[2], pool[6]
    hit = idle = 0
    while hit < most and oldest[ids[hit]] >= 0:
        idle += held[oldest[ids[hit]]] == 0
        hit += 1
    return hit, idle


@njit(cache=True, nogil=True)
def _take_hits(pool, ids, table):
    """Hold the oldest block of each id, out of the free queue."""
    after, before, held, oldest, n_free = pool[0], pool[1], pool[2], pool[6], pool[8]
    for k in range(len(ids)):
        block = oldest[ids[k]]
        if held[block] == 0:
            after[before[block]], before[after[block]] = after[block], before[block]
            n_free[0] -= 1
        held[block] += 1
        table[k] = block


@njit(cache=True, nogil=True)
def _take_new(pool, table):
    """Fill `table` with blocks from the head of the free queue, evicting what they hold."""
    after, before, held, content, newer, older, oldest, newest, n_free = pool
    for k in range(len(table)):
        block = after[0]
        after[0], before[after[block]] = after[block], 0
        held[block] = 1
        table[k] = block
        one = content[block]
        if one >= 0:
            content[block] = -1
            if older[block] >= 0:
                newer[older[block]] = newer[block]
            else:
                oldest[one] = newer[block]
            if newer[block] >= 0:
                older[newer[block]] = older[block]
            else:
                newest[one] = older[block]
    n_free[0] -= len(table)


@njit(cache=True, nogil=True)
def _store(pool, ids, table, merge=False):
    """Make full blocks visible, each as the newest of its content; `merge` leaves out those that are cached already."""
    content, newer, older, oldest, newest = pool[3:8]
    for k in range(len(ids)):
        block, one = table[k], ids[k]
        if merge and oldest[one] >= 0:
            continue
        content[block], older[block], newer[block] = one, newest[one], -1
        if newest[one] >= 0:
            newer[newest[one]] = block
        else:
            oldest[one] = block
        newest[one] = block


@njit(cache=True, nogil=True)
def _release(pool, table, legacy_free):
    """Let go of a request's blocks, the last one first; what nobody holds joins the free queue."""
    after, before, held, content, n_free = pool[0], pool[1], pool[2], pool[3], pool[8]
    for k in range(len(table) - 1, -1, -1):
        block = table[k]
        held[block] -= 1
        if held[block] > 0:
            continue
        n_free[0] += 1
        left = before[0] if legacy_free or content[block] >= 0 else np.int32(0)
        right = after[left]
        after[left], before[block], after[block], before[right] = block, left, right, block


@njit(cache=True, nogil=True)
def _count_cached(pool):
    """Return how many contents are cached, and how many blocks hold one."""
    return np.count_nonzero(pool[6] >= 0), np.count_nonzero(pool[3] >= 0)


@njit(cache=True, nogil=True)
def replay_one_by_one(ids, offsets, prompts, computed, block_size, n_blocks, n_distinct, legacy_free, merge):
    """Replay requests each of which finishes before the next starts; return the hit blocks (-1: never fits)."""
    pool = _make_pool(n_blocks, n_distinct)
    hits = np.full(len(prompts), -1)
    table = np.empty(n_blocks, np.int32)
    for i in range(len(prompts)):
        if -(-prompts[i] // block_size) > n_blocks - 1:
            continue
        own = ids[offsets[i] : offsets[i] + computed[i] // block_size]
        hit, _ = _look_up(pool, own, (prompts[i] - 1) // block_size)
        n_held = -(-computed[i] // block_size)
        _take_hits(pool, own[:hit], table)
        _take_new(pool, table[hit:n_held])
        _store(pool, own[hit:], table[hit:], merge)
        _release(pool, table[:n_held], legacy_free)
        hits[i] = hit
    return hits, _count_cached(pool)


_RUN = np.dtype([
    ("known", np.int64),  # tokens when the request was last admitted
    ("position", np.int64),  # of the token whose computation is its next event
    ("first_step", np.int64),  # in which its first new token is there
    ("turn", np.int64),  # the number of its admission among all, -1 where it does not run
    ("start", np.int64),  # of its block table in `tables`
    ("n_held", np.int64),  # the blocks that it holds
    ("later", np.int64),  # its neighbours among the running ones, which are a list in the order of their admissions
    ("earlier", np.int64),
    ("preemptions", np.int64),
])  # fmt: skip


@njit(cache=True, nogil=True)
def _make_runs(prompts, computed, block_size):
    """Return a _RUN for each request, then one that is head and tail of the running ones; and `tables`."""
    n, size = len(prompts), 0
    runs = np.zeros(n + 1, _RUN)
    for i in range(n):
        runs[i].known, runs[i].start = prompts[i], size
        size += -(-computed[i] // block_size)
    for i in range(n + 1):
        runs[i].turn, runs[i].later, runs[i].earlier = -1, n, n
    return runs, np.empty(size, np.int32)


@njit(cache=True, nogil=True)
def _start(runs, i, turn, first_step):
    """Append an admitted request to the running ones."""
    run, end = runs[i], runs[-1]
    run.turn, run.first_step, run.earlier, run.later = turn, first_step, end.earlier, len(runs) - 1
    runs[end.earlier].later, end.earlier = i, i


@njit(cache=True, nogil=True)
def _stop(runs, tables, pool, i, legacy_free):
    """Take a request out of the running ones, and its blocks from it."""
    run = runs[i]
    _release(pool, tables[run.start : run.start + run.n_held], legacy_free)
    runs[run.earlier].later, runs[run.later].earlier = run.later, run.earlier
    run.turn = -1


@njit(cache=True, nogil=True)
def _next_position(position, block_size):
    """Return the next position that starts or ends a block."""
    last = position - position % block_size + block_size - 1
    return position + 1 if position == last else last


@njit(cache=True, nogil=True)
def _next_event(run, i, computed, n_tokens):
    """Return (step, kind, number of the admission, request) of a running request's next event."""
    begin = run.first_step - run.known
    if run.position < computed:
        return begin + run.position, _GROW, run.turn, i
    return max(begin + n_tokens - 1, run.first_step), _FINISH, run.turn, i


@njit(cache=True, nogil=True)
def _preempt_last(runs, tables, pool, step, legacy_free):
    """Take the blocks of the request that was admitted last; return it. It keeps the tokens that it has."""
    last = runs[-1].earlier
    _stop(runs, tables, pool, last, legacy_free)
    runs[last].known += max(step - runs[last].first_step + 1, 0)
    runs[last].preemptions += 1
    return last


@njit(cache=True, nogil=True)
def _grow(run, tables, pool, ids, block_size):
    """Compute a request's next token: it takes a block if the token begins one, and shows a block that it fills."""
    block = run.position // block_size
    table = tables[run.start + block : run.start + block + 1]
    if run.position % block_size == 0:
        run.n_held += 1
        _take_new(pool, table)
    if (run.position + 1) % block_size == 0:
        _store(pool, ids[block : block + 1], table)
    run.position = _next_position(run.position, block_size)


@njit(cache=True, nogil=True)
def _admit(run, tables, pool, ids, block_size):
    """Give a request the blocks of the tokens that it has, if there is room; return the hit blocks, -1 without room."""
    n_needed, own = -(-run.known // block_size), ids[: run.known // block_size]
    hit, idle = _look_up(pool, own, (run.known - 1) // block_size)
    if n_needed - hit + idle > pool[8][0]:
        return -1
    table = tables[run.start : run.start + n_needed]
    _take_hits(pool, own[:hit], table)
    _take_new(pool, table[hit:])
    _store(pool, own[hit:], table[hit:])
    run.n_held, run.position = n_needed, _next_position(run.known - 1, block_size)
    return hit


@njit(cache=True, nogil=True)
def replay_overlapping(
    ids, offsets, prompts, computed, generated, block_size, n_blocks, n_distinct, legacy_free, arrivals, first_steps
):
    """Replay requests that run at the same time, in whole steps of the scheduler.

    Returns the hit blocks (-1: never fits), the steps of the first admission and of the end (-1: none), the preemptions
    and the two counts of `_count_cached`. `arrivals` are the steps at which requests are first seen, `first_steps` the
    steps from an admission to the first token.
    """
    pool, n = _make_pool(n_blocks, n_distinct), len(prompts)
    runs, tables = _make_runs(prompts, computed, block_size)
    hits, admitted, finished = np.full(n, -1), np.full(n, -1), np.full(n, -1)
    returned, n_returned = np.empty(n, np.int64), 0  # preempted ones, a stack: the last of them is first in the queue
    n_tokens, turns, closed = prompts + generated, 0, np.int64(-1)  # nobody is admitted in the step `closed`
    arrived = first = 0  # never admitted, and waiting: first <= i < arrived
    events = [(np.int64(0), _FINISH, np.int64(0), 0)]
    events.pop()  # numba learns the type
    while True:
        while events and runs[events[0][3]].turn != events[0][2]:
            heapq.heappop(events)  # of a request that was preempted since
        if not events and arrived == n:
            return hits, admitted, finished, runs["preemptions"][:n].copy(), _count_cached(pool)
        step = events[0][0] if events else arrivals[arrived]
        step = min(step, arrivals[arrived]) if arrived < n else step
        while events and events[0][0] <= step:
            _, kind, number, i = heapq.heappop(events)
            run = runs[i]
            if kind == _RETRY or run.turn != number:
                continue
            if kind == _FINISH:
                _stop(runs, tables, pool, i, legacy_free)
                finished[i] = step
                continue
            while pool[8][0] == 0 and run.position % block_size == 0 and run.turn >= 0:
                returned[n_returned] = _preempt_last(runs, tables, pool, step, legacy_free)
                n_returned, closed = n_returned + 1, step
                heapq.heappush(events, (step + 1, _RETRY, np.int64(-1), n))
            if run.turn >= 0:
                _grow(run, tables, pool, ids[offsets[i] :], block_size)
                heapq.heappush(events, _next_event(run, i, computed[i], n_tokens[i]))
        while arrived < n and arrivals[arrived] <= step:
            arrived += 1
        while (n_returned or first < arrived) and step != closed:
            i = returned[n_returned - 1] if n_returned else first
            if -(-prompts[i] // block_size) > n_blocks - 1:
                first += 1
                continue
            hit = _admit(runs[i], tables, pool, ids[offsets[i] :], block_size)
            if hit < 0:
                break
            if n_returned:
                n_returned -= 1
            else:
                first, hits[i], admitted[i] = first + 1, hit, step
            _start(runs, i, turns, step + first_steps)
            heapq.heappush(events, _next_event(runs[i], i, computed[i], n_tokens[i]))
            turns += 1
