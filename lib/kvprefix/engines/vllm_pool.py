"""The compiled core of vLLM's prefix cache for full attention: a pool of blocks.

Blocks of equal content form a list; a lookup takes the oldest. `vllm` has the rules and the interface, `vllm_steps` the
requests that run at the same time; `vllm_runs` is the same for requests that run one after the other.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

# Compiles what only borrows the arrays that it is given: no references to them are counted, which would cost time.
borrowed = njit(nogil=True, _nrt=False)

_BLOCK = np.dtype([(name, np.int32) for name in (
    "after", "before",  # its neighbours in the free queue
    "held",  # by how many requests; of the null block: how many blocks are free
    "content",  # an id, -1: no full block
    "newer", "older",  # its neighbours among the blocks of equal content, -1: none
)])  # fmt: skip
_CONTENT = np.dtype([("oldest", np.int32), ("newest", np.int32)])  # the blocks that hold it, -1: not cached


class Pool(NamedTuple):
    """The blocks of vLLM, as arrays for compiled code.

    Attributes
    ----------
    blocks : (n_blocks,) ndarray of _BLOCK
        The physical blocks. Block 0, the null block, is the free queue's head and tail.
    contents : (n_distinct,) ndarray of _CONTENT
        What they can hold, by the ids of `Blocks`.
    legacy_free : bool
        Of `VLLMRules`.
    """

    blocks: np.ndarray
    contents: np.ndarray
    legacy_free: bool


class Work(NamedTuple):
    """The requests of a replay, flat.

    Attributes
    ----------
    ids : ndarray of int32
    offsets : (n + 1,) ndarray of int64
        The blocks that request i fills are ``ids[offsets[i]:offsets[i + 1]]``.
    prompts, computed : (n,) ndarray of int64
        Tokens: the prompt's, and with the generated ones when it is over.
    block_size : int
        Tokens.
    """

    ids: np.ndarray
    offsets: np.ndarray
    prompts: np.ndarray
    computed: np.ndarray
    block_size: int


def make_pool(n_blocks, n_distinct, rules):
    """Return a pool of `n_blocks`, the null block counted, that were never used: 1, 2, 3, ... in the free queue."""
    blocks, contents = np.zeros(n_blocks, _BLOCK), np.full(2 * n_distinct, -1, np.int32).view(_CONTENT)
    blocks["after"], blocks["before"] = np.arange(1, n_blocks + 1), np.arange(-1, n_blocks - 1)
    blocks["after"][-1], blocks["before"][0] = 0, n_blocks - 1
    blocks["content"] = blocks["newer"] = blocks["older"] = -1
    blocks["held"][0] = n_blocks - 1
    return Pool(blocks, contents, rules.legacy_free)


def count_cached(pool):
    """Return how many contents are cached, and how many blocks hold one."""
    blocks, contents = pool.blocks, pool.contents
    return int((contents["oldest"] >= 0).sum()), int((blocks["content"] >= 0).sum())


@borrowed
def look_up(pool, ids, most):
    """Return how many of the leading ids are cached, `most` at most, and how many of these blocks are free."""
    blocks, contents = pool.blocks, pool.contents
    hit = idle = 0
    while hit < most and contents[ids[hit]].oldest >= 0:
        idle += blocks[contents[ids[hit]].oldest].held == 0
        hit += 1
    return hit, idle


@borrowed
def take_hits(pool, ids, table):
    """Hold the oldest block of each id and take it out of the free queue."""
    blocks, contents = pool.blocks, pool.contents
    for k in range(len(ids)):
        block = contents[ids[k]].oldest
        one = blocks[block]
        if one.held == 0:
            blocks[one.before].after, blocks[one.after].before = one.after, one.before
            blocks[0].held -= 1
        one.held += 1
        table[k] = block


@borrowed
def take_new(pool, table):
    """Fill `table` with blocks from the head of the free queue; return how many lost what they held."""
    blocks, contents, evicted = pool.blocks, pool.contents, 0
    for k in range(len(table)):
        block = blocks[0].after
        one = blocks[block]
        blocks[0].after, blocks[one.after].before = one.after, 0
        one.held = 1
        table[k] = block
        if one.content >= 0:
            content = contents[one.content]
            one.content = -1
            evicted += 1
            if one.older >= 0:
                blocks[one.older].newer = one.newer
            else:
                content.oldest = one.newer
            if one.newer >= 0:
                blocks[one.newer].older = one.older
            else:
                content.newest = one.older
    blocks[0].held -= len(table)
    return evicted


@borrowed
def store(pool, ids, table):
    """Make full blocks visible, each as the newest of its content."""
    blocks, contents = pool.blocks, pool.contents
    for k in range(len(ids)):
        one, content = blocks[table[k]], contents[ids[k]]
        one.content, one.older, one.newer = ids[k], content.newest, -1
        if content.newest >= 0:
            blocks[content.newest].newer = table[k]
        else:
            content.oldest = table[k]
        content.newest = table[k]


@borrowed
def release(pool, table):
    """Let go of a request's blocks, the last one first; those that no request holds join the free queue."""
    blocks = pool.blocks
    for k in range(len(table) - 1, -1, -1):
        block = table[k]
        one = blocks[block]
        one.held -= 1
        if one.held > 0:
            continue
        blocks[0].held += 1
        # A full block joins the tail, which is before block 0; what holds no full block joins the head, after block 0.
        left = blocks[0].before if pool.legacy_free or one.content >= 0 else np.int32(0)
        right = blocks[left].after
        blocks[left].after, one.before, one.after, blocks[right].before = block, left, right, block
