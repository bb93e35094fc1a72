"""The blocks of vLLM for models with several groups of layers, one by one, for compiled code.

All groups take blocks from one free queue: first those that hold nothing, the last freed first; then those that were
never used; then the others, the first freed first. A block's key is its content, which is its whole token prefix, and
its group. Blocks of equal key form a list, the oldest first. `hybrid_steps` has the requests.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.engines.vllm_runs import borrowed

_BLOCK = np.dtype([(name, np.int32) for name in (
    "key",  # -1: it holds nothing that can be hit
    "after", "before",  # its neighbours in the free queue, if it has a key
    "newer", "older",  # its neighbours among the blocks of its key, 0: none
)])  # fmt: skip
_KEY = np.dtype([("oldest", np.int32), ("newest", np.int32)])  # blocks, 0: none
_STATE = np.dtype([(name, np.int64) for name in (
    "n_blocks", "n_used",  # of the pool, the null block not counted; that were ever used
    "free", "n_open",  # in the free queue; among them, those that were used and hold nothing
    "evictions",  # blocks that lost what they held
)])  # fmt: skip


class Blocks(NamedTuple):
    """The blocks of a pool, as arrays for compiled code.

    Attributes
    ----------
    blocks : ndarray of _BLOCK
        Block 0 is the null block, and the head and tail of the free queue of those that have a key.
    keys : (n_distinct * n_groups,) ndarray of _KEY
        Number ``content * n_groups + group``.
    open : ndarray of int32
        The free blocks that hold nothing, the next to be used last.
    state : (1,) ndarray of _STATE
    """

    blocks: np.ndarray
    keys: np.ndarray
    open: np.ndarray
    state: np.ndarray


def make_blocks(n_blocks, n_keys):
    """Return a pool of `n_blocks`, the null block not counted, that were never used."""
    pool = Blocks(np.zeros(64, _BLOCK), np.zeros(n_keys, _KEY), np.zeros(64, np.int32), np.zeros(1, _STATE))
    pool.state["n_blocks"] = pool.state["free"] = n_blocks
    return pool


@njit(cache=True, nogil=True)
def make_room(pool, most):
    """Return the pool with arrays that have room for `most` blocks more."""
    state, size = pool.state[0], len(pool.blocks)
    while size <= min(state.n_used + most, state.n_blocks):
        size *= 2
    if size == len(pool.blocks):
        return pool
    blocks, free = np.zeros(size, _BLOCK), np.zeros(size, np.int32)
    blocks[: len(pool.blocks)], free[: len(pool.open)] = pool.blocks, pool.open
    return Blocks(blocks, pool.keys, free, pool.state)


@borrowed
def take(pool):
    """Take the block at the head of the free queue; it loses what it holds."""
    state, blocks = pool.state[0], pool.blocks
    state.free -= 1
    if state.n_open:
        state.n_open -= 1
        return pool.open[state.n_open]
    if state.n_used < state.n_blocks:
        state.n_used += 1
        blocks[state.n_used].key = -1
        return np.int32(state.n_used)
    block = blocks[0].after
    _unlink(blocks, block)
    _strike(pool, block)
    state.evictions += 1
    return block


@borrowed
def touch(pool, block):
    """Take a block that has a key out of the free queue; it keeps what it holds."""
    _unlink(pool.blocks, block)
    pool.state[0].free -= 1


@borrowed
def publish(pool, block, key):
    """Make a block that is held visible, as the newest of its key; it loses another key."""
    if pool.blocks[block].key >= 0:
        _strike(pool, block)
    one, ends = pool.blocks[block], pool.keys[key]
    one.key, one.newer, one.older = key, 0, ends.newest
    if ends.newest:
        pool.blocks[ends.newest].newer = block
    else:
        ends.oldest = block
    ends.newest = block


@borrowed
def give_back(pool, table, first, stop):
    """Free the blocks [first, stop) of a table, the last one first; 0 is no block.

    Those that have a key go to the queue's tail in this order. The others go to its head, the last one foremost.
    """
    blocks, state = pool.blocks, pool.state[0]
    for i in range(stop - 1, first - 1, -1):
        block = table[i]
        if block and blocks[block].key >= 0:
            last = blocks[0].before
            blocks[last].after, blocks[block].before, blocks[block].after, blocks[0].before = block, last, 0, block
            state.free += 1
    for i in range(first, stop):
        block = table[i]
        if block and blocks[block].key < 0:
            pool.open[state.n_open] = block
            state.n_open += 1
            state.free += 1


@borrowed
def _unlink(blocks, block):
    one = blocks[block]
    blocks[one.before].after, blocks[one.after].before = one.after, one.before


@borrowed
def _strike(pool, block):
    """Take a block out of the list of its key."""
    one, blocks = pool.blocks[block], pool.blocks
    ends = pool.keys[one.key]
    if one.older:
        blocks[one.older].newer = one.newer
    else:
        ends.oldest = one.newer
    if one.newer:
        blocks[one.newer].older = one.older
    else:
        ends.newest = one.older
    one.key = -1


def count_held(pool, n_groups):
    """Return, per group, how many keys are cached, and how many blocks hold one."""
    cached = (pool.keys["oldest"] > 0).reshape(-1, n_groups).sum(axis=0)
    keys = pool.blocks["key"][1 : pool.state["n_used"][0] + 1]
    return cached, np.bincount(keys[keys >= 0] % n_groups, minlength=n_groups)
