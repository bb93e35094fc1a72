"""Replay requests through SGLang's radix prefix cache: token ids in, the cached tokens of each request out.

The rules are those of SGLang 0.5.23 for full attention; behind each, the file below ``sglang/srt`` that has it.

- A cached prefix is a path in a tree whose nodes hold whole pages of tokens; a child is found by its first page, the
  adapter and the salt (`mem_cache/radix_cache.py`, `mem_cache/unified_cache/unified_tree_core.py`).
- A prompt of L tokens hits the longest path that its first L - 1 tokens have in the tree, in whole pages: the last
  token is always computed (`managers/schedule_batch.py`). A path that ends inside a node splits it.
- The hit path is locked while the request runs, so that it is not evicted (`managers/schedule_policy.py`).
- Before a prompt is computed, leaves are evicted until its new tokens are free, and with pages above one token a page
  more than them; before each generated token, until one page is free, needed or not (`mem_cache/allocation.py`).
- Evicted is the leaf that was accessed the longest ago, whole, even where less would do; its parent may be the next one
  (`mem_cache/evict_policy.py`, `mem_cache/unified_cache/components/full.py`).
- The computed prompt goes into the tree at once, the generated tokens when the request finishes, as a node of their
  own: whole pages, without the last generated token, whose KV is never computed. What the tree has already is freed,
  not kept twice (`managers/scheduler_components/batch_result_processor.py`, `mem_cache/common.py`,
  `mem_cache/unified_radix_cache.py`).
- A lookup and an insertion count as an access of the whole path; the rest of a node that they split counts as accessed
  just before it.
- Of a pool of C tokens (a padded slot 0 comes on top: `mem_cache/allocator`), a prompt is refused from C - 6 tokens on
  (`managers/tp_worker.py`, `managers/utils.py`), and waits for ever from C - page on (`mem_cache/prefill_budget.py`):
  here it counts as refused, and the next ones go on. A generation ends where the pool is full: at C - L - 2 tokens, or
  C - page - 1 less the prompt's pages (`managers/scheduler.py`, `mem_cache/allocator/base.py`).

Not modelled: requests that run at once, chunked prefill (which cuts nodes at the ends of chunks), the overlap scheduler
(which takes room for a token after the last one), speculative decoding, hierarchical caches, sliding windows, images.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.engines.vllm import Replayed
from kvprefix.files.checks import check_block_size
from kvprefix.files.paths import InputError
from kvprefix.tokens.arrays import MessageTokens, copy_prompt, strip_template

_FIRST_ARENA = 2**20  # tokens


def replay_sglang(requests, page_size, capacity_tokens=None, *, outputs=True):
    """Replay requests through SGLang's radix cache, each one finished before the next starts.

    Parameters
    ----------
    requests : Requests or Trace
    page_size : int
        Tokens a page.
    capacity_tokens : int, optional
        Tokens of the pool, a multiple of the page size; unlimited if not given.
    outputs : bool
        Whether tokens are generated (and cached); otherwise a request is over when its prompt is computed.

    Returns
    -------
    Replayed
        Its blocks are pages, none of them a null block; `cached_hashes` and `blocks_with_hash` are both the pages in
        the tree at the end, for none is there twice.

    Raises
    ------
    InputError
        A page size or a capacity out of range.

    Examples
    --------
    Pages of one token, as SGLang has by default. The second request hits all of its tokens but the last.

    >>> from kvprefix.engines.vllm import make_requests
    >>> requests = make_requests([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 9]])
    >>> replay_sglang(requests, 1).cached_tokens
    array([0, 3, 2])
    """
    page_size = check_block_size(page_size)
    capacity = _check_capacity(capacity_tokens, page_size)
    tokens, rows = requests.tokens, requests.rows
    if isinstance(tokens, MessageTokens):
        tokens = strip_template(tokens.source)
    contexts = getattr(requests, "contexts", None)
    contexts = np.zeros(len(rows), np.int64) if contexts is None else contexts
    prompts = tokens.prompt_lengths()[rows]
    generated = np.diff(tokens.output_offsets)[rows] if outputs else np.zeros(len(rows), np.int64)
    paged = -(-prompts // page_size) * page_size
    room = np.minimum(capacity - prompts - 2, capacity - paged - page_size - 1)
    fits = prompts <= longest_prompt(capacity, page_size)
    computed = prompts + np.maximum(np.minimum(generated, room) - 1, 0)
    most_nodes = int(min(5 * len(rows), capacity // page_size) + 2)
    if most_nodes >= 2**30:
        raise InputError("the requests need a tree of 2**30 nodes or more; expected fewer")
    cached, pages = _replay(
        rows, contexts, prompts, np.where(fits, computed, -1), page_size, capacity // page_size, most_nodes,
        tokens.parent, tokens.shared, tokens.own_offsets, tokens.own, tokens.output_offsets, tokens.output,
    )  # fmt: skip
    n_pages = None if capacity_tokens is None else capacity // page_size
    return Replayed(cached, prompts, page_size, n_pages, pages, pages, int((fits & (generated > room)).sum()))


def longest_prompt(capacity_tokens, page_size):
    """Return the tokens of the longest prompt that a pool takes.

    >>> longest_prompt(1024, 1), longest_prompt(1024, 16)
    (1017, 1007)
    """
    return max(capacity_tokens - max(6, page_size) - 1, 0)


def _check_capacity(capacity_tokens, page_size):
    if capacity_tokens is None:
        return 2**62
    whole = isinstance(capacity_tokens, int | np.integer) and not isinstance(capacity_tokens, bool)
    if not whole or not page_size <= capacity_tokens < 2**62 or capacity_tokens % page_size:
        raise InputError(
            f"capacity is {capacity_tokens!r} tokens; expected a multiple of the page size, {page_size}, or none "
            "(below 2**62)"
        )
    return int(capacity_tokens)


class _Tree(NamedTuple):
    """The nodes of the tree, and the list of all of them by their last access.

    A node is always accessed after its descendants, so the oldest node of the list is a leaf, and so is each that is
    the oldest when those before it are gone.

    Attributes
    ----------
    parent : ndarray of int32
        Of a node whose parent is the root: -1 - its context.
    start, length : ndarray of int64
        Its tokens in the arena.
    code : ndarray of uint64
        Hash of its parent and its first page.
    newer, older : ndarray of int32
        Neighbours in the list; the last entry is the list's own ends (`newer` the oldest, `older` the newest node).
    table : ndarray of int32
        Hash table with linear probing: 1 + a node, 0 where empty.
    unused : ndarray of int32
        A stack of the nodes that are not in use.
    counts : (2,) ndarray of int64
        How many are on that stack; tokens in the tree.
    """

    parent: np.ndarray
    start: np.ndarray
    length: np.ndarray
    code: np.ndarray
    newer: np.ndarray
    older: np.ndarray
    table: np.ndarray
    unused: np.ndarray
    counts: np.ndarray


@njit(cache=True, nogil=True)
def _make_tree(most_nodes):
    size = 4
    while size < 2 * most_nodes:
        size *= 2
    own_ends = np.full(most_nodes + 1, most_nodes, np.int32)
    return _Tree(
        np.empty(most_nodes, np.int32), np.empty(most_nodes, np.int64), np.empty(most_nodes, np.int64),
        np.empty(most_nodes, np.uint64), own_ends, own_ends.copy(), np.zeros(size, np.int32),
        np.arange(most_nodes - 1, -1, -1).astype(np.int32), np.array([most_nodes, 0]),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _hash_page(parent, ids, start, page_size):
    code = np.uint64(parent + 2**40) * np.uint64(0x9E3779B97F4A7C15)
    for k in range(start, start + page_size):
        code = (code ^ (code >> np.uint64(29)) ^ np.uint64(ids[k])) * np.uint64(0xBF58476D1CE4E5B9)
    return code ^ (code >> np.uint64(32))


@njit(cache=True, nogil=True)
def _find_child(tree, arena, parent, ids, start, page_size):
    """Return the child whose first page is the one at `start`, -1 where there is none."""
    code, mask = _hash_page(parent, ids, start, page_size), len(tree.table) - 1
    slot = np.int64(code & np.uint64(mask))
    while tree.table[slot]:
        node = tree.table[slot] - 1
        if tree.code[node] == code and tree.parent[node] == parent:
            first, k = tree.start[node], 0
            while k < page_size and arena[first + k] == ids[start + k]:
                k += 1
            if k == page_size:
                return node
        slot = (slot + 1) & mask
    return -1


@njit(cache=True, nogil=True)
def _find_slot(tree, node):
    mask = len(tree.table) - 1
    slot = np.int64(tree.code[node] & np.uint64(mask))
    while tree.table[slot] != node + 1:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def _add_node(tree, parent, start, length):
    """Return a node that is neither in the table nor in the list yet."""
    tree.counts[0] -= 1
    node = tree.unused[tree.counts[0]]
    tree.parent[node], tree.start[node], tree.length[node] = parent, start, length
    tree.newer[node] = -1
    return node


@njit(cache=True, nogil=True)
def _enter(tree, arena, node, page_size):
    """Put a node into the table."""
    code, mask = _hash_page(tree.parent[node], arena, tree.start[node], page_size), len(tree.table) - 1
    tree.code[node] = code
    slot = np.int64(code & np.uint64(mask))
    while tree.table[slot]:
        slot = (slot + 1) & mask
    tree.table[slot] = node + 1


@njit(cache=True, nogil=True)
def _unlink(tree, node):
    newer, older = tree.newer[node], tree.older[node]
    tree.older[newer], tree.newer[older] = older, newer


@njit(cache=True, nogil=True)
def _touch(tree, node):
    """Make a node and those above it the newest ones, the topmost foremost."""
    ends = len(tree.newer) - 1
    while node >= 0:
        if tree.newer[node] >= 0:
            _unlink(tree, node)
        second = tree.older[ends]
        tree.older[node], tree.newer[node], tree.newer[second], tree.older[ends] = second, ends, node, node
        node = tree.parent[node]


@njit(cache=True, nogil=True)
def _remove_oldest(tree):
    """Evict the oldest node, a leaf; return its tokens."""
    table, mask = tree.table, len(tree.table) - 1
    node = tree.newer[len(tree.newer) - 1]
    _unlink(tree, node)
    hole = _find_slot(tree, node)
    slot = (hole + 1) & mask
    while table[slot]:
        home = np.int64(tree.code[table[slot] - 1] & np.uint64(mask))
        if (slot - home) & mask >= (slot - hole) & mask:
            table[hole], hole = table[slot], slot
        slot = (slot + 1) & mask
    table[hole] = 0
    tree.unused[tree.counts[0]] = node
    tree.counts[0] += 1
    tree.counts[1] -= tree.length[node]
    return tree.length[node]


@njit(cache=True, nogil=True)
def _walk(tree, arena, node, ids, start, stop, page_size):
    """Follow the tokens from `start` to at most `stop` below a node; return where that ends, splitting a node for it.

    `stop` is a multiple of the page size. The path is the newest part of the list then, the rest of a split node next.
    """
    while start < stop:
        child = _find_child(tree, arena, node, ids, start, page_size)
        if child < 0:
            break
        first, most, n = tree.start[child], min(tree.length[child], stop - start), page_size
        while n < most and arena[first + n] == ids[start + n]:
            n += 1
        n -= n % page_size
        start += n
        if n < tree.length[child]:
            slot = _find_slot(tree, child)
            node = _add_node(tree, node, first, n)
            tree.code[node], tree.table[slot] = tree.code[child], node + 1
            tree.parent[child], tree.start[child], tree.length[child] = node, first + n, tree.length[child] - n
            _enter(tree, arena, child, page_size)
            _touch(tree, child)
            return node, start
        node = child
    _touch(tree, node)
    return node, start


@njit(cache=True, nogil=True)
def _insert(tree, arena, used, node, ids, start, stop, page_size):
    """Put the tokens from `start` on below a node; return (the path's end, where new tokens began, arena, its use)."""
    node, start = _walk(tree, arena, node, ids, start, stop, page_size)
    if start < stop:
        if used + stop - start > len(arena):
            arena, used = _pack(tree, arena, stop - start)
        arena[used : used + stop - start] = ids[start:stop]
        node = _add_node(tree, node, used, stop - start)
        used += stop - start
        tree.counts[1] += stop - start
        _enter(tree, arena, node, page_size)
        _touch(tree, node)
    return node, start, arena, used


@njit(cache=True, nogil=True)
def _pack(tree, arena, more):
    """Copy the nodes' tokens to an arena at most half full with `more` of them; return it and its use."""
    packed, used = np.empty(2 * (tree.counts[1] + more), arena.dtype), 0
    ends = len(tree.newer) - 1
    node = tree.newer[ends]
    while node != ends:
        first, n = tree.start[node], tree.length[node]
        packed[used : used + n] = arena[first : first + n]
        tree.start[node] = used
        used += n
        node = tree.newer[node]
    return packed, used


@njit(cache=True, nogil=True)
def _evict(tree, free, wanted, locked, page_size):
    """Evict leaves until so many pages are free or only the locked path is left; return the free ones."""
    ends = len(tree.newer) - 1
    stop = locked if locked >= 0 else ends  # the locked path is the newest part of the list
    while free < wanted and tree.newer[ends] != stop:
        free += _remove_oldest(tree) // page_size
    return free


@njit(cache=True, nogil=True)
def _replay(
    rows, contexts, prompts, computed, page_size, free, most_nodes, row_parent, shared, own_offsets, own,
    output_offsets, output,
):  # fmt: skip
    """Return each request's cached tokens (-1: never fits, computed is -1), and the pages in the tree at the end."""
    tree, arena, used = _make_tree(most_nodes), np.empty(_FIRST_ARENA, np.int32), 0
    cached = np.full(len(rows), -1)
    for i in range(len(rows)):
        prompt, total = prompts[i], computed[i]
        if total < 0:
            continue
        first = output_offsets[rows[i]]
        ids = np.empty(total, np.int32)
        ids[:prompt] = copy_prompt(rows[i], 0, row_parent, shared, own_offsets, own)
        ids[prompt:] = output[first : first + total - prompt]

        node, hit = _walk(tree, arena, -1 - contexts[i], ids, 0, (prompt - 1) // page_size * page_size, page_size)
        cached[i] = hit
        new = -(-(prompt - hit) // page_size)
        wanted = prompt - hit if page_size == 1 else -(-(prompt - hit + page_size) // page_size)
        free = _evict(tree, free, wanted, node, page_size) - new
        node, known, arena, used = _insert(
            tree, arena, used, node, ids, hit, prompt // page_size * page_size, page_size
        )
        free += (known - hit) // page_size

        held, last = -(-prompt // page_size), -(-total // page_size)
        if total > prompt:
            before_last = -(-(total - 1) // page_size)
            free = _evict(tree, free, before_last - held + 1, node, page_size) - (last - held)
            start = prompt // page_size * page_size
            node, known, arena, used = _insert(
                tree, arena, used, node, ids, start, total // page_size * page_size, page_size
            )
            free += (known - start) // page_size
        free += total % page_size > 0
    return cached, tree.counts[1] // page_size
