"""The tree of SGLang's radix cache, compiled: nodes of whole pages, and the order of their last accesses.

The nodes' tokens lie in an arena beside the tree: `insert` returns the arena, a larger one if need be.
`sglang` has the rules, `sglang_replay` the requests.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.files.paths import InputError

FIRST_ARENA = 2**20  # tokens
_STATE = np.dtype([(name, np.int64) for name in (
    "n_unused",  # nodes that are not in use
    "used",  # tokens in the arena, with those of evicted nodes
    "tokens",  # in the tree
    "evicted",  # tokens, since the start
)])  # fmt: skip


class Tree(NamedTuple):
    """The nodes of the tree, and the list of all of them by their last access.

    A node is always accessed after its descendants, so the oldest node of the list is a leaf, also after evictions.

    Attributes
    ----------
    page_size : int
        Tokens.
    state : (1,) ndarray of _STATE
    parent : ndarray of int32
        Of a node whose parent is the root: -1 - its context.
    start, length : ndarray of int64
        Its tokens in the arena.
    code : ndarray of uint64
        Hash of its parent and its first page.
    newer, older : ndarray of int32
        Neighbours in the list; the last entry is the list's own ends (`newer` the oldest, `older` the newest node).
    table : ndarray of int32
        Hash table with linear probing: 1 + a node, 0 if empty.
    unused : ndarray of int32
        A stack of the nodes that are not in use.
    """

    page_size: int
    state: np.ndarray
    parent: np.ndarray
    start: np.ndarray
    length: np.ndarray
    code: np.ndarray
    newer: np.ndarray
    older: np.ndarray
    table: np.ndarray
    unused: np.ndarray


class Pages(NamedTuple):
    """How many pages are in the tree, and how many were evicted."""

    stored: int
    evicted: int


def make_tree(most_nodes, page_size):
    """Return a tree without nodes that has room for `most_nodes` of them."""
    if most_nodes >= 2**30:
        raise InputError("the requests need a tree of 2**30 nodes or more; expected fewer")
    size = 4
    while size < 2 * most_nodes:
        size *= 2
    state, ends = np.zeros(1, _STATE), np.full(most_nodes + 1, most_nodes, np.int32)
    state["n_unused"] = most_nodes
    return Tree(
        page_size=page_size, state=state,
        parent=np.empty(most_nodes, np.int32), start=np.empty(most_nodes, np.int64),
        length=np.empty(most_nodes, np.int64), code=np.empty(most_nodes, np.uint64), newer=ends, older=ends.copy(),
        table=np.zeros(size, np.int32), unused=np.arange(most_nodes - 1, -1, -1, dtype=np.int32),
    )  # fmt: skip


def count_pages(tree):
    """Return the Pages of a tree."""
    state = tree.state[0]
    return Pages(int(state["tokens"]) // tree.page_size, int(state["evicted"]) // tree.page_size)


@njit(cache=True, nogil=True)
def _hash_page(parent, ids, start, page_size):
    code = np.uint64(parent + 2**40) * np.uint64(0x9E3779B97F4A7C15)
    for k in range(start, start + page_size):
        code = (code ^ (code >> np.uint64(29)) ^ np.uint64(ids[k])) * np.uint64(0xBF58476D1CE4E5B9)
    return code ^ (code >> np.uint64(32))


@njit(cache=True, nogil=True)
def _find_child(tree, arena, parent, ids, start):
    """Return the child whose first page is the one at `start`, -1 if there is none."""
    page_size = tree.page_size
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
    state = tree.state[0]
    state.n_unused -= 1
    node = tree.unused[state.n_unused]
    tree.parent[node], tree.start[node], tree.length[node] = parent, start, length
    tree.newer[node] = -1
    return node


@njit(cache=True, nogil=True)
def _enter(tree, arena, node):
    """Put a node into the table."""
    code = _hash_page(tree.parent[node], arena, tree.start[node], tree.page_size)
    mask = len(tree.table) - 1
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
def remove_oldest(tree):
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
    state = tree.state[0]
    tree.unused[state.n_unused] = node
    state.n_unused += 1
    state.tokens -= tree.length[node]
    state.evicted += tree.length[node]
    return tree.length[node]


@njit(cache=True, nogil=True)
def walk(tree, arena, node, ids, start, stop):
    """Follow the tokens from `start` to at most `stop` below a node; return where that ends, splitting a node for it.

    `stop` is a multiple of the page size. The path is the newest part of the list then, the rest of a split node next.
    """
    page_size = tree.page_size
    while start < stop:
        child = _find_child(tree, arena, node, ids, start)
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
            _enter(tree, arena, child)
            _touch(tree, child)
            return node, start
        node = child
    _touch(tree, node)
    return node, start


@njit(cache=True, nogil=True)
def insert(tree, arena, node, ids, start, stop):
    """Put the tokens from `start` on below a node; return (the arena, the path's end, where new tokens began)."""
    node, start = walk(tree, arena, node, ids, start, stop)
    more, state = stop - start, tree.state[0]
    if more > 0:
        if state.used + more > len(arena):
            arena = _pack(tree, arena, more)
        arena[state.used : state.used + more] = ids[start:stop]
        node = _add_node(tree, node, state.used, more)
        state.used += more
        state.tokens += more
        _enter(tree, arena, node)
        _touch(tree, node)
    return arena, node, start


@njit(cache=True, nogil=True)
def _pack(tree, arena, more):
    """Return the nodes' tokens in an arena that is at most half full with `more` tokens."""
    state, ends = tree.state[0], len(tree.newer) - 1
    packed, used = np.empty(2 * (state.tokens + more), np.int32), 0
    node = tree.newer[ends]
    while node != ends:
        first, n = tree.start[node], tree.length[node]
        packed[used : used + n] = arena[first : first + n]
        tree.start[node] = used
        used += n
        node = tree.newer[node]
    state.used = used
    return packed
