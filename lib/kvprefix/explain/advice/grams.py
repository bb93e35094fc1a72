"""Find which tokens of a prompt were seen before at any place: runs of K tokens, by a rolling hash.

This finds what stands behind a value that changes. It is an estimate: what people quote was seen before, too.
"""

import numpy as np
from numba import njit

from kvprefix.tokens.arrays import copy_prompt

GRAM = 16  # tokens
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)


def count_seen(trace, starts, size=GRAM):
    """Count the tokens of each prompt, from a place on, that lie in a run of tokens which an earlier prompt had.

    Parameters
    ----------
    trace : Trace
    starts : (n,) ndarray of int64
        How many leading tokens of each prompt an earlier one began with; only those behind are counted.
    size : int
        Tokens of a run.

    Returns
    -------
    (n,) ndarray of int64

    Notes
    -----
    One 64-bit hash is kept per token that no earlier prompt began with: two of a hundred million collide with a
    probability of 0.03 %.

    Examples
    --------
    >>> from kvprefix.traces.trace import make_trace_of
    >>> count_seen(make_trace_of([[1, 2, 3, 4], [9, 2, 3, 4, 5]]), np.array([0, 0]), 2)
    array([0, 3])
    """
    tokens = trace.tokens
    lengths = tokens.prompt_lengths()[trace.rows]
    firsts = np.maximum(starts - size + 1, 0)
    room = int(np.maximum(lengths - firsts, 0).sum())
    table = np.zeros(1 << max(int(room * 3 // 2).bit_length(), 4), np.uint64)
    return _count_seen(trace.rows, starts, tokens.parent, tokens.shared, tokens.own_offsets, tokens.own, size, table)


@njit(cache=True, nogil=True)
def _count_seen(rows, starts, parent, shared, own_offsets, own, size, table):
    found, power = np.zeros(len(rows), np.int64), np.uint64(1)
    for _ in range(size):
        power *= _BASE
    for i in range(len(rows)):
        first = max(starts[i] - size + 1, 0)
        keys = _hash_grams(copy_prompt(rows[i], first, parent, shared, own_offsets, own), size, power)
        covered = starts[i] - first  # up to where tokens are counted
        for k in range(starts[i] - first, len(keys)):
            if table[_find(table, keys[k])]:
                found[i] += k + size - max(covered, k)
                covered = k + size
        for key in keys:
            table[_find(table, key)] = key
    return found


@njit(nogil=True)
def _hash_grams(ids, size, power):
    """Return the hash of each run of `size` tokens; never 0."""
    keys, rolled = np.empty(max(len(ids) - size + 1, 0), np.uint64), np.uint64(0)
    for k in range(len(ids)):
        rolled = rolled * _BASE + np.uint64(ids[k] + 1)
        if k >= size:
            rolled -= np.uint64(ids[k - size] + 1) * power
        if k >= size - 1:
            key = (rolled ^ (rolled >> np.uint64(32))) * _MIX
            keys[k - size + 1] = (key ^ (key >> np.uint64(29))) | np.uint64(1)
    return keys


@njit(nogil=True)
def _find(table, key):
    """Return the slot of a key, or the empty one where it belongs."""
    mask = np.uint64(len(table) - 1)
    slot = (key >> np.uint64(7)) & mask
    while table[slot] and table[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot
