"""A queue of blocks by recency, in flat arrays: what a second tier evicts from."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def make_queue(n_distinct):
    """Return the links of an empty queue of blocks: to the next more recent one, and to the next older one.

    The last column is the end: its first entry is the oldest block, its second the most recent; -1 is off the queue.
    """
    queue = np.full((2, n_distinct + 1), -1, np.int32)
    queue[:, n_distinct] = n_distinct
    return queue


@njit(cache=True, nogil=True)
def refresh(queue, path):
    """Make the blocks of a path that are there the most recent ones, its root foremost."""
    for k in range(len(path) - 1, -1, -1):
        if queue[0, path[k]] >= 0:
            unlink(queue, path[k])
            push(queue, path[k])


@njit(cache=True, nogil=True)
def unlink(queue, block):
    newer, older = queue[0, block], queue[1, block]
    queue[1, newer], queue[0, older] = older, newer
    queue[0, block] = queue[1, block] = -1


@njit(cache=True, nogil=True)
def push(queue, block):
    """Put a block at the most recent end."""
    end = queue.shape[1] - 1
    newest = queue[1, end]
    queue[0, newest] = queue[1, end] = block
    queue[0, block], queue[1, block] = end, newest
