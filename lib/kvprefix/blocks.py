"""Give every full block of every prompt its identity: the whole token prefix up to the block's end.

`"a b c d", "a b e f", "x y c d"` with blocks of two tokens are `[[0, 1], [0, 2], [3, 4]]`: equal tokens after
different prefixes are different blocks. Whether a block is resident in any cache is not known here.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from kvprefix.files import InputError
from kvprefix.trace import copy_prompt


@dataclass(frozen=True)
class Blocks:
    """The blocks of a trace's requests as flat arrays.

    Attributes
    ----------
    block_size : int
        Tokens.
    ids : (total,) ndarray of int32
        Block ids, request after request: prompt blocks, then those that generated tokens fill. Dense, numbered as
        first seen: 0, 1, 2, ...
    offsets : (n_requests + 1,) ndarray of int64
        Request i's blocks are ``ids[offsets[i]:offsets[i + 1]]``.
    prompt_blocks : (n_requests,) ndarray of int64
        How many of them are the prompt's: floor(prompt tokens / block size). A partial last block is none.
    parent : (n_distinct,) ndarray of int32
        The block before each block, -1 for a first one.
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


def check_block_size(block_size):
    """Return a block size that is a whole number of tokens above 0, or raise InputError."""
    if isinstance(block_size, bool) or not isinstance(block_size, int | np.integer) or not 1 <= block_size < 2**31:
        raise InputError(f"block size is {block_size!r}; expected a whole number of tokens, 1 or more (below 2**31)")
    return int(block_size)


def identify_blocks(trace, block_size, *, outputs=False):
    """Number the full blocks of every request by their token prefix.

    Parameters
    ----------
    trace : Trace
    block_size : int
        Tokens a block.
    outputs : bool
        Also number the blocks that a request's generated tokens fill. Of K generated tokens the last one's KV is never
        computed, so a finished request leaves floor((P + K - 1) / block_size) blocks (P prompt tokens).

    Returns
    -------
    Blocks

    Notes
    -----
    A block's key is a 128-bit hash of its parent's key and its tokens (two independent 64-bit chains, as an engine
    chains its hashes); two of a billion blocks collide with a probability below 1e-20. Blocks inside the part that a
    prompt shares with its parent are taken over, not hashed again.
    """
    block_size = check_block_size(block_size)
    tokens, rows = trace.tokens, trace.rows
    prompt_lengths = tokens.prompt_lengths()[rows]
    total = prompt_lengths
    if outputs:
        total = prompt_lengths + np.maximum(np.diff(tokens.output_offsets)[rows] - 1, 0)
    offsets = np.concatenate(([0], np.cumsum(total // block_size)))
    taken_from = _earlier_parents(tokens.parent, rows)
    known = np.where(taken_from >= 0, tokens.shared[rows] // block_size, 0)
    n_hashed = int((total // block_size - known).sum())
    if n_hashed >= 2**31:
        raise InputError(f"{n_hashed} blocks of {block_size} tokens are more than one trace can hold (2**31)")
    ids, parent, depth = _identify(
        rows, taken_from, known, prompt_lengths, offsets, tokens.parent, tokens.shared, tokens.own_offsets,
        tokens.own, tokens.output_offsets, tokens.output, block_size, n_hashed,
    )  # fmt: skip
    return Blocks(block_size, ids, offsets, prompt_lengths // block_size, parent, depth)


def _earlier_parents(parent, rows):
    """Return the position in the trace of each request's parent, -1 where it is not earlier in the trace."""
    position = np.full(len(parent), -1)
    position[rows] = np.arange(len(rows))
    found = np.where(parent[rows] >= 0, position[parent[rows]], -1)
    return np.where(found < np.arange(len(rows)), found, -1)


@njit(cache=True, nogil=True, inline="always")
def _mix(h, value, multiplier):
    """Fold a value into a 64-bit hash: multiply and shift, as in splitmix64 (Steele et al., 2014)."""
    h = (h ^ np.uint64(value)) * multiplier
    return h ^ (h >> np.uint64(29))


@njit(cache=True, nogil=True)
def _identify(
    rows, taken_from, known, prompt_lengths, offsets, token_parent, token_shared, own_offsets, own,
    output_offsets, output, block_size, n_hashed,
):  # fmt: skip
    """Walk the requests in order; look up or number each block in an open-addressing table of its key."""
    size = 16
    while size < 2 * n_hashed:
        size *= 2
    table = np.full(size, -1, np.int32)
    mask = np.uint64(size - 1)
    key_a, key_b = np.empty(n_hashed, np.uint64), np.empty(n_hashed, np.uint64)
    parent, depth = np.empty(n_hashed, np.int32), np.empty(n_hashed, np.int32)
    ids = np.empty(offsets[-1], np.int32)
    mult_a, mult_b = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
    count = 0
    for i in range(len(rows)):
        row, first, n_blocks = rows[i], offsets[i], offsets[i + 1] - offsets[i]
        last, a, b = -1, np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344)
        if known[i] > 0:
            ids[first : first + known[i]] = ids[offsets[taken_from[i]] : offsets[taken_from[i]] + known[i]]
            last = ids[first + known[i] - 1]
            a, b = key_a[last], key_b[last]
        start = known[i] * block_size
        prompt = copy_prompt(row, start, token_parent, token_shared, own_offsets, own)
        position = 0
        for block in range(known[i], n_blocks):
            for _ in range(block_size):
                if position < len(prompt):
                    token = prompt[position]
                else:
                    token = output[output_offsets[row] + position - len(prompt)]
                a, b = _mix(a, token, mult_a), _mix(b, token, mult_b)
                position += 1
            a, b = _mix(a, 0x5851F42D4C957F2D, mult_b), _mix(b, 0x14057B7EF767814F, mult_a)
            slot = (a ^ (a >> np.uint64(32))) & mask
            while table[slot] >= 0 and not (key_a[table[slot]] == a and key_b[table[slot]] == b):
                slot = (slot + np.uint64(1)) & mask
            if table[slot] < 0:
                table[slot] = count
                key_a[count], key_b[count], parent[count], depth[count] = a, b, last, block
                count += 1
            last = table[slot]
            ids[first + block] = last
    return ids, parent[:count].copy(), depth[:count].copy()
