"""The compiled core of all policies: a cache on the prefix tree that evicts leaves, one request after the other.

`replay` states the rules that all policies share; what a policy decides is a `rule`.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.cache.heap import Leaves, borrowed, make_leaves, push_leaf, remove_leaf, replace_top


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
    """What is known of each block, resident or not, and of the cache.

    Attributes
    ----------
    leaves : Leaves
        The resident blocks without a resident child that no request pins.
    queue_of : (n_distinct,) ndarray of int8
        The queue of a resident block; -1: not resident.
    children, uses : (n_distinct,) ndarrays of int32
        Resident children, and accesses since the block was stored, 1 when it is.
    last : (n_distinct,) ndarray of int32
        The request that accessed the block last, -1 if none did.
    pins : (n_distinct,) ndarray of int32
        Running requests that keep the block; empty without `hold`.
    tails : (n_requests,) ndarray of int32
        The last block that each request keeps, -1 if none; empty without `hold`.
    resident, evicted, finished : (1,) ndarrays of int64
        Resident blocks; blocks evicted so far; requests finished so far.
    left : (n, 3) ndarray of int32
        Of each eviction the block, the request that caused it, and the one that accessed the block last; empty unless
        evictions are recorded.
    """

    leaves: Leaves
    queue_of: np.ndarray
    children: np.ndarray
    uses: np.ndarray
    last: np.ndarray
    pins: np.ndarray
    tails: np.ndarray
    resident: np.ndarray
    evicted: np.ndarray
    finished: np.ndarray
    left: np.ndarray


def make_tree_trace(trace, hold):
    """Make a TreeTrace of a PrefixTrace."""
    order = np.argsort(trace.finish_s, kind="stable") if hold else np.zeros(0, np.int64)
    return TreeTrace(
        block_size=trace.block_size, ids=trace.ids, offsets=trace.offsets, parent=trace.parent, depth=trace.depth,
        arrival_s=trace.arrival_s, finish_s=trace.finish_s, conversation=trace.conversation, finish_order=order,
    )  # fmt: skip


def make_tree_cache(trace, capacity, queues, record=False):
    """Make an empty cache for a TreeTrace, which may record what it evicts."""
    n, held = len(trace.parent), len(trace.finish_order)
    return TreeCache(
        leaves=make_leaves(queues, capacity, trace.depth), queue_of=np.full(n, -1, np.int8),
        children=np.zeros(n, np.int32), uses=np.zeros(n, np.int32), last=np.full(n, -1, np.int32),
        pins=np.zeros(n if held else 0, np.int32), tails=np.full(held, -1, np.int32), resident=np.zeros(1, np.int64),
        evicted=np.zeros(1, np.int64), finished=np.zeros(1, np.int64),
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
        _release_finished(trace, cache, now)
        rule.on_request(now)
        hit = 0
        while start + hit < stop and cache.queue_of[trace.ids[start + hit]] >= 0:
            hit += 1
        hits[now] = hit
        if hit:
            _pin_tail(cache, trace.ids[start + hit - 1])
        for k in range(start, start + hit):
            cache.last[trace.ids[k]] = now
            cache.uses[trace.ids[k]] += 1
            rule.on_access(k, now)
        rule.on_path(now, hit)
        kept = start + hit
        while kept < stop and _store(rule, kept, now):
            kept += 1
        if kept > start:
            _keep(trace, cache, now, kept)


@borrowed
def evict_leaf(rule, block, now):
    """Evict the top of a queue's heap; its parent becomes a leaf if it has no other child and nothing pins it."""
    trace, cache = rule.trace, rule.cache
    queue, above = cache.queue_of[block], trace.parent[block]
    rule.on_evict(block)
    cache.queue_of[block] = -1
    cache.resident[0] -= 1
    if len(cache.left):
        of = cache.left[cache.evicted[0]]
        of[0], of[1], of[2] = block, now, cache.last[block]
    cache.evicted[0] += 1
    if above >= 0:
        cache.children[above] -= 1
        if cache.children[above] == 0 and cache.last[above] != now and not _is_held(cache, above):
            if cache.queue_of[above] == queue:  # usually the next to be evicted
                replace_top(cache.leaves, queue, above)
                return
            push_leaf(cache.leaves, cache.queue_of[above], above)
    remove_leaf(cache.leaves, queue, block)


@borrowed
def _store(rule, k, now):
    """Store a missing block; return whether it was stored."""
    trace, cache = rule.trace, rule.cache
    block, above = trace.ids[k], trace.parent[trace.ids[k]]
    if not rule.admits_block(k):
        return False
    if cache.resident[0] == cache.leaves.heap.shape[1]:
        victim = rule.choose_leaf(k)
        if victim < 0:
            return False
        evict_leaf(rule, victim, now)
    cache.last[block], cache.uses[block] = now, 1
    cache.queue_of[block] = rule.on_store(k, now)
    cache.resident[0] += 1
    if above >= 0:
        cache.children[above] += 1
    return True


@borrowed
def _pin_tail(cache, block):
    """Take the last hit block out of the leaves: its request needs it."""
    if cache.leaves.place[block] >= 0:
        remove_leaf(cache.leaves, cache.queue_of[block], block)


@borrowed
def _keep(trace, cache, now, kept):
    """Make the last block that a request keeps a leaf again or, with `hold`, pin all of them until it finishes."""
    block = trace.ids[kept - 1]
    if len(cache.tails):
        cache.tails[now] = block
        for k in range(trace.offsets[now], kept):
            cache.pins[trace.ids[k]] += 1
    elif cache.children[block] == 0:
        push_leaf(cache.leaves, cache.queue_of[block], block)


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
        if tail >= 0 and cache.children[tail] == 0 and cache.pins[tail] == 0:
            push_leaf(cache.leaves, cache.queue_of[tail], tail)


@borrowed
def _is_held(cache, block):
    return len(cache.pins) > 0 and cache.pins[block] > 0
