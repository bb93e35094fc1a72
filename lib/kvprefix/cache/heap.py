"""The leaves of a bounded cache as binary heaps: the leaf of each queue that is evicted first is on top.

Of two leaves the one with the lower score is evicted first; of equal scores the deeper, then the one first seen.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

# Compiles the parts of `tree.replay_tree`. They make no arrays: they borrow those that they are given and count no
# references to them. Counting one whenever an array is taken out of a named tuple made replays take five times as long.
borrowed = njit(nogil=True, _nrt=False)


class Leaves(NamedTuple):
    """The leaves that may be evicted.

    Attributes
    ----------
    heap : (queues, capacity) ndarray of int32
        Row q begins with the blocks of queue q's heap, its top at 0.
    fill : (queues,) ndarray of int64
        How many each row holds.
    place : (n_distinct,) ndarray of int32
        Where in its queue's row a block is; -1 if it is in none.
    scores : (n_distinct,) ndarray of float64
        What a policy gave each resident block.
    depth : (n_distinct,) ndarray of int32
    """

    heap: np.ndarray
    fill: np.ndarray
    place: np.ndarray
    scores: np.ndarray
    depth: np.ndarray


def make_leaves(queues, capacity, depth):
    """Make the leaves of an empty cache."""
    return Leaves(
        heap=np.empty((queues, capacity), np.int32), fill=np.zeros(queues, np.int64),
        place=np.full(len(depth), -1, np.int32), scores=np.empty(len(depth)), depth=depth,
    )  # fmt: skip


@borrowed
def push_leaf(leaves, queue, block):
    """Put a block into a queue's heap."""
    at = leaves.fill[queue]
    leaves.heap[queue, at] = block
    leaves.fill[queue] += 1
    _sift_up(leaves, queue, at)


@borrowed
def remove_leaf(leaves, queue, block):
    """Take a block out of its queue's heap."""
    at, last = leaves.place[block], leaves.fill[queue] - 1
    leaves.fill[queue] = last
    leaves.place[block] = -1
    if at < last:
        leaves.heap[queue, at] = leaves.heap[queue, last]
        if at and _goes_before(leaves, leaves.heap[queue, at], leaves.heap[queue, (at - 1) >> 1]):
            _sift_up(leaves, queue, at)
        else:
            _sift_down(leaves, queue, at)


@borrowed
def replace_top(leaves, queue, block):
    """Put a block in the place of the top of a queue's heap."""
    leaves.place[leaves.heap[queue, 0]] = -1
    leaves.heap[queue, 0] = block
    _sift_down(leaves, queue, 0)


@borrowed
def _goes_before(leaves, a, b):
    if leaves.scores[a] != leaves.scores[b]:
        return leaves.scores[a] < leaves.scores[b]
    return leaves.depth[a] > leaves.depth[b] or (leaves.depth[a] == leaves.depth[b] and a < b)


@borrowed
def _sift_up(leaves, queue, at):
    heap, place = leaves.heap[queue], leaves.place
    block = heap[at]
    while at > 0:
        above = (at - 1) >> 1
        other = heap[above]
        if not _goes_before(leaves, block, other):
            break
        heap[at], place[other] = other, at
        at = above
    heap[at], place[block] = block, at


@borrowed
def _sift_down(leaves, queue, at):
    heap, place, fill = leaves.heap[queue], leaves.place, leaves.fill[queue]
    block = heap[at]
    while True:
        below = 2 * at + 1
        if below >= fill:
            break
        if below + 1 < fill and _goes_before(leaves, heap[below + 1], heap[below]):
            below += 1
        other = heap[below]
        if not _goes_before(leaves, other, block):
            break
        heap[at], place[other] = other, at
        at = below
    heap[at], place[block] = block, at
