"""Give every full block of every prompt its identity: the whole token prefix up to the block's end.

`"a b c d", "a b e f", "x y c d"` with blocks of two tokens are `[[0, 1], [0, 2], [3, 4]]`: equal tokens after
different prefixes are different blocks. This module does not know which blocks a cache holds.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from kvprefix.blocks.hashing import count_blocks, find_firsts, mark_needed
from kvprefix.blocks.partition import identify_parts
from kvprefix.files.checks import check_block_size
from kvprefix.files.paths import InputError
from kvprefix.tokens.arrays import check_parents


@dataclass(frozen=True)
class Blocks:
    """The blocks of a trace's requests as flat arrays.

    Attributes
    ----------
    block_size : int
        Tokens.
    ids : (total,) ndarray of int32
        Block ids, request after request: prompt blocks, then blocks that generated tokens fill. Dense, numbered 0, 1,
        2, ... as first seen.
    offsets : (n_requests + 1,) ndarray of int64
        Request i's blocks are ``ids[offsets[i]:offsets[i + 1]]``.
    prompt_blocks : (n_requests,) ndarray of int64
        Number of full prompt blocks of each request: floor(prompt tokens / block size).
    parent : (n_distinct,) ndarray of int32
        The block before each block, -1 for a first block.
    depth : (n_distinct,) ndarray of int32
        Position within its prompts, 0-based.
    """

    block_size: int
    ids: np.ndarray
    offsets: np.ndarray
    prompt_blocks: np.ndarray
    parent: np.ndarray
    depth: np.ndarray

    @property
    def n_distinct(self):
        """Number of distinct blocks."""
        return len(self.parent)


def identify_blocks(trace, block_size, *, outputs=False):
    """Number the full blocks of every request of a trace: see `identify_rows`."""
    return identify_rows(trace.tokens, trace.rows, block_size, outputs=outputs, contexts=trace.contexts)


def identify_rows(tokens, rows, block_size, *, outputs=False, contexts=None):
    """Number the full blocks of every request by their token prefix.

    Parameters
    ----------
    tokens : Tokens
    rows : (n_requests,) ndarray of int64
        The row of each request in the tokens, in arrival order.
    block_size : int
        Tokens per block.
    outputs : bool
        Also number the blocks that a request's generated tokens fill. The KV of the last of K generated tokens is never
        computed, so a finished request with P prompt tokens leaves floor((P + K - 1) / block_size) blocks.
    contexts : (n_requests,) ndarray of int64, optional
        Requests of different contexts have different blocks.

    Returns
    -------
    Blocks

    Raises
    ------
    InputError
        A block size that is no whole number above 0, or more blocks than 2**31.

    Notes
    -----
    Three steps: hash the tokens' parts, number the distinct keys of all parts (both as tasks, see `partition`), and
    number the blocks again in arrival order. Memory holds the tokens of the parts in work, one entry per distinct block
    of each part, and one id per block access.
    """
    block_size = check_block_size(block_size)
    check_parents(tokens)
    n_blocks, n_known = count_blocks(tokens, block_size, outputs)
    needed = mark_needed(rows, tokens.parent, n_known)
    firsts = find_firsts(n_blocks, n_known, needed)
    if firsts[-1] >= 2**31:
        raise InputError(f"{firsts[-1]} blocks of {block_size} tokens are more than one trace can hold (2**31)")
    ids, n_distinct = identify_parts(tokens, block_size, outputs=outputs, needed=needed, total=int(firsts[-1]))
    offsets = np.concatenate(([0], np.cumsum(n_blocks[rows])))
    ids = _lay_out(rows, offsets, n_blocks, n_known, firsts, tokens.parent, ids)
    if contexts is not None:
        ids, n_distinct = _separate(ids, n_distinct, np.repeat(contexts, np.diff(offsets)))
    parent, depth = _number(ids, offsets, n_distinct)
    return Blocks(block_size, ids, offsets, tokens.prompt_lengths()[rows] // block_size, parent, depth)


@njit(cache=True, nogil=True)
def _lay_out(rows, offsets, n_blocks, n_known, firsts, token_parent, ids):
    """Return the blocks of each request, gathered from its row and the row's parents."""
    out = np.empty(offsets[-1], np.int32)
    for i in range(len(rows)):
        row, stop = rows[i], n_blocks[rows[i]]
        while stop > 0:
            start = min(n_known[row], stop)
            for k in range(start, stop):
                out[offsets[i] + k] = ids[firsts[row] + k - n_known[row]]
            row, stop = token_parent[row], start
    return out


def _separate(ids, n_distinct, contexts):
    """Return ids that tell the blocks of different contexts apart, and how many are distinct."""
    distinct, ids = np.unique(ids + n_distinct * contexts, return_inverse=True)
    return ids.astype(np.int32), len(distinct)


@njit(cache=True, nogil=True)
def _number(ids, offsets, n_distinct):
    """Renumber the blocks in place, as first seen; return the parent and the depth of each."""
    number = np.full(n_distinct, -1, np.int32)
    parent, depth = np.empty(n_distinct, np.int32), np.empty(n_distinct, np.int32)
    count = 0
    for i in range(len(offsets) - 1):
        last = -1
        for k in range(offsets[i], offsets[i + 1]):
            block = number[ids[k]]
            if block < 0:
                block = number[ids[k]] = count
                parent[count], depth[count] = last, k - offsets[i]
                count += 1
            ids[k] = last = block
    return parent[:count].copy(), depth[:count].copy()
