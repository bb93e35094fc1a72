"""The leaves of a bounded cache as binary heaps: the leaf of each queue that is evicted first is on top.

The blocks that a request stored and that are still resident are a *stretch* of its path; of all of them only the last,
its tail, can be a leaf. So heaps hold stretches, each by the request that stored it, and are small.

Of two leaves the one with the lower score is evicted first; of equal scores the deeper, then the one first seen.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

# Compiles the parts of `tree.replay_tree`. They make no arrays: they borrow those that they are given and count no
# references to them. Counting one whenever an array is taken out of a named tuple made replays take five times as long.
borrowed = njit(nogil=True, _nrt=False)
# A call hands over every array of a named tuple one by one, so what runs for each block is written into its caller.
inlined = njit(nogil=True, _nrt=False, inline="always")


class Leaves(NamedTuple):
    """The leaves that may be evicted, as stretches.

    Attributes
    ----------
    heap : (queues, n) ndarray of int32
        Row q begins with the stretches of queue q's heap, its top at 0.
    fill : (queues,) ndarray of int64
        How many each row holds.
    place : (n_requests,) ndarray of int32
        Where in its queue's row a stretch is; -1 if it is in none.
    tail : (n_requests,) ndarray of int32
        The leaf of a stretch that is in a heap.
    key : (n_requests,) ndarray of float64
        The score of that leaf.
    kept : (n_requests,) ndarray of int32
        The number of blocks of a request's path up to the end of its stretch.
    scores : (n_distinct,) ndarray of float64
        What a policy gave each resident block.
    """

    heap: np.ndarray
    fill: np.ndarray
    place: np.ndarray
    tail: np.ndarray
    key: np.ndarray
    kept: np.ndarray
    scores: np.ndarray


def make_leaves(queues, capacity, n_requests, n_distinct):
    """Make the leaves of an empty cache."""
    return Leaves(
        heap=np.empty((queues, min(capacity, n_requests)), np.int32), fill=np.zeros(queues, np.int64),
        place=np.full(n_requests, -1, np.int32), tail=np.empty(n_requests, np.int32), key=np.empty(n_requests),
        kept=np.zeros(n_requests, np.int32), scores=np.empty(n_distinct),
    )  # fmt: skip


@inlined
def find_first(leaves, queue):
    """Return the stretch whose tail is the first leaf of a queue; -1 if it has none."""
    return leaves.heap[queue, 0] if leaves.fill[queue] else -1


@borrowed
def push_leaf(leaves, queue, stretch, tail):
    """Put a stretch into a queue's heap, by its tail's score."""
    at = leaves.fill[queue]
    leaves.heap[queue, at] = stretch
    leaves.fill[queue] += 1
    leaves.tail[stretch], leaves.key[stretch] = tail, leaves.scores[tail]
    _sift_up(leaves, queue, at)


@borrowed
def remove_leaf(leaves, queue, stretch):
    """Take a stretch out of its queue's heap."""
    at, last = leaves.place[stretch], leaves.fill[queue] - 1
    leaves.fill[queue] = last
    leaves.place[stretch] = -1
    if at < last:
        leaves.heap[queue, at] = leaves.heap[queue, last]
        _settle(leaves, queue, at)


@inlined
def change_leaf(leaves, queue, stretch, tail):
    """Give a stretch of a queue's heap another tail. The top usually stays the top."""
    leaves.tail[stretch], leaves.key[stretch] = tail, leaves.scores[tail]
    at, fill = leaves.place[stretch], leaves.fill[queue]
    if at or (
        (fill > 1 and _goes_before(leaves, leaves.heap[queue, 1], stretch))
        or (fill > 2 and _goes_before(leaves, leaves.heap[queue, 2], stretch))
    ):
        _settle(leaves, queue, at)


@borrowed
def _settle(leaves, queue, at):
    if at and _goes_before(leaves, leaves.heap[queue, at], leaves.heap[queue, (at - 1) >> 1]):
        _sift_up(leaves, queue, at)
    else:
        _sift_down(leaves, queue, at)


@borrowed
def _goes_before(leaves, a, b):
    if leaves.key[a] != leaves.key[b]:
        return leaves.key[a] < leaves.key[b]
    return leaves.kept[a] > leaves.kept[b] or (leaves.kept[a] == leaves.kept[b] and leaves.tail[a] < leaves.tail[b])


@borrowed
def _sift_up(leaves, queue, at):
    heap, place = leaves.heap[queue], leaves.place
    stretch = heap[at]
    while at > 0:
        above = (at - 1) >> 1
        other = heap[above]
        if not _goes_before(leaves, stretch, other):
            break
        heap[at], place[other] = other, at
        at = above
    heap[at], place[stretch] = stretch, at


@borrowed
def _sift_down(leaves, queue, at):
    heap, place, fill = leaves.heap[queue], leaves.place, leaves.fill[queue]
    stretch = heap[at]
    while True:
        below = 2 * at + 1
        if below >= fill:
            break
        if below + 1 < fill and _goes_before(leaves, heap[below + 1], heap[below]):
            below += 1
        other = heap[below]
        if not _goes_before(leaves, other, stretch):
            break
        heap[at], place[other] = other, at
        at = below
    heap[at], place[stretch] = stretch, at
