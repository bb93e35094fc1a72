"""The compiled core of all policies: a cache on the prefix tree that evicts leaves, one request after the other.

`replay` states the rules that all policies share; what a policy decides is a `rule`.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.cache.heap import Leaves, borrowed, change_leaf, inlined, make_leaves, push_leaf, remove_leaf
from kvprefix.files.mapped import read_only


class TreeTrace(NamedTuple):
    """What a replay reads of a PrefixTrace, and `finish_order`: its requests by their finish, empty without `hold`."""

    block_size: int
    ids: np.ndarray
    offsets: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    arrival_s: np.ndarray
    finish_s: np.ndarray
    conversation: np.ndarray
    finish_order: np.ndarray


class TreeCache(NamedTuple):
    """What is known of each block, resident or not, of each request's stretch (see `heap`), and of the cache.

    Attributes
    ----------
    leaves : Leaves
        The resident blocks without a resident child that no request pins.
    capacity : int
        Blocks.
    owner : (n_distinct,) ndarray of int32
        The request that stored the block last, -1 if none did. A block is resident if it is before the owner's `kept`.
    queue_of : (n_distinct,) ndarray of int8
        The queue of a resident block.
    hanging : (n_distinct,) ndarray of int32
        The stretches that begin right behind the block.
    uses : (n_distinct,) ndarray of int32
        Accesses since the block was stored, 1 when it is.
    last : (n_distinct,) ndarray of int32
        The request that accessed the block last; empty unless evictions are recorded.
    pins : (n_distinct,) ndarray of int32
        Running requests that keep the block; empty without `hold`.
    first : (n_requests,) ndarray of int32
        The number of blocks of a request's path before its stretch.
    tails : (n_requests,) ndarray of int32
        The last block that each request keeps, -1 if none; empty without `hold`.
    resident, evicted, finished, serving : (1,) ndarrays of int64
        Resident blocks; blocks evicted so far; requests finished so far; blocks of the present request's path that it
        looks up or stores, 0 before.
    left : (n, 3) ndarray of int32
        Of each eviction the block, the request that caused it, and the one that accessed the block last; empty unless
        evictions are recorded.
    """

    leaves: Leaves
    capacity: int
    owner: np.ndarray
    queue_of: np.ndarray
    hanging: np.ndarray
    uses: np.ndarray
    last: np.ndarray
    pins: np.ndarray
    first: np.ndarray
    tails: np.ndarray
    resident: np.ndarray
    evicted: np.ndarray
    finished: np.ndarray
    serving: np.ndarray
    left: np.ndarray


def make_tree_trace(trace, hold):
    """Make a TreeTrace of a PrefixTrace.

    Its arrays are of one kind, whatever the trace holds: numba compiles a loop anew for each mixture, three seconds per
    policy.
    """
    order = np.argsort(trace.finish_s, kind="stable") if hold else np.zeros(0, np.int64)
    names = [name for name in TreeTrace._fields if name not in ("block_size", "finish_order")]
    arrays = {name: getattr(trace, name) for name in names} | {"finish_order": order}
    arrays = {name: read_only(np.ascontiguousarray(array)) for name, array in arrays.items()}
    return TreeTrace(block_size=trace.block_size, **arrays)


def make_tree_cache(trace, capacity, queues, record=False):
    """Make an empty cache for a TreeTrace, which may record what it evicts."""
    n, n_requests, held = len(trace.parent), len(trace.arrival_s), len(trace.finish_order)
    one = [np.zeros(1, np.int64) for _ in range(4)]
    return TreeCache(
        leaves=make_leaves(queues, capacity, n_requests, n), capacity=capacity, owner=np.full(n, -1, np.int32),
        queue_of=np.zeros(n, np.int8), hanging=np.zeros(n, np.int32), uses=np.zeros(n, np.int32),
        last=np.zeros(n if record else 0, np.int32), pins=np.zeros(n if held else 0, np.int32),
        first=np.zeros(n_requests, np.int32), tails=np.full(held, -1, np.int32),
        resident=one[0], evicted=one[1], finished=one[2], serving=one[3],
        left=np.empty((len(trace.ids) if record else 0, 3), np.int32),
    )  # fmt: skip


def run_rule(rule, hits):
    """Run `replay_tree`; if numba's cache names a rule that is gone, clear that cache first.

    numba keeps the compiled code by the type of the rule, and fails if it cannot import one of these types.
    """
    try:
        replay_tree(rule, hits)
    except (ImportError, AttributeError):
        for index in Path(replay_tree.stats.cache_path).glob("tree.replay_tree-*.nbi"):
            index.unlink(missing_ok=True)
        replay_tree(rule, hits)


@njit(cache=True, nogil=True, _nrt=False)  # see heap.borrowed
def replay_tree(rule, hits):
    """Count each request's hit blocks in `hits`, zeros at first. `rule` is a `rule.Rule` with `trace` and `cache`."""
    trace, cache = rule.trace, rule.cache
    for now in range(len(hits)):
        start, stop = trace.offsets[now], trace.offsets[now + 1]
        cache.serving[0] = 0
        _release_finished(trace, cache, now)
        rule.on_request(now)
        hit = hits[now] = _count_resident(trace, cache, start, stop)
        cache.serving[0] = stop - start
        if hit:
            _pin_tail(cache, trace.ids[start + hit - 1])
        for k in range(start, start + hit):
            cache.uses[trace.ids[k]] += 1
            rule.on_access(k, now)
        if len(cache.last):
            for k in range(start, stop):
                cache.last[trace.ids[k]] = now
        rule.on_path(now, hit)
        cache.first[now] = cache.leaves.kept[now] = hit
        while start + cache.leaves.kept[now] < stop and _store(rule, start + cache.leaves.kept[now], now):
            pass
        if cache.leaves.kept[now]:
            _keep(trace, cache, now)


@borrowed
def _count_resident(trace, cache, start, stop):
    """Return how many leading blocks of a path are resident."""
    depth = 0
    while start + depth < stop:
        owner = cache.owner[trace.ids[start + depth]]
        if owner < 0 or depth >= cache.leaves.kept[owner]:
            break
        depth += 1
    return depth


@inlined
def evict_leaf(rule, stretch, now):
    """Evict the tail of a stretch that is in a heap; the block above becomes a leaf if nothing else needs it."""
    trace, cache, leaves = rule.trace, rule.cache, rule.cache.leaves
    block = leaves.tail[stretch]
    queue = cache.queue_of[block]
    rule.on_evict(block)
    cache.resident[0] -= 1
    if len(cache.left):
        of = cache.left[cache.evicted[0]]
        of[0], of[1], of[2] = block, now, cache.last[block]
    cache.evicted[0] += 1
    kept = leaves.kept[stretch] - 1
    leaves.kept[stretch] = kept
    above = trace.ids[trace.offsets[stretch] + kept - 1] if kept else -1
    if kept > cache.first[stretch]:
        if cache.hanging[above] or _is_in_use(trace, cache, above, kept, now):
            remove_leaf(leaves, queue, stretch)
        elif cache.queue_of[above] == queue:  # usually the next to be evicted
            change_leaf(leaves, queue, stretch, above)
        else:
            remove_leaf(leaves, queue, stretch)
            push_leaf(leaves, cache.queue_of[above], stretch, above)
        return
    remove_leaf(leaves, queue, stretch)
    if kept:
        cache.hanging[above] -= 1
        if _is_leaf(cache, above, kept) and not _is_in_use(trace, cache, above, kept, now):
            push_leaf(leaves, cache.queue_of[above], cache.owner[above], above)


@borrowed
def _is_leaf(cache, block, end):
    """Say whether a resident block has no resident child; `end` is its depth + 1."""
    return cache.hanging[block] == 0 and cache.leaves.kept[cache.owner[block]] == end


@inlined
def _is_in_use(trace, cache, block, end, now):
    """Say whether the present request, or one that still runs, has a block in its path."""
    if len(cache.pins) > 0 and cache.pins[block] > 0:
        return True
    return end <= cache.serving[0] and trace.ids[trace.offsets[now] + end - 1] == block


@inlined
def _store(rule, k, now):
    """Store a missing block; return whether it was stored."""
    trace, cache = rule.trace, rule.cache
    if not rule.admits_block(k):
        return False
    if cache.resident[0] == cache.capacity:
        victim = rule.choose_leaf(k)
        if victim < 0:
            return False
        evict_leaf(rule, victim, now)
    block = trace.ids[k]
    cache.owner[block], cache.uses[block] = now, 1
    cache.queue_of[block] = rule.on_store(k, now)
    cache.resident[0] += 1
    if cache.leaves.kept[now] == cache.first[now] and cache.first[now]:
        cache.hanging[trace.ids[k - 1]] += 1
    cache.leaves.kept[now] += 1
    return True


@borrowed
def _pin_tail(cache, block):
    """Take the last hit block out of the leaves: its request needs it."""
    owner = cache.owner[block]
    if cache.leaves.place[owner] >= 0 and cache.leaves.tail[owner] == block:
        remove_leaf(cache.leaves, cache.queue_of[block], owner)


@borrowed
def _keep(trace, cache, now):
    """Make the last block that a request keeps a leaf again or, with `hold`, pin all of them until it finishes."""
    start, kept = trace.offsets[now], cache.leaves.kept[now]
    block = trace.ids[start + kept - 1]
    if len(cache.tails):
        cache.tails[now] = block
        for k in range(start, start + kept):
            cache.pins[trace.ids[k]] += 1
    elif _is_leaf(cache, block, kept):
        push_leaf(cache.leaves, cache.queue_of[block], cache.owner[block], block)


@borrowed
def _release_finished(trace, cache, now):
    """With `hold`, unpin the blocks of requests that finished before this one arrived."""
    order = trace.finish_order
    while cache.finished[0] < len(order) and order[cache.finished[0]] < now:
        request = order[cache.finished[0]]
        if trace.finish_s[request] > trace.arrival_s[now]:
            break
        cache.finished[0] += 1
        tail = block = cache.tails[request]
        while block >= 0:
            cache.pins[block] -= 1
            block = trace.parent[block]
        if tail >= 0 and cache.pins[tail] == 0 and _is_leaf(cache, tail, trace.depth[tail] + 1):
            push_leaf(cache.leaves, cache.queue_of[tail], cache.owner[tail], tail)
