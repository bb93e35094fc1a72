"""Find how much of each request was there before: its leading blocks that earlier requests had, and who stored them.

A request that has a block has every block before it, so what a request reuses is a leading run, and what it stores is
the rest: two numbers per request tell all about its blocks, however many there are. They are found partition by
partition, so that no process holds the blocks of all requests: one task per part of the tokens hashes its blocks and
compares its own requests with each other; one task per range of keys finds the first request of each key over all
parts; one more per part puts both together. Arrays that leave a process, or are many, go through files.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.hashing import count_blocks, find_firsts, hash_blocks, mark_needed, number_keys
from kvprefix.blocks.partition import keep, name_file, open_exchange
from kvprefix.files.checks import check_block_size
from kvprefix.files.mapped import read_only
from kvprefix.tasks.runner import open_tasks
from kvprefix.tokens.arrays import PART_TOKENS, MessageTokens, check_parents, strip_template

IN_MEMORY = 2**24  # blocks; more go through files, whose memory the system may take back
RANGE_BLOCKS = 2**19  # about the number of keys in a range: a table of so many stays in a processor's cache
FEW = 16  # parts that one thread hashes in less than half a second: two threads of a core would take more CPU time
RANGES = 16, 512  # at least, and at most


class Reuse(NamedTuple):
    """How much each request reuses, (n_requests,) ndarrays of int64 in arrival order.

    Attributes
    ----------
    blocks : ndarray
        Full blocks of the request.
    reused : ndarray
        Its leading blocks that an earlier request had.
    source : ndarray
        The request that stored the last of these, -1 if there is none.
    """

    blocks: np.ndarray
    reused: np.ndarray
    source: np.ndarray

    @property
    def stored(self):
        """Where the blocks that each request stores begin among all that are stored, (n_requests + 1,) int64."""
        return np.concatenate(([0], np.cumsum(self.blocks - self.reused)))


class _Part(NamedTuple):
    """What one part of the tokens tells: its distinct blocks by range of keys, and its requests among themselves."""

    keys: np.ndarray  # (n_distinct, 2) uint64, range after range
    firsts: np.ndarray  # (n_distinct,) int64: the part's first request of each key
    bounds: np.ndarray  # where each range begins
    places: np.ndarray  # (n_distinct,) int32: of the blocks as they were stored, the place of each one's key
    new: np.ndarray  # by request: blocks that no earlier request of the part has
    reused: np.ndarray  # by request: the others
    before: np.ndarray  # by request: the last of the others, as the blocks were stored; -1 if there is none


def find_reuse(tokens, rows, block_size, *, outputs=False):
    """Find how much of each request earlier requests had.

    Parameters
    ----------
    tokens : Tokens or MessageTokens
    rows : (n_requests,) ndarray of int64
        The row of each request in the tokens, in arrival order.
    block_size : int
        Tokens per block.
    outputs : bool
        Also the blocks that generated tokens fill; see `identify.identify_rows`.

    Returns
    -------
    Reuse

    Raises
    ------
    InputError
        A block size that is no whole number above 0.

    Notes
    -----
    Nothing here counts in 32 bits but the blocks of one part. This process holds a few numbers per request.
    """
    block_size = check_block_size(block_size)
    check_parents(tokens)
    source, strip = (tokens.source, True) if isinstance(tokens, MessageTokens) else (tokens, False)
    n_tokens = len(source.own) + len(source.output) * outputs
    in_memory = n_tokens // block_size <= IN_MEMORY
    n_ranges = min(max(RANGES[0], 2 ** (n_tokens // block_size // RANGE_BLOCKS).bit_length()), RANGES[1])
    place = "here" if n_tokens <= FEW * PART_TOKENS else None
    positions = []
    with open_tasks(place) as tasks, open_exchange(tasks.share_memory and in_memory) as folder:
        parts = (
            (part, strip, block_size, outputs, rows[some] - start, some, n_ranges, name_file(folder, f"part-{start}"))
            for start, part, some in _split(source, rows, positions)
        )
        found = list(tasks.map(_hash_part, parts, "hashing blocks", total=n_tokens // PART_TOKENS + 1))
        ranges = (
            ([part.keys[part.bounds[k] : part.bounds[k + 1]] for part in found],
             [part.firsts[part.bounds[k] : part.bounds[k + 1]] for part in found], name_file(folder, f"range-{k}"))
            for k in range(n_ranges)
        )  # fmt: skip
        firsts = list(tasks.map(_find_firsts, ranges, "comparing blocks", total=n_ranges))
        joined = list(tasks.map(_join_part, _deal(found, firsts, positions), total=len(found)))
    n_blocks, _ = count_blocks(tokens, block_size, outputs)
    reused, source = np.zeros(len(rows), np.int64), np.full(len(rows), -1)
    for some, one in zip(positions, joined, strict=True):
        reused[some], source[some] = one
    return Reuse(n_blocks[rows], reused, source)


def _split(source, rows, positions):
    """Yield (first row, part, its requests) for each part that has requests; append the latter to `positions`."""
    order = np.argsort(rows, kind="stable")
    by_row = rows[order]
    for start, part in source.parts():
        low, high = np.searchsorted(by_row, (start, start + len(part.shared)))
        if low < high:
            positions.append(np.sort(order[low:high]))
            yield start, part, positions[-1]


def _hash_part(task):
    """Hash a part's blocks, and compare its requests with each other."""
    part, strip, block_size, outputs, rows, positions, n_ranges, name = task
    part = strip_template(part) if strip else part
    n_blocks, n_known = count_blocks(part, block_size, outputs)
    needed = mark_needed(rows, part.parent, n_known)
    found = hash_blocks(part, block_size, outputs=outputs, needed=needed)
    firsts = find_firsts(n_blocks, n_known, needed)
    numbers, new, reused, before = _store(rows, n_blocks, n_known, firsts, part.parent, found.ids, len(found.keys))
    keys, firsts, bounds, places = _spread(found.keys, numbers, np.repeat(positions, new), n_ranges)
    kept = (keep(array, name, suffix) for array, suffix in ((keys, "keys"), (firsts, "firsts"), (places, "places")))
    keys, firsts, places = kept
    return _Part(keys, firsts, bounds, places, new, reused, before)


@njit(cache=True, nogil=True)
def _store(rows, n_blocks, n_known, firsts, parent, ids, n_distinct):
    """Store each request's blocks, from its last one back to one that is stored already; number them as stored."""
    numbers, count = np.full(n_distinct, -1, np.int32), 0
    new, reused = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    before = np.full(len(rows), -1, np.int64)
    for i in range(len(rows)):
        row = rows[i]
        k, count_before = n_blocks[row] - 1, count
        while k >= 0:
            while k < n_known[row]:
                row = parent[row]
            key = ids[firsts[row] + k - n_known[row]]
            if numbers[key] >= 0:
                before[i] = numbers[key]
                break
            numbers[key] = count
            count += 1
            k -= 1
        new[i], reused[i] = count - count_before, k + 1
    return numbers, new, reused, before


@njit(cache=True, nogil=True)
def _spread(keys, numbers, stored_by, n_ranges):
    """Sort a part's blocks by the range of their keys; a key that no request needs is left out."""
    shift = np.uint64(64)
    while n_ranges > 1:
        n_ranges, shift = n_ranges // 2, shift - np.uint64(1)
    bounds = np.zeros((1 << (64 - np.int64(shift))) + 1, np.int64)
    for k in range(len(keys)):
        if numbers[k] >= 0:
            bounds[np.int64(keys[k, 0] >> shift) + 1] += 1
    bounds = np.cumsum(bounds)
    following, n = bounds[:-1].copy(), bounds[-1]
    sorted_keys, firsts, places = np.empty((n, 2), np.uint64), np.empty(n, np.int64), np.empty(n, np.int32)
    for k in range(len(keys)):
        if numbers[k] >= 0:
            to = following[np.int64(keys[k, 0] >> shift)]
            following[np.int64(keys[k, 0] >> shift)] += 1
            sorted_keys[to, 0], sorted_keys[to, 1] = keys[k, 0], keys[k, 1]
            firsts[to], places[numbers[k]] = stored_by[numbers[k]], to
    return sorted_keys, firsts, bounds, places


def _find_firsts(task):
    """Return the first request of each key of one range over all parts, part after part."""
    keys, firsts, name = task
    numbers, n_distinct = number_keys(keys)
    return keep(_least(numbers, np.concatenate(firsts), n_distinct), name, "firsts")


@njit(cache=True, nogil=True)
def _least(numbers, values, n):
    """Return the least value of those with the same number, for each."""
    least = np.full(n, np.iinfo(np.int64).max)
    for k in range(len(numbers)):
        least[numbers[k]] = min(least[numbers[k]], values[k])
    return least[numbers]


def _deal(found, firsts, positions):
    """Yield for each part what `_join_part` takes."""
    taken = np.zeros(len(firsts), np.int64)
    for part, some in zip(found, positions, strict=True):
        stops = taken + np.diff(part.bounds)
        slices = [of_range[a:b] for of_range, a, b in zip(firsts, taken, stops, strict=True)]
        yield slices, some, part.places, part.new, part.reused, part.before
        taken = stops


def _join_part(task):
    firsts, *rest = task
    return _join(np.concatenate(firsts), *map(read_only, rest))


@njit(cache=True, nogil=True)
def _join(firsts, positions, places, new, reused, before):
    """Return (blocks that earlier requests had, who stored the last of these) for each request of a part."""
    of_all, source, start = reused.copy(), np.full(len(new), -1, np.int64), 0
    for i in range(len(new)):
        k, stop = start, start + new[i]
        while k < stop and firsts[places[k]] == positions[i]:
            k += 1
        of_all[i] += stop - k
        if k < stop:
            source[i] = firsts[places[k]]
        elif before[i] >= 0:
            source[i] = firsts[places[before[i]]]
        start = stop
    return of_all, source


def reuse_of(ids, offsets):
    """Return the Reuse of requests whose blocks are numbered as first seen: ids as in `identify.Blocks`."""
    return Reuse(np.diff(offsets), *_reuse_of(ids, offsets))


@njit(cache=True, nogil=True)
def _reuse_of(ids, offsets):
    n = len(offsets) - 1
    reused, source, stored_by = np.zeros(n, np.int64), np.full(n, -1, np.int64), np.empty(len(ids), np.int64)
    seen = 0
    for i in range(n):
        k, before = offsets[i], seen
        while k < offsets[i + 1] and ids[k] < before:
            source[i] = stored_by[ids[k]]
            k += 1
        reused[i] = k - offsets[i]
        while k < offsets[i + 1]:
            stored_by[seen] = i
            seen, k = seen + 1, k + 1
    return reused, source
