"""The compiled core of SGLang's replay: requests one by one, and the pages of the pool that they take.

`sglang` has the rules and the interface, `sglang_tree` the cache.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.engines.sglang_tree import FIRST_ARENA, insert, remove_oldest, walk
from kvprefix.tokens.arrays import copy_prompt


class Rows(NamedTuple):
    """The arrays of `Tokens` that a replay reads."""

    parent: np.ndarray
    shared: np.ndarray
    own_offsets: np.ndarray
    own: np.ndarray
    output_offsets: np.ndarray
    output: np.ndarray


class Work(NamedTuple):
    """The requests of a replay.

    Attributes
    ----------
    rows, contexts : (n,) ndarray of int64
        As in `Trace`.
    prompts, computed : (n,) ndarray of int64
        Tokens: the prompt's, and with the generated ones when it is over; computed is -1 for a prompt that never fits.
    n_pages : int
        Of the pool.
    """

    rows: np.ndarray
    contexts: np.ndarray
    prompts: np.ndarray
    computed: np.ndarray
    n_pages: int


@njit(cache=True, nogil=True)
def replay_pages(tree, work, tokens):
    """Replay requests, each of which finishes before the next starts.

    Returns
    -------
    (n,) ndarray of int64
        The cached tokens of each request, -1 if it never fits.
    """
    page_size, free, arena = tree.page_size, work.n_pages, np.empty(FIRST_ARENA, np.int32)
    cached = np.full(len(work.rows), -1)
    for i in range(len(work.rows)):
        prompt, total = work.prompts[i], work.computed[i]
        if total < 0:
            continue
        ids = _copy_tokens(tokens, work.rows[i], prompt, total)
        node, hit = walk(tree, arena, -1 - work.contexts[i], ids, 0, (prompt - 1) // page_size * page_size)
        cached[i] = hit
        new = -(-(prompt - hit) // page_size)
        wanted = prompt - hit if page_size == 1 else -(-(prompt - hit + page_size) // page_size)
        free = _evict(tree, free, wanted, node) - new
        arena, node, known = insert(tree, arena, node, ids, hit, prompt // page_size * page_size)
        free += (known - hit) // page_size

        held, last = -(-prompt // page_size), -(-total // page_size)
        if total > prompt:
            before_last = -(-(total - 1) // page_size)
            free = _evict(tree, free, before_last - held + 1, node) - (last - held)
            start = prompt // page_size * page_size
            arena, node, known = insert(tree, arena, node, ids, start, total // page_size * page_size)
            free += (known - start) // page_size
        free += total % page_size > 0
    return cached


@njit(cache=True, nogil=True)
def _copy_tokens(tokens, row, prompt, total):
    """Return the computed tokens of a row: its prompt, then what it generated."""
    first = tokens.output_offsets[row]
    ids = np.empty(total, np.int32)
    ids[:prompt] = copy_prompt(row, 0, tokens.parent, tokens.shared, tokens.own_offsets, tokens.own)
    ids[prompt:] = tokens.output[first : first + total - prompt]
    return ids


@njit(cache=True, nogil=True)
def _evict(tree, free, wanted, locked):
    """Evict leaves until `wanted` pages are free or only the locked path is left; return the number of free pages."""
    ends = len(tree.newer) - 1
    stop = locked if locked >= 0 else ends  # the locked path is the newest part of the list
    while free < wanted and tree.newer[ends] != stop:
        free += remove_oldest(tree) // tree.page_size
    return free
