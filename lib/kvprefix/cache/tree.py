"""The compiled core of all policies: a cache on the prefix tree that evicts leaves by their score.

Each queue's leaves are a binary heap: queue q's are ``heap[q * capacity:][:fill[q]]``, and ``place`` is where in it a
block is (-1: nowhere). Only SLRU (protected blocks) and S3-FIFO (the main queue) have a second one. `cache` has
the rules.
"""

import numpy as np
from numba import njit

from kvprefix.cache.policies import FIFO, GDSF, LFU, NEVER, OPT, S3FIFO, SLRU, TTL


@njit(cache=True, nogil=True, inline="always")
def score_block(policy, now, stored, uses, next_use, cost, inflation):
    """Return the score of a block as it is accessed: of all leaves the one with the lowest is evicted first.

    A new policy that is a score needs a number and an entry in `policies.POLICIES`, and a line here. Example, most
    recently used first: ``MRU = 9`` and ``"mru": Policy(MRU, "MRU", None, "...")`` there; here
    ``if policy == MRU: return -now``, and MRU among the imports.

    Parameters: the request's position `now`, and that of the request that stored the block; its `uses` since, 1 as it
    is stored; the position of the request that accesses it next; the relative `cost` of computing it; the score that
    was evicted last.
    """
    if policy == FIFO:
        return stored
    if policy == LFU:
        return uses + now / 2**31
    if policy == GDSF:
        return inflation + uses * cost
    if policy == OPT:
        return -next_use
    return now


@njit(cache=True, nogil=True, inline="always")
def _goes_before(a, b, score, depth):
    if score[a] != score[b]:
        return score[a] < score[b]
    return depth[a] > depth[b] or (depth[a] == depth[b] and a < b)


@njit(cache=True, nogil=True)
def _sift_up(heap, base, place, at, score, depth):
    block = heap[base + at]
    while at > 0:
        above = (at - 1) >> 1
        other = heap[base + above]
        if not _goes_before(block, other, score, depth):
            break
        heap[base + at], place[other] = other, at
        at = above
    heap[base + at], place[block] = block, at


@njit(cache=True, nogil=True)
def _sift_down(heap, base, place, at, fill, score, depth):
    block = heap[base + at]
    while True:
        below = 2 * at + 1
        if below >= fill:
            break
        if below + 1 < fill and _goes_before(heap[base + below + 1], heap[base + below], score, depth):
            below += 1
        other = heap[base + below]
        if not _goes_before(other, block, score, depth):
            break
        heap[base + at], place[other] = other, at
        at = below
    heap[base + at], place[block] = block, at


@njit(cache=True, nogil=True)
def _push(heap, place, fill, queue, block, score, depth):
    base = queue * (len(heap) // len(fill))
    heap[base + fill[queue]] = block
    fill[queue] += 1
    _sift_up(heap, base, place, fill[queue] - 1, score, depth)


@njit(cache=True, nogil=True)
def _remove(heap, place, fill, queue, block, score, depth):
    base, at = queue * (len(heap) // len(fill)), place[block]
    fill[queue] -= 1
    place[block] = -1
    if at < fill[queue]:
        heap[base + at] = heap[base + fill[queue]]
        if at and _goes_before(heap[base + at], heap[base + ((at - 1) >> 1)], score, depth):
            _sift_up(heap, base, place, at, score, depth)
        else:
            _sift_down(heap, base, place, at, fill[queue], score, depth)


@njit(cache=True, nogil=True)
def _unlink(block, before, after):
    """Take a block out of the list of protected ones; its last entry is the list's own head and tail."""
    after[before[block]], before[after[block]] = after[block], before[block]
    before[block] = -1


@njit(cache=True, nogil=True)
def _protect(path, hit, before, after, queue_of, sizes, limit, heap, place, fill, score, depth, now):
    """Move a request's hit blocks to the front of the protected list, root foremost; put back what overflows."""
    head = len(before) - 1
    for k in range(hit - 1, -1, -1):
        block = path[k]
        if before[block] >= 0:
            _unlink(block, before, after)
        else:
            queue_of[block] = 1
            sizes[0] -= 1
            sizes[1] += 1
        first = after[head]
        after[head], before[first], before[block], after[block] = block, block, head, first
    while sizes[1] > limit:
        block = before[head]
        _unlink(block, before, after)
        is_leaf = place[block] >= 0
        if is_leaf:
            _remove(heap, place, fill, 1, block, score, depth)
        queue_of[block], score[block] = 0, now
        sizes[1] -= 1
        sizes[0] += 1
        if is_leaf:
            _push(heap, place, fill, 0, block, score, depth)


@njit(cache=True, nogil=True)
def _choose(policy, queue_of, sizes, limit, uses, turns, heap, place, fill, score, depth):
    """Return the leaf to evict, -1 where there is none. S3-FIFO moves blocks between its queues on the way."""
    while True:
        queue = 0 if fill[0] else len(fill) - 1
        if policy == S3FIFO and fill[-1] and sizes[0] <= limit:
            queue = 1
        if fill[queue] == 0:
            return -1
        block = heap[queue * (len(heap) // len(fill))]
        if policy != S3FIFO or uses[block] <= (2 if queue == 0 else 1):
            return block
        _remove(heap, place, fill, queue, block, score, depth)
        if queue == 0:
            queue_of[block], uses[block] = 1, 1
            sizes[0] -= 1
            sizes[1] += 1
        else:
            uses[block] -= 1
        turns[0] += 1
        score[block] = turns[0]
        _push(heap, place, fill, 1, block, score, depth)


@njit(cache=True, nogil=True)
def replay_tree(
    ids, offsets, parent, depth, next_use, arrival_s, finish_s, finish_order, capacity, policy, setting, cost_step
):
    n_distinct, n_requests = len(parent), len(offsets) - 1
    two_queues = policy in (SLRU, S3FIFO)
    queue_of = np.full(n_distinct, -1, np.int8)  # -1: not resident
    children, last = np.zeros(n_distinct, np.int32), np.full(n_distinct, -1, np.int32)
    score, uses = np.empty(n_distinct), np.zeros(n_distinct, np.int32)
    heap, place = np.empty(capacity * (2 if two_queues else 1), np.int32), np.full(n_distinct, -1, np.int32)
    fill, sizes, turns = np.zeros(2 if two_queues else 1, np.int64), np.zeros(2, np.int64), np.zeros(1, np.int64)
    before = np.full(n_distinct + 1 if policy == SLRU else 1, -1, np.int32)
    after = before.copy()
    before[-1] = after[-1] = len(before) - 1
    forgotten_at = np.zeros(n_distinct if policy == S3FIFO else 0, np.int64)
    limit = setting * capacity + 1e-9  # 0.7 * 90 is 63
    hold = len(finish_order) > 0
    pins, tails = np.zeros(n_distinct if hold else 0, np.int32), np.full(n_requests if hold else 0, -1, np.int32)
    hits = np.zeros(n_requests, np.int64)
    inflation, finished, small_evictions = 0.0, 0, 0
    for i in range(n_requests):
        start, n_blocks = offsets[i], offsets[i + 1] - offsets[i]
        while hold and finished < n_requests and finish_order[finished] < i:
            if finish_s[finish_order[finished]] > arrival_s[i]:
                break
            tail = tails[finish_order[finished]]
            finished += 1
            block = tail
            while block >= 0:
                pins[block] -= 1
                block = parent[block]
            if tail >= 0 and children[tail] == 0 and pins[tail] == 0:
                _push(heap, place, fill, queue_of[tail], tail, score, depth)
        while policy == TTL and fill[0] and arrival_s[last[heap[0]]] < arrival_s[i] - setting:
            block = heap[0]
            _remove(heap, place, fill, 0, block, score, depth)
            queue_of[block] = -1
            sizes[0] -= 1
            above = parent[block]
            if above >= 0:
                children[above] -= 1
                if children[above] == 0 and not (hold and pins[above]):
                    _push(heap, place, fill, 0, above, score, depth)
        hit = 0
        while hit < n_blocks and queue_of[ids[start + hit]] >= 0:
            hit += 1
        hits[i] = hit
        if hit and place[ids[start + hit - 1]] >= 0:
            block = ids[start + hit - 1]
            _remove(heap, place, fill, queue_of[block], block, score, depth)
        for k in range(start, start + hit):
            block = ids[k]
            last[block] = i
            uses[block] += 1
            if policy == S3FIFO:
                uses[block] = min(uses[block], 4)
            elif policy != FIFO:
                cost, next_one = 1.0 + cost_step * (depth[block] + 0.5), next_use[k] if policy == OPT else 0
                score[block] = score_block(policy, i, i, uses[block], next_one, cost, inflation)
        if policy == SLRU:
            _protect(ids[start:], hit, before, after, queue_of, sizes, limit, heap, place, fill, score, depth, i)
        kept = hit
        for k in range(start + hit, start + n_blocks):
            block, above = ids[k], parent[ids[k]]
            if policy == OPT and next_use[k] == NEVER:
                break
            if sizes[0] + sizes[1] == capacity:
                victim = _choose(policy, queue_of, sizes, limit, uses, turns, heap, place, fill, score, depth)
                if victim < 0 or policy == OPT and score[victim] >= -next_use[k]:
                    break
                queue = queue_of[victim]
                inflation = score[victim]
                if policy == S3FIFO and queue == 0:
                    small_evictions += 1
                    forgotten_at[victim] = small_evictions + int(capacity - limit + 1e-6)
                if policy == SLRU and queue == 1:
                    _unlink(victim, before, after)
                queue_of[victim] = -1
                sizes[queue] -= 1
                freed = parent[victim]
                if freed >= 0:
                    children[freed] -= 1
                if freed >= 0 and children[freed] == 0 and last[freed] != i and not (hold and pins[freed]):
                    if queue_of[freed] == queue:  # its parent takes its place: mostly the next to go
                        place[victim] = -1
                        heap[queue * capacity] = freed
                        _sift_down(heap, queue * capacity, place, 0, fill[queue], score, depth)
                    else:
                        _remove(heap, place, fill, queue, victim, score, depth)
                        _push(heap, place, fill, queue_of[freed], freed, score, depth)
                else:
                    _remove(heap, place, fill, queue, victim, score, depth)
            queue = 1 if policy == S3FIFO and forgotten_at[block] > small_evictions else 0
            queue_of[block] = queue
            sizes[queue] += 1
            last[block], uses[block] = i, 1
            cost, next_one = 1.0 + cost_step * (depth[block] + 0.5), next_use[k] if policy == OPT else 0
            score[block] = score_block(policy, i, i, 1, next_one, cost, inflation)
            if policy == S3FIFO:
                turns[0] += 1
                score[block] = turns[0]
                forgotten_at[block] = 0
            if above >= 0:
                children[above] += 1
            kept += 1
        if kept == 0:
            continue
        block = ids[start + kept - 1]
        if hold:
            tails[i] = block
            for k in range(start, start + kept):
                pins[ids[k]] += 1
        elif children[block] == 0:
            _push(heap, place, fill, queue_of[block], block, score, depth)
    return hits
