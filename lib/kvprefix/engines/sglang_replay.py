"""The compiled core of SGLang's replay: requests one by one, and the pages of the pool that they take.

`sglang` has the rules and the interface, `sglang_tree` the cache.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.engines.sglang_tree import enter, insert, remove_oldest, walk


class Work(NamedTuple):
    """The requests of a replay, in the order of the tree's paths.

    Attributes
    ----------
    prompts, computed : (n,) ndarray of int64
        Tokens: the prompt's, and with the generated ones when it is over; computed is -1 for a prompt that never fits.
    page_size : int
        Tokens.
    n_pages : int
        Of the pool.
    """

    prompts: np.ndarray
    computed: np.ndarray
    page_size: int
    n_pages: int


@njit(cache=True, nogil=True)
def replay_pages(tree, work):
    """Replay requests, each of which finishes before the next starts.

    Returns
    -------
    (n,) ndarray of int64
        The cached pages of each request, -1 if it never fits.
    """
    size, free = work.page_size, work.n_pages
    cached = np.full(len(work.prompts), -1)
    for i in range(len(work.prompts)):
        prompt, total = work.prompts[i], work.computed[i]
        if total < 0:
            continue
        enter(tree, i)
        node, k, hit = walk(tree, -1, tree.paths.offsets[i], 0, (prompt - 1) // size)
        cached[i] = hit
        new = -(-prompt // size) - hit
        free = _evict(tree, free, new if size == 1 else -(-(prompt + size) // size) - hit, node) - new
        node, k, known = insert(tree, node, k, hit, prompt // size)
        free += known - hit

        held, last = -(-prompt // size), -(-total // size)
        if total > prompt:
            before_last = -(-(total - 1) // size)
            free = _evict(tree, free, before_last - held + 1, node) - (last - held)
            node, k, known = insert(tree, node, k, prompt // size, total // size)
            free += known - prompt // size
        free += total % size > 0
    return cached


@njit(cache=True, nogil=True)
def _evict(tree, free, wanted, locked):
    """Evict leaves until `wanted` pages are free or only the locked path is left; return the number of free pages."""
    ends = len(tree.nodes) - 1
    stop = locked if locked >= 0 else ends  # the locked path is the newest part of the list
    while free < wanted and tree.nodes[ends].newer != stop:
        free += remove_oldest(tree)
    return free
