"""The tree of SGLang's radix cache, compiled: nodes of whole pages, and the order of their last accesses.

No tokens are compared here: the requests' paths through the prefix tree of all tokens (`blocks.stretches`) say where
they part. A node of the cache is a part of such a path, some of a stretch, or several stretches one below the other.
`sglang` has the rules, `sglang_replay` the requests.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.blocks.stretches import Paths, Stretches, describe_stretches
from kvprefix.files.paths import InputError

_NODE = np.dtype([(name, np.int32) for name in (
    "start", "stop",  # its pages, by depth
    "head", "tail",  # the stretches of its first and its last page
    "parent",  # -1: the root
    "newer", "older",  # neighbours in the list of last accesses; newer is -1 if it is not there
    "beside",  # another node whose first page is in the same stretch, -1: none
)])  # fmt: skip
_STATE = np.dtype([(name, np.int64) for name in (
    "n_unused",  # nodes that are not in use
    "stored",  # pages
    "evicted",  # pages, since the start
)])  # fmt: skip


class Tree(NamedTuple):
    """The nodes of the tree, and the list of all of them by their last access.

    A node is always accessed after its descendants, so the oldest node of the list is a leaf, also after evictions.

    Attributes
    ----------
    paths : Paths
        Of the requests, in pages.
    stretches : Stretches
        Of these paths.
    nodes : ndarray of _NODE
        The last entry is the list's own ends (`newer` the oldest, `older` the newest node).
    first : (n_stretches,) ndarray of int32
        A node whose first page is in each stretch, -1: none.
    passed : (n_stretches,) ndarray of int32
        The last request that has each stretch, since `enter`.
    unused : ndarray of int32
        A stack of the nodes that are not in use.
    state : (1,) ndarray of _STATE
    """

    paths: Paths
    stretches: Stretches
    nodes: np.ndarray
    first: np.ndarray
    passed: np.ndarray
    unused: np.ndarray
    state: np.ndarray


class Pages(NamedTuple):
    """How many pages are in the tree, and how many were evicted."""

    stored: int
    evicted: int


def make_tree(paths, most_nodes):
    """Return a tree without nodes that has room for `most_nodes` of them."""
    if most_nodes >= 2**30:
        raise InputError("the requests need a tree of 2**30 nodes or more; expected fewer")
    state, nodes = np.zeros(1, _STATE), np.zeros(most_nodes + 1, _NODE)
    state["n_unused"], nodes["newer"][-1], nodes["older"][-1] = most_nodes, most_nodes, most_nodes
    return Tree(
        paths, describe_stretches(paths), nodes, first=np.full(paths.n_nodes, -1, np.int32),
        passed=np.full(paths.n_nodes, -1, np.int32), unused=np.arange(most_nodes - 1, -1, -1, dtype=np.int32),
        state=state,
    )  # fmt: skip


def count_pages(tree):
    """Return the Pages of a tree."""
    return Pages(int(tree.state["stored"][0]), int(tree.state["evicted"][0]))


@njit(cache=True, nogil=True)
def enter(tree, request):
    """Mark the path of the request that is walked and inserted next."""
    for k in range(tree.paths.offsets[request], tree.paths.offsets[request + 1]):
        tree.passed[tree.paths.nodes[k]] = request


@njit(cache=True, nogil=True)
def _find_child(tree, stretch, page):
    """Return the node whose first page this is, -1 if there is none."""
    node = tree.first[stretch]
    while node >= 0 and tree.nodes[node].start != page:
        node = tree.nodes[node].beside
    return node


@njit(cache=True, nogil=True)
def _list_below(tree, node, head):
    """List a node under the stretch of its first page."""
    tree.nodes[node].head, tree.nodes[node].beside = head, tree.first[head]
    tree.first[head] = node


@njit(cache=True, nogil=True)
def _strike(tree, node):
    """Take a node off the list of the stretch of its first page."""
    head, beside = tree.nodes[node].head, tree.nodes[node].beside
    one = tree.first[head]
    if one == node:
        tree.first[head] = beside
        return
    while tree.nodes[one].beside != node:
        one = tree.nodes[one].beside
    tree.nodes[one].beside = beside


@njit(cache=True, nogil=True)
def _add_node(tree, parent, start, stop, head, tail):
    """Return a node that is not in the list of accesses yet."""
    state = tree.state[0]
    state.n_unused -= 1
    node = tree.unused[state.n_unused]
    one = tree.nodes[node]
    one.parent, one.start, one.stop, one.tail, one.newer = parent, start, stop, tail, -1
    _list_below(tree, node, head)
    return node


@njit(cache=True, nogil=True)
def _unlink(tree, node):
    newer, older = tree.nodes[node].newer, tree.nodes[node].older
    tree.nodes[newer].older, tree.nodes[older].newer = older, newer


@njit(cache=True, nogil=True)
def _touch(tree, node):
    """Make a node and those above it the newest ones, the topmost foremost."""
    nodes = tree.nodes
    ends = len(nodes) - 1
    while node >= 0:
        if nodes[node].newer >= 0:
            _unlink(tree, node)
        second = nodes[ends].older
        nodes[node].older, nodes[node].newer = second, ends
        nodes[second].newer = nodes[ends].older = node
        node = nodes[node].parent


@njit(cache=True, nogil=True)
def remove_oldest(tree):
    """Evict the oldest node, a leaf; return its pages."""
    node, state = tree.nodes[len(tree.nodes) - 1].newer, tree.state[0]
    _unlink(tree, node)
    _strike(tree, node)
    tree.unused[state.n_unused] = node
    state.n_unused += 1
    pages = tree.nodes[node].stop - tree.nodes[node].start
    state.stored -= pages
    state.evicted += pages
    return pages


@njit(cache=True, nogil=True)
def walk(tree, node, k, start, stop):
    """Follow a request's path from page `start` below a node to page `stop` at most, splitting a node that it leaves.

    `k` is the place in the paths of the stretch that holds page `start`, or of an earlier one.

    Returns
    -------
    (node, k, start) : tuple
        Where the path ends in the tree. It is the newest part of the list then, the rest of a split node next.
    """
    nodes, ends = tree.paths.nodes, tree.paths.ends
    while start < stop:
        while ends[k] <= start:
            k += 1
        child = _find_child(tree, nodes[k], start)
        if child < 0:
            break
        common = tree.nodes[child].tail
        while tree.passed[common] != tree.passed[nodes[k]]:
            common = tree.stretches.parent[common]
        until = min(stop, min(tree.stretches.end[common], tree.nodes[child].stop))
        if until < tree.nodes[child].stop:
            return _split(tree, child, k, until), k, until
        node, start = child, until
    _touch(tree, node)
    return node, k, start


@njit(cache=True, nogil=True)
def _split(tree, child, k, page):
    """Split a node before a page; `k` is the place of its first stretch in a path. Touch the rest; return the top."""
    nodes, ends, one = tree.paths.nodes, tree.paths.ends, tree.nodes[child]
    head = nodes[k]
    while ends[k] < page:
        k += 1
    _strike(tree, child)
    top = _add_node(tree, one.parent, one.start, page, head, nodes[k])
    below = one.tail
    while tree.stretches.start[below] > page:
        below = tree.stretches.parent[below]
    one.parent, one.start = top, page
    _list_below(tree, child, below)
    _touch(tree, child)
    return top


@njit(cache=True, nogil=True)
def insert(tree, node, k, start, stop):
    """Put a request's pages from `start` on below a node; return (the path's end, its k, where new pages began)."""
    node, k, start = walk(tree, node, k, start, stop)
    if start < stop:
        nodes, ends = tree.paths.nodes, tree.paths.ends
        while ends[k] <= start:
            k += 1
        head = nodes[k]
        while ends[k] < stop:
            k += 1
        node = _add_node(tree, node, start, stop, head, nodes[k])
        tree.state[0].stored += stop - start
        _touch(tree, node)
    return node, k, start
