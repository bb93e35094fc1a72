"""Hash blocks by their whole token prefix, part by part, and number the hashes, one range of keys at a time.

All functions are pure, so parts can be hashed and ranges numbered anywhere, in any order. It knows no requests and no
arrivals.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.files.mapped import read_only
from kvprefix.files.paths import InputError
from kvprefix.tokens.arrays import copy_prompt

MOST = 2**31  # blocks of a part, or keys of a range: they are numbered in 32 bits
RANGES = 16  # of keys, by their first four bits; each range is numbered by itself


class HashedBlocks(NamedTuple):
    """The blocks that the rows of a part add to what they share with their parents.

    Attributes
    ----------
    keys : (n_distinct, 2) ndarray of uint64
        128-bit hash of each distinct block's whole token prefix, as first seen.
    ids : (total,) ndarray of int32
        Row after row, the position of each block's key.
    """

    keys: np.ndarray
    ids: np.ndarray


def hash_blocks(tokens, block_size, *, outputs=False, needed=None):
    """Hash the full blocks of a part's rows.

    Parameters
    ----------
    tokens : Tokens
        A part: its rows continue only rows of the same part.
    block_size : int
    outputs : bool
        Also the blocks that generated tokens fill; see `identify.identify_rows`.
    needed : (n,) ndarray of bool, optional
        Rows to hash, all if not given; with a row, also the rows that it continues.

    Returns
    -------
    HashedBlocks
        Of row r, without the first ``shared[r] // block_size`` blocks, which are its parent's.

    Raises
    ------
    InputError
        MOST blocks or more in one part.

    Notes
    -----
    A block's key is a 128-bit hash of its parent's key and its tokens: two independent 64-bit chains, chained as in an
    engine. Any two of a billion blocks collide with a probability below 1e-20.
    """
    n_blocks, n_known = count_blocks(tokens, block_size, outputs)
    needed = np.ones(len(n_blocks), bool) if needed is None else needed
    arrays = tokens.parent, tokens.shared, tokens.own_offsets, tokens.own, tokens.output_offsets, tokens.output
    firsts = find_firsts(n_blocks, n_known, needed)
    if firsts[-1] >= MOST:
        raise InputError(
            f"{firsts[-1]:,} blocks of {block_size} tokens depend on one another, more than can be numbered "
            f"({MOST:,}); use larger blocks"
        )
    return HashedBlocks(*_hash(*map(read_only, (needed, n_blocks, n_known, firsts, *arrays)), block_size))


def sort_by_range(found):
    """Sort a part's keys by their RANGES equal ranges, as first seen within each.

    Parameters
    ----------
    found : HashedBlocks

    Returns
    -------
    keys : (n_distinct, 2) ndarray of uint64
    bounds : (RANGES + 1,) ndarray of int64
        Range r's keys are ``keys[bounds[r]:bounds[r + 1]]``.
    ids : (total,) ndarray of int32
        Row after row, the position of each block's key.
    """
    return _sort_by_range(found.keys, found.ids)


def number_keys(keys):
    """Number the keys of one range over all parts, as first seen.

    Parameters
    ----------
    keys : sequence of (n, 2) ndarrays of uint64
        The distinct keys of each part.

    Returns
    -------
    numbers : (sum of n,) ndarray of int32
        Part after part; equal keys have equal numbers.
    n_distinct : int
    """
    total = sum(map(len, keys))
    table, known = np.full(_table_size(total), -1, np.int32), np.empty((total, 2), np.uint64)
    numbers, done, n_distinct = np.empty(total, np.int32), 0, 0
    for part in keys:
        n_distinct = _number(read_only(part), table, known, n_distinct, numbers[done : done + len(part)])
        done += len(part)
    return numbers, n_distinct


def count_blocks(tokens, block_size, outputs):
    """Return the number of full blocks of each row, and how many of them are its parent's, (n,) int64 each."""
    total = tokens.prompt_lengths()
    if outputs:
        total = total + np.maximum(np.diff(tokens.output_offsets) - 1, 0)
    return total // block_size, tokens.shared // block_size


def find_firsts(n_blocks, n_known, needed):
    """Return where each row's own ids start in `HashedBlocks.ids`, (n + 1,) int64."""
    return np.concatenate(([0], np.cumsum(np.where(needed, n_blocks - n_known, 0))))


@njit(cache=True, nogil=True)
def mark_needed(rows, parent, n_known):
    """Mark the rows of a trace and the rows whose blocks they continue."""
    needed = np.zeros(len(parent), np.bool_)
    for row in rows:
        while row >= 0 and not needed[row]:
            needed[row] = True
            row = parent[row] if n_known[row] > 0 else -1
    return needed


@njit(cache=True, nogil=True, inline="always")
def _mix(h, value, multiplier):
    """Fold a value into a 64-bit hash: multiply and shift, as in splitmix64 (Steele et al., 2014)."""
    h = (h ^ np.uint64(value)) * multiplier
    return h ^ (h >> np.uint64(29))


@njit(cache=True, nogil=True, inline="always")
def fold(a, b, value):
    """Fold a whole number into both chains of a key."""
    return _mix(a, value, np.uint64(0x9E3779B97F4A7C15)), _mix(b, value, np.uint64(0xD6E8FEB86659FD93))


@njit(cache=True, nogil=True)
def _table_size(n):
    """Return the size of an open-addressing table for n keys: a power of two, at least 2 n."""
    size = 16
    while size < 2 * n:
        size *= 2
    return size


@njit(cache=True, nogil=True, inline="always")
def _find_slot(a, b, table, keys):
    """Return the slot of a key in the table, or the empty slot where it belongs."""
    mask = np.uint64(len(table) - 1)
    slot = (a ^ (a >> np.uint64(32))) & mask
    while table[slot] >= 0 and not (keys[table[slot], 0] == a and keys[table[slot], 1] == b):
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True)
def _hash(
    needed, n_blocks, n_known, firsts, parent, shared, own_offsets, own, output_offsets, output, block_size,
):  # fmt: skip
    """Go through the rows in order; look up or number each block by its key."""
    n_hashed = firsts[-1]
    table = np.full(_table_size(n_hashed), -1, np.int32)
    keys, ids = np.empty((n_hashed, 2), np.uint64), np.empty(n_hashed, np.int32)
    mult_a, mult_b = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
    count = 0
    for row in range(len(needed)):
        if not needed[row]:
            continue
        a, b = np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344)
        if n_known[row] > 0:
            before, block = parent[row], n_known[row] - 1
            while block < n_known[before]:
                before = parent[before]
            last = ids[firsts[before] + block - n_known[before]]
            a, b = keys[last, 0], keys[last, 1]
        tokens = copy_prompt(row, n_known[row] * block_size, parent, shared, own_offsets, own)
        if (firsts[row + 1] - firsts[row]) * block_size > len(tokens):
            tokens = np.concatenate((tokens, output[output_offsets[row] : output_offsets[row + 1]]))
        stop = 0
        for k in range(firsts[row], firsts[row + 1]):
            start, stop = stop, stop + block_size
            for i in range(start, stop - 1, 2):  # two tokens at a time
                pair = np.uint64(tokens[i]) | np.uint64(tokens[i + 1]) << np.uint64(32)
                a, b = _mix(a, pair, mult_a), _mix(b, pair, mult_b)
            if block_size % 2:
                a, b = _mix(a, tokens[stop - 1], mult_a), _mix(b, tokens[stop - 1], mult_b)
            a, b = _mix(a, 0x5851F42D4C957F2D, mult_b), _mix(b, 0x14057B7EF767814F, mult_a)
            slot = _find_slot(a, b, table, keys)
            if table[slot] < 0:
                table[slot] = count
                keys[count, 0], keys[count, 1] = a, b
                count += 1
            ids[k] = table[slot]
    return keys[:count].copy(), ids


@njit(cache=True, nogil=True)
def _sort_by_range(keys, ids):
    bounds = np.zeros(RANGES + 1, np.int64)
    for k in range(len(keys)):
        bounds[(keys[k, 0] >> np.uint64(60)) + np.uint64(1)] += 1
    bounds = np.cumsum(bounds)
    following, position = bounds[:-1].copy(), np.empty(len(keys), np.int32)
    sorted_keys, new_ids = np.empty_like(keys), np.empty_like(ids)
    for k in range(len(keys)):
        to = following[keys[k, 0] >> np.uint64(60)]
        following[keys[k, 0] >> np.uint64(60)] += 1
        position[k] = to
        sorted_keys[to, 0], sorted_keys[to, 1] = keys[k, 0], keys[k, 1]
    for k in range(len(ids)):
        new_ids[k] = position[ids[k]]
    return sorted_keys, bounds, new_ids


@njit(cache=True, nogil=True)
def _number(new, table, keys, count, numbers):
    """Look up or number keys; fill in their numbers and return the count of keys."""
    for k in range(len(new)):
        a, b = new[k, 0], new[k, 1]
        slot = _find_slot(a, b, table, keys)
        if table[slot] < 0:
            table[slot] = count
            keys[count, 0], keys[count, 1] = a, b
            count += 1
        numbers[k] = table[slot]
    return count
