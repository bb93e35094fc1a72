"""The compiled core of vLLM's prefix cache for full attention: a pool of blocks, and requests that pass through it.

The pool is nine int32 arrays. Of each physical block: its neighbours in the free queue (block 0, the null block, is
the queue's head and tail), how many requests hold it, what it holds (an id of `blocks`, -1: no full block), and its
neighbours among the blocks of equal content. Of each id: its oldest and newest block (-1: not cached); a lookup takes
the oldest. Last, the number of free blocks. `engine` has the rules and the interface.
"""

import heapq

import numpy as np
from numba import njit

_FINISH, _GROW, _RETRY = 0, 1, 2  # the order of events at one moment


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


@njit(cache=True, nogil=True)
def _next_position(position, block_size):
    """Return the next position that starts or ends a block."""
    last = position - position % block_size + block_size - 1
    return position + 1 if position == last else last


@njit(cache=True, nogil=True)
def _next_event(i, number, position, known, computed, prompts, generated, began_s, time_per_token_s):
    """Return (time, kind, number of the admission, request) of a running request's next event."""
    if position[i] < computed[i]:
        return began_s[i] + (position[i] - known[i]) * time_per_token_s, _GROW, number, i
    return began_s[i] + (prompts[i] + generated[i] - known[i]) * time_per_token_s, _FINISH, number, i


@njit(cache=True, nogil=True)
def replay_overlapping(
    ids, offsets, prompts, computed, generated, block_size, n_blocks, n_distinct, legacy_free, arrival_s,
    first_token_s, time_per_token_s,
):  # fmt: skip
    """Replay requests that run at the same time; return hit blocks (-1: never fits), admissions, finishes, preemptions.

    Of a running request: how many tokens were `known` when it was admitted, the `position` of its next event, its block
    table, its place in the list of the running ones, and the number of its `turn` among all admissions (-1: waits).
    """
    pool = _make_pool(n_blocks, n_distinct)
    n, n_free = len(prompts), pool[8]
    hits, preemptions = np.full(n, -1), np.zeros(n, np.int64)
    admitted_s, finished_s = np.full(n, np.nan), np.full(n, np.nan)
    starts = np.zeros(n + 1, np.int64)
    starts[1:] = np.cumsum(-(-computed // block_size))
    tables, n_held = np.empty(starts[-1], np.int32), np.zeros(n, np.int64)
    known, position, began_s = prompts.copy(), np.zeros(n, np.int64), np.zeros(n)
    turn, turns = np.full(n + 1, -1), 0
    later, earlier = np.full(n + 1, n), np.full(n + 1, n)
    returned, n_returned = np.empty(n, np.int64), 0  # preempted ones, a stack: the last of them is first in the queue
    closed_until = -np.inf
    arrived = first = 0  # never admitted, and waiting: first <= i < arrived
    events = [(np.inf, 0, 0, 0)]
    events.pop()  # numba learns the type
    while True:
        while events and turn[events[0][3]] != events[0][2]:
            heapq.heappop(events)  # of a request that was preempted since
        now = min(events[0][0] if events else np.inf, arrival_s[arrived] if arrived < n else np.inf)
        if now == np.inf:
            return hits, admitted_s, finished_s, preemptions, _count_cached(pool)
        while events and events[0][0] <= now:
            _, kind, number, i = heapq.heappop(events)
            if kind == _RETRY or turn[i] != number:
                continue
            if kind == _FINISH:
                _release(pool, tables[starts[i] : starts[i] + n_held[i]], legacy_free)
                later[earlier[i]], earlier[later[i]] = later[i], earlier[i]
                turn[i], finished_s[i] = -1, now
                continue
            if position[i] % block_size == 0:
                while n_free[0] == 0 and turn[i] >= 0:
                    last = earlier[n]
                    _release(pool, tables[starts[last] : starts[last] + n_held[last]], legacy_free)
                    later[earlier[last]], earlier[n] = n, earlier[last]
                    done, most = (now - began_s[last]) / time_per_token_s, min(position[last] + 1, computed[last])
                    if last == i:
                        known[last] = most
                    elif now >= began_s[last]:
                        known[last] = most if done >= most else min(known[last] + 1 + int(done + 1e-9), most)
                    turn[last], returned[n_returned] = -1, last
                    n_returned += 1
                    preemptions[last] += 1
                    closed_until = now + time_per_token_s
                    heapq.heappush(events, (closed_until, _RETRY, -1, n))
                if turn[i] < 0:
                    continue
                n_held[i] += 1
                _take_new(pool, tables[starts[i] + n_held[i] - 1 : starts[i] + n_held[i]])
            block = position[i] // block_size
            if (position[i] + 1) % block_size == 0:
                at = offsets[i] + block
                _store(pool, ids[at : at + 1], tables[starts[i] + block : starts[i] + block + 1])
            position[i] = _next_position(position[i], block_size)
            heapq.heappush(events, _next_event(i, number, position, known, computed, prompts, generated, began_s,
                                               time_per_token_s))  # fmt: skip
        while arrived < n and arrival_s[arrived] <= now:
            arrived += 1
        while (n_returned or first < arrived) and (now >= closed_until or later[n] == n):
            i = returned[n_returned - 1] if n_returned else first
            if -(-prompts[i] // block_size) > n_blocks - 1:
                first += 1
                continue
            n_needed = -(-known[i] // block_size)
            own = ids[offsets[i] : offsets[i] + known[i] // block_size]
            hit, idle = _look_up(pool, own, (known[i] - 1) // block_size)
            if n_needed - hit + idle > n_free[0]:
                break
            table = tables[starts[i] : starts[i] + n_needed]
            _take_hits(pool, own[:hit], table)
            _take_new(pool, table[hit:])
            _store(pool, own[hit:], table[hit:])
            if n_returned:
                n_returned -= 1
            else:
                first += 1
                hits[i], admitted_s[i] = hit, now
            n_held[i], began_s[i] = n_needed, now + first_token_s
            turn[i], turns = turns, turns + 1
            later[earlier[n]], earlier[i], later[i], earlier[n] = i, earlier[n], n, i
            position[i] = _next_position(known[i] - 1, block_size)
            heapq.heappush(events, _next_event(i, turn[i], position, known, computed, prompts, generated, began_s,
                                               time_per_token_s))  # fmt: skip
